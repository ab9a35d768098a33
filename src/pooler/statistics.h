#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/ids.h"
#include "catalog/node.h"
#include "pooler/histogram.h"

/// What the pooler counts, and the rows of pgxc_pooler_stats and pgxc_pooler_servers.
namespace pgxc::pooler {

/// Of one pool, since `since`. Plain data: it lies in shared memory too, and those of several workers add up.
struct PoolCounters {
    std::int64_t since_us = 0;  // wall clock; when the counting began
    bool is_master = false;     // as last seen
    std::uint64_t transactions = 0;
    std::uint64_t queries = 0;    // what one ReadyForQuery ends: a Query, or all up to a Sync
    std::uint64_t errors = 0;     // that clients were sent, the servers' and the pooler's own
    std::uint64_t bytes_in = 0;   // to the servers
    std::uint64_t bytes_out = 0;  // from the servers
    std::uint64_t query_us = 0;
    std::uint64_t wait_us = 0;
    Histogram query_time;
    Histogram wait_time;  // of each time that somebody asked for a server connection

    void waited(Clock::duration time) {
        const auto us = whole_us(time);
        wait_us += static_cast<std::uint64_t>(us.count());
        wait_time.add(us);
    }
    void add(const PoolCounters& other);
    /// Never negative, though the times of two events may be known in the wrong order.
    [[nodiscard]] static Histogram::Microseconds whole_us(Clock::duration time) {
        return std::chrono::duration_cast<Histogram::Microseconds>(std::max(time, Clock::duration{0}));
    }
    void restart(WallTime now) {
        const bool master = is_master;
        *this = {};
        is_master = master;
        since_us = now.time_since_epoch().count();
    }
};

/// Counts for one server connection, into its pool's counters.
class TrafficMeter {
  public:
    explicit TrafficMeter(std::shared_ptr<PoolCounters> counters) : counters_(std::move(counters)) {}

    /// Something of a client goes to the server: a query begins, unless one is under way.
    void query_sent(TimePoint now) {
        if (!running_) began_ = now;
        running_ = true;
    }
    /// ReadyForQuery was given to the client. `more`: the next one is owed already, and begins now.
    void query_answered(TimePoint now, bool transaction_ended, bool more) {
        const auto us = PoolCounters::whole_us(now - began_);
        if (running_) {
            ++counters_->queries;
            counters_->query_us += static_cast<std::uint64_t>(us.count());
            counters_->query_time.add(us);
        }
        if (transaction_ended) {
            ++counters_->transactions;
            ++transactions_;
        }
        running_ = more;
        began_ = now;
    }
    void error_sent() { ++counters_->errors; }
    void bytes_received(std::size_t bytes) { counters_->bytes_out += bytes; }
    /// Takes over how many bytes have been sent since the connection was opened.
    void bytes_sent(std::uint64_t bytes) {
        counters_->bytes_in += bytes - counted_;
        counted_ = bytes;
    }
    /// Another one takes its place.
    void connection_ends(std::uint64_t bytes) {
        bytes_sent(bytes);
        counted_ = 0;
    }
    /// The client has let go of it, or another one has got it.
    void changes_hands() { running_ = false; }
    [[nodiscard]] std::uint64_t transactions() const { return transactions_; }

  private:
    std::shared_ptr<PoolCounters> counters_;
    TimePoint began_;
    bool running_ = false;
    std::uint64_t counted_ = 0;
    std::uint64_t transactions_ = 0;
};

/// A row of the view pgxc_pooler_stats, before those of all workers are added up.
struct PoolStatsRow {
    NodeKey node;
    std::string database;
    std::string user;
    std::shared_ptr<const PoolCounters> counters;  // never null
};

/// A row of the view pgxc_pooler_servers.
struct ServerRow {
    NodeKey node;
    std::string address;  // HostPort::to_string()
    std::string database;
    std::string user;
    std::uint32_t pid = 0;  // of the backend; 0 = not known yet
    std::string state;      // "connecting", "idle", "active", "closing"
    std::optional<WallTime> connected_at;
    std::optional<WallTime> idle_since;
    std::optional<ClientId> client;  // that has it
    std::uint64_t transactions = 0;
    std::uint32_t prepared_statements = 0;
    bool tls = false;
};

}  // namespace pgxc::pooler
