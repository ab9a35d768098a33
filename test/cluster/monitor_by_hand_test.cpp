// Promotions by hand on real servers; monitor_fixture.h. ctest -L cluster
#include <stdexcept>

#include "monitor_fixture.h"

namespace pgxc::test {
namespace {

/// Promotions are tried once: a pause of a busy machine must not be taken for silence.
class ByHand : public MonitorTest {
  protected:
    void SetUp() override {
        MonitorTest::SetUp();
        settings.policy.probe_timeout = Millis(10'000);
    }
    /// Of two slaves that both count one may have got a little more of what the master writes by itself; then
    /// it is refused, and tried again.
    Answer promote_one_of_two(int id, const std::string& address = {}) {
        Answer answer;
        for (int round = 0; round < 8; ++round) {
            wait_counting({slaves[0].get(), slaves[1].get()}, 1);
            answer = promote(id, address);
            if (answer.status.ok() ||
                answer.status.error().message.find(" is not caught up: ") == std::string::npos)
                break;
        }
        return answer;
    }
};

TEST_F(ByHand, WhatIsThrownIsAnAnswerToo) {
    RealServer& slave = start_with_a_slave();
    bool thrown = false;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point != "master silenced" || thrown) return;
        thrown = true;
        throw std::runtime_error("no memory");
    };
    expect_refused(promote(2), sqlstate::internal_error);
    EXPECT_TRUE(thrown);
    wait_counting({&slave}, 1);
    EXPECT_TRUE(commits(master.port, 1));
}

TEST_F(ByHand, WithALiveMaster) {
    start_with_slaves(2, 1);
    if (HasFatalFailure()) return;
    RealServer& second = *slaves[0];
    RealServer& third = *slaves[1];
    ASSERT_TRUE(commits(master.port, 1));
    const Answer answer = promote_one_of_two(3);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message;
    EXPECT_EQ(answer.text, third.address().to_string());
    wait_counting({&second}, 1);
    expect_master(third, 2, names(1, {2}, 1));
    ASSERT_TRUE(commits(third.port, 2));
    EXPECT_FALSE(commits(master.port, 99, Millis(1'500))) << "the former master acknowledges nothing";
    EXPECT_EQ(values(third), "1,2");
    ASSERT_EQ(store.history.size(), 1U);
    expect_sane(store.history[0]);
    EXPECT_EQ(store.history[0].decided_by, "admin");
    EXPECT_EQ(store.history[0].lost_wal_bytes, 0);
}

TEST_F(ByHand, WithRestart) {
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    const std::string before = sql(slave, "SELECT pg_postmaster_start_time()");
    const Answer answer = promote(2, {}, true);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message;
    wait_open();
    expect_master(slave, 2, "");
    EXPECT_NE(sql(slave, "SELECT pg_postmaster_start_time()"), before);
    EXPECT_EQ(values(slave), "1");
    EXPECT_EQ(store.history.at(0).method, "restart");
}

TEST_F(ByHand, TakesOverThePortOfALiveMaster) {
    start_with_slaves(2, 1);
    if (HasFatalFailure()) return;
    RealServer& second = *slaves[0];
    RealServer& third = *slaves[1];
    ASSERT_TRUE(commits(master.port, 1));
    const Answer answer = promote_one_of_two(2, ":" + std::to_string(master.port));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message;
    EXPECT_EQ(answer.text, master.address().to_string());
    EXPECT_FALSE(master.running()) << "two servers can't have one port";
    second.port = master.port;
    wait_counting({&third}, 1);
    expect_master(second, 2, names(1, {3}, 1));
    EXPECT_TRUE(commits(second.port, 2));
    EXPECT_EQ(values(second), "1,2");
}

TEST_F(ByHand, TakesOverThePortOfADeadMaster) {
    settings.policy.failover = false;
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    master.kill9();
    wait_until("the master to be seen as dead", [&] { return gate() == Gate::Held; });
    const Answer answer = promote(2, "127.0.0.1:" + std::to_string(master.port));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message;
    slave.port = master.port;
    wait_open();
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

TEST_F(ByHand, PromotesADeadMastersSlaveWhenFailoverIsOff) {
    settings.policy.failover = false;
    RealServer& slave = start_with_a_slave();
    master.kill9();
    wait_until("the master to be seen as dead", [&] { return gate() == Gate::Held; });
    coordinator->run_for(Millis(500));
    EXPECT_TRUE(store.history.empty());
    const Answer answer = promote(2);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message;
    wait_open();
    expect_master(slave, 2, "");
}

TEST_F(ByHand, ForceOfAnAsynchronousSlaveTellsTheLoss) {
    make_master();
    RealServer& slave = make_slave(2, asynchronous);
    start_coordinator();
    wait_open();
    expect_refused(promote(2), sqlstate::object_not_in_prerequisite_state);
    EXPECT_TRUE(commits(master.port, 1));
    EXPECT_TRUE(store.history.empty());
    wait_until("the row on the slave", [&] { return values(slave) == "1"; });
    // It has fallen behind: what comes now is lost with the master that lives.
    (void)sql(slave, "ALTER SYSTEM SET primary_conninfo = ''");
    (void)sql(slave, "SELECT pg_reload_conf()");
    wait_until("the cut", [&] { return sql(master, "SELECT count(*) FROM pg_stat_replication") == "0"; });
    ASSERT_TRUE(commits(master.port, 2));
    const Answer answer = promote(2, {}, false, true);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message;
    wait_open();
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
    EXPECT_NE(store.history.at(0).lost_wal_bytes, 0) << "a commit is lost";
    EXPECT_FALSE(commits(master.port, 99, Millis(1'500))) << "the former master acknowledges nothing";
}

TEST_F(ByHand, ForceOfALaggingSlaveKeepsTheFurtherOneFromAcknowledging) {
    settings.policy.failover = false;
    make_master();
    RealServer& second = make_slave(2, synchronous);
    RealServer& third = make_slave(3, asynchronous);
    start_coordinator();
    wait_counting({&second}, 1);
    (void)sql(third, "ALTER SYSTEM SET primary_conninfo = ''");
    (void)sql(third, "SELECT pg_reload_conf()");
    wait_until("the cut", [&] { return sql(master, "SELECT count(*) FROM pg_stat_replication") == "1"; });
    ASSERT_TRUE(commits(master.port, 1));
    master.kill9();
    wait_until("the master to be seen as dead", [&] { return gate() == Gate::Held; });
    const Answer answer = promote(3, {}, false, true);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error().message;
    wait_open();
    EXPECT_EQ(values(third), "");
    EXPECT_TRUE(commits(third.port, 2));
    EXPECT_NE(store.history.at(0).lost_wal_bytes, 0);
    coordinator->run_for(Millis(1'500));
    EXPECT_EQ(record().wanted().find(second.address()), nullptr)
        << "its WAL is no prefix: it must be rewound first";
    EXPECT_EQ(sql(third, "SELECT count(*) FROM pg_stat_replication"), "0");
}

TEST_F(ByHand, RefusalsLeaveAllAsItWas) {
    settings.policy.probe_timeout = Millis(5'000);  // long enough that a dead slave still counts
    start_with_slaves(2, 1);
    if (HasFatalFailure()) return;
    RealServer& second = *slaves[0];
    RealServer& third = *slaves[1];

    expect_refused(promote(9), sqlstate::undefined_object);
    expect_refused(promote(1), sqlstate::undefined_object);
    expect_refused(promote(2, "nonsense"), sqlstate::invalid_parameter_value);
    expect_refused(promote(2, ":" + std::to_string(third.port)), sqlstate::object_in_use);
    EXPECT_TRUE(commits(master.port, 1));

    // Too few to fence: neither the master nor its port may be taken.
    third.kill9();
    expect_refused(promote(2, ":" + std::to_string(master.port)), sqlstate::object_not_in_prerequisite_state);
    EXPECT_TRUE(master.running());
    EXPECT_EQ(log_text().find(": fenced "), std::string::npos) << "refused before anything was cut or held";
    EXPECT_EQ(gate(), Gate::Open);
    third.start();
    wait_counting({&second, &third}, 1);
    EXPECT_TRUE(commits(master.port, 2));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(record().epoch, Epoch{0});
}

TEST_F(ByHand, AMasterThatDiesJustBefore) {
    // The view still says that it lives when the promotion begins.
    settings.policy.failover = false;
    RealServer& slave = start_with_a_slave();
    ASSERT_TRUE(commits(master.port, 1));
    master.kill9();
    const Answer first = promote(2);
    if (!first.status.ok()) {
        EXPECT_EQ(first.status.error().sqlstate, sqlstate::object_not_in_prerequisite_state)
            << first.status.error().message;
        wait_until("the master to be seen as dead", [&] {
            const NodeView* shown = coordinator->environment.view.find(group);
            return shown != nullptr && shown->state == NodeState::Down;
        });
        const Answer second = promote(2);
        ASSERT_TRUE(second.status.ok()) << second.status.error().message;
    }
    wait_open();
    expect_master(slave, 2, "");
    EXPECT_EQ(values(slave), "1");
}

}  // namespace
}  // namespace pgxc::test
