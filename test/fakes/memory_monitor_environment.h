#pragma once

#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "replication/monitor_environment.h"

namespace pgxc::test {

/// What outlives a monitor: the arbiter's records, the catalog, the stored connection strings, the history.
struct MemoryStore {
    std::map<NodeKey, std::string> records;  // as JSON, the way src/pg keeps them
    Topology topology;
    std::map<HostPort, std::string> conninfos;
    std::vector<HistoryRow> history;
};

/// Thrown out of the calls that can't suspend. No std::exception: nothing may handle it.
struct WorldStopped {};

/// Lets a monitor live for so many more calls into its environment. The call that is the last one has its
/// effect, and its caller never goes on: it suspends for ever or is unwound, as if the process had died
/// there.
class CallBudget {
  public:
    CallBudget(std::optional<int> calls, std::function<void()> on_stop)
        : left_(calls), on_stop_(std::move(on_stop)) {}
    /// Counting begins with the first call for which this is true.
    void arm() { armed_ = true; }
    /// It lives on.
    void disarm() { armed_ = false; }
    [[nodiscard]] bool stopped() const { return stopped_; }
    [[nodiscard]] int counted() const { return counted_; }
    [[nodiscard]] const std::string& last() const { return last_; }

    /// True: the world ends with this call.
    bool spend(const char* what) {
        if (stopped_) return true;
        if (!armed_) return false;
        ++counted_;
        last_ = what;
        if (!left_ || --*left_ > 0) return false;
        stopped_ = true;
        on_stop_();
        return true;
    }
    void spend_or_throw(const char* what) {
        if (spend(what)) throw WorldStopped{};
    }
    asio::awaitable<void> spend_or_suspend(const char* what) {
        if (!spend(what)) co_return;
        asio::steady_timer never(co_await asio::this_coro::executor, TimePoint::max());
        co_await never.async_wait(asio::use_awaitable);
    }

  private:
    std::optional<int> left_;
    std::function<void()> on_stop_;
    bool armed_ = false;
    bool stopped_ = false;
    int counted_ = 0;
    std::string last_;
};

class MemoryArbiter : public Arbiter {
  public:
    MemoryArbiter(MemoryStore& store, CallBudget& budget) : store_(store), budget_(budget) {}

    asio::awaitable<Result<Record>> read(NodeKey group) override {
        co_await budget_.spend_or_suspend("read");
        if (unreachable) co_return Error{sqlstate::unable_to_connect, "the arbiter does not answer"};
        const auto found = store_.records.find(group);
        if (found == store_.records.end())
            co_return Error{sqlstate::undefined_object, "the arbiter has no record of " + group.to_string()};
        co_return record_from_json(found->second);
    }

    asio::awaitable<Result<bool>> compare_and_set(NodeKey group, Record next) override {
        if (unreachable) co_return Error{sqlstate::unable_to_connect, "the arbiter does not answer"};
        const auto now = record_from_json(store_.records.at(group));
        const bool first = now.ok() && now->generation + 1 == next.generation;
        if (first) {
            store_.records[group] = to_json(next);
            if (on_change) on_change(next);
        }
        co_await budget_.spend_or_suspend("compare_and_set");
        co_return first;
    }

    bool unreachable = false;
    std::function<void(const Record&)> on_change;

  private:
    MemoryStore& store_;
    CallBudget& budget_;
};

/// A coordinator in memory, with the semantics of src/pg's.
class MemoryMonitorEnvironment : public MonitorEnvironment {
  public:
    MemoryMonitorEnvironment(MemoryStore& store, MonitorSettings monitor_settings, CallBudget& budget)
        : current_settings(std::move(monitor_settings)),
          memory_arbiter(store, budget),
          store_(store),
          budget_(budget) {}

    const MonitorSettings& settings() override { return current_settings; }
    Result<Topology> topology() override { return store_.topology; }
    Arbiter& arbiter() override { return memory_arbiter; }
    void publish_view(const ClusterView& published) override {
        if (on_publish) on_publish(published);
        view = published;
        ++views_published;
    }

    bool view_taken() override { return true; }

    Status publish_promotion(const HistoryRow& row) override {
        if (catalog_is_locked) return Error{sqlstate::lock_not_available, "somebody has locked the catalog"};
        const Node* master = store_.topology.find(row.node);
        if (master != nullptr && master->epoch < row.epoch) {
            store_.topology =
                with_promotion(store_.topology, row.node, row.listened_at, row.new_address, row.epoch);
            store_.history.push_back(row);
        }
        budget_.spend_or_throw("publish_promotion");
        return {};
    }

    Status publish_rejoin(const NewSlave& slave) override {
        auto changed = register_slave(store_.topology, slave);
        if (!changed.ok()) return changed.error();
        store_.topology = std::move(*changed);
        budget_.spend_or_throw("publish_rejoin");
        return {};
    }

    Result<std::optional<std::string>> stored_conninfo(const HostPort& slave) override {
        const auto found = store_.conninfos.find(slave);
        return found != store_.conninfos.end() ? std::optional(found->second) : std::nullopt;
    }

    Status store_conninfo(const HostPort& slave, const std::string& conninfo) override {
        store_.conninfos[slave] = conninfo;
        budget_.spend_or_throw("store_conninfo");
        return {};
    }

    void keep_evidence(const std::vector<Evidence>& kept) override {
        if (on_evidence) on_evidence();
        evidence.insert(evidence.end(), kept.begin(), kept.end());
    }

    void crash_point(const char* name) override {
        crash_points.insert(name);
        if (on_crash_point) on_crash_point(name);
    }

    bool task_abandoned(int ticket) override { return abandoned.contains(ticket); }

    void finish_task(int ticket, const Status& status, const std::string& text) override {
        finished.insert_or_assign(ticket, std::pair(status, text));
    }

    MonitorSettings current_settings;
    MemoryArbiter memory_arbiter;
    ClusterView view;
    bool catalog_is_locked = false;
    std::map<int, std::pair<Status, std::string>> finished;
    std::set<int> abandoned;
    std::vector<Evidence> evidence;
    std::set<std::string> crash_points;  // that were passed
    std::function<void(const std::string&)> on_crash_point;
    std::function<void(const ClusterView&)> on_publish;
    int views_published = 0;
    std::function<void()> on_evidence;

  private:
    MemoryStore& store_;
    CallBudget& budget_;
};

}  // namespace pgxc::test
