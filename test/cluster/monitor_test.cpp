// What the monitor does on real servers; monitor_fixture.h. ctest -L cluster
#include <asio/ip/tcp.hpp>
#include <cstdlib>
#include <future>

#include "monitor_fixture.h"

namespace pgxc::test {
namespace {

using Sync = MonitorTest;
using Failover = MonitorTest;
using NoFailover = MonitorTest;

// --- Synchronous replication
// --------------------------------------------------------------------------------------

TEST_F(Sync, APlainSlaveIsMadeSynchronous) {
    make_master();
    start_coordinator();
    wait_counting({}, 0);
    RealServer& slave = make_slave(2, synchronous);
    wait_counting({&slave}, 1);
    expect_master(master, 1, "ANY 1 (pgxc_d_2_e0)");
    EXPECT_EQ(sql(master, "SELECT slot_name FROM pg_replication_slots WHERE active"), "pgxc_d_2_e0");
    EXPECT_EQ(
        sql(master, "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'pgxc_d_2_e0'"),
        "quorum");
    EXPECT_EQ(sql(slave, "SHOW synchronous_standby_names"), nobody_standby_names("0a1b2c3d"));
    EXPECT_EQ(store.conninfos.count(slave.address()), 1U) << "what pg_basebackup wrote is kept";
    EXPECT_NE(record().system_identifier, 0U);
    EXPECT_EQ(coordinator->environment.view.find(group)->registration, Registration{0x0a1b2c3d});
    EXPECT_TRUE(commits(master.port, 1));
}

TEST_F(Sync, ADeadSlaveStopsCountingFirstInTheRecordAndCountsAgainWhenItIsBack) {
    RealServer& slave = start_with_a_slave();

    // What the master's file says at the moment when the record first lists the empty S.
    std::string when_recorded;
    coordinator->environment.memory_arbiter.on_change = [&](const Record& next) {
        if (next.wanted().slaves.empty() && when_recorded.empty())
            when_recorded = master.file("postgresql.auto.conf");
    };
    slave.kill9();
    EXPECT_TRUE(commits(master.port, 1)) << "commits go on after the detection time";
    wait_counting({}, 0);
    EXPECT_NE(when_recorded.find("synchronous_standby_names = 'ANY 1 (pgxc_d_2_e0)'"), std::string::npos)
        << when_recorded;
    EXPECT_EQ(gate(), Gate::Open);
    EXPECT_TRUE(commits(master.port, 2));

    slave.start();
    wait_counting({&slave}, 1);
    expect_master(master, 1, "ANY 1 (pgxc_d_2_e0)");
    EXPECT_TRUE(commits(master.port, 3));
    EXPECT_TRUE(store.history.empty());
}

TEST_F(Sync, WithoutDegradeCommitsWaitForTheSlave) {
    settings.policy.sync_degrade = false;
    RealServer& slave = start_with_a_slave();
    slave.kill9();
    EXPECT_FALSE(commits(master.port, 1, settings.policy.detection_time() * 2));
    EXPECT_TRUE(count_now({&slave}, 1));
    slave.start();
    EXPECT_TRUE(commits(master.port, 2));
}

TEST_F(Sync, OneThatCantBePreparedDoesNotHoldUpTheOthers) {
    // The second slave finds no slot left on the master.
    make_master("max_replication_slots = 1\n");
    RealServer& first = make_slave(2, synchronous);
    const RealServer& second = clone_master(3);
    start_coordinator();
    wait_counting({&first}, 1);
    register_slave(3, second, synchronous);
    wait_until("the reason", [&] { return why().find("datanode 3") != std::string::npos; });
    EXPECT_TRUE(commits(master.port, 1));
    first.kill9();
    EXPECT_TRUE(commits(master.port, 2)) << "degrading must not wait for the other";
    wait_counting({}, 0);
}

TEST_F(Sync, WithoutArbiterNothingChanges) {
    RealServer& slave = start_with_a_slave();
    coordinator->environment.memory_arbiter.unreachable = true;
    EXPECT_TRUE(commits(master.port, 1)) << "writes go on while k slaves live";
    slave.kill9();
    EXPECT_FALSE(commits(master.port, 2, settings.policy.detection_time() * 2))
        << "no degrade without arbiter";
    EXPECT_EQ(sql(master, "SHOW synchronous_standby_names"), "ANY 1 (pgxc_d_2_e0)");
    coordinator->environment.memory_arbiter.unreachable = false;
    EXPECT_TRUE(commits(master.port, 3));
}

TEST_F(Sync, ARenamedSlaveCountsUnderItsNewName) {
    RealServer& slave = start_with_a_slave();
    store.topology = Topology({*store.topology.find(group), slave_node(7, slave, synchronous)});
    coordinator->monitor->catalog_changed();
    wait_until("the new name",
               [&] { return count_now({&slave}, 1) && record().wanted().slaves[0].name == "pgxc_d_7_e0"; });
    EXPECT_TRUE(commits(master.port, 1));
    // The former slot goes once nobody uses it.
    wait_until("only the new slot", [&] {
        return sql(master, "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots") == "pgxc_d_7_e0";
    });
}

TEST_F(Sync, ADroppedSlaveIsNotKeptLocked) {
    start_with_slaves(2, 1);
    if (HasFatalFailure()) return;
    RealServer& second = *slaves[0];
    RealServer& third = *slaves[1];
    std::vector<Node> nodes = store.topology.nodes();
    std::erase_if(nodes, [](const Node& node) { return node.key == datanode(3); });
    store.topology = Topology(std::move(nodes));
    coordinator->monitor->catalog_changed();
    wait_counting({&second}, 1);
    wait_until("the end of our sessions there", [&] {
        return sql(third, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgxc_ha%'") ==
               "0";
    });
}

// --- Failover
// -----------------------------------------------------------------------------------------------------

TEST_F(Failover, AKilledMasterIsReplaced) {
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    master.kill9();
    wait_history(1);
    wait_counting({}, 0);
    expect_master(slave, 2, "");
    EXPECT_TRUE(commits(slave.port, 2));
    EXPECT_EQ(values(slave), "1,2");

    const HistoryRow& row = store.history[0];
    expect_sane(row);
    EXPECT_EQ(row.epoch, Epoch{1});
    EXPECT_EQ(row.node, group);
    EXPECT_EQ(row.promoted_from, NodeId{2});
    EXPECT_EQ(row.old_address, master.address());
    EXPECT_EQ(row.new_address, slave.address());
    EXPECT_EQ(row.method, "promote");
    EXPECT_EQ(row.lost_wal_bytes, 0);
    EXPECT_EQ(record().master, slave.address());
    EXPECT_EQ(record().epoch, Epoch{1});
    const NodeView* shown = coordinator->environment.view.find(group);
    ASSERT_NE(shown, nullptr);
    EXPECT_EQ(shown->node.address, slave.address());
    // Not in the catalog: only shown, as the replaced master that it is.
    ASSERT_NE(coordinator->environment.view.find(datanode(2)), nullptr);
    EXPECT_EQ(coordinator->environment.view.find(datanode(2))->state, NodeState::Rejoining);
    EXPECT_FALSE(coordinator->environment.view.find(datanode(2))->may_read);
}

TEST_F(Failover, TheOtherSlavesFollowAndFailOverAgain) {
    make_master();
    RealServer& second = make_slave(2, synchronous);
    RealServer& third = make_slave(3, synchronous);
    RealServer& other = make_slave(4, asynchronous);
    start_coordinator();
    wait_counting({&second, &third}, 1);
    ASSERT_TRUE(commits(master.port, 1));
    master.kill9();
    wait_history(1);
    RealServer& heir = record().master == second.address() ? second : third;
    RealServer& rest = &heir == &second ? third : second;
    wait_counting({&rest}, 1);
    expect_master(heir, 2, names(1, {&rest == &second ? 2 : 3}, 1));
    ASSERT_TRUE(commits(heir.port, 2));
    const auto streams = [&](const RealServer& from, int count) {
        return sql(from, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") ==
               std::to_string(count);
    };
    wait_until("the asynchronous slave to follow", [&] { return streams(heir, 2); });

    heir.kill9();
    wait_history(2);
    expect_master(rest, 3, "");
    ASSERT_TRUE(commits(rest.port, 3));
    EXPECT_EQ(values(rest), "1,2,3");
    wait_until("the asynchronous slave to follow again", [&] { return streams(rest, 1); });
    wait_until("its data", [&] { return values(other) == "1,2,3"; });
    EXPECT_EQ(store.history[1].epoch, Epoch{2});
    EXPECT_EQ(store.history[1].lost_wal_bytes, 0);
}

TEST_F(Failover, AFrozenMasterIsReplacedAndAcknowledgesNothingWhenItWakes) {
    settings.policy.probe_timeout = Millis(500);
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    master.freeze();
    wait_history(1);
    expect_sane(store.history[0]);
    ASSERT_TRUE(commits(slave.port, 2));
    master.thaw();
    EXPECT_FALSE(commits(master.port, 99, Millis(1'500)));
    EXPECT_EQ(values(slave), "1,2");
    EXPECT_EQ(record().master, slave.address());
}

TEST_F(Failover, ReplayThatIsHeldUpDoesNotHoldUpTheFence) {
    RealServer& slave = start_with_a_slave();
    (void)sql(slave, "ALTER SYSTEM SET recovery_min_apply_delay = '1h'");
    (void)sql(slave, "SELECT pg_reload_conf()");
    wait_until("the delay", [&] { return sql(slave, "SHOW recovery_min_apply_delay") == "1h"; });
    ASSERT_TRUE(commits(master.port, 1));
    EXPECT_EQ(values(slave), "") << "received and flushed, but held up";
    master.kill9();
    wait_history(1);
    EXPECT_EQ(values(slave), "1");
    wait_until("the setting's return", [&] { return sql(slave, "SHOW recovery_min_apply_delay") == "1h"; });
}

TEST_F(Failover, AReaderThatHoldsUpReplayIsEnded) {
    const auto reader = start_with_replay_held_up();
    RealServer& slave = *slaves[0];
    if (HasFailure()) return;
    ASSERT_TRUE(commits(master.port, 2));
    EXPECT_EQ(values(slave), "") << "the deletion is replayed, what follows it waits";
    master.kill9();
    wait_history(1);
    EXPECT_EQ(values(slave), "2");
    wait_until("the reader's end", [&] { return reader->there; });
    EXPECT_FALSE(reader->rows.has_value());
    wait_until("the setting's return",
               [&] { return sql(slave, "SHOW max_standby_streaming_delay") == "-1"; });
}

TEST_F(Failover, ARestartThatFailsLeavesTheFormerMasterItsPort) {
    settings.policy.promotion = replication::PromotionMethod::Restart;
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    std::optional<asio::ip::tcp::acceptor> somebody;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        // From now on the port is another program's.
        if (point == "names in force" && !somebody)
            somebody.emplace(clients, asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), master.port));
    };
    master.kill9();
    wait_history(1);
    EXPECT_EQ(store.history[0].method, "promote");
    EXPECT_NE(store.history[0].cause.find("restart failed"), std::string::npos) << store.history[0].cause;
    EXPECT_EQ(record().master, slave.address());
    ASSERT_EQ(record().formers.size(), 1U);
    EXPECT_EQ(record().formers[0].address, master.address());
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

TEST_F(Failover, RestartTakesOverThePort) {
    settings.policy.promotion = replication::PromotionMethod::Restart;
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    master.kill9();
    wait_history(1);
    EXPECT_EQ(store.history[0].method, "restart");
    EXPECT_EQ(record().master, master.address());
    slave.port = master.port;
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

TEST_F(Failover, AnAsynchronousSlaveIsNotPromotedByItself) {
    make_master();
    RealServer& slave = make_slave(2, asynchronous);
    start_coordinator();
    wait_open();
    master.kill9();
    wait_until("the refusal", [&] { return why().find("no failover") != std::string::npos; });
    coordinator->run_for(Millis(1'000));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(gate(), Gate::Held);
    EXPECT_EQ(sql(slave, "SELECT pg_is_in_recovery()"), "t");
}

TEST_F(Failover, TooFewSlavesToFence) {
    make_master();
    RealServer& second = make_slave(2, synchronous);
    RealServer& third = make_slave(3, synchronous);
    settings.policy.probe_timeout = Millis(2'000);
    start_coordinator();
    wait_counting({&second, &third}, 1);
    ASSERT_TRUE(commits(master.port, 1));
    // Within the detection time: both are still listed.
    third.kill9();
    master.kill9();
    coordinator->run_for(Millis(3'000));
    EXPECT_TRUE(store.history.empty());
    EXPECT_NE(sql(second, "SHOW primary_conninfo"), "")
        << "no stream is cut for a failover that can't succeed";
    // With the third back there are enough.
    third.start();
    wait_history(1);
    RealServer& heir = record().master == second.address() ? second : third;
    EXPECT_EQ(values(heir), "1");
}

// --- No needless failover
// -----------------------------------------------------------------------------------------

/// One probe has failed, and the detection's end is so far away that a pause of the machine doesn't reach it.
constexpr Millis long_timeout{10'000};
constexpr Millis short_freeze{12'000};

TEST_F(NoFailover, AShortFreeze) {
    settings.policy.probe_timeout = long_timeout;
    start_with_a_slave();
    master.freeze();
    coordinator->run_for(short_freeze);
    master.thaw();
    EXPECT_TRUE(commits(master.port, 1));
    wait_open();
    coordinator->run_for(Millis(500));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(record().epoch, Epoch{0});
}

TEST_F(NoFailover, AShortFreezeThatTrafficComplainsOf) {
    settings.policy.probe_timeout = long_timeout;
    start_with_a_slave();
    master.freeze();
    // The pooler reports each connection that meets trouble; that asks for a probe, and is none.
    for (int i = 0; i < 20; ++i) {
        coordinator->monitor->traffic_failed(group);
        coordinator->run_for(Millis(20));
    }
    coordinator->run_for(short_freeze);
    master.thaw();
    EXPECT_TRUE(commits(master.port, 1));
    wait_open();
    coordinator->run_for(Millis(500));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(record().epoch, Epoch{0});
}

TEST_F(NoFailover, ARestartByTheAdmin) {
    settings.policy.restart_grace = deadline_time;
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    for (const char* mode : {"fast", "immediate"}) {
        auto restarted = std::async(std::launch::async, [&] { master.restart(mode); });
        ASSERT_TRUE(coordinator->run_until(
            [&] { return restarted.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }));
        restarted.get();
        wait_counting({&slave}, 1);
        EXPECT_TRUE(commits(master.port, 2)) << mode;
        EXPECT_TRUE(store.history.empty()) << mode;
    }
    EXPECT_EQ(record().epoch, Epoch{0});
}

TEST_F(NoFailover, ACrashOfOneBackend) {
    settings.policy.restart_grace = deadline_time;
    RealServer& slave = start_with_a_slave();
    (void)try_sql(master.port, "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'");
    EXPECT_TRUE(coordinator->run_until([&] { return gate() == Gate::Held; }));
    wait_counting({&slave}, 1);
    EXPECT_TRUE(commits(master.port, 1));
    EXPECT_TRUE(store.history.empty());
}

TEST_F(NoFailover, TooManyConnections) {
    make_master("superuser_reserved_connections = 0\n");
    RealServer& slave = make_slave(2, synchronous);
    start_coordinator();
    wait_counting({&slave}, 1);
    std::vector<std::unique_ptr<NodeConnection>> held;
    bool full = false;
    asio::co_spawn(
        coordinator->context,
        [&]() -> asio::awaitable<void> {
            ConnectTarget target{master.address(), NodeLogin{}, "test"};
            while (!full) {
                auto opened = co_await NodeConnection::open(target, deadline_time);
                if (opened.ok())
                    held.push_back(std::move(*opened));
                else
                    full = true;
            }
        },
        asio::detached);
    ASSERT_TRUE(coordinator->run_until([&] { return full; }));
    coordinator->run_for(Millis(1'000));
    EXPECT_TRUE(store.history.empty());
    held.clear();
    wait_until("room", [&] { return try_sql(master.port, "SELECT 1").has_value(); });
    wait_open();
    EXPECT_TRUE(commits(master.port, 1));
}

}  // namespace
}  // namespace pgxc::test

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    if (argc == 3 && std::string_view(argv[1]) == "--bindir") pgxc::test::set_program_directory(argv[2]);
    if (!::testing::GTEST_FLAG(list_tests)) {
        if (argc != 3) {
            std::fprintf(stderr, "usage: %s --bindir DIRECTORY_OF_PG_CTL\n", argv[0]);
            return EXIT_FAILURE;
        }
        if (!pgxc::test::leave_root()) return EXIT_FAILURE;
    }
    pgxc::set_log_sink(pgxc::test::keep_log);
    return RUN_ALL_TESTS();
}
