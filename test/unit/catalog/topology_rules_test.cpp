#include "catalog/topology_rules.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/limits.h"

namespace pgxc {
namespace {

constexpr NodeType C = NodeType::Coordinator;
constexpr NodeType D = NodeType::Datanode;
constexpr Replication Sync = Replication::Synchronous;
constexpr Replication Async = Replication::Asynchronous;

NodeKey key(NodeType type, int id) {
    return {type, NodeId{id}};
}

Node master(NodeType type, int id, std::uint16_t port, std::int64_t epoch = 0) {
    return {key(type, id), {"host", port}, NodeId{0}, Replication::None, Epoch{epoch}};
}

Node slave(NodeType type, int id, std::uint16_t port, int of, Replication replication) {
    return {key(type, id), {"host", port}, NodeId{of}, replication, Epoch{0}};
}

/// Two datanode groups: 1 <- 3 (sync) <- 5 (async), 1 <- 4 (async); 2 <- 6 (async). One coordinator.
Topology sample() {
    return Topology({master(C, 1, 5432), master(D, 1, 1001, 7), master(D, 2, 1002),
                     slave(D, 3, 1003, 1, Sync), slave(D, 4, 1004, 1, Async), slave(D, 5, 1005, 3, Async),
                     slave(D, 6, 1006, 2, Async)});
}

template <class T>
void expect_error(const Result<T>& result, SqlState state, const std::string& message) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().sqlstate, state);
    EXPECT_EQ(result.error().message, message);
    EXPECT_NE(result.error().hint, "") << message;
}

/// The change was made, changed something, and left everything in order.
Topology expect_changed(const Result<Topology>& result, const Topology& before = sample()) {
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
    if (!result.ok()) return before;
    EXPECT_NE(*result, before);
    const Status in_order = check_topology(*result);
    EXPECT_TRUE(in_order.ok()) << (in_order.ok() ? "" : in_order.error().message);
    return *result;
}

TEST(TopologyRules, TheSampleIsInOrder) {
    EXPECT_TRUE(check_topology(sample()).ok());
    EXPECT_TRUE(check_topology(Topology{}).ok());
}

TEST(Replication, IsReadInEveryLetterCase) {
    for (const char* text : {"s", "S", "synchronous", "Synchronous", "SYNCHRONOUS"})
        EXPECT_EQ(*parse_replication(text), Sync) << text;
    for (const char* text : {"a", "A", "asynchronous", "aSYNCHRONOUS"})
        EXPECT_EQ(*parse_replication(text), Async) << text;
    for (const char* text : {"", "x", "sync", "synchronous "})
        expect_error(parse_replication(text), sqlstate::invalid_parameter_value,
                     "invalid replication \"" + std::string(text) + "\"");
}

TEST(NodeIdRange, StartsAtOneAndEndsWithTheType) {
    EXPECT_EQ(check_node_id(D, 1)->value(), 1);
    EXPECT_EQ(check_node_id(D, std::numeric_limits<std::int32_t>::max())->value(), 2147483647);
    expect_error(check_node_id(D, 0), sqlstate::invalid_parameter_value, "invalid datanode id 0");
    expect_error(check_node_id(C, -5), sqlstate::invalid_parameter_value, "invalid coordinator id -5");
    expect_error(check_node_id(D, 2147483648LL), sqlstate::invalid_parameter_value,
                 "invalid datanode id 2147483648");
}

TEST(Addresses, OneIsForAllAndSeveralGoByCoordinatorId) {
    const Topology three({master(C, 9, 1), master(C, 2, 2), master(C, 5, 3), slave(C, 6, 4, 5, Async)});
    EXPECT_EQ(address_for_coordinator(three, NodeId{5}, {"h:1"})->to_string(), "h:1");
    const std::vector<std::string> each = {"two:1", "five:1", "nine:1"};
    EXPECT_EQ(address_for_coordinator(three, NodeId{2}, each)->host, "two");
    EXPECT_EQ(address_for_coordinator(three, NodeId{5}, each)->host, "five");
    EXPECT_EQ(address_for_coordinator(three, NodeId{9}, each)->host, "nine");
}

