// Where nobody counts: what pgxc.max_lost_wal allows, and what it never does.
#include <gtest/gtest.h>

#include "replication/failover_policy.h"
#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

constexpr NodeKey group{NodeType::Datanode, NodeId{1}};
const TimePoint start{std::chrono::hours(1)};

HostPort at(int n) {
    return {"10.0.0." + std::to_string(n), 5432};
}

Node slave_node(int n, Replication replication, int master = 1) {
    return {{NodeType::Datanode, NodeId{n}}, at(n), NodeId{master}, replication, Epoch{0}};
}

Configuration configuration(const std::vector<int>& slaves, int k) {
    Configuration made{Epoch{3}, {}, k};
    for (const int n : slaves)
        made.slaves.push_back({standby_name({NodeType::Datanode, NodeId{n}}, Epoch{3}), at(n)});
    return made;
}

Record record_with(std::vector<Configuration> configurations) {
    Record record = initial_record(at(1), Epoch{3}, "0a1b2c3d", "local");
    record.system_identifier = 42;
    record.timeline = 7;
    record.configurations = std::move(configurations);
    return record;
}

PolicySettings allowing(std::uint64_t bytes) {
    PolicySettings settings;
    settings.max_lost_wal_bytes = bytes;
    return settings;
}

Observation dead_master(Lsn flushed, int answered_ms_before_silence) {
    Observation seen;
    seen.facts.emplace();
    seen.facts->system_identifier = 42;
    seen.facts->timeline = TimelineId{7};
    seen.facts->flushed = flushed;
    seen.answered_at = start - Millis(answered_ms_before_silence);
    seen.silence = Silence::Refused;
    seen.silent_since = start;
    seen.failed_attempts = 1;
    return seen;
}

TEST(AsynchronousFailover, OnlyWithMaxLostWalAndOnlyWhereNobodyIsListed) {
    const Record nobody = record_with({configuration({}, 0)});
    EXPECT_FALSE(asynchronous_failover_allowed(nobody, {}).ok()) << "lag 0 at the last probe is no bound";
    EXPECT_TRUE(asynchronous_failover_allowed(nobody, allowing(1)).ok());
    EXPECT_TRUE(
        asynchronous_failover_allowed(record_with({configuration({}, 0), configuration({}, 0)}), allowing(1))
            .ok());
    const std::vector<std::vector<Configuration>> promised{
        {configuration({2}, 1)},
        {configuration({2}, 1), configuration({}, 0)},
        {configuration({}, 0), configuration({2}, 1)},
        {configuration({}, 0), configuration({2, 3}, 2), configuration({}, 0)}};
    for (const auto& configurations : promised) {
        const Status refused =
            asynchronous_failover_allowed(record_with(configurations), allowing(UINT64_MAX));
        ASSERT_FALSE(refused.ok());
        EXPECT_NE(refused.error().hint, "");
    }
}

TEST(AsynchronousFailover, CandidatesAreAsynchronousDirectAndOnTheLine) {
    Record record = record_with({configuration({}, 0)});
    record.lines[at(5).to_string()] = 2;
    const Topology topology({{group, at(1), NodeId{0}, Replication::None, Epoch{3}},
                             slave_node(2, Replication::Asynchronous),
                             slave_node(3, Replication::Synchronous),
                             slave_node(4, Replication::Asynchronous, 2),
                             slave_node(5, Replication::Asynchronous)});
    const auto candidates = asynchronous_candidates(record, topology, group);
    ASSERT_EQ(candidates.size(), 1U);
    EXPECT_EQ(candidates[0].address, at(2));
}

