// A coordinator that dies at any moment, and the successor that goes on; monitor_fixture.h. ctest -L cluster
#include <stdexcept>

#include "monitor_fixture.h"

namespace pgxc::test {
namespace {

using Successor = MonitorTest;
using Trouble = MonitorTest;

/// Lets a coordinator die at its n-th call into its environment after `begin`, then has a successor go on.
/// Returns false when the coordinator finished before.
class Interrupted : public MonitorTest {
  protected:
    void make_cluster() {
        settings.policy.restart_grace = Millis(500);
        make_master();
        second = &make_slave(2, synchronous);
        third = &make_slave(3, synchronous);
        start_coordinator();
        wait_counting({second, third}, 1);
        ASSERT_TRUE(commits(master.port, 1));
        coordinator.reset();
    }

    /// The group as a successor must bring it in order: one promotion, no commit lost, the other slave
    /// counts.
    void expect_finished() {
        wait_history(1);
        RealServer* heir = record().master == second->address() ? second : third;
        RealServer* rest = heir == second ? third : second;
        wait_counting({rest}, 1);
        EXPECT_EQ(record().epoch, Epoch{1});
        expect_master(*heir, 2, names(1, {rest == second ? 2 : 3}, 1));
        EXPECT_TRUE(commits(heir->port, 2));
        EXPECT_EQ(values(*heir), "1,2");
        EXPECT_EQ(store.history.at(0).lost_wal_bytes, 0);
        expect_sane(store.history.at(0));
    }

    /// Kills the master; the coordinator dies at its `call`-th call into its environment after that, and is
    /// followed by another one. Tells where that was.
    std::string lose_the_master_and_die_at(int call) {
        start_coordinator(call);
        wait_open();
        master.kill9();
        coordinator->budget().arm();
        // With where the new master's files are the failover is written down whole.
        (void)coordinator->run_until(
            [&] { return !store.history.empty() && !record().place.data_directory.empty(); });
        coordinator->budget().disarm();
        if (!coordinator->dead()) return "it lived";
        const std::string where = "died at " + coordinator->budget().last();
        start_coordinator();
        return where;
    }