TEST(Addresses, OtherCountsAreRefusedWithBothCounts) {
    const Topology three({master(C, 9, 1), master(C, 2, 2), master(C, 5, 3)});
    expect_error(address_for_coordinator(three, NodeId{5}, {"h:1", "h:2"}), sqlstate::invalid_parameter_value,
                 "WITH CONNECTION names 2 addresses for 3 coordinators");
    expect_error(address_for_coordinator(three, NodeId{5}, {}), sqlstate::invalid_parameter_value,
                 "WITH CONNECTION names 0 addresses for 3 coordinators");
    expect_error(address_for_coordinator(Topology{}, NodeId{1}, {}), sqlstate::invalid_parameter_value,
                 "WITH CONNECTION names 0 addresses for 0 coordinators");
    expect_error(address_for_coordinator(sample(), NodeId{1}, {"h:1", "h:2"}),
                 sqlstate::invalid_parameter_value, "WITH CONNECTION names 2 addresses for 1 coordinator");
}

TEST(Addresses, ThoseOfOtherCoordinatorsAreCheckedToo) {
    const Topology two({master(C, 1, 1), master(C, 2, 2)});
    EXPECT_EQ(address_for_coordinator(two, NodeId{1}, {"h:1", "h"}).error().sqlstate,
              sqlstate::invalid_parameter_value);
    expect_error(
        address_for_coordinator(two, NodeId{3}, {"h:1", "h:2"}), sqlstate::object_not_in_prerequisite_state,
        "this coordinator, coordinator 3, is not a master in pgxc_nodes, so none of the addresses is meant "
        "for it");
}

TEST(PromotionAddress, MayNameJustThePortOrJustTheHost) {
    const HostPort current{"old", 1003};
    EXPECT_EQ(promotion_address(current, "new:5")->to_string(), "new:5");
    EXPECT_EQ(promotion_address(current, ":5")->to_string(), "old:5");
    EXPECT_EQ(promotion_address(current, "new:")->to_string(), "new:1003");
    EXPECT_EQ(promotion_address({"::1", 7}, ":5")->to_string(), "[::1]:5");
    EXPECT_EQ(promotion_address(current, "[::2]:")->to_string(), "[::2]:1003");
    EXPECT_EQ(promotion_address(current, "[::2]:5")->to_string(), "[::2]:5");
    for (const char* text : {"", ":", "new", ":0", ":65536", ":x", "::", "a:b:", "::1:", "[::1:"})
        expect_error(promotion_address(current, text), sqlstate::invalid_parameter_value,
                     "invalid connection \"" + std::string(text) + "\" for a promotion");
}

TEST(RegisterMaster, AddsARowWithEpochZero) {
    const auto after = expect_changed(register_master(sample(), key(D, 8), {"host", 1008}));
    EXPECT_EQ(*after.find(key(D, 8)), master(D, 8, 1008));
    EXPECT_EQ(after.nodes().size(), sample().nodes().size() + 1);
}

TEST(RegisterMaster, RefusesTakenIdsAndAddresses) {
    expect_error(register_master(sample(), key(D, 3), {"host", 9}), sqlstate::duplicate_object,
                 "datanode 3 already exists");
    expect_error(register_master(sample(), key(D, 8), {"host", 1004}), sqlstate::unique_violation,
                 "address host:1004 already belongs to datanode 4");
    expect_error(register_master(sample(), key(D, 8), {"host", 5432}), sqlstate::unique_violation,
                 "address host:5432 already belongs to coordinator 1");
    expect_error(register_master(sample(), key(D, 0), {"host", 9}), sqlstate::invalid_parameter_value,
                 "invalid datanode id 0");
}

TEST(RegisterMaster, TheIdsOfOneTypeSayNothingOfTheOther) {
    expect_changed(register_master(sample(), key(C, 3), {"host", 9}));
}

TEST(RegisterMaster, StopsAtTheLimit) {
    std::vector<Node> nodes;
    for (int i = 1; i <= static_cast<int>(limits::max_nodes); ++i)
        nodes.push_back(master(D, i, static_cast<std::uint16_t>(i)));
    const Topology full(nodes);
    expect_error(register_master(full, key(C, 1), {"host", 5000}), sqlstate::configuration_limit_exceeded,
                 "cannot register more than 1024 nodes");
    expect_error(register_slave(full, {key(D, 5000), {"host", 5000}, NodeId{1}, Async}),
                 sqlstate::configuration_limit_exceeded, "cannot register more than 1024 nodes");
    nodes.pop_back();
    EXPECT_TRUE(register_master(Topology(nodes), key(C, 1), {"host", 5000}).ok());
}

