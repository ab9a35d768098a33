#include "pooler/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace pgxc::pooler {
namespace {

constexpr NodeKey datanode(int id) {
    return {NodeType::Datanode, NodeId{id}};
}
constexpr NodeKey coordinator(int id) {
    return {NodeType::Coordinator, NodeId{id}};
}

NodeView master(NodeKey key, Gate gate = Gate::Open, int epoch = 1) {
    NodeView view;
    view.node.key = key;
    view.node.epoch = Epoch{epoch};
    view.state = NodeState::Up;
    view.role_seen = RoleSeen::Master;
    view.gate = gate;
    view.position = Lsn{1000};
    return view;
}

NodeView slave(NodeKey key, int of, std::uint64_t position = 1000) {
    NodeView view;
    view.node.key = key;
    view.node.master_id = NodeId{of};
    view.node.replication = Replication::Synchronous;
    view.state = NodeState::Up;
    view.role_seen = RoleSeen::Slave;
    view.may_read = true;
    view.position = Lsn{position};
    view.lag_bytes = 0;
    return view;
}

ClusterView cluster(std::vector<NodeView> nodes) {
    std::sort(nodes.begin(), nodes.end(),
              [](const auto& a, const auto& b) { return a.node.key < b.node.key; });
    return {Generation{1}, std::move(nodes)};
}

class RouterTest : public ::testing::Test {
  protected:
    RouterTest() {
        view = cluster({master(coordinator(1), Gate::Held), master(datanode(1)), slave(datanode(3), 1),
                        slave(datanode(4), 1), master(datanode(2)), slave(datanode(5), 2)});
        facts.view = &view;
        facts.group = datanode(1);
        facts.own_coordinator = NodeId{1};
        facts.max_read_lag_bytes = 100;
        facts.first_statement = "begin read only";
    }
    NodeView& node(NodeKey key) {
        return *std::find_if(view.nodes.begin(), view.nodes.end(),
                             [key](auto& n) { return n.node.key == key; });
    }
    ClusterView view;
    RouteFacts facts;
};

TEST_F(RouterTest, DeclaredReadsGoToASlaveOfTheGroup) {
    const auto decision = decide_route(facts);
    EXPECT_EQ(decision.target, datanode(3));
    EXPECT_TRUE(decision.to_slave);
    EXPECT_FALSE(decision.hold);
    EXPECT_TRUE(could_go_to_slave(facts));
    EXPECT_FALSE(decision.reason.empty());
    facts.group = datanode(2);
    EXPECT_EQ(decide_route(facts).target, datanode(5));
}

TEST_F(RouterTest, AllElseGoesToTheMaster) {
    for (const char* sql :
         {"select 1", "begin", "begin read write", "begin; select 1", "insert into t values (1)",
          "begin read only; select 1", "set transaction read only", ""}) {
        facts.first_statement = sql;
        const auto decision = decide_route(facts);
        EXPECT_EQ(decision.target, datanode(1)) << sql;
        EXPECT_FALSE(decision.to_slave) << sql;
    }
    facts.first_statement = std::nullopt;
    facts.default_read_only = true;
    EXPECT_EQ(decide_route(facts).target, datanode(1));
}

TEST_F(RouterTest, RoutingMasterKeepsReadsThere) {
    facts.routing = ReadRouting::Master;
    EXPECT_EQ(decide_route(facts).target, datanode(1));
    facts.routing = ReadRouting::Auto;
    EXPECT_EQ(decide_route(facts).target, datanode(3));
}

TEST_F(RouterTest, OfEqualsEachOneHasItsTurn) {
    std::map<NodeKey, int> chosen;
    for (facts.turn = 0; facts.turn < 10; ++facts.turn) ++chosen[decide_route(facts).target];
    EXPECT_EQ(chosen[datanode(3)], 5);
    EXPECT_EQ(chosen[datanode(4)], 5);
}

TEST_F(RouterTest, ASlaveThatCannotBeReachedIsLeftOut) {
    std::vector<NodeLoad> load = {{datanode(3), 0, {}, true}};
    facts.load = load;
    for (facts.turn = 0; facts.turn < 4; ++facts.turn) EXPECT_EQ(decide_route(facts).target, datanode(4));
    load.push_back({datanode(4), 0, {}, true});
    facts.load = load;
    EXPECT_EQ(decide_route(facts).target, datanode(1));
}

TEST_F(RouterTest, AutoGoesByWhatTheStatementIs) {
    facts.routing = ReadRouting::Auto;
    facts.first_statement = "some text";
    struct Case {
        StatementClass kind;
        bool alone;     // goes to a slave outside of a block
        bool in_block;  // and as the first statement of one
    };
    for (const Case& given :
         {Case{StatementClass::Read, true, true}, Case{StatementClass::ReadWithTime, true, false},
          Case{StatementClass::Begin, false, false}, Case{StatementClass::End, false, false},
          Case{StatementClass::MasterOnly, false, false}, Case{StatementClass::Write, false, false},
          Case{StatementClass::Unknown, false, false}}) {
        facts.statement = Classification{given.kind, "because"};
        facts.in_block = false;
        EXPECT_EQ(decide_route(facts).to_slave, given.alone) << to_word(given.kind);
        EXPECT_EQ(could_go_to_slave(facts), given.alone) << to_word(given.kind);
        EXPECT_EQ(decide_route(facts).reason, "because");
        facts.in_block = true;
        EXPECT_EQ(decide_route(facts).to_slave, given.in_block) << to_word(given.kind);
    }
    facts.in_block = false;
    facts.statement = Classification{StatementClass::Read, "because"};
    facts.default_serializable = true;
    EXPECT_FALSE(decide_route(facts).to_slave);
    facts.default_serializable = false;
    facts.routing = ReadRouting::Explicit;
    EXPECT_FALSE(decide_route(facts).to_slave);
    facts.routing = ReadRouting::Auto;
    facts.statement.reset();
    EXPECT_FALSE(decide_route(facts).to_slave);
}

TEST_F(RouterTest, HoldsWhileItIsPaused) {
    node(datanode(1)).paused = true;
    node(datanode(1)).why = "paused by somebody";
    EXPECT_TRUE(decide_route(facts).hold);
    EXPECT_EQ(decide_route(facts).reason, "paused by somebody");
}

TEST_F(RouterTest, BalancesByOutstandingWork) {
    std::vector<NodeLoad> load = {{datanode(3), 2, Lsn{}, false}, {datanode(4), 1, Lsn{}, false}};
    facts.load = load;
    EXPECT_EQ(decide_route(facts).target, datanode(4));
    load[1].outstanding = 2;
    EXPECT_EQ(decide_route(facts).target, datanode(3));
    load.erase(load.begin());  // a node without a row has nothing outstanding
    facts.load = load;
    EXPECT_EQ(decide_route(facts).target, datanode(3));
}

TEST_F(RouterTest, ASlaveMustQualify) {
    using Spoil = void (*)(NodeView&);
    const std::vector<Spoil> spoils = {
        [](NodeView& n) { n.may_read = false; },
        [](NodeView& n) { n.lag_bytes = 101; },
        [](NodeView& n) { n.lag_bytes = std::nullopt; },
        [](NodeView& n) { n.state = NodeState::Unknown; },
        [](NodeView& n) { n.state = NodeState::Wrong; },
        [](NodeView& n) { n.state = NodeState::Starting; },
        [](NodeView& n) { n.state = NodeState::Suspect; },
        [](NodeView& n) { n.state = NodeState::Down; },
        [](NodeView& n) { n.state = NodeState::Promoting; },
        [](NodeView& n) { n.role_seen = RoleSeen::Master; },
        [](NodeView& n) { n.node.master_id = NodeId{2}; },
        [](NodeView& n) { n.node.master_id = NodeId{99}; },
        [](NodeView& n) { n.node.master_id = n.node.key.id; },
    };
    for (std::size_t i = 0; i < spoils.size(); ++i) {
        const NodeView good3 = node(datanode(3));
        const NodeView good4 = node(datanode(4));
        spoils[i](node(datanode(3)));
        EXPECT_EQ(decide_route(facts).target, datanode(4)) << i;
        spoils[i](node(datanode(4)));
        EXPECT_EQ(decide_route(facts).target, datanode(1)) << i;
        EXPECT_FALSE(decide_route(facts).to_slave) << i;
        node(datanode(3)) = good3;
        node(datanode(4)) = good4;
    }
    node(datanode(3)).lag_bytes = 100;
    EXPECT_EQ(decide_route(facts).target, datanode(3));
}

TEST_F(RouterTest, CascadingSlavesServeTheirTopMaster) {
    node(datanode(3)).may_read = false;
    node(datanode(4)).node.master_id = NodeId{3};
    EXPECT_EQ(decide_route(facts).target, datanode(4));
}

TEST_F(RouterTest, KeepsTheCausalBound) {
    facts.bound = {CausalBound::State::Known, {Lsn{1000}, 70}, Epoch{1}};
    // What the monitor was told is no proof: the server may have crashed since.
    EXPECT_EQ(decide_route(facts).target, datanode(1));
    EXPECT_EQ(decide_route(facts).reason, "no slave shows every commit before it");
    std::vector<NodeLoad> load = {{datanode(3), 0, {Lsn{1000}, 70}, false},
                                  {datanode(4), 0, {Lsn{999}, 70}, false}};
    facts.load = load;
    EXPECT_EQ(decide_route(facts).target, datanode(3));
    EXPECT_TRUE(may_read_at(facts, datanode(3)));
    EXPECT_FALSE(may_read_at(facts, datanode(4)));
    load[0].progress.position = Lsn{999};
    load[1].progress.position = Lsn{};
    EXPECT_EQ(decide_route(facts).target, datanode(1));
    load[1].progress = {Lsn{1001}, 69};
    EXPECT_EQ(decide_route(facts).target, datanode(1)) << "replayed, but not shown";
    load[1].progress.xmax = 70;
    EXPECT_EQ(decide_route(facts).target, datanode(4));
    facts.bound.epoch = Epoch{0};
    EXPECT_EQ(decide_route(facts).target, datanode(1));
    facts.bound = {CausalBound::State::Unknown, {}, {}};
    EXPECT_EQ(decide_route(facts).target, datanode(1));
}

TEST_F(RouterTest, HoldsWhileTheGateIsHeld) {
    node(datanode(1)).gate = Gate::Held;
    for (const char* sql : {"begin", "begin read only"}) {
        facts.first_statement = sql;
        const auto decision = decide_route(facts);
        EXPECT_TRUE(decision.hold);
        EXPECT_EQ(decision.target, datanode(1));
        EXPECT_FALSE(decision.reason.empty());
    }
    node(datanode(1)).why = "failover to datanode 3";
    EXPECT_EQ(decide_route(facts).reason, "failover to datanode 3");
    node(datanode(1)).gate = Gate::Open;
    EXPECT_FALSE(decide_route(facts).hold);
    facts.group = datanode(77);
    EXPECT_TRUE(decide_route(facts).hold);
    facts.group = datanode(3);
    EXPECT_TRUE(decide_route(facts).hold);
}

TEST_F(RouterTest, OwnCoordinatorHasNoGate) {
    facts.group = coordinator(1);
    const auto decision = decide_route(facts);
    EXPECT_FALSE(decision.hold);
    EXPECT_EQ(decision.target, coordinator(1));
    view.nodes.clear();
    EXPECT_FALSE(decide_route(facts).hold);
    EXPECT_EQ(decide_route(facts).target, coordinator(1));
}

TEST_F(RouterTest, OwnStatementsGoToThisCoordinator) {
    node(datanode(1)).gate = Gate::Held;
    facts.first_statement = "alter datanode slave 3 promote to master";
    const auto decision = decide_route(facts);
    EXPECT_EQ(decision.target, coordinator(1));
    EXPECT_FALSE(decision.hold);
}

TEST(OwnStatements, AreKnownByTheirFirstWords) {
    for (const char* own :
         {"REGISTER DATANODE SLAVE IDENTIFIED BY ID 3", "register coordinator master",
          "unregister datanode slave 3", "create datanode slave", "ALTER\tCOORDINATOR SLAVE 1",
          "drop /* x */ datanode master 2", "-- hi\nDROP DATANODE", "call pgxc.promote('D', 1)",
          "CALL \"pgxc\" . promote()", "; register datanode slave", "register datanode"})
        EXPECT_TRUE(is_own_statement(own)) << own;
    for (const char* other :
         {"", "register", "create table datanode (a int)", "create datanodes",
          "alter table datanode add x int", "drop table coordinator", "call pgxcx.f()", "call pgxc",
          "call \"PGXC\".f()", "call public.pgxc()", "select 1; register datanode slave",
          "'register' datanode", "insert into datanode values (1)"})
        EXPECT_FALSE(is_own_statement(other)) << other;
}

TEST(DeclaredReadOnly, TakesTheDefaultsIntoAccount) {
    struct Case {
        const char* sql;
        bool plain;       // without defaults
        bool by_default;  // default_transaction_read_only
    };
    for (const auto& [sql, plain, by_default] : {
             Case{"begin read only", true, true},
             Case{"start transaction read only;", true, true},
             Case{"begin isolation level repeatable read read only", true, true},
             Case{"begin isolation level serializable read only", false, false},
             Case{"begin", false, true},
             Case{"start transaction isolation level read committed", false, true},
             Case{"begin read write", false, false},
             Case{"select 1", false, true},
             Case{"  (select 1)", false, true},
             Case{"with x as (select 1) select * from x;", false, true},
             Case{"values (1)", false, true},
             Case{"table t", false, true},
             Case{"show server_version", false, true},
             Case{"select 1; select 2", false, false},
             Case{"insert into t values (1)", false, false},
             Case{"listen x", false, false},
             Case{"set default_transaction_read_only = off", false, false},
             Case{"set transaction read write", false, false},
             Case{"commit", false, false},
             Case{"prepare transaction 'x'", false, false},
             Case{"", false, false},
             Case{"/* open", false, false},
         }) {
        EXPECT_EQ(is_declared_read_only(sql, false, false), plain) << sql;
        EXPECT_EQ(is_declared_read_only(sql, true, false), by_default) << sql;
    }
    EXPECT_FALSE(is_declared_read_only("begin read only", false, true));
    EXPECT_FALSE(is_declared_read_only("select 1", true, true));
    EXPECT_TRUE(is_declared_read_only("begin isolation level read committed read only", false, true));
}

TEST(ChooseGroup, TakesTheClientsChoice) {
    const auto two =
        cluster({master(coordinator(1)), master(datanode(1)), master(datanode(2)), slave(datanode(3), 1)});
    EXPECT_EQ(*choose_group("2", two, NodeId{1}), datanode(2));
    EXPECT_EQ(*choose_group("C", two, NodeId{1}), coordinator(1));
    EXPECT_EQ(*choose_group("c", two, NodeId{4}), coordinator(4));
    EXPECT_EQ(*choose_group(std::nullopt, two, NodeId{1}), coordinator(1));
    EXPECT_EQ(*choose_group("", two, NodeId{1}), coordinator(1));

    const auto one = cluster({master(coordinator(1)), master(datanode(7)), slave(datanode(8), 7)});
    EXPECT_EQ(*choose_group(std::nullopt, one, NodeId{1}), datanode(7));
    EXPECT_EQ(*choose_group(std::nullopt, cluster({}), NodeId{1}), coordinator(1));

    const auto unknown = choose_group("9", two, NodeId{1});
    ASSERT_FALSE(unknown.ok());
    EXPECT_EQ(unknown.error().sqlstate, sqlstate::connection_exception);
    EXPECT_EQ(unknown.error().hint, "Datanode groups are: 1, 2; pgxc.node = 'C' is this coordinator.");
    EXPECT_EQ(choose_group("3", two, NodeId{1}).error().sqlstate, sqlstate::connection_exception);
    EXPECT_NE(choose_group("3", two, NodeId{1}).error().hint, "");
    for (const char* bad : {"0", "-1", "x", "1x", " 1", "99999999999", "D1"}) {
        const auto refused = choose_group(bad, two, NodeId{1});
        ASSERT_FALSE(refused.ok()) << bad;
        EXPECT_EQ(refused.error().sqlstate, sqlstate::invalid_parameter_value) << bad;
        EXPECT_NE(refused.error().hint, "") << bad;
    }
}

TEST(ReadRouting, IsReadInAnyCase) {
    EXPECT_EQ(*parse_read_routing("Master"), ReadRouting::Master);
    EXPECT_EQ(*parse_read_routing("primary"), ReadRouting::Master);
    EXPECT_EQ(*parse_read_routing("explicit"), ReadRouting::Explicit);
    EXPECT_EQ(*parse_read_routing("AUTO"), ReadRouting::Auto);
    for (const char* bad : {"", "mast", "off"})
        EXPECT_EQ(parse_read_routing(bad).error().sqlstate, sqlstate::invalid_parameter_value);
}

}  // namespace
}  // namespace pgxc::pooler
