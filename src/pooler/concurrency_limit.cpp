#include "pooler/concurrency_limit.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace pgxc::pooler {
namespace {

/// What more must gain to be worth it, and fewer may lose: server processes that run more often each are
/// better later than they are in the first windows.
constexpr double least_gain = 0.02;
constexpr double most_loss = 0.01;
/// So much worse or better in two pairs already: it is not tried any longer.
constexpr double great_loss = 0.25;
constexpr double first_loss = 0.7;  // in one pair
constexpr double great_gain = 0.4;
/// Power that falls to this share of what it was (throughput to three fifths): the load is another one.
constexpr double fallen = 0.36;
/// With fewer waiting on average it is in nobody's way.
constexpr double in_the_way = 0.1;
/// In a window with a larger share of time in which no two were there there is nothing to learn.
constexpr double most_quiet = 0.2;
/// How much a new window counts in what the power is thought to be.
constexpr double weight = 0.2;

double seconds_of(Clock::duration duration) {
    return std::chrono::duration<double>(duration).count();
}

}  // namespace

void ConcurrencyLimit::rest() {
    put_in_force(none);
    settled_ = none;
    tried_ = 0;
    power_ = 0;
    untested_ = upwards_ = false;
    unsettled_ = std::max(unsettled_, 1);  // what ran until now is in no window
}

void ConcurrencyLimit::put_in_force(int limit) {
    if (in_force_ == limit) return;
    in_force_ = limit;
    unsettled_ = static_cast<int>(running_now_);
}

void ConcurrencyLimit::begin_window(TimePoint now) {
    window_ = Window{};
    window_.began = now;
}

void ConcurrencyLimit::passed(std::size_t running, std::size_t waiting, TimePoint now) {
    running_now_ = static_cast<double>(running);
    const double seconds = seconds_of(now - last_seen_);
    if (running + waiting < 2) window_.quiet += seconds;
    window_.present += static_cast<double>(running + waiting) * seconds;
    window_.running += running_now_ * seconds;
    window_.waiting += static_cast<double>(waiting) * seconds;
    last_seen_ = now;
}

void ConcurrencyLimit::ended(int most, TimePoint now) {
    if (unsettled_ > 0) {
        if (--unsettled_ == 0) begin_window(now);
        return;
    }
    ++window_.ended;
    if (window_.ended >= least_ended && now - window_.began >= least_window) window_ended(most, now);
}

void ConcurrencyLimit::window_ended(int most, TimePoint now) {
    const Window window = window_;
    const Clock::duration took = now - window.began;
    begin_window(now);
    if (took > longest_window) {
        give_up(now);
        return;
    }
    const double seconds = seconds_of(took);
    // Nobody was in another's way: it tells nothing.
    if (window.quiet > most_quiet * seconds) return;
    last_window_ = now;
    const double power = window.ended / seconds / (window.present / window.ended);
    if (tried_ != 0) {
        take_part(power, now);
    } else if (settled_ != none) {
        keep_watch(window, power, seconds, most, now);
    } else {
        consider(window, power, seconds, now);
    }
}

void ConcurrencyLimit::consider(const Window& window, double power, double seconds, TimePoint now) {
    const auto running = static_cast<int>(std::lround(window.running / seconds));
    const bool again = first_ != none;
    if (running < least_running || (!again && now < next_trial_)) return;
    // A large step shows more than the noise; a smaller one if that was too large.
    const int fewer = again ? first_ : std::max(fewest, upwards_ ? running / 2 : running / 4);
    upwards_ = !again && !upwards_;
    // If those that run are in nobody's way, fewer of them must still be enough for windows.
    const double then = window.ended / seconds * fewer / running;
    if (fewer >= running || then * seconds_of(longest_window) < least_ended) return;
    if (!again) {
        begin_trial(fewer, then, now);
        return;
    }
    settled_ = fewer;
    put_in_force(fewer);
    untested_ = true;
    upwards_ = false;  // whether more are better is tried first
    power_ = power;
}