TEST(RegisterSlave, AddsARowBelowAMasterOrASlave) {
    const auto after = expect_changed(register_slave(sample(), {key(D, 8), {"host", 1008}, NodeId{2}, Sync}));
    EXPECT_EQ(*after.find(key(D, 8)), slave(D, 8, 1008, 2, Sync));
    const auto cascading =
        expect_changed(register_slave(sample(), {key(D, 8), {"host", 1008}, NodeId{5}, Async}));
    EXPECT_EQ(cascading.top_master_of(key(D, 8))->key, key(D, 1));
}

TEST(RegisterSlave, NeedsAMasterOfItsType) {
    expect_error(register_slave(sample(), {key(D, 8), {"host", 1008}, NodeId{9}, Async}),
                 sqlstate::undefined_object, "datanode 9, named as the master of datanode 8, does not exist");
    const auto other_type = register_slave(sample(), {key(C, 8), {"host", 1008}, NodeId{2}, Async});
    expect_error(other_type, sqlstate::undefined_object,
                 "coordinator 2, named as the master of coordinator 8, does not exist");
    EXPECT_NE(other_type.error().detail.find("datanode 2"), std::string::npos);
    EXPECT_FALSE(register_slave(sample(), {key(D, 8), {"host", 1008}, NodeId{8}, Async}).ok());
    EXPECT_FALSE(register_slave(sample(), {key(D, 8), {"host", 1008}, NodeId{0}, Async}).ok());
}

TEST(RegisterSlave, RefusesTakenIdsAndAddresses) {
    expect_error(register_slave(sample(), {key(D, 1), {"host", 9}, NodeId{2}, Async}),
                 sqlstate::duplicate_object, "datanode 1 already exists");
    expect_error(register_slave(sample(), {key(D, 8), {"host", 1001}, NodeId{1}, Async}),
                 sqlstate::unique_violation, "address host:1001 already belongs to datanode 1");
    expect_error(register_slave(sample(), {key(D, -1), {"host", 9}, NodeId{1}, Async}),
                 sqlstate::invalid_parameter_value, "invalid datanode id -1");
    EXPECT_FALSE(register_slave(sample(), {key(D, 8), {"host", 9}, NodeId{1}, Replication::None}).ok());
}

TEST(RegisterSlave, ACascadingSlaveIsNeverSynchronous) {
    expect_error(register_slave(sample(), {key(D, 8), {"host", 9}, NodeId{3}, Sync}),
                 sqlstate::feature_not_supported, "cascading slave datanode 8 cannot be synchronous");
}

TEST(SynchronousSlaves, HaveALimit) {
    std::vector<Node> nodes = {master(D, 1, 1), slave(D, 99, 99, 1, Async)};
    for (int i = 0; i < static_cast<int>(limits::max_sync_slaves); ++i)
        nodes.push_back(slave(D, 100 + i, static_cast<std::uint16_t>(100 + i), 1, Sync));
    const Topology full(nodes);
    expect_error(register_slave(full, {key(D, 8), {"host", 9}, NodeId{1}, Sync}),
                 sqlstate::configuration_limit_exceeded,
                 "datanode 1 cannot have more than 32 synchronous slaves");
    expect_error(set_replication(full, key(D, 99), Sync), sqlstate::configuration_limit_exceeded,
                 "datanode 1 cannot have more than 32 synchronous slaves");
    EXPECT_TRUE(set_replication(full, key(D, 100), Sync).ok()) << "it is one of them already";
    EXPECT_TRUE(check_topology(full).ok());
}

TEST(Drop, TakesAwayTheRow) {
    EXPECT_EQ(expect_changed(drop_slave(sample(), key(D, 4))).find(key(D, 4)), nullptr);
    const auto lonely = expect_changed(drop_slave(sample(), key(D, 6)));
    EXPECT_EQ(expect_changed(drop_master(lonely, key(D, 2))).find(key(D, 2)), nullptr);
}

TEST(Drop, RefusesANodeWithSlavesAndNamesThem) {
    const auto with_slaves = drop_master(sample(), key(D, 1));
    expect_error(with_slaves, sqlstate::dependent_objects_still_exist,
                 "cannot drop datanode 1 because other nodes are its slaves");
    EXPECT_EQ(with_slaves.error().detail, "Slaves of datanode 1: datanode 3, datanode 4.");
    expect_error(drop_slave(sample(), key(D, 3)), sqlstate::dependent_objects_still_exist,
                 "cannot drop datanode 3 because other nodes are its slaves");
}

