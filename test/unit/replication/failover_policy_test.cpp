#include "replication/failover_policy.h"

#include <gtest/gtest.h>

#include <set>

#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

constexpr NodeKey group{NodeType::Datanode, NodeId{1}};
constexpr SqlState not_ready = sqlstate::object_not_in_prerequisite_state;

HostPort at(int n) {
    return {"10.0.0." + std::to_string(n), 5432};
}

NodeKey datanode(int id) {
    return {NodeType::Datanode, NodeId{id}};
}

/// Node n listens at at(n); the name is that of its stream.
Member member(int n, std::int64_t epoch = 0) {
    return {standby_name(datanode(n), Epoch{epoch}), at(n)};
}

Configuration configuration(const std::vector<int>& slaves, int k, std::int64_t epoch = 0) {
    Configuration made{Epoch{epoch}, {}, k};
    for (const int n : slaves) made.slaves.push_back(member(n, epoch));
    return made;
}

Record record_with(std::vector<Configuration> configurations) {
    Record record = initial_record(at(1), configurations.back().epoch, "0a1b2c3d", "local");
    record.configurations = std::move(configurations);
    return record;
}

Node slave_node(int n, Replication replication = Replication::Synchronous) {
    return {datanode(n), at(n), group.id, replication, Epoch{0}};
}

Topology topology_of(std::vector<Node> slaves) {
    slaves.push_back({group, at(1), NodeId{0}, Replication::None, Epoch{0}});
    return Topology(std::move(slaves));
}

const TimePoint start{std::chrono::hours(1)};

TimePoint after(int ms) {
    return start + Millis(ms);
}

Observation good_master() {
    Observation seen;
    seen.facts.emplace();
    seen.facts->timeline = TimelineId{1};
    seen.answered_at = start;
    return seen;
}

Observation good_slave(int n, std::int64_t epoch = 0) {
    Observation seen = good_master();
    seen.facts->in_recovery = true;
    seen.facts->receiver_status = "streaming";
    seen.facts->primary_slot = member(n, epoch).name;
    seen.facts->primary_conninfo = "host=10.0.0.1 application_name=" + member(n, epoch).name;
    return seen;
}

Observation silent(Silence silence, int since_ms, int attempts) {
    Observation seen = good_master();
    seen.silence = silence;
    seen.silent_since = after(since_ms);
    seen.failed_attempts = attempts;
    seen.error = "what libpq said";
    return seen;
}

// --- classify
// -----------------------------------------------------------------------------------------------------

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

// --- enough_fenced
// ------------------------------------------------------------------------------------------------

std::vector<int> first(int count, int from = 2) {
    std::vector<int> numbers;
    for (int i = 0; i < count; ++i) numbers.push_back(from + i);
    return numbers;
}

std::vector<HostPort> addresses(const std::vector<int>& nodes) {
    std::vector<HostPort> made;
    for (const int n : nodes) made.push_back(at(n));
    return made;
}

TEST(EnoughFenced, EveryKAndSize) {
    for (int slaves = 1; slaves <= 5; ++slaves) {
        for (int k = 1; k <= std::min(3, slaves); ++k) {
            const Record record = record_with({configuration(first(slaves), k)});
            for (int fenced = 0; fenced <= slaves; ++fenced) {
                SCOPED_TRACE(std::to_string(fenced) + " of " + std::to_string(slaves) + ", k " +
                             std::to_string(k));
                const Status enough = enough_fenced(record, addresses(first(fenced)));
                EXPECT_EQ(enough.ok(), slaves - fenced < k) << "those left could acknowledge";
                if (!enough.ok()) {
                    EXPECT_EQ(enough.error().sqlstate, not_ready);
                    EXPECT_NE(enough.error().hint, "");
                }
            }
        }
    }
}

TEST(EnoughFenced, AnEmptySForbidsIt) {
    EXPECT_FALSE(enough_fenced(record_with({configuration({}, 0)}), addresses({2, 3})).ok());
    // Also as an older one that is still listed, and beside one that would do.
    EXPECT_FALSE(
        enough_fenced(record_with({configuration({}, 0), configuration({2}, 1)}), addresses({2})).ok());
    EXPECT_FALSE(
        enough_fenced(record_with({configuration({2}, 1), configuration({}, 0)}), addresses({2})).ok());
}

