// The rules and traps of the failover protocol that monitor_test.cpp has no test of; docs/testing.md lists
// which test is whose.
#include <set>
#include <thread>

#include "monitor_fixture.h"

namespace pgxc::test {
namespace {

using Traps = MonitorTest;

TEST_F(Traps, ACommitHangsNoLongerThanTheDetectionAndASecond) {
    RealServer& slave = start_with_a_slave();
    // Its best of a few times: the machine may be busy with something else.
    auto shortest = deadline_time;
    for (int round = 0; round < 4 && shortest > settings.policy.detection_time() + Millis(1'000); ++round) {
        ASSERT_TRUE(commits(master.port, 1));
        log_text().clear();
        slave.freeze();
        const TimePoint began = Clock::now();
        EXPECT_TRUE(commits(master.port, 2));
        const auto took = std::chrono::duration_cast<Millis>(Clock::now() - began);
        EXPECT_GE(took, settings.policy.detection_time() / 2) << "it did wait";
        shortest = std::min(shortest, took);
        // Once it is silent, too, that is the newer reason.
        wait_until("the reason", [&] {
            return log_text().find("does not count until it streams again") != std::string::npos;
        });
        slave.thaw();
        wait_counting({&slave}, 1);
    }
    EXPECT_LE(shortest, settings.policy.detection_time() + Millis(1'000));
}

TEST_F(Traps, OneNameConnectedTwiceIsEndedAndReported) {
    make_master();
    RealServer& second = make_slave(2, synchronous);
    RealServer& third = make_slave(3, synchronous);
    settings.policy.sync_slaves = 2;
    start_coordinator();
    wait_counting({&second, &third}, 2);
    // A copy of a slave under its name, without its slot: as a clone of its data directory connects.
    RealServer& impostor = clone_master(9);
    (void)sql(impostor, "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=" +
                            std::to_string(master.port) + " user=postgres application_name=PGXC_d_2_e0'");
    (void)sql(impostor, "ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms'");
    (void)sql(impostor, "SELECT pg_reload_conf()");
    wait_until("the alarm", [&] {
        const auto& evidence = coordinator->environment.evidence;
        return std::any_of(evidence.begin(), evidence.end(),
                           [](const Evidence& each) { return each.decision == "alarm"; });
    });
    EXPECT_NE(log_text().find("more than one stream is called"), std::string::npos);
    EXPECT_EQ(sql(master, "SELECT active FROM pg_replication_slots WHERE slot_name = 'pgxc_d_2_e0'"), "t");
    // The slave's own stream stays; the other one is ended whenever it comes again.
    const char* own = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'pgxc_d_2_e0'";
    const std::string kept = sql(master, own);
    const char* others =
        "SELECT coalesce(max(r.pid), 0) FROM pg_stat_replication r WHERE lower(application_name) = "
        "'pgxc_d_2_e0' "
        "AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid)";
    std::set<std::string> ended;
    wait_until("three streams to be ended", [&] {
        ended.insert(sql(master, others));
        return ended.size() > 4;
    });
    EXPECT_EQ(sql(master, own), kept);
    impostor.stop("fast");
    wait_until("the alarm's end", [&] { return why().empty(); });
}

TEST_F(Traps, ASettingThatLosesCommitsIsReported) {
    make_master();
    (void)sql(master, "CREATE ROLE hasty");
    (void)sql(master, "ALTER ROLE hasty SET synchronous_commit = off");
    (void)sql(master, "ALTER DATABASE template1 SET synchronous_commit = local");
    RealServer& slave = make_slave(2, synchronous);
    start_coordinator();
    wait_until("the report", [&] { return why().find("role \"hasty\"") != std::string::npos; });
    EXPECT_NE(why().find("database \"template1\" (synchronous_commit=local)"), std::string::npos) << why();
    EXPECT_TRUE(count_now({&slave}, 1));
}

TEST_F(Traps, PreparedTransactionsAreReportedByGid) {
    make_master("max_prepared_transactions = 10\n");
    RealServer& slave = make_slave(2, synchronous, "max_prepared_transactions = 10\n");
    start_coordinator();
    wait_counting({&slave}, 1);
    ASSERT_TRUE(try_sql(master.port, "BEGIN; INSERT INTO t VALUES (7); PREPARE TRANSACTION 'transfer 4711'"));
    master.kill9();
    wait_history(1);
    wait_until("the report", [&] { return why().find("transfer 4711") != std::string::npos; });
    EXPECT_EQ(sql(slave, "SELECT gid FROM pg_prepared_xacts"), "transfer 4711");
    (void)sql(slave, "COMMIT PREPARED 'transfer 4711'");
    EXPECT_EQ(values(slave), "7");
    wait_until("the report's end", [&] { return why().find("transfer 4711") == std::string::npos; });
}

TEST_F(Traps, AMasterStartedWithOldSettingsGetsNoTransactions) {
    RealServer& slave = start_with_a_slave();
    master.stop("fast");
    master.start("-c synchronous_standby_names=");
    // -c beats what the monitor writes: it would acknowledge alone.
    wait_until("the reason", [&] { return why().find("command line") != std::string::npos; });
    EXPECT_EQ(gate(), Gate::Held);
    EXPECT_TRUE(count_now({&slave}, 1));
    master.restart("fast");
    master.stop("fast");
    master.start();
    wait_counting({&slave}, 1);
    EXPECT_TRUE(commits(master.port, 1));
}

TEST_F(Traps, AServerPromotedWithoutARecordIsNeverAdopted) {
    RealServer& slave = start_with_a_slave();
    (void)sql(slave, "SELECT pg_promote()");
    EXPECT_FALSE(commits(slave.port, 9, Millis(700))) << "it carries a name that nobody has (rule 8)";
    wait_until("the report", [&] {
        const NodeView* shown = coordinator->environment.view.find(datanode(2));
        return shown != nullptr && shown->state == NodeState::Wrong;
    });
    coordinator->run_for(Millis(500));
    EXPECT_EQ(record().master, master.address());
    EXPECT_TRUE(store.history.empty());
    // Nor when its master dies: it can't be fenced, being no slave.
    master.kill9();
    coordinator->run_for(settings.policy.detection_time() + Millis(1'000));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(record().master, master.address());
}

TEST_F(Traps, AnotherServerAtTheMastersAddressGetsNoTransactions) {
    RealServer& slave = start_with_a_slave();
    master.kill9();
    wait_history(1);
    // The former master takes the new one's address: same cluster, another line.
    slave.stop("fast");
    const std::uint16_t own = master.port;
    master.port = slave.port;
    master.start("-p " + std::to_string(slave.port));
    wait_until("the reason", [&] { return why().find("it is a former master") != std::string::npos; });
    EXPECT_EQ(gate(), Gate::Held);
    master.stop("fast");
    master.port = own;
    slave.start();
    wait_open();
    expect_master(slave, 2, "");
}

TEST_F(Traps, ASlaveMadeAnewHasForgottenWhatItAcknowledged) {
    settings.policy.probe_timeout = Millis(10'000);  // it doesn't leave S by record while it is away
    settings.policy.sync_slaves = 2;                 // one fence is enough
    make_master();
    RealServer& slave = make_slave(2, synchronous);
    RealServer& other = make_slave(3, synchronous);
    start_coordinator();
    wait_counting({&slave, &other}, 2);
    slave.stop("fast");
    slave.keep_copy();
    slave.start();
    for (int value = 1; value <= 5; ++value) ASSERT_TRUE(commits(master.port, value));
    wait_until("both to have it",
               [&] { return values(slave) == "1,2,3,4,5" && values(other) == "1,2,3,4,5"; });
    // Until the monitor has seen how far it is.
    const auto end = Lsn::parse(sql(slave, "SELECT pg_last_wal_replay_lsn()"));
    wait_until("the monitor to see it", [&] {
        const NodeView* shown = coordinator->environment.view.find(datanode(2));
        return shown != nullptr && shown->position >= *end;
    });
    other.kill9();
    slave.stop("immediate");
    master.kill9();
    slave.restore_copy();
    slave.start();
    wait_until("the finding",
               [&] { return log_text().find("has forgotten what it acknowledged") != std::string::npos; });
    coordinator->run_for(Millis(700));
    EXPECT_TRUE(store.history.empty()) << "its name counts, its WAL doesn't";
    other.start();
    wait_history(1);
    EXPECT_EQ(record().master, other.address());
    EXPECT_EQ(values(other), "1,2,3,4,5");
}

TEST_F(Traps, TheDecidersOwnPauseIsNobodysSilence) {
    settings.policy.probe_retries = 0;
    settings.policy.probe_timeout = Millis(2'000);
    start_with_a_slave();
    for (int round = 0; round < 2; ++round) {
        // A probe is on its way when this process stops; all answers are late.
        coordinator->monitor->traffic_failed(group);
        (void)coordinator->context.poll();
        master.freeze();
        std::this_thread::sleep_for(2 * settings.policy.probe_timeout + Millis(500));  // the pause itself
        master.thaw();
        coordinator->run_for(Millis(300));
    }
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(record().epoch, Epoch{0});
    wait_open();
}

TEST_F(Traps, ADeciderThatStalledDoesNothingLate) {
    start_with_slaves(2, 1);
    if (HasFatalFailure()) return;
    RealServer& second = *slaves[0];
    RealServer& third = *slaves[1];
    ASSERT_TRUE(commits(master.port, 1));
    // The first decider stands still in the middle of its fences; another goes on.
    bool stalled = false;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point == "one fenced") stalled = true;
    };
    master.kill9();
    auto first = std::move(coordinator);
    const TimePoint deadline = Clock::now() + deadline_time;
    while (!stalled && Clock::now() < deadline) first->context.run_one_for(step_time);
    ASSERT_TRUE(stalled);
    settings.policy.restart_grace = Millis(500);
    start_coordinator();
    wait_history(1);
    const HostPort chosen = record().master;
    RealServer& heir = chosen == second.address() ? second : third;
    RealServer& rest = &heir == &second ? third : second;
    wait_counting({&rest}, 1);
    ASSERT_TRUE(commits(heir.port, 2));
    // Now the first one wakes, with its old plan; its sessions are gone, and so is its claim.
    for (const TimePoint until = Clock::now() + Millis(1'500); Clock::now() < until;) {
        first->context.run_one_for(step_time);
        coordinator->context.poll();
    }
    first.reset();
    EXPECT_EQ(record().master, chosen);
    EXPECT_EQ(record().epoch, Epoch{1});
    EXPECT_EQ(store.history.size(), 1U);
    wait_counting({&rest}, 1);
    EXPECT_TRUE(commits(heir.port, 3));
    EXPECT_EQ(values(heir), "1,2,3");
}

TEST_F(Traps, TwoAddressesOfOneServerAreOneFence) {
    make_master("listen_addresses = '127.0.0.1, 127.0.0.2'\n");
    RealServer& slave = make_slave(2, synchronous, "listen_addresses = '127.0.0.1, 127.0.0.3'\n");
    start_coordinator();
    wait_counting({&slave}, 1);
    ASSERT_TRUE(commits(master.port, 1));
    coordinator.reset();
    // The record as an error would leave it: the same server under two addresses, k = 1 of two.
    Record wrong = record();
    ++wrong.generation;
    wrong.configurations.back().slaves.push_back({"pgxc_d_3_e0", {"127.0.0.3", slave.port}});
    store.records[group] = to_json(wrong);
    std::vector<Node> nodes = store.topology.nodes();
    nodes.push_back({datanode(3), {"127.0.0.3", slave.port}, group.id, synchronous, Epoch{0}});
    store.topology = Topology(std::move(nodes));
    master.kill9();
    settings.policy.restart_grace = Millis(500);
    start_coordinator();
    wait_until("the refusal",
               [&] { return log_text().find("it can't stand for that slave") != std::string::npos; });
    coordinator->run_for(Millis(700));
    EXPECT_TRUE(store.history.empty());
}

TEST_F(Traps, WithTheClaimLostNothingIsCut) {
    RealServer& slave = start_with_a_slave();
    // Another decider's claim comes between the judgement and the first cut.
    int claims = 0;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point != "failover decided" || claims++ > 0) return;
        Record taken = record();
        ++taken.generation;
        ++taken.claim;
        taken.claim_owner = "somebody else";
        store.records[group] = to_json(taken);
    };
    master.kill9();
    wait_history(1);
    EXPECT_GT(claims, 1) << "the first attempt's compare-and-set failed, and it claimed anew";
    expect_master(slave, 2, "");
    EXPECT_EQ(store.history.size(), 1U);
}

TEST_F(Traps, AMasterThatStillFeedsItsSlavesBlocksAFailover) {
    // The pooler of clients is not ours here: they write directly. The coordinator alone is cut off.
    settings.policy.probe_timeout = Millis(500);
    make_master("listen_addresses = '127.0.0.1, 127.0.0.2'\n");
    RealServer& slave = make_slave(2, synchronous);
    start_coordinator();
    wait_counting({&slave}, 1);
    coordinator.reset();
    // Nobody listens at the address that the record has now, as behind a link that is cut; the slave's stream
    // goes elsewhere.
    Record moved = record();
    ++moved.generation;
    const ReservedPort nobody;
    moved.master = {"127.0.0.1", nobody.number()};
    store.records[group] = to_json(moved);
    store.topology = Topology(
        {{group, moved.master, NodeId{0}, Replication::None, Epoch{0}}, slave_node(2, slave, synchronous)});
    // Whoever writes may pause between two answers of the slave: in each of them it still has something new.
    settings.policy.probe_interval = Millis(2'000);
    settings.policy.restart_grace = Millis(5'000);
    start_coordinator();
    auto writer = std::make_shared<Reply>();
    asio::co_spawn(
        coordinator->context,
        statement(master.port,
                  "DO $$BEGIN PERFORM set_config('synchronous_commit', 'local', false); LOOP INSERT "
                  "INTO t VALUES (1); COMMIT; PERFORM pg_sleep(0.005); END LOOP; END$$",
                  deadline_time, writer),
        asio::detached);
    wait_until("the block", [&] { return why().find("still receive new WAL") != std::string::npos; });
    EXPECT_TRUE(store.history.empty());
    (void)sql(master, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %'");
    // Once nothing comes any more the slave is fenced, and a client's commit there hangs: it is cut off, not
    // dead.
    wait_history(1);
    EXPECT_FALSE(commits(master.port, 999, Millis(1'500)));
    EXPECT_EQ(sql(slave, "SELECT count(*) FROM t WHERE x = 999"), "0");
}

TEST_F(Traps, APausedPostmasterWithLivingBackendsAcknowledgesNothingAfterTheFailover) {
    settings.policy.probe_timeout = Millis(500);
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    // Sessions that clients have go on; no new one is let in.
    const auto client = keep_session(master.port);
    ASSERT_TRUE(client);
    master.freeze_postmaster();
    coordinator.reset();  // its session would go on, too: any answer is life
    settings.policy.restart_grace = Millis(500);
    start_coordinator();
    wait_history(1);
    EXPECT_FALSE(acknowledged(client, "INSERT INTO t VALUES (99)", Millis(1'500)));
    EXPECT_TRUE(commits(slave.port, 2));
    EXPECT_EQ(values(slave), "1,2");
    master.thaw();
}

TEST_F(Traps, WhoTookThePortOverIsNotJudgedByTheRefusalsBeforeIt) {
    settings.policy.promotion = replication::PromotionMethod::Restart;
    start_with_slaves(2, 1);
    // Nothing is heard of that port in time unless it is asked for.
    settings.policy.probe_interval = Millis(20'000);
    start_coordinator();
    wait_open();
    master.kill9();
    wait_until("a good answer at that port", [&] {
        const NodeView* shown = coordinator->environment.view.find(group);
        return !store.history.empty() && gate() == Gate::Open && shown->state == NodeState::Up;
    });
    EXPECT_EQ(store.history.size(), 1U);
    EXPECT_EQ(record().master, master.address());
}

}  // namespace
}  // namespace pgxc::test
