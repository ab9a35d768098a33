#pragma once

#include <climits>
#include <cstddef>

#include "base/clock.h"

/// How many transactions of a pool run at once, found by trying. Pure: time is passed in.
namespace pgxc::pooler {

/// A server with more busy sessions than its processors and disks can use serves all of them later: they take
/// each other's caches, page tables, locks and time slices. Who waits for a connection instead of running
/// with the others is served sooner then. How many are best differs with the machine, the load and the hour,
/// so it is measured. As soon as more than a few short transactions run at once, they begin with few, and
/// twice as many are tried in turn with those, in windows of tens of milliseconds; they are taken if that is
/// significantly better, and so on. Fewer are tried now and then as well, and taken if that isn't worse.
///
/// Better is more *power*: throughput over response time (Kleinrock, "Power and deterministic rules of thumb
/// for probabilistic problems in computer communications", ICC 1979), where the response time has the waiting
/// in it. With a fixed number of clients both tell the same; with arrivals at a given rate the response time
/// decides.
///
/// It is made for many short transactions: there is no limit where fewer than 100 end in a second or where
/// few run at once, and it is given up when no window has come to its end for half a second. When power
/// falls, more are tried at once.
class ConcurrencyLimit {
  public:
    static constexpr int none = INT_MAX;
    /// Of one window: at least this long, and with this many transactions.
    static constexpr Millis least_window{25};
    static constexpr int least_ended = 50;
    /// Without a window in this time nothing is known any more.
    static constexpr Millis longest_window{500};
    /// A pair is one window of each number.
    static constexpr int least_pairs = 4;
    static constexpr int most_pairs = 24;
    /// Until the next trial; doubled after each that changed nothing.
    static constexpr Millis first_pause{100};
    static constexpr Millis longest_pause{30'000};
    /// It begins with these; and never fewer than the other.
    static constexpr int first_limit = 4;
    static constexpr int fewest = 2;
    /// So many must run at once for fewer to be tried.
    static constexpr int least_running = 4;

    /// How many may run at once now.
    [[nodiscard]] int limit() const { return in_force_; }
    /// What has been found to be best, or none.
    [[nodiscard]] int found() const { return settled_; }

    /// So many transactions have run and so many have waited since the last call.
    void passed(std::size_t running, std::size_t waiting, TimePoint now);
    /// A transaction has ended; after passed(). No more than `most` may run for another reason.
    void ended(int most, TimePoint now);
    /// To be called a few times a second: nothing may end any more.
    void tick(TimePoint now);
    /// No limit until many run again; then it begins with what has been found.
    void rest();
    /// As new.
    void forget();

  private:
    struct Window {
        TimePoint began;
        double present = 0;  // transactions that ran or waited, times seconds
        double running = 0;
        double waiting = 0;
        double quiet = 0;  // seconds in which there weren't two
        int ended = 0;
    };

    void begin_window(TimePoint now);
    void window_ended(int most, TimePoint now);
    /// There is no limit: should there be one?
    void consider(const Window& window, double power, double seconds, TimePoint now);
    /// There is one: is it time for a trial?
    void keep_watch(const Window& window, double power, double seconds, int most, TimePoint now);
    /// `rate`: how many would end in a second if none were in another's way.
    void begin_trial(int tried, double rate, TimePoint now);
    void take_part(double power, TimePoint now);
    void decide(TimePoint now);
    void settle(int limit, TimePoint now);
    /// Stays with what there is, for longer than after a trial that shows nothing.
    void reject(TimePoint now);
    void put_in_force(int limit);
    /// What is known is too old, or the load is another one.
    void give_up(TimePoint now);

    int in_force_ = none;
    int settled_ = none;
    int tried_ = 0;            // 0: no trial
    int first_ = first_limit;  // to begin with, when many run again
    bool upwards_ = false;
    bool untested_ = false;  // it began with first_, and no window has come to its end since
    Window window_;
    TimePoint last_seen_;
    TimePoint last_window_;
    double running_now_ = 0;
    int unsettled_ = 0;  // transactions that began under another limit, and whose end begins the window
    double power_ = 0;   // at best, under the limit that was found; 0: not known
    // Of the trial:
    double first_power_ = 0;  // of the pair's first window; 0: it is the next one
    double expected_rate_ = 0;
    int pairs_ = 0;
    double sum_ = 0;  // of the logarithms of the power of the number that is tried to the other's
    double squares_ = 0;
    Millis pause_ = first_pause;
    TimePoint next_trial_;
};

}  // namespace pgxc::pooler