void ConcurrencyLimit::keep_watch(const Window& window, double power, double seconds, int most,
                                  TimePoint now) {
    if (power < fallen * power_) {
        if (untested_) {
            give_up(now);
            return;
        }
        // Each takes longer than before: is it that they wait for something else than processors?
        power_ = 0;
        pause_ = first_pause;
        next_trial_ = now;
        upwards_ = false;
    }
    untested_ = false;
    // It doesn't decay: what gets worse slowly must show, too.
    power_ = power_ == 0 ? power : std::max(power_, (1 - weight) * power_ + weight * power);
    if (now < next_trial_ || window.waiting < in_the_way * seconds) return;
    const int more = settled_ * 2 >= most ? none : settled_ * 2;
    const int fewer = std::max(fewest, settled_ / 2);
    upwards_ = !upwards_;
    const int next = upwards_ ? more : fewer;
    if (next != settled_) begin_trial(next, window.ended / seconds * next / settled_, now);
}

void ConcurrencyLimit::begin_trial(int tried, double rate, TimePoint now) {
    tried_ = tried;
    expected_rate_ = rate;
    pairs_ = 0;
    sum_ = squares_ = first_power_ = 0;
    begin_window(now);  // the number that is in force first
}

void ConcurrencyLimit::take_part(double power, TimePoint now) {
    // Each pair begins with the number that the last one has ended with: fewer changes, and what drifts evens
    // out.
    const bool of_tried = in_force_ == tried_;
    if (first_power_ == 0) {
        first_power_ = power;
        put_in_force(of_tried ? settled_ : tried_);
        return;
    }
    // Half of it: with a fixed number of clients power goes by the square of throughput.
    const double ratio = std::log(of_tried ? power / first_power_ : first_power_ / power) / 2;
    first_power_ = 0;
    ++pairs_;
    sum_ += ratio;
    squares_ += ratio * ratio;
    decide(now);
}

void ConcurrencyLimit::decide(TimePoint now) {
    const double mean = sum_ / pairs_;
    if (mean < -(pairs_ == 1 ? first_loss : great_loss)) {
        reject(now);
        return;
    }
    if (pairs_ >= 2 && mean > great_gain) {
        settle(tried_, now);
        return;
    }
    if (pairs_ < least_pairs) return;
    const double variance = std::max(0.0, squares_ / pairs_ - mean * mean) * pairs_ / (pairs_ - 1);
    const double doubt = 2 * std::sqrt(variance / pairs_);
    const bool over = pairs_ >= most_pairs;
    if (tried_ > settled_) {
        if (mean > std::max(least_gain, doubt)) {
            settle(tried_, now);
        } else if (over || mean < -doubt) {
            settle(settled_, now);
        }
    } else if (mean > doubt || (over && mean > -most_loss)) {
        settle(tried_, now);
    } else if (over || mean < -std::max(most_loss, doubt)) {
        settle(settled_, now);
    }
}

void ConcurrencyLimit::settle(int limit, TimePoint now) {
    const bool changed = limit != settled_;
    first_ = limit;
    tried_ = 0;
    power_ = 0;
    settled_ = limit;
    put_in_force(limit);
    // What has helped may help once more.
    next_trial_ = changed ? now : now + pause_;
    if (changed) upwards_ = !upwards_;
    pause_ = changed ? first_pause : std::min(pause_ * 2, longest_pause);
}

void ConcurrencyLimit::reject(TimePoint now) {
    pause_ = std::min(pause_ * 4, longest_pause);
    settle(settled_, now);
}

void ConcurrencyLimit::tick(TimePoint now) {
    if (in_force_ == none && tried_ == 0) return;
    // So few that hold the others back: not even as much ends as if nobody was in another's way.
    if (tried_ != 0 && tried_ < settled_ && in_force_ == tried_ &&
        seconds_of(now - last_window_) * expected_rate_ > 3 * least_ended) {
        reject(now);
        return;
    }
    if (now - last_window_ > longest_window) give_up(now);
}

void ConcurrencyLimit::give_up(TimePoint now) {
    // Under what it began with things went badly, or no window came to its end: it is of no use here.
    if (untested_) first_ = none;
    if (untested_ || tried_ != 0) {
        pause_ = std::min(pause_ * 8, longest_pause);
        next_trial_ = now + pause_;
    }
    rest();
}

void ConcurrencyLimit::forget() {
    rest();
    first_ = first_limit;
    pause_ = first_pause;
    next_trial_ = {};
}

}  // namespace pgxc::pooler
