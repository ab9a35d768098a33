#include <gtest/gtest.h>

#include <set>

#include "unit/replication/policy_fixture.h"

namespace pgxc::test {
namespace {

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

// --- enough_to_go_on
// ----------------------------------------------------------------------------------------------

std::vector<FencedPosition> positions(const std::vector<int>& nodes) {
    std::vector<FencedPosition> made;
    for (const int n : nodes) made.push_back({at(n), 0, Lsn{9}});
    return made;
}

TEST(EnoughToGoOn, TheLateOnesAreLeftWhereTheOthersAreEnough) {
    const Record record = record_with({configuration({2, 3, 4}, 2)});
    const Topology topology = topology_of({slave_node(2), slave_node(3), slave_node(4)});
    const auto enough = [&](const std::vector<int>& fenced, std::optional<HostPort> chosen = {}) {
        return enough_to_go_on(record, positions(fenced), chosen, topology, {});
    };
    EXPECT_EQ(enough({}), Enough::No);
    EXPECT_EQ(enough({2}), Enough::No) << "the other two could go on acknowledging";
    EXPECT_EQ(enough({2, 3}), Enough::Yes);
    EXPECT_EQ(enough({2, 3, 4}), Enough::Yes);
    EXPECT_EQ(enough({2, 3}, at(4)), Enough::No) << "the one that was asked for is needed";
    EXPECT_EQ(enough({2, 4}, at(4)), Enough::Yes);
}

TEST(EnoughToGoOn, WithKOfOneEverybodyIsNeeded) {
    const Record record = record_with({configuration({2, 3}, 1)});
    const Topology topology = topology_of({slave_node(2), slave_node(3)});
    EXPECT_EQ(enough_to_go_on(record, positions({2}), {}, topology, {}), Enough::No);
    EXPECT_EQ(enough_to_go_on(record, positions({2, 3}), {}, topology, {}), Enough::Yes);
}

TEST(EnoughToGoOn, NobodyLeftIsToldAndNeedsLeaveToDegrade) {
    const Record record = record_with({configuration({2, 3}, 2)});
    const Topology topology = topology_of({slave_node(2), slave_node(3)});
    EXPECT_EQ(enough_to_go_on(record, positions({2}), {}, topology, {}), Enough::ButNobodyLeft);
    PolicySettings strict;
    strict.sync_degrade = false;
    EXPECT_EQ(enough_to_go_on(record, positions({2}), {}, topology, strict), Enough::No);
}

TEST(EnoughToGoOn, EveryListedConfigurationCounts) {
    const Record record = record_with({configuration({2, 3}, 1), configuration({2, 3, 4}, 2)});
    const Topology topology = topology_of({slave_node(2), slave_node(3), slave_node(4)});
    EXPECT_EQ(enough_to_go_on(record, positions({2, 4}), {}, topology, {}), Enough::No);
    EXPECT_EQ(enough_to_go_on(record, positions({2, 3}), {}, topology, {}), Enough::Yes);
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

}  // namespace
}  // namespace pgxc::test