TEST(Drop, NeedsTheRightWord) {
    const auto wrong = drop_slave(sample(), key(D, 1));
    expect_error(wrong, sqlstate::object_not_in_prerequisite_state, "datanode 1 is a master, not a slave");
    EXPECT_EQ(wrong.error().hint, "Use DROP DATANODE MASTER.");
    expect_error(drop_master(sample(), key(D, 3)), sqlstate::object_not_in_prerequisite_state,
                 "datanode 3 is a slave, not a master");
    expect_error(drop_slave(sample(), key(D, 9)), sqlstate::undefined_object, "datanode 9 does not exist");
    expect_error(drop_master(sample(), key(C, 2)), sqlstate::undefined_object,
                 "coordinator 2 does not exist");
    EXPECT_EQ(drop_master(sample(), key(C, 2)).error().detail,
              "There is a datanode 2, which is another node.");
}

TEST(SetReplication, ChangesJustThat) {
    const auto after = expect_changed(set_replication(sample(), key(D, 4), Sync));
    EXPECT_EQ(*after.find(key(D, 4)), slave(D, 4, 1004, 1, Sync));
    EXPECT_EQ(*set_replication(sample(), key(D, 3), Sync), sample()) << "it is already so";
    expect_error(set_replication(sample(), key(D, 5), Sync), sqlstate::feature_not_supported,
                 "cascading slave datanode 5 cannot be synchronous");
    expect_error(set_replication(sample(), key(D, 1), Sync), sqlstate::object_not_in_prerequisite_state,
                 "datanode 1 is a master, not a slave");
    EXPECT_FALSE(set_replication(sample(), key(D, 3), Replication::None).ok());
}

TEST(SetId, TakesTheChildrenAlong) {
    const auto after = expect_changed(set_id(sample(), key(D, 3), NodeId{30}));
    EXPECT_EQ(after.find(key(D, 3)), nullptr);
    EXPECT_EQ(*after.find(key(D, 30)), slave(D, 30, 1003, 1, Sync));
    EXPECT_EQ(after.find(key(D, 5))->master_id, NodeId{30});
    EXPECT_EQ(*set_id(sample(), key(D, 3), NodeId{3}), sample());
}

TEST(SetId, LeavesNodesOfTheOtherTypeAlone) {
    std::vector<Node> nodes = sample().nodes();
    nodes.push_back(slave(C, 3, 1, 1, Async));
    nodes.push_back(slave(C, 4, 2, 3, Async));
    const Topology before(nodes);
    const auto after = expect_changed(set_id(before, key(D, 3), NodeId{30}), before);
    EXPECT_EQ(after.find(key(C, 4))->master_id, NodeId{3});
}

TEST(SetId, RefusesTakenAndImpossibleIds) {
    expect_error(set_id(sample(), key(D, 3), NodeId{1}), sqlstate::duplicate_object,
                 "datanode 1 already exists");
    expect_error(set_id(sample(), key(D, 3), NodeId{0}), sqlstate::invalid_parameter_value,
                 "invalid datanode id 0");
    expect_error(set_id(sample(), key(D, 1), NodeId{9}), sqlstate::object_not_in_prerequisite_state,
                 "datanode 1 is a master, not a slave");
    expect_error(set_id(sample(), key(D, 9), NodeId{10}), sqlstate::undefined_object,
                 "datanode 9 does not exist");
}

TEST(SetMaster, ReParents) {
    EXPECT_EQ(expect_changed(set_master(sample(), key(D, 5), NodeId{1})).find(key(D, 5))->master_id,
              NodeId{1});
    EXPECT_EQ(expect_changed(set_master(sample(), key(D, 4), NodeId{5})).find(key(D, 4))->master_id,
              NodeId{5});
}

TEST(SetMaster, RefusesCircles) {
    expect_error(set_master(sample(), key(D, 3), NodeId{5}), sqlstate::invalid_parameter_value,
                 "datanode 3 cannot be a slave of datanode 5, which streams from it");
    expect_error(set_master(sample(), key(D, 4), NodeId{4}), sqlstate::invalid_parameter_value,
                 "datanode 4 cannot be a slave of datanode 4, which streams from it");
}