TEST(EnoughFenced, EveryListedConfigurationCounts) {
    const Record record = record_with({configuration({2, 3}, 2), configuration({2, 3, 4, 5}, 1, 1)});
    EXPECT_FALSE(enough_fenced(record, addresses({2})).ok());
    EXPECT_FALSE(enough_fenced(record, addresses({2, 3, 4})).ok());
    EXPECT_TRUE(enough_fenced(record, addresses({2, 3, 4, 5})).ok());
    const Record other = record_with({configuration({2, 3}, 1), configuration({4}, 1, 1)});
    const Status enough = enough_fenced(other, addresses({2, 4}));
    ASSERT_FALSE(enough.ok());
    EXPECT_NE(enough.error().message.find("epoch 0"), std::string::npos) << enough.error().message;
    EXPECT_TRUE(enough_fenced(other, addresses({2, 3, 4})).ok());
}

TEST(EnoughFenced, OneServerCountsOnce) {
    const Record record = record_with({configuration({2, 3, 4}, 2)});
    EXPECT_FALSE(enough_fenced(record, addresses({2, 2, 2})).ok());
    EXPECT_TRUE(enough_fenced(record, addresses({2, 2, 3})).ok());
}

TEST(EnoughFenced, StrangersDontCount) {
    EXPECT_FALSE(enough_fenced(record_with({configuration({2, 3}, 1)}), addresses({2, 9, 8})).ok());
}

// --- choose
// -------------------------------------------------------------------------------------------------------

TEST(Choose, NobodyAmongNobody) {
    EXPECT_EQ(choose({}), nullptr);
}

TEST(Choose, TheHighestByLineThenPosition) {
    const std::vector<FencedPosition> fenced{
        {at(2), 0, Lsn{900}}, {at(3), 1, Lsn{100}}, {at(4), 1, Lsn{200}}};
    EXPECT_EQ(choose(fenced), &fenced[2]);
}

TEST(Choose, AnUnknownPositionIsTheLowest) {
    const std::vector<FencedPosition> fenced{{at(2), 0, Lsn{}}, {at(3), 0, Lsn{1}}};
    EXPECT_EQ(choose(fenced), &fenced[1]);
}

TEST(Choose, EqualsAreToldApartByAddressInAnyOrder) {
    std::vector<FencedPosition> fenced{{at(4), 0, Lsn{7}}, {at(2), 0, Lsn{7}}, {at(3), 0, Lsn{7}}};
    EXPECT_EQ(choose(fenced)->address, at(2));
    std::reverse(fenced.begin(), fenced.end());
    EXPECT_EQ(choose(fenced)->address, at(2));
}

// --- configuration_after
// ------------------------------------------------------------------------------------------

std::set<HostPort> members_of(const Configuration& made) {
    std::set<HostPort> found;
    for (const Member& each : made.slaves) found.insert(each.address);
    return found;
}

TEST(ConfigurationAfter, TheOtherFencedOnesUnderTheNewEpochsNames) {
    const Record record = record_with({configuration({2, 3, 4}, 2, 6)});
    const Topology topology = topology_of({slave_node(2), slave_node(3), slave_node(4)});
    const std::vector<FencedPosition> fenced{{at(2), 6, Lsn{9}}, {at(3), 6, Lsn{8}}, {at(4), 6, Lsn{9}}};
    const auto next = configuration_after(record, at(2), fenced, topology, {});
    ASSERT_TRUE(next.ok());
    EXPECT_EQ(*next, configuration({3, 4}, 2, 7));
}

TEST(ConfigurationAfter, KIsNoHigherThanThoseLeft) {
    const Record record = record_with({configuration({2, 3}, 2)});
    const Topology topology = topology_of({slave_node(2), slave_node(3)});
    const auto next =
        configuration_after(record, at(3), {{at(2), 0, Lsn{9}}, {at(3), 0, Lsn{9}}}, topology, {});
    ASSERT_TRUE(next.ok());
    EXPECT_EQ(*next, configuration({2}, 1, 1));
}

TEST(ConfigurationAfter, OnlyRegisteredSynchronousSlaves) {
    const Record record = record_with({configuration({2, 3, 4}, 1)});
    const Topology topology = topology_of({slave_node(2), slave_node(3, Replication::Asynchronous)});
    const auto next = configuration_after(
        record, at(2), {{at(2), 0, Lsn{9}}, {at(3), 0, Lsn{9}}, {at(4), 0, Lsn{9}}}, topology, {});
    ASSERT_TRUE(next.ok());
    EXPECT_EQ(*next, configuration({}, 0, 1));
}