    RealServer* second = nullptr;
    RealServer* third = nullptr;
};

/// Dies at its n-th call into its environment after the master's death; beyond the last one it lives on.
class InterruptedFailover : public Interrupted, public ::testing::WithParamInterface<int> {};

TEST_P(InterruptedFailover, IsFinishedByASuccessor) {
    make_cluster();
    if (HasFatalFailure()) return;
    SCOPED_TRACE(lose_the_master_and_die_at(GetParam()));
    expect_finished();
}

INSTANTIATE_TEST_SUITE_P(AtCall, InterruptedFailover, ::testing::Range(1, 11));

/// Dies between any two events of its loop: in the middle of statements.
class InterruptedAnywhere : public Interrupted, public ::testing::WithParamInterface<int> {};

TEST_P(InterruptedAnywhere, IsFinishedByASuccessor) {
    make_cluster();
    if (HasFatalFailure()) return;
    start_coordinator();
    wait_open();
    master.kill9();
    wait_until("a judgement", [&] { return gate() == Gate::Held; });
    for (int event = 0; event < GetParam(); ++event) coordinator->context.run_one_for(deadline_time);
    start_coordinator();
    expect_finished();
}

INSTANTIATE_TEST_SUITE_P(AfterEvents, InterruptedAnywhere,
                         ::testing::Values(5, 20, 40, 60, 80, 100, 130, 160, 200, 300));

class InterruptedRestart : public Interrupted, public ::testing::WithParamInterface<int> {};

TEST_P(InterruptedRestart, IsFinishedByASuccessor) {
    settings.policy.promotion = replication::PromotionMethod::Restart;
    make_cluster();
    if (HasFatalFailure()) return;
    SCOPED_TRACE(lose_the_master_and_die_at(GetParam()));
    wait_history(1);
    EXPECT_EQ(record().master, master.address());
    EXPECT_EQ(store.history.at(0).method, "restart");
    RealServer* heir = store.history.at(0).promoted_from == NodeId{2} ? second : third;
    heir->port = record().master.port;
    expect_finished();
}

INSTANTIATE_TEST_SUITE_P(AtCall, InterruptedRestart, ::testing::Range(4, 16));

TEST_F(Interrupted, AMasterThatWakesAfterTheDeciderDiedGetsItsSlaveBack) {
    // Also where nothing may degrade: the fence of a decider that died is taken back.
    settings.policy.sync_degrade = false;
    settings.policy.probe_timeout = Millis(500);
    make_cluster();
    if (HasFatalFailure()) return;
    start_coordinator();
    wait_open();
    master.freeze();
    coordinator->budget().arm();
    wait_until("a fence", [&] {
        return sql(*second, "SHOW primary_conninfo").empty() || sql(*third, "SHOW primary_conninfo").empty();
    });
    const bool recorded = record().pending.has_value() || !store.history.empty();
    coordinator.reset();
    master.thaw();
    if (recorded) GTEST_SKIP() << "the failover was quicker than the test";
    settings.policy.restart_grace = deadline_time;
    settings.policy.probe_timeout = Millis(5'000);
    start_coordinator();
    wait_counting({second, third}, 1);
    EXPECT_TRUE(commits(master.port, 2));
    EXPECT_TRUE(store.history.empty());
    wait_until("both streams", [&] {
        return sql(master, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "2";
    });
}

/// Stands still at a crash point of a failover, in which time another one does all that is left to do; then
/// it goes on.
class Stalled : public Interrupted, public ::testing::WithParamInterface<const char*> {};

TEST_P(Stalled, FindsItDoneByAnother) {
    make_cluster();
    if (HasFatalFailure()) return;
    start_coordinator();
    wait_open();
    bool stalled = false;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point != GetParam() || stalled) return;
        stalled = true;
        Coordinator other(store, settings, "other");
        EXPECT_TRUE(other.run_until(
            [&] { return !store.history.empty() && !record().pending && record().claim_owner != "token2"; }));
    };
    master.kill9();
    wait_until("the stall", [&] { return stalled; });
    wait_until("its own claim", [&] { return record().claim_owner.starts_with("token2"); });
    expect_finished();
}

INSTANTIATE_TEST_SUITE_P(At, Stalled,
                         ::testing::Values("failover decided", "one fenced", "promotion recorded",
                                           "names in force", "server promoted", "promotion published",
                                           "promotion settled"));

TEST_F(Interrupted, WhatAFenceHasChangedComesBackAfterTheDecidersDeath) {
    settings.policy.restart_grace = Millis(500);
    make_master();
    second = &make_slave(2, synchronous, "recovery_min_apply_delay = 20ms\n");
    third = &make_slave(3, synchronous, "recovery_min_apply_delay = 30ms\n");
    start_coordinator();
    wait_counting({second, third}, 1);
    coordinator->environment.on_crash_point = [](const std::string& point) {
        if (point == "promotion settled") throw WorldStopped{};
    };
    master.kill9();
    wait_until("the end", [&] { return !store.history.empty() && !record().pending; });
    EXPECT_EQ(record().to_give_back.size(), 2U);
    start_coordinator();
    wait_until("nothing left to give back", [&] { return record().to_give_back.empty(); });
    EXPECT_EQ(sql(*second, "SHOW recovery_min_apply_delay"), "20ms");
    EXPECT_EQ(sql(*third, "SHOW recovery_min_apply_delay"), "30ms");
    const RealServer& heir = record().master == second->address() ? *second : *third;
    EXPECT_EQ(sql(heir, "SHOW primary_slot_name"), "");
}

TEST_F(Interrupted, WhatAFenceHasChangedIsKnownToWhoeverGoesOnFromTheCut) {
    settings.policy.restart_grace = Millis(500);
    make_master();
    second = &make_slave(2, synchronous, "recovery_min_apply_delay = 20ms\n");
    third = &make_slave(3, synchronous, "restore_command = 'false'\n");
    start_coordinator();
    wait_counting({second, third}, 1);
    int cut = 0;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point != "stream cut") return;
        ++cut;
        throw WorldStopped{};
    };
    master.kill9();
    wait_until("the death", [&] { return cut == 2; });
    EXPECT_EQ(sql(*second, "SHOW recovery_min_apply_delay"), "0");
    EXPECT_EQ(sql(*third, "SHOW restore_command"), "");
    start_coordinator();
    wait_history(1);
    wait_until("all to be given back", [&] { return record().to_give_back.empty(); });
    EXPECT_EQ(sql(*second, "SHOW recovery_min_apply_delay"), "20ms");
    EXPECT_EQ(sql(*third, "SHOW restore_command"), "false");
}