TEST(AsynchronousFailover, TheLastAnswerIsABoundOnlyWhileItIsFresh) {
    const Record record = record_with({configuration({}, 0)});
    const PolicySettings settings = allowing(1);
    const auto end = [&](Observation seen) {
        return last_known_end(record, {{at(1), seen}}, settings, start);
    };
    ASSERT_TRUE(end(dead_master(Lsn{1000}, 200)).ok());
    EXPECT_EQ(*end(dead_master(Lsn{1000}, 200)), Lsn{1000});
    EXPECT_FALSE(end(dead_master(Lsn{1000}, 60'000)).ok()) << "this monitor stood still meanwhile";
    EXPECT_FALSE(end(dead_master(Lsn{}, 200)).ok());
    Observation other = dead_master(Lsn{1000}, 200);
    other.facts->timeline = TimelineId{6};
    EXPECT_FALSE(end(other).ok()) << "a former master";
    other = dead_master(Lsn{1000}, 200);
    other.facts->system_identifier = 43;
    EXPECT_FALSE(end(other).ok());
    other = dead_master(Lsn{1000}, 200);
    other.facts.reset();
    EXPECT_FALSE(end(other).ok());
    EXPECT_FALSE(last_known_end(record, {}, settings, start).ok());
}

TEST(AsynchronousFailover, TheFurthestWithinTheBound) {
    const Record record = record_with({configuration({}, 0)});
    const std::vector<FencedPosition> fenced{
        {at(2), 3, Lsn{900}}, {at(3), 3, Lsn{950}}, {at(4), 2, Lsn{999}}};
    const auto near = choose_asynchronous(record, fenced, Lsn{1000}, allowing(50));
    ASSERT_TRUE(near.ok());
    EXPECT_EQ(near->chosen.address, at(3)) << "not the one of an older line";
    EXPECT_EQ(near->missing_bytes, 50U);
    EXPECT_FALSE(choose_asynchronous(record, fenced, Lsn{1000}, allowing(49)).ok());
    const auto ahead = choose_asynchronous(record, fenced, Lsn{940}, allowing(1));
    ASSERT_TRUE(ahead.ok()) << "received after the last probe";
    EXPECT_EQ(ahead->missing_bytes, 0U);
    EXPECT_FALSE(choose_asynchronous(record, {}, Lsn{1000}, allowing(UINT64_MAX)).ok());
    EXPECT_FALSE(choose_asynchronous(record, {{at(2), 3, Lsn{}}}, Lsn{1000}, allowing(UINT64_MAX)).ok())
        << "a position that isn't known";
}

TEST(AsynchronousFailover, NobodyCountedSoNothingIsDegraded) {
    const Record record = record_with({configuration({}, 0)});
    const Topology topology(
        {{group, at(1), NodeId{0}, Replication::None, Epoch{3}}, slave_node(2, Replication::Asynchronous)});
    PolicySettings strict = allowing(1);
    strict.sync_degrade = false;
    const std::vector<FencedPosition> fenced{{at(2), 3, Lsn{900}}};
    EXPECT_TRUE(configuration_after(record, at(2), fenced, topology, strict).ok());
    EXPECT_FALSE(
        configuration_after(record_with({configuration({2}, 1)}), at(2), fenced, topology, strict).ok());
}

TEST(AsynchronousFailover, SlavesThatStillReceiveNewWalBlockHereToo) {
    const Record record = record_with({configuration({}, 0)});
    const auto verdict = [&](bool answers, bool new_wal) {
        std::map<HostPort, Observation> seen{{at(1), dead_master(Lsn{1000}, 200)}};
        Observation slave;
        slave.facts.emplace();
        slave.facts->in_recovery = true;
        slave.facts->receiver_status = new_wal ? "streaming" : "";
        slave.previous_answer_at = start + Millis(10);
        slave.answered_at = answers ? start + Millis(20) : start - Millis(10);
        slave.receives_new_wal = new_wal;
        seen[at(2)] = slave;
        return judge_master(record, seen, allowing(1), start + Millis(30), {at(2)});
    };
    EXPECT_EQ(verdict(true, true).verdict, Verdict::Wait);
    EXPECT_NE(verdict(true, true).reason.find("still receive new WAL"), std::string::npos);
    EXPECT_EQ(verdict(false, false).verdict, Verdict::Wait) << "asked before the silence began";
    EXPECT_EQ(verdict(false, false).ask, std::vector<HostPort>{at(2)});
    EXPECT_EQ(verdict(true, false).verdict, Verdict::Dead);
}

}  // namespace
}  // namespace pgxc