TEST(ConfigurationAfter, NobodyLeftNeedsLeaveToDegrade) {
    const Record record = record_with({configuration({2}, 1)});
    PolicySettings settings;
    const auto next =
        configuration_after(record, at(2), {{at(2), 0, Lsn{9}}}, topology_of({slave_node(2)}), settings);
    ASSERT_TRUE(next.ok());
    EXPECT_EQ(*next, configuration({}, 0, 1));
    settings.sync_degrade = false;
    const auto refused =
        configuration_after(record, at(2), {{at(2), 0, Lsn{9}}}, topology_of({slave_node(2)}), settings);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().sqlstate, not_ready);
    EXPECT_NE(refused.error().hint, "");
}

TEST(ConfigurationAfter, WhoeverIsAheadOfTheChosenIsNoPrefixAndDoesntCount) {
    // FORCE may choose one that is behind: the others' further WAL is no part of the new line (rule 9).
    const Record record = record_with({configuration({2, 3, 4}, 1)});
    const Topology topology = topology_of({slave_node(2), slave_node(3), slave_node(4)});
    const auto next = configuration_after(
        record, at(2), {{at(2), 0, Lsn{5}}, {at(3), 0, Lsn{9}}, {at(4), 0, Lsn{4}}}, topology, {});
    ASSERT_TRUE(next.ok());
    EXPECT_EQ(members_of(*next), std::set<HostPort>{at(4)});
    const auto other_line =
        configuration_after(record, at(2), {{at(2), 1, Lsn{5}}, {at(3), 0, Lsn{4}}}, topology, {});
    ASSERT_TRUE(other_line.ok());
    EXPECT_TRUE(other_line->slaves.empty()) << "an older line may have left below that position";
}

// --- record_promotion
// ---------------------------------------------------------------------------------------------

TEST(RecordPromotion, ListsTheNewBesideAllOlderOnes) {
    Record record = record_with({configuration({2, 3}, 1, 3), configuration({2, 3, 4}, 2, 3)});
    record.generation = 8;
    record.claim = 2;
    record.claim_owner = "me";
    record.system_identifier = 42;
    PendingPromotion pending;
    pending.promoted_id = NodeId{2};
    const Record next = record_promotion(record, at(2), configuration({3, 4}, 1, 4),
                                         {{at(2), 3, Lsn{9}}, {at(3), 3, Lsn{9}}}, pending);
    EXPECT_EQ(next.generation, 9U);
    EXPECT_EQ(next.claim, 2U);
    EXPECT_EQ(next.claim_owner, "me");
    EXPECT_EQ(next.cluster_id, record.cluster_id);
    EXPECT_EQ(next.system_identifier, 42U);
    EXPECT_EQ(next.epoch, Epoch{4});
    EXPECT_EQ(next.master, at(2));
    ASSERT_EQ(next.configurations.size(), 3U);
    EXPECT_EQ(next.configurations[0], record.configurations[0]);
    EXPECT_EQ(next.configurations[1], record.configurations[1]);
    EXPECT_EQ(next.wanted(), configuration({3, 4}, 1, 4));
    EXPECT_EQ(next.pending, pending);
    EXPECT_EQ(record.generation, 8U) << "the old one is untouched";
}

TEST(RecordPromotion, EveryoneBelongsToTheLineThatEndsHere) {
    Record record = record_with({configuration({2, 3, 4}, 1, 3)});
    record.lines[at(4).to_string()] = 1;  // it has never followed since
    record.timeline = 5;
    const Record next = record_promotion(record, at(2), configuration({3}, 1, 4),
                                         {{at(2), 3, Lsn{9}}, {at(3), 2, Lsn{9}}}, PendingPromotion{});
    EXPECT_EQ(next.line_of(at(1)), 3) << "the old master";
    EXPECT_EQ(next.line_of(at(2)), 3) << "the chosen begins the new line only when it is promoted";
    EXPECT_EQ(next.line_of(at(3)), 2) << "as it was fenced";
    EXPECT_EQ(next.line_of(at(4)), 1);
    EXPECT_EQ(next.line_of(at(9)), 4) << "whoever is registered later";
    EXPECT_EQ(next.timeline, 0U) << "not known before the gate is proven";
}

// --- wanted_sync
// --------------------------------------------------------------------------------------------------

class WantedSyncTest : public ::testing::Test {
  protected:
    WantedSync wanted(int now_ms = 0) {
        return wanted_sync(record, topology, group, seen, missing_since, settings, after(now_ms));
    }

    /// A registered synchronous slave that streams under its name.
    void add(int n) {
        nodes.push_back(slave_node(n));
        topology = topology_of(nodes);
        seen[at(n)] = good_slave(n);
        streams(n);
    }
    void counts(const std::vector<int>& slaves, int k) { record.configurations = {configuration(slaves, k)}; }
    void streams(int n, const char* state = "streaming") {
        seen[at(1)].facts->standbys.push_back({member(n).name, state, Lsn{9}, Lsn{9}});
    }
    void stops_streaming(int n, int at_ms) {
        std::erase_if(seen[at(1)].facts->standbys,
                      [&](const StreamSeen& s) { return s.name == member(n).name; });
        missing_since[at(n)] = after(at_ms);
    }