TEST(SetMaster, KeepsSynchronousSlavesAtTheMaster) {
    expect_error(set_master(sample(), key(D, 3), NodeId{4}), sqlstate::feature_not_supported,
                 "cascading slave datanode 3 cannot be synchronous");
    expect_error(set_master(sample(), key(D, 4), NodeId{9}), sqlstate::undefined_object,
                 "datanode 9, named as the master of datanode 4, does not exist");
}

TEST(Promote, GivesTheSlaveTheMastersIdAndTheNextEpoch) {
    const auto after = expect_changed(promote(sample(), key(D, 3)));
    EXPECT_EQ(after, Topology({master(C, 1, 5432), master(D, 1, 1003, 8), master(D, 2, 1002),
                               slave(D, 4, 1004, 1, Async), slave(D, 5, 1005, 1, Async),
                               slave(D, 6, 1006, 2, Async)}));
}

TEST(Promote, ACascadingSlaveTakesThePlaceOfTheTopMaster) {
    const auto after = expect_changed(promote(sample(), key(D, 5)));
    EXPECT_EQ(*after.find(key(D, 1)), master(D, 1, 1005, 8));
    EXPECT_EQ(after.find(key(D, 5)), nullptr);
    EXPECT_EQ(after.find(key(D, 3))->master_id, NodeId{1});
}

TEST(Promote, MayTakeTheFormerMastersAddressButNoOther) {
    const auto after = expect_changed(promote(sample(), key(D, 3), HostPort{"host", 1001}));
    EXPECT_EQ(*after.find(key(D, 1)), master(D, 1, 1001, 8));
    EXPECT_EQ(
        expect_changed(promote(sample(), key(D, 3), HostPort{"host", 77})).find(key(D, 1))->address.port, 77);
    expect_error(promote(sample(), key(D, 3), HostPort{"host", 1004}), sqlstate::unique_violation,
                 "address host:1004 already belongs to datanode 4");
    expect_error(promote(sample(), key(D, 1)), sqlstate::object_not_in_prerequisite_state,
                 "datanode 1 is a master, not a slave");
}

TEST(Promote, WantsASynchronousSlaveUnlessForced) {
    EXPECT_TRUE(may_promote(sample(), key(D, 3), false).ok());
    EXPECT_TRUE(may_promote(sample(), key(D, 4), true).ok());
    expect_error(may_promote(sample(), key(D, 4), false), sqlstate::object_not_in_prerequisite_state,
                 "asynchronous slave datanode 4 may lack commits that its master has acknowledged");
    expect_error(may_promote(sample(), key(D, 1), true), sqlstate::object_not_in_prerequisite_state,
                 "datanode 1 is a master, not a slave");
    expect_error(may_promote(sample(), key(D, 9), true), sqlstate::undefined_object,
                 "datanode 9 does not exist");
}

TEST(CheckTopology, FindsEveryViolation) {
    const auto refused = [](std::vector<Node> nodes, const std::string& message) {
        expect_error(check_topology(Topology(std::move(nodes))), sqlstate::check_violation, message);
    };
    refused({master(D, 1, 1), master(D, 1, 2)}, "datanode 1 is there twice");
    refused({master(D, 0, 1)}, "datanode 0 has no valid id");
    refused({master(D, 1, 1, -1)}, "datanode 1 has a negative epoch");
    refused({master(D, 1, 1), master(C, 1, 1)}, "coordinator 1 and datanode 1 share the address host:1");
    refused({slave(D, 2, 2, 1, Async)}, "the master of datanode 2, datanode 1, is missing");
    refused({slave(D, 2, 2, 3, Async), slave(D, 3, 3, 2, Async)},
            "datanode 2 leads to no master: the slaves above it form a circle");
    refused({master(D, 1, 1), slave(D, 2, 2, 1, Replication::None)},
            "datanode 2 is a slave without a replication");
    refused({master(D, 1, 1), slave(D, 2, 2, 1, Async), slave(D, 3, 3, 2, Sync)},
            "cascading slave datanode 3 cannot be synchronous");
    Node two_words = master(D, 1, 1);
    two_words.replication = Async;
    refused({two_words}, "datanode 1 is a master with a replication");
    Node nowhere = master(D, 1, 1);
    nowhere.address.host = "";
    EXPECT_FALSE(check_topology(Topology({nowhere})).ok());
}

}  // namespace
}  // namespace pgxc
