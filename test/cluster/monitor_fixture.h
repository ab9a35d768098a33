#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <cstdio>
#include <memory>

#include "base/log.h"
#include "fakes/memory_monitor_environment.h"
#include "real_server.h"
#include "replication/monitor.h"
#include "replication/node_connection.h"
#include "replication/sync_standbys.h"

/// The production Monitor on real servers, with its coordinator in memory: one thread, one loop, so that it
/// also runs under AddressSanitizer.
namespace pgxc::test {

inline constexpr NodeKey group{NodeType::Datanode, NodeId{1}};
/// How long anything that must happen may take; on a slow machine under a sanitizer too.
inline constexpr Millis deadline_time{60'000};
inline constexpr Millis step_time{5};

inline std::string& log_text() {
    static std::string text;
    return text;
}

inline void keep_log(LogLevel /*level*/, std::string_view line) {
    log_text().append(line).append("\n");
}

inline NodeKey datanode(int id) {
    return {NodeType::Datanode, NodeId{id}};
}

inline Node slave_node(int id, const RealServer& server, Replication replication) {
    return {datanode(id), server.address(), group.id, replication, Epoch{0}};
}

/// Runs a loop a little further. What was unwound as if it had died there goes no further.
inline void turn(asio::io_context& context) {
    try {
        context.run_one_for(step_time);
    } catch (const WorldStopped&) {
        return;
    }
}

/// A coordinator's process: it can die at any moment, and its successor knows only what is in the store.
class Coordinator {
  public:
    Coordinator(MemoryStore& store, MonitorSettings settings, std::string token,
                std::optional<int> calls = {})
        : budget_(calls, [this] { context.stop(); }),
          environment(store, std::move(settings), budget_),
          monitor(std::make_unique<Monitor>(context, environment, std::move(token))) {
        monitor->start();
    }
    ~Coordinator() { monitor.reset(); }
    Coordinator(const Coordinator&) = delete;
    Coordinator& operator=(const Coordinator&) = delete;

    [[nodiscard]] CallBudget& budget() { return budget_; }
    [[nodiscard]] bool dead() const { return budget_.stopped(); }

    /// Runs the loop until it holds; false when time is up or the process has died.
    template <class Condition>
    bool run_until(Condition holds, Millis limit = deadline_time) {
        const TimePoint deadline = Clock::now() + limit;
        while (!dead()) {
            if (holds()) return true;
            if (Clock::now() >= deadline) return false;
            turn(context);
        }
        return false;
    }
    void run_for(Millis time) {
        (void)run_until([] { return false; }, time);
    }

  private:
    CallBudget budget_;

  public:
    asio::io_context context;  // dies after the monitor, and with it every coroutine that it left
    MemoryMonitorEnvironment environment;
    std::unique_ptr<Monitor> monitor;
};

class MonitorTest : public ::testing::Test {
  protected:
    void SetUp() override {
        log_text().clear();
        settings.policy.probe_interval = Millis(50);
        settings.policy.probe_timeout = Millis(1'000);
        settings.policy.restart_grace = Millis(10'000);
        settings.login.user = "postgres";
        // What comes after a failover is test_rejoin.py's; here a replaced master stays as the failover left
        // it.
        settings.policy.rejoin = false;
    }

    void TearDown() override {
        coordinator.reset();
        if (HasFailure()) std::fprintf(stderr, "--- the monitor's log:\n%s---\n", log_text().c_str());
    }

    // --- The cluster

    void make_master(const std::string& lines = {}) {
        master.initialize(lines);
        store.topology = Topology({{group, master.address(), NodeId{0}, Replication::None, Epoch{0}}});
        store.records[group] = to_json(initial_record(master.address(), Epoch{0}, "0a1b2c3d", "memory"));
        (void)sql(master, "CREATE TABLE t (x int)");
    }

    RealServer& clone_master(int id, const std::string& lines = {}) {
        slaves.push_back(std::make_unique<RealServer>(workspace, "slave" + std::to_string(id)));
        slaves.back()->clone(master, lines);
        return *slaves.back();
    }
    RealServer& make_slave(int id, Replication replication, const std::string& lines = {}) {
        RealServer& slave = clone_master(id, lines);
        register_slave(id, slave, replication);
        return slave;
    }

    void register_slave(int id, const RealServer& server, Replication replication) {
        std::vector<Node> nodes = store.topology.nodes();
        std::erase_if(nodes, [&](const Node& node) { return node.key == datanode(id); });
        nodes.push_back(slave_node(id, server, replication));
        store.topology = Topology(std::move(nodes));
        if (coordinator) coordinator->monitor->catalog_changed();
    }

    void start_coordinator(std::optional<int> calls = {}) {
        // A process that died has closed its sockets before another begins.
        coordinator.reset();
        coordinator =
            std::make_unique<Coordinator>(store, settings, "token" + std::to_string(++starts_), calls);
    }

    /// Nothing is left of it: another one can be made.
    void remove_cluster() {
        coordinator.reset();
        slaves.clear();
        master.remove();
        store = {};
    }

    // --- What is seen

    [[nodiscard]] Record record() const { return *record_from_json(store.records.at(group)); }
    [[nodiscard]] Gate gate() const {
        const NodeView* shown = coordinator->environment.view.find(group);
        return shown != nullptr ? shown->gate : Gate::Held;
    }
    [[nodiscard]] std::string why() const {
        const NodeView* shown = coordinator->environment.view.find(group);
        return shown != nullptr ? shown->why : "not in the view";
    }
    /// Exactly these count, and nothing else is listed.
    [[nodiscard]] bool count_now(std::vector<const RealServer*> servers, int k) const {
        const Record now = record();
        if (now.pending || now.configurations.size() != 1 || now.wanted().k != k ||
            now.wanted().slaves.size() != servers.size())
            return false;
        return std::all_of(servers.begin(), servers.end(), [&](const RealServer* server) {
            return now.wanted().find(server->address()) != nullptr;
        });
    }

    template <class Condition>
    void wait_until(const char* what, Condition holds) {
        ASSERT_TRUE(coordinator->run_until(holds))
            << what << " did not come about; the record: " << store.records.at(group) << "; why: " << why();
    }
    void wait_open() {
        wait_until("an open gate", [&] { return gate() == Gate::Open; });
    }
    void wait_counting(std::vector<const RealServer*> servers, int k) {
        wait_until("the configuration", [&] { return gate() == Gate::Open && count_now(servers, k); });
    }
    /// A master, its synchronous slave 2, and a coordinator for which that one counts.
    RealServer& start_with_a_slave() {
        make_master();
        RealServer& slave = make_slave(2, Replication::Synchronous);
        start_coordinator();
        wait_counting({&slave}, 1);
        return slave;
    }
    /// A master, its synchronous slaves from 2 on (`slaves`), and a coordinator for which all of them count.
    void start_with_slaves(int count, int k) {
        settings.policy.sync_slaves = k;
        make_master();
        std::vector<const RealServer*> all;
        for (int id = 2; id < 2 + count; ++id) all.push_back(&make_slave(id, Replication::Synchronous));
        start_coordinator();
        wait_counting(all, k);
    }
    void wait_history(std::size_t rows) {
        wait_until("the history row", [&] { return store.history.size() >= rows && gate() == Gate::Open; });
        ASSERT_EQ(store.history.size(), rows);
    }

    // --- Statements

    struct Reply {
        bool there = false;
        std::optional<Rows> rows;
    };

    static asio::awaitable<void> statement(std::uint16_t port, std::string text, Millis limit,
                                           std::shared_ptr<Reply> answer) {
        ConnectTarget target{{"127.0.0.1", port}, NodeLogin{}, "test"};
        auto opened = co_await NodeConnection::open(target, limit);
        if (opened.ok()) {
            auto rows = co_await (*opened)->query(std::move(text), limit);
            if (rows.ok()) answer->rows = std::move(*rows);
        }
        answer->there = true;
    }

    static asio::awaitable<void> open_session(std::uint16_t port,
                                              std::shared_ptr<std::shared_ptr<NodeConnection>> kept) {
        ConnectTarget target{{"127.0.0.1", port}, NodeLogin{}, "test"};
        auto opened = co_await NodeConnection::open(target, deadline_time);
        if (opened.ok()) *kept = std::move(*opened);
    }

    static asio::awaitable<void> statement_in(std::shared_ptr<NodeConnection> session, std::string text,
                                              Millis limit, std::shared_ptr<Reply> answer) {
        auto rows = co_await session->query(std::move(text), limit);
        if (rows.ok()) answer->rows = std::move(*rows);
        answer->there = true;
    }

    /// One statement in a session of its own, while the loop goes on; nullopt where it fails or takes too
    /// long.
    std::optional<Rows> try_sql(std::uint16_t port, std::string text, Millis limit = deadline_time) {
        std::optional<asio::io_context> own;
        asio::io_context& context =
            coordinator && !coordinator->dead() ? coordinator->context : own.emplace();
        // The statement may outlive this call where time is up.
        auto answer = std::make_shared<Reply>();
        asio::co_spawn(context, statement(port, std::move(text), limit, answer), asio::detached);
        const TimePoint deadline = Clock::now() + limit + Millis(1'000);
        while (!answer->there && Clock::now() < deadline) turn(context);
        return answer->rows;
    }

    std::string sql(const RealServer& server, const std::string& text) {
        const auto rows = try_sql(server.port, text);
        EXPECT_TRUE(rows.has_value()) << text;
        return rows ? rows->text() : std::string{};
    }

    /// A commit that is acknowledged as synchronous replication has it.
    bool commits(std::uint16_t port, int value, Millis limit = deadline_time) {
        const auto rows = try_sql(port, "INSERT INTO t VALUES (" + std::to_string(value) + ")", limit);
        return rows &&
               std::none_of(rows->notices.begin(), rows->notices.end(),
                            [](const ServerNotice& notice) { return notice.routine == "SyncRepWaitForLSN"; });
    }

    /// A session that is kept open.
    std::shared_ptr<NodeConnection> keep_session(std::uint16_t port) {
        auto kept = std::make_shared<std::shared_ptr<NodeConnection>>();
        asio::co_spawn(clients, open_session(port, kept), asio::detached);
        (void)coordinator->run_until([&] {
            (void)clients.poll();
            return *kept != nullptr;
        });
        return *kept;
    }

    /// Is this commit, in a session that was kept, acknowledged as synchronous replication has it?
    bool acknowledged(std::shared_ptr<NodeConnection> session, std::string text, Millis limit) {
        auto answer = std::make_shared<Reply>();
        asio::co_spawn(clients, statement_in(std::move(session), std::move(text), limit, answer),
                       asio::detached);
        clients.restart();
        (void)coordinator->run_until(
            [&] {
                (void)clients.poll();
                return answer->there;
            },
            limit + Millis(1'000));
        return answer->rows &&
               std::none_of(answer->rows->notices.begin(), answer->rows->notices.end(),
                            [](const ServerNotice& notice) { return notice.routine == "SyncRepWaitForLSN"; });
    }

    std::string values(const RealServer& server) {
        return sql(server, "SELECT coalesce(string_agg(x::text, ',' ORDER BY x), '') FROM t");
    }

    /// A master and its slave 2, of which a reader holds up replay without limit: its snapshot is in the way
    /// of a vacuum's clean-up at the master. Gives what the reader will hear.
    std::shared_ptr<Reply> start_with_replay_held_up() {
        make_master("max_standby_streaming_delay = -1\n");
        RealServer& slave = make_slave(2, Replication::Synchronous, "max_standby_streaming_delay = -1\n");
        auto reader = std::make_shared<Reply>();
        start_coordinator();
        wait_counting({&slave}, 1);
        EXPECT_TRUE(commits(master.port, 1));
        wait_until("the row on the slave", [&] { return values(slave) == "1"; });
        asio::co_spawn(coordinator->context,
                       statement(slave.port, "SELECT pg_sleep(300), count(*) FROM t", deadline_time, reader),
                       asio::detached);
        wait_until("the reader", [&] {
            return sql(slave, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1";
        });
        (void)sql(master, "DELETE FROM t");
        // It removes nothing while a probe's snapshot still needs the row.
        wait_until("replay to be held up", [&] {
            (void)sql(master, "VACUUM t");
            return sql(slave,
                       "SELECT wait_event LIKE 'RecoveryConflict%' FROM pg_stat_activity WHERE backend_type "
                       "= "
                       "'startup'") == "t";
        });
        return reader;
    }

    /// Is it the master of timeline `timeline`, with just these names in force?
    void expect_master(const RealServer& server, int timeline, const std::string& names) {
        EXPECT_EQ(sql(server, "SELECT pg_is_in_recovery()"), "f");
        EXPECT_EQ(sql(server, "SHOW synchronous_standby_names"), names);
        EXPECT_EQ(sql(server, "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"),
                  "0000000" + std::to_string(timeline));
    }

    static std::string names(int k, const std::vector<int>& ids, int epoch) {
        std::vector<std::string> listed;
        for (const int id : ids) listed.push_back(standby_name(datanode(id), Epoch{epoch}));
        return synchronous_standby_names(k, listed);
    }

    // --- Promotion by hand

    struct Answer {
        Status status;
        std::string text;
    };
    Answer promote(int id, const std::string& address = {}, bool with_restart = false, bool force = false) {
        MonitorTask task;
        task.ticket = ++tickets_;
        task.kind = MonitorTask::Kind::Promote;
        task.node = datanode(id);
        task.address = address;
        task.with_restart = with_restart;
        task.force = force;
        task.user = "admin";
        coordinator->monitor->submit(task);
        auto& finished = coordinator->environment.finished;
        if (!coordinator->run_until([&] { return finished.contains(task.ticket); }))
            return {Error{sqlstate::query_canceled, "the task was never finished: " + why()}, {}};
        const auto& [status, text] = finished.at(task.ticket);
        return {status, text};
    }
    static void expect_refused(const Answer& answer, SqlState state) {
        ASSERT_FALSE(answer.status.ok());
        EXPECT_EQ(answer.status.error().sqlstate, state) << answer.status.error().message;
        EXPECT_NE(answer.status.error().message, "");
    }

    Workspace workspace;
    asio::io_context clients;  // of sessions that outlive a coordinator
    MemoryStore store;
    MonitorSettings settings;
    RealServer master{workspace, "master"};
    std::vector<std::unique_ptr<RealServer>> slaves;
    std::unique_ptr<Coordinator> coordinator;

  private:
    int starts_ = 0;
    int tickets_ = 0;
};

inline constexpr auto synchronous = Replication::Synchronous;
inline constexpr auto asynchronous = Replication::Asynchronous;

inline void expect_sane(const HistoryRow& row) {
    EXPECT_FALSE(row.cause.empty());
    EXPECT_FALSE(row.decided_by.empty());
    const double phases[] = {row.detect_ms, row.decide_ms, row.fence_ms, row.promote_ms, row.publish_ms};
    double sum = 0;
    for (const double phase : phases) {
        EXPECT_GE(phase, 0);
        sum += phase;
    }
    // The outage ends when the gate opens, before the publishing.
    EXPECT_LE(sum - row.publish_ms, row.outage_ms + 1);
    EXPECT_LT(row.outage_ms, 60'000);
    const auto now =
        std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
    EXPECT_GT(row.started_at_us, (now - std::chrono::minutes(5)).time_since_epoch().count());
    EXPECT_LE(row.started_at_us, now.time_since_epoch().count());
}

}  // namespace pgxc::test