    Record record = record_with({configuration({}, 0)});
    std::vector<Node> nodes;
    Topology topology = topology_of({});
    std::map<HostPort, Observation> seen{{at(1), good_master()}};
    std::map<HostPort, TimePoint> missing_since;
    PolicySettings settings;
};

TEST_F(WantedSyncTest, NobodyRegisteredNobodyCounts) {
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_EQ(wanted().why, "");
}

TEST_F(WantedSyncTest, JoinsWhoStreamsUnderItsName) {
    add(2);
    EXPECT_EQ(wanted().configuration, configuration({2}, 1));
    EXPECT_TRUE(wanted().to_prepare.empty());
    EXPECT_EQ(wanted().why, "");
}

TEST_F(WantedSyncTest, AnAsynchronousSlaveNeverCounts) {
    add(2);
    topology = topology_of({slave_node(2, Replication::Asynchronous)});
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_TRUE(wanted().to_prepare.empty());
}

TEST_F(WantedSyncTest, IsPreparedFirst) {
    add(2);
    // As pg_basebackup -R leaves it; with the slot of an earlier epoch; with the name only.
    const auto unprepared = [&](const char* slot, const char* conninfo) {
        seen[at(2)].facts->primary_slot = slot;
        seen[at(2)].facts->primary_conninfo = conninfo;
        const WantedSync answer = wanted();
        EXPECT_EQ(answer.configuration, configuration({}, 0));
        ASSERT_EQ(answer.to_prepare.size(), 1U);
        EXPECT_EQ(answer.to_prepare[0].key, datanode(2));
        EXPECT_NE(answer.why, "");
    };
    unprepared("", "host=10.0.0.1");
    unprepared("pgxc_d_2_e1", "host=10.0.0.1 application_name=pgxc_d_2_e1");
    unprepared("", "host=10.0.0.1 application_name=pgxc_d_2_e0");
    unprepared("pgxc_d_2_e0", "");
}

TEST_F(WantedSyncTest, DoesntCountBeforeItStreams) {
    add(2);
    seen[at(1)].facts->standbys.clear();
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_NE(wanted().why, "");
    streams(2, "catchup");
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_TRUE(wanted().to_prepare.empty());
}

TEST_F(WantedSyncTest, DoesntCountWhenItIsNotThereAsASlave) {
    add(2);
    const Observation good = seen[at(2)];
    seen.erase(at(2));
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    seen[at(2)] = good;
    seen[at(2)].silence = Silence::Timeout;
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    seen[at(2)] = good;
    seen[at(2)].facts->in_recovery = false;
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_TRUE(wanted().to_prepare.empty()) << "a master is never told to follow";
    EXPECT_NE(wanted().why, "");
}

