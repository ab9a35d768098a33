#pragma once

#include <asio/any_io_executor.hpp>
#include <functional>
#include <memory>

#include "replication/node_connection.h"
#include "replication/observation.h"

namespace pgxc {

/// Keeps one connection to a node, probes it, and notices at once when the server closes it. Owned by a
/// shared_ptr, because its coroutine outlives the call that stops it.
class NodeWatch : public std::enable_shared_from_this<NodeWatch> {
  public:
    struct Timing {
        Millis probe_interval{200};
        Millis probe_timeout{1'000};
    };
    /// `on_change` is called from the loop after each attempt and at each sign of trouble.
    NodeWatch(const asio::any_io_executor& executor, ConnectTarget target, Timing timing,
              std::function<void()> on_change);
    ~NodeWatch();

    void start();
    /// No further call of on_change; the coroutine ends by itself.
    void stop();
    /// Asks now, not at the next interval.
    void kick();
    void set_timing(Timing timing) { timing_ = timing; }

    [[nodiscard]] const Observation& seen() const { return seen_; }
    [[nodiscard]] const ConnectTarget& target() const { return target_; }

  private:
    asio::awaitable<void> run();
    /// Looks until it is stopped.
    asio::awaitable<void> watch();
    asio::awaitable<void> pause(Millis time);
    void answered(ServerFacts facts, TimePoint began);
    void failed(const NodeError& error, TimePoint began);
    void lose_connection();
    void notify();

    asio::any_io_executor executor_;
    ConnectTarget target_;
    Timing timing_;
    std::function<void()> on_change_;
    Observation seen_;
    struct Sleep;
    std::unique_ptr<Sleep> sleep_;
    std::unique_ptr<NodeConnection> connection_;
    TimePoint opened_at_;
    int lost_young_ = 0;    // connections, one after the other, that did not live for an interval
    std::string question_;  // for the server of that connection
    bool kicked_ = false;
    bool stopped_ = false;
};

}  // namespace pgxc