TEST_F(Interrupted, WhatHeldUpReplayIsKnownToWhoeverGoesOn) {
    settings.policy.restart_grace = Millis(500);
    (void)start_with_replay_held_up();
    RealServer& slave = *slaves[0];
    if (HasFailure()) return;
    master.kill9();
    wait_until("the easing", [&] {
        return sql(slave, "SHOW max_standby_streaming_delay") == "0" || !store.history.empty();
    });
    const bool recorded = record().pending.has_value() || !store.history.empty();
    start_coordinator();
    wait_history(1);
    wait_until("all to be given back", [&] { return record().to_give_back.empty(); });
    EXPECT_EQ(sql(slave, "SHOW max_standby_streaming_delay"), "-1");
    if (recorded) GTEST_SKIP() << "the failover was quicker than the test";
}

TEST_F(Interrupted, AnAsynchronousSlaveThatWasCutOffStreamsAgain) {
    settings.policy.probe_timeout = Millis(10'000);
    make_master();
    RealServer& slave = make_slave(2, asynchronous);
    start_coordinator();
    wait_open();
    bool died = false;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point != "one fenced") return;
        died = true;
        throw WorldStopped{};
    };
    MonitorTask task;
    task.kind = MonitorTask::Kind::Promote;
    task.node = datanode(2);
    task.force = true;
    coordinator->monitor->submit(task);
    wait_until("the death", [&] { return died; });
    EXPECT_EQ(sql(slave, "SHOW primary_conninfo"), "");
    start_coordinator();
    wait_open();
    ASSERT_TRUE(commits(master.port, 1));
    wait_until("the stream", [&] { return values(slave) == "1"; });
}

TEST_F(Successor, WaitsForTheChosenThatDiedAfterItWasRecorded) {
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    coordinator->environment.memory_arbiter.on_change = [&](const Record& next) {
        if (next.pending) coordinator->budget().arm();
    };
    master.kill9();
    wait_until("the record", [&] { return record().pending.has_value(); });
    coordinator.reset();
    if (sql(slave, "SELECT pg_is_in_recovery()") == "t") {
        slave.kill9();
        start_coordinator();
        wait_until("the reason", [&] { return why().find("isn't finished") != std::string::npos; });
        EXPECT_EQ(gate(), Gate::Held);
        slave.start();
    } else {
        start_coordinator();
    }
    wait_history(1);
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

TEST_F(Successor, OfACalmCoordinatorChangesNothing) {
    RealServer& slave = start_with_a_slave();
    const std::vector<Configuration> before = record().configurations;
    const std::uint64_t claim = record().claim;
    start_coordinator();
    wait_counting({&slave}, 1);
    EXPECT_EQ(record().configurations, before);
    EXPECT_GT(record().claim, claim);
    EXPECT_TRUE(commits(master.port, 1));
    EXPECT_TRUE(store.history.empty());
}

TEST_F(Successor, AMasterThatDiedWhileNoCoordinatorRan) {
    settings.policy.restart_grace = Millis(1'000);
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    coordinator.reset();
    master.kill9();
    start_coordinator();
    wait_history(1);
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

TEST_F(Trouble, AClusterWithoutNodesIsToldToo) {
    // Logins wait for it.
    start_coordinator();
    wait_until("the view", [&] { return coordinator->environment.views_published > 0; });
    EXPECT_TRUE(coordinator->environment.view.nodes.empty());
}

TEST_F(Trouble, WhatIsThrownWhileADecisionIsWrittenDownEndsNoGroup) {
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    int calls = 0;
    coordinator->environment.on_evidence = [&] {
        if (++calls <= 2) throw std::runtime_error("nothing can be written down");
    };
    master.kill9();
    wait_history(1);
    EXPECT_GT(calls, 0);
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

TEST_F(Trouble, WhatIsThrownWhileTheViewIsToldEndsNobodysWatch) {
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    int calls = 0;
    coordinator->environment.on_publish = [&](const ClusterView& view) {
        if (view.find(group)->state != NodeState::Up && ++calls <= 4)
            throw std::runtime_error("nobody can be told");
    };
    master.kill9();
    wait_history(1);
    EXPECT_GT(calls, 0);
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

}  // namespace
}  // namespace pgxc::test