TEST_F(WantedSyncTest, WhoCountsStaysThroughAShortGap) {
    add(2);
    counts({2}, 1);
    stops_streaming(2, 0);
    EXPECT_EQ(wanted(1'999).configuration, configuration({2}, 1));
    EXPECT_EQ(wanted(2'000).configuration, configuration({}, 0)) << "the detection time: degrade";
    EXPECT_NE(wanted(2'000).why, "");
}

TEST_F(WantedSyncTest, AStreamThatStandsIsNone) {
    add(2);
    add(3);
    counts({2, 3}, 2);
    settings.sync_slaves = 2;
    missing_since[at(3)] = after(0);  // though its master still says "streaming"
    EXPECT_EQ(wanted(1'999).configuration, configuration({2, 3}, 2));
    EXPECT_EQ(wanted(2'000).configuration, configuration({2}, 1));
    EXPECT_NE(wanted(2'000).why.find("flushed nothing"), std::string::npos) << wanted(2'000).why;
    // Nor does it count again before it moves, whatever it answers itself.
    counts({2}, 1);
    EXPECT_EQ(wanted(2'100).configuration, configuration({2}, 1));
    EXPECT_NE(wanted(2'100).why, "");
    missing_since.clear();
    EXPECT_EQ(wanted(2'200).configuration, configuration({2, 3}, 2));
}

TEST_F(WantedSyncTest, WhoCountsStaysWhileNobodyAsked) {
    // The monitor has just started: the record says that it counts, and nothing says that it doesn't.
    add(2);
    counts({2}, 1);
    seen.clear();
    EXPECT_EQ(wanted(60'000).configuration, configuration({2}, 1));
}

TEST_F(WantedSyncTest, DegradeKeepsThoseAlive) {
    add(2);
    add(3);
    add(4);
    counts({2, 3, 4}, 2);
    settings.sync_slaves = 2;
    stops_streaming(3, 0);
    EXPECT_EQ(wanted(2'000).configuration, configuration({2, 4}, 2));
    stops_streaming(2, 0);
    EXPECT_EQ(wanted(2'000).configuration, configuration({4}, 1));
}

TEST_F(WantedSyncTest, WithoutDegradeCommitsWait) {
    settings.sync_degrade = false;
    add(2);
    counts({2}, 1);
    stops_streaming(2, 0);
    EXPECT_EQ(wanted(3'600'000).configuration, configuration({2}, 1));
    // Nor does another way lead to nobody: it has been made again and knows its name no more.
    seen[at(2)].facts->primary_slot.clear();
    EXPECT_EQ(wanted(3'600'000).configuration, configuration({2}, 1));
}

TEST_F(WantedSyncTest, AFenceThatADeciderLeftBehindIsTakenBack) {
    // It fenced and died before it recorded anything; the master lives. Without this a cluster that may not
    // degrade would wait for ever.
    for (const bool degrade : {false, true}) {
        settings.sync_degrade = degrade;
        nodes.clear();
        seen[at(1)].facts->standbys.clear();
        add(2);
        counts({2}, 1);
        stops_streaming(2, 0);
        seen[at(2)].facts->primary_conninfo.clear();
        seen[at(2)].facts->receiver_status.clear();
        const WantedSync answer = wanted(100);
        EXPECT_EQ(answer.configuration, configuration({2}, 1)) << "it has not stopped counting";
        ASSERT_EQ(answer.to_prepare.size(), 1U);
        EXPECT_EQ(answer.to_prepare[0].key, datanode(2));
    }
}

TEST_F(WantedSyncTest, DroppedLeaves) {
    for (const bool degrade : {true, false}) {
        settings.sync_degrade = degrade;
        add(2);
        add(3);
        counts({2, 3}, 1);
        topology = topology_of({slave_node(3)});
        EXPECT_EQ(wanted().configuration, configuration({3}, 1));
        topology = topology_of({slave_node(2, Replication::Asynchronous)});
        EXPECT_EQ(wanted().configuration, configuration({}, 0)) << "an order, not a loss";
        topology = topology_of({});
        EXPECT_EQ(wanted().configuration, configuration({}, 0));
        nodes.clear();
    }
}

TEST_F(WantedSyncTest, ChangedIdIsAnotherName) {
    add(2);
    counts({2}, 1);
    Node renamed = slave_node(2);
    renamed.key.id = NodeId{7};
    topology = topology_of({renamed});
    const WantedSync answer = wanted();
    ASSERT_EQ(answer.to_prepare.size(), 1U);
    EXPECT_EQ(answer.to_prepare[0].key, datanode(7));
    settings.sync_degrade = false;
    EXPECT_EQ(wanted().configuration, configuration({2}, 1)) << "until it streams under the new one";
    const std::string name = standby_name(datanode(7), Epoch{0});
    seen[at(2)].facts->primary_slot = name;
    seen[at(2)].facts->primary_conninfo = "application_name=" + name;
    seen[at(1)].facts->standbys.push_back({name, "streaming", Lsn{9}, Lsn{9}});
    const Configuration renamed_one{Epoch{0}, {{name, at(2)}}, 1};
    EXPECT_EQ(wanted().configuration, renamed_one);
}

TEST_F(WantedSyncTest, KIsWhatIsAskedForButNoMoreThanThereAre) {
    add(2);
    add(3);
    add(4);
    const int expected[][2] = {{-1, 1}, {0, 1}, {1, 1}, {2, 2}, {3, 3}, {4, 3}, {100, 3}};
    for (const auto& [asked, k] : expected) {
        settings.sync_slaves = asked;
        EXPECT_EQ(wanted().configuration, configuration({2, 3, 4}, k)) << asked;
    }
}

TEST_F(WantedSyncTest, TheNamesAreOfTheRecordsEpoch) {
    add(2);
    record.epoch = Epoch{1};
    EXPECT_EQ(wanted().to_prepare.size(), 1U) << "it still has the name of epoch 0";
    seen[at(2)] = good_slave(2, 1);
    seen[at(1)].facts->standbys = {{member(2, 1).name, "streaming", Lsn{9}, Lsn{9}}};
    EXPECT_EQ(wanted().configuration, configuration({2}, 1, 1));
}

}  // namespace
}  // namespace pgxc
