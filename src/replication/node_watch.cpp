#include "replication/node_watch.h"

#include <algorithm>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <utility>

#include "base/log.h"
#include "net/spawn.h"

namespace pgxc {
namespace {

/// How soon to ask again a server that says it is starting: its first good answer ends an outage.
constexpr Millis starting_interval{50};

/// So much later than it was due: then it was this process that stood still, and everybody seemed silent.
constexpr Millis own_pause{500};

/// When to ask again. The nodes are asked together, at the beginnings and middles of an interval: a process
/// that is woken for each answer alone spends most of its time on waking up and on telling what has moved.
TimePoint next_probe(TimePoint now, Millis interval) {
    const Clock::duration step = std::max<Clock::duration>(interval / 2, Millis(1));
    const Clock::duration wanted = now.time_since_epoch() + interval + step / 2;
    return TimePoint(wanted - wanted % step);
}

bool says_going_down(const std::string& state) {
    return state == sqlstate::admin_shutdown || state == "57P02" || state == sqlstate::cannot_connect_now;
}

}  // namespace

struct NodeWatch::Sleep {
    asio::steady_timer timer;
};

NodeWatch::NodeWatch(const asio::any_io_executor& executor, ConnectTarget target, Timing timing,
                     std::function<void()> on_change)
    : executor_(executor),
      target_(std::move(target)),
      timing_(timing),
      on_change_(std::move(on_change)),
      sleep_(std::make_unique<Sleep>(Sleep{asio::steady_timer(executor)})) {}

NodeWatch::~NodeWatch() = default;

void NodeWatch::start() {
    net::spawn(executor_, [self = shared_from_this()] { return self->run(); });
}

void NodeWatch::stop() {
    stopped_ = true;
    on_change_ = nullptr;
    kick();
}

void NodeWatch::kick() {
    kicked_ = true;
    sleep_->timer.cancel();
    if (connection_) connection_->interrupt();
}

void NodeWatch::notify() {
    // A copy: whoever is told may stop this watch, which drops the function that is running.
    const auto tell = on_change_;
    if (!tell) return;
    try {
        tell();
    } catch (const std::exception& problem) {
        // Trouble of whoever is told: it is none of the node's, and must not make it look silent.
        log_warning("node at " + target_.address.to_string() +
                    ": what was seen can't be told: " + problem.what());
    }
}

asio::awaitable<void> NodeWatch::pause(Millis time) {
    if (std::exchange(kicked_, false)) co_return;
    sleep_->timer.expires_after(time);
    std::error_code cancelled;
    co_await sleep_->timer.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    kicked_ = false;
}

void NodeWatch::answered(ServerFacts facts, TimePoint began) {
    const auto now = Clock::now();
    seen_.attempted_at = began;
    if (!seen_.answers_since || seen_.silence != Silence::None) seen_.answers_since = now;
    const Lsn before = seen_.facts ? seen_.facts->received : Lsn{};
    seen_.previous_answer_at = seen_.silence == Silence::None ? seen_.answered_at : std::nullopt;
    seen_.receives_new_wal = seen_.previous_answer_at && facts.received > before;
    if (seen_.receives_new_wal) {
        seen_.new_wal_after = seen_.previous_answer_at;
        seen_.new_wal_at = now;
    }
    seen_.facts = std::move(facts);
    seen_.answered_at = now;
    seen_.last_seen = std::chrono::time_point_cast<WallTime::duration>(std::chrono::system_clock::now());
    seen_.silence = Silence::None;
    seen_.silent_since.reset();
    seen_.failed_attempts = 0;
    seen_.going_down_since.reset();
    seen_.starting = false;
    seen_.refuses_us = false;
    seen_.error.clear();
}

void NodeWatch::failed(const NodeError& error, TimePoint began) {
    const auto now = Clock::now();
    // A lost connection is followed by an attempt at once, which is the one that counts.
    const bool attempt = error.silence != Silence::Lost;
    if (attempt) seen_.attempted_at = began;
    seen_.error = error.error.message;
    seen_.silence = error.silence;
    seen_.starting = error.silence == Silence::None && says_going_down(error.server_sqlstate);
    seen_.refuses_us = error.silence == Silence::None && !seen_.starting;
    if (seen_.starting && !seen_.going_down_since) seen_.going_down_since = now;
    if (error.silence == Silence::None) {
        // Any answer is life.
        seen_.last_seen = std::chrono::time_point_cast<WallTime::duration>(std::chrono::system_clock::now());
        seen_.silent_since.reset();
        seen_.failed_attempts = 0;
        return;
    }
    const bool paused = error.silence == Silence::Timeout &&
                        now - began > std::max(timing_.probe_timeout * 2, timing_.probe_timeout + own_pause);
    if (paused) {
        // What was measured by this loop's clock is worth nothing: the silence is measured from here.
        seen_.silent_since = now;
        seen_.failed_attempts = 0;
        return;
    }
    if (!seen_.silent_since) seen_.silent_since = began;
    if (attempt) ++seen_.failed_attempts;
}

void NodeWatch::lose_connection() {
    lost_young_ = Clock::now() - opened_at_ < timing_.probe_interval ? lost_young_ + 1 : 0;
    connection_.reset();
}

asio::awaitable<void> NodeWatch::run() {
    while (!stopped_) {
        // Whatever is thrown (no descriptor is left): a node that nobody looks at any more would look alive
        // for ever.
        std::string trouble;
        try {
            co_await watch();
        } catch (const std::exception& problem) {
            trouble = problem.what();
        }
        connection_.reset();
        if (stopped_) break;
        failed({{sqlstate::internal_error, "node at " + target_.address.to_string() + ": " + trouble},
                Silence::Other,
                {}},
               Clock::now());
        notify();
        if (!stopped_) co_await pause(timing_.probe_interval);
    }
}

asio::awaitable<void> NodeWatch::watch() {
    while (!stopped_) {
        if (!connection_) {
            // What lets everybody in and drops them soon (a proxy, a server whose backends crash) is no
            // reason to spin.
            if (lost_young_ > 1) co_await pause(timing_.probe_interval);
            if (stopped_) break;
            const auto began = Clock::now();
            auto opened = co_await NodeConnection::open(target_, timing_.probe_timeout);
            if (stopped_) break;
            if (!opened.ok()) {
                NodeError refused = opened.error();
                // Something takes connections there and closes them (a proxy in front of a dead server): no
                // answer.
                if (refused.silence == Silence::Lost) refused.silence = Silence::Timeout;
                failed(refused, began);
                notify();
                // A timeout has already taken its time; ask again at once.
                const auto took = std::chrono::duration_cast<Millis>(Clock::now() - began);
                const Millis interval = seen_.starting ? std::min(starting_interval, timing_.probe_interval)
                                                       : timing_.probe_interval;
                if (!stopped_ && took < interval) co_await pause(interval - took);
                continue;
            }
            connection_ = std::move(*opened);
            opened_at_ = Clock::now();
            question_ = probe_sql(connection_->server_version(), connection_->is_superuser());
        }
        kicked_ = false;
        const auto began = Clock::now();
        auto rows = co_await connection_->query(question_, timing_.probe_timeout);
        if (stopped_) break;
        if (rows.ok()) {
            auto facts = facts_from(*rows, connection_->server_version());
            if (facts.ok())
                answered(std::move(*facts), began);
            else
                failed({facts.error(), Silence::None, facts.error().sqlstate}, began);
        } else {
            const NodeError& error = rows.error();
            if (connection_->broken() && says_going_down(connection_->last_unasked()) &&
                !seen_.going_down_since)
                seen_.going_down_since = Clock::now();
            failed(error, began);
        }
        const bool broken = connection_->broken();
        if (broken) lose_connection();
        notify();
        if (stopped_ || broken) continue;
        if (kicked_) continue;
        if (co_await connection_->wait_broken(next_probe(Clock::now(), timing_.probe_interval))) {
            if (stopped_) break;
            if (says_going_down(connection_->last_unasked())) seen_.going_down_since = Clock::now();
            failed({{sqlstate::connection_failure,
                     "node at " + target_.address.to_string() + ": the connection was closed"},
                    Silence::Lost,
                    {}},
                   Clock::now());
            lose_connection();
            notify();
        }
    }
}

}  // namespace pgxc
