#include <gtest/gtest.h>

#include "unit/replication/policy_fixture.h"

namespace pgxc::test {
namespace {

struct ClassifyCase {
    const char* what;
    bool master;
    Observation seen;
    int now_ms;
    NodeState state;
    bool has_reason;
};

std::vector<ClassifyCase> classify_cases() {
    Observation starting = good_master();
    starting.starting = true;
    starting.error = "the database system is starting up";
    Observation refuses = good_master();
    refuses.refuses_us = true;
    refuses.error = "password authentication failed";
    Observation cut = good_slave(2);
    cut.facts->receiver_status.clear();
    return {
        {"never asked", true, Observation{}, 0, NodeState::Unknown, true},
        {"a master that answers", true, good_master(), 0, NodeState::Up, false},
        {"a slave that streams", false, good_slave(2), 0, NodeState::Up, false},
        {"a slave without stream", false, cut, 0, NodeState::Up, true},
        {"a master that is a slave", true, good_slave(1), 0, NodeState::Wrong, true},
        {"a slave that is a master", false, good_master(), 0, NodeState::Wrong, true},
        {"starting", true, starting, 0, NodeState::Starting, true},
        {"refuses us", true, refuses, 0, NodeState::Wrong, true},
        {"refused at once", true, silent(Silence::Refused, 0, 1), 0, NodeState::Down, true},
        {"connection lost", true, silent(Silence::Lost, 0, 0), 0, NodeState::Suspect, true},
        {"one timeout", true, silent(Silence::Timeout, 0, 1), 5'000, NodeState::Suspect, true},
        {"two timeouts", true, silent(Silence::Timeout, 0, 2), 2'000, NodeState::Down, true},
        {"two attempts too quickly", true, silent(Silence::Other, 0, 2), 1'999, NodeState::Suspect, true},
        {"unreachable for long", true, silent(Silence::Other, 0, 9), 2'000, NodeState::Down, true},
    };
}

TEST(Classify, EveryState) {
    for (const ClassifyCase& test : classify_cases()) {
        SCOPED_TRACE(test.what);
        Node node = slave_node(2);
        if (test.master) node.master_id = NodeId{0};
        const StateAndReason answer = classify(node, test.seen, {}, after(test.now_ms));
        EXPECT_EQ(answer.state, test.state);
        EXPECT_EQ(!answer.why.empty(), test.has_reason) << answer.why;
    }
}

// --- judge_master
// -------------------------------------------------------------------------------------------------

class JudgeMaster : public ::testing::Test {
  protected:
    Judgement judge(int now_ms) { return judge_master(record, seen, settings, after(now_ms)); }

    void expect(Verdict verdict, int now_ms) {
        const Judgement judgement = judge(now_ms);
        EXPECT_EQ(judgement.verdict, verdict) << judgement.reason;
        EXPECT_EQ(judgement.reason.empty(), verdict == Verdict::Alive);
        if (verdict != Verdict::Wait) {
            EXPECT_TRUE(judgement.ask.empty());
        }
    }

    /// A slave that has answered twice since: with a receiver, and new WAL or not.
    void answered_twice(int n, int first_ms, int second_ms, bool streams, bool new_wal) {
        Observation slave = good_slave(n);
        if (!streams) slave.facts->receiver_status.clear();
        slave.previous_answer_at = after(first_ms);
        slave.answered_at = after(second_ms);
        slave.receives_new_wal = new_wal;
        seen[at(n)] = slave;
    }

    Record record = [] {
        Record made = record_with({configuration({2}, 1)});
        made.system_identifier = 42;
        return made;
    }();
    PolicySettings settings;
    std::map<HostPort, Observation> seen{{at(1), good_master()}, {at(2), good_slave(2)}};
};

TEST_F(JudgeMaster, NotAskedYet) {
    seen.erase(at(1));
    expect(Verdict::Wait, 0);
}

TEST_F(JudgeMaster, NoAnswerYetIsNoLife) {
    // As a watch begins: nothing failed, nothing is known.
    seen[at(1)] = Observation{};
    expect(Verdict::Wait, 0);
}

TEST_F(JudgeMaster, AnswersSoItLives) {
    expect(Verdict::Alive, 0);
    expect(Verdict::Alive, 3'600'000);
}

TEST_F(JudgeMaster, AnyAnswerIsLife) {
    // 53300, 28P01, 3D000: the server speaks.
    seen[at(1)].refuses_us = true;
    seen[at(1)].error = "sorry, too many clients already";
    expect(Verdict::Alive, 3'600'000);
}

TEST_F(JudgeMaster, StartingHasRestartGrace) {
    seen[at(1)].starting = true;  // 57P03
    seen[at(1)].going_down_since = after(0);
    expect(Verdict::Wait, 0);
    expect(Verdict::Wait, 4'999);
    expect(Verdict::Dead, 5'000);
    settings.restart_grace = Millis(0);
    expect(Verdict::Dead, 0);
}

TEST_F(JudgeMaster, RefusedAtOnceIsDead) {
    seen[at(1)] = silent(Silence::Refused, 0, 1);
    answered_twice(2, -10, 5, false, false);
    expect(Verdict::Dead, 6);
}

TEST_F(JudgeMaster, RefusedAfterAShutdownInGoodOrderHasRestartGrace) {
    seen[at(1)] = silent(Silence::Refused, 10, 1);
    seen[at(1)].going_down_since = after(0);  // 57P01 came before
    answered_twice(2, 20, 30, false, false);
    expect(Verdict::Wait, 40);
    expect(Verdict::Wait, 4'999);
    expect(Verdict::Dead, 5'000);
}

TEST_F(JudgeMaster, ALostConnectionIsAskedAgainFirst) {
    seen[at(1)] = silent(Silence::Lost, 0, 0);
    answered_twice(2, 20, 30, false, false);
    expect(Verdict::Wait, 10'000);
}

TEST_F(JudgeMaster, OneSlowProbeIsNothing) {
    seen[at(1)] = silent(Silence::Timeout, 0, 1);
    answered_twice(2, 20, 30, false, false);
    expect(Verdict::Wait, 10'000);
}

TEST_F(JudgeMaster, SilencePastAllRetriesIsDead) {
    seen[at(1)] = silent(Silence::Timeout, 0, 2);
    answered_twice(2, 1'001, 1'002, true, false);
    expect(Verdict::Wait, 1'999);
    expect(Verdict::Dead, 2'000);
    settings.probe_retries = 2;
    expect(Verdict::Wait, 10'000);
}

TEST_F(JudgeMaster, WhatSaysNothingOfTheServerMustLast) {
    // A name that can't be resolved, no route: such attempts fail at once, so their number means nothing.
    seen[at(1)] = silent(Silence::Other, 0, 50);
    answered_twice(2, 20, 30, true, false);
    expect(Verdict::Wait, 1'999);
    expect(Verdict::Dead, 2'000);
}

TEST_F(JudgeMaster, ASlaveIsAskedAfterTheSilenceBegan) {
    seen[at(1)] = silent(Silence::Refused, 10, 1);  // the slave's answer is older
    const Judgement judgement = judge(20);
    EXPECT_EQ(judgement.verdict, Verdict::Wait);
    EXPECT_EQ(judgement.ask, std::vector<HostPort>{at(2)});
}

TEST_F(JudgeMaster, AReceiverThatHoldsOnIsAskedTwice) {
    seen[at(1)] = silent(Silence::Refused, 10, 1);
    answered_twice(2, 5, 15, true, true);
    const Judgement judgement = judge(20);
    EXPECT_EQ(judgement.verdict, Verdict::Wait) << "the growth may be from before the silence";
    EXPECT_EQ(judgement.ask, std::vector<HostPort>{at(2)});
    answered_twice(2, 15, 18, true, false);
    expect(Verdict::Dead, 20);
}

TEST_F(JudgeMaster, SlavesThatStillReceiveNewWalBlock) {
    seen[at(1)] = silent(Silence::Timeout, 0, 5);
    answered_twice(2, 3'000, 3'200, true, true);
    const Judgement judgement = judge(3'300);
    EXPECT_EQ(judgement.verdict, Verdict::Wait);
    EXPECT_TRUE(judgement.ask.empty()) << "asked within milliseconds they would have nothing new";
    seen[at(1)] = silent(Silence::Refused, 0, 5);
    EXPECT_EQ(judge(3'300).ask, std::vector<HostPort>{at(2)}) << "they are watched further";
}

TEST_F(JudgeMaster, SlavesThatReceivedNewWalAMomentAgoStillBlockASilentMaster) {
    seen[at(1)] = silent(Silence::Timeout, 0, 2);
    answered_twice(2, 2'100, 2'101, true, false);
    seen[at(2)].new_wal_after = after(1'900);
    seen[at(2)].new_wal_at = after(2'100);
    expect(Verdict::Wait, 2'102);
    answered_twice(2, 3'000, 3'100, true, false);
    seen[at(2)].new_wal_after = after(1'900);
    seen[at(2)].new_wal_at = after(2'100);
    expect(Verdict::Dead, 3'100);  // for probe_timeout nothing has come
}

TEST_F(JudgeMaster, WalThatMayBeFromBeforeTheSilenceBlocksNothing) {
    seen[at(1)] = silent(Silence::Timeout, 0, 2);
    answered_twice(2, 1'900, 2'000, true, false);
    seen[at(2)].new_wal_after = after(-10);
    seen[at(2)].new_wal_at = after(1'900);
    expect(Verdict::Dead, 2'001);
}

TEST_F(JudgeMaster, BehindAClosedPortOnlyWalThatComesNowBlocks) {
    seen[at(1)] = silent(Silence::Refused, 0, 1);
    answered_twice(2, 20, 21, true, false);
    seen[at(2)].new_wal_after = after(10);
    seen[at(2)].new_wal_at = after(20);
    expect(Verdict::Dead, 22);
}

TEST_F(JudgeMaster, FewerThanKThatReceiveBlockNothing) {
    record.configurations = {configuration({2, 3}, 2)};
    seen[at(1)] = silent(Silence::Timeout, 0, 5);
    answered_twice(2, 3'000, 3'200, true, true);
    answered_twice(3, 3'000, 3'200, true, false);
    expect(Verdict::Dead, 3'300);
    answered_twice(3, 3'000, 3'200, true, true);
    expect(Verdict::Wait, 3'300);
}

TEST_F(JudgeMaster, SlavesThatAreSilentTooLookLikeOurOwnIsolation) {
    seen[at(1)] = silent(Silence::Timeout, 0, 5);
    seen[at(2)] = silent(Silence::Timeout, 0, 5);
    const Judgement judgement = judge(60'000);
    EXPECT_EQ(judgement.verdict, Verdict::Wait);
    EXPECT_TRUE(judgement.ask.empty()) << "they are being asked already";
}

TEST_F(JudgeMaster, AfterOurOwnIsolationTheMasterHasAsLongAsItsSlavesAreHeardAgain) {
    // The first slave's answer comes a moment before the master's would.
    seen[at(1)] = silent(Silence::Timeout, 0, 4);
    answered_twice(2, 4'020, 4'021, true, false);
    seen[at(2)].answers_since = after(4'020);
    expect(Verdict::Wait, 4'021);
    expect(Verdict::Wait, 6'019);
    expect(Verdict::Dead, 6'020);
    seen[at(2)].answers_since = after(-60'000);
    expect(Verdict::Dead, 4'021);
}

TEST_F(JudgeMaster, AClosedPortNeedsNoOtherProof) {
    seen[at(1)] = silent(Silence::Refused, 0, 1);
    answered_twice(2, 20, 21, true, false);
    seen[at(2)].answers_since = after(20);
    expect(Verdict::Dead, 22);
}

TEST_F(JudgeMaster, WaitsForAsManySlavesAsMustBeFenced) {
    record.configurations = {configuration({2, 3, 4}, 2)};
    seen[at(1)] = silent(Silence::Refused, 0, 1);
    answered_twice(2, 10, 20, false, false);
    expect(Verdict::Wait, 30);
    answered_twice(3, 10, 20, false, false);
    expect(Verdict::Dead, 30);
}

TEST_F(JudgeMaster, WithoutSynchronousSlavesNobodyIsAsked) {
    record.configurations = {configuration({}, 0)};
    seen[at(1)] = silent(Silence::Refused, 0, 1);
    expect(Verdict::Dead, 0);
}

TEST_F(JudgeMaster, AProvenMasterThatAnotherMonitorSawLastMayBeDead) {
    // This monitor has started while the master was down. The record says that it was proven, so it is not
    // left to its fate; but as everything may be starting at once it has the time of a restart.
    seen[at(1)] = silent(Silence::Refused, 0, 20);
    seen[at(1)].answered_at.reset();
    seen[at(1)].facts.reset();
    answered_twice(2, 10, 20, false, false);
    expect(Verdict::Wait, 4'999);
    expect(Verdict::Dead, 5'000);
}

}  // namespace
}  // namespace pgxc::test
