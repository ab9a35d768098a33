// The small pure parts of the pooler: settings, what statements leave behind, targets, cancel keys, failed
// blocks.
#include <gtest/gtest.h>

#include "fakes/fake_environment.h"
#include "pooler/cancel_map.h"
#include "pooler/failed_block.h"
#include "pooler/quiet_level.h"
#include "pooler/session_use.h"
#include "pooler/setting_set.h"
#include "pooler/topology_switch.h"

namespace pgxc::pooler {
namespace {

TEST(SettingSet, ChangesOnlyWhatDiffers) {
    SettingSet from;
    from.set("timezone", "UTC");
    from.set("work_mem", "1MB");
    SettingSet to;
    to.set("timezone", "UTC");
    to.set("search_path", "a, b");
    EXPECT_EQ(change_settings_sql(from, to),
              "RESET \"work_mem\";SELECT pg_catalog.set_config('search_path','a, b',false)");
    EXPECT_EQ(change_settings_sql(to, to), "");
}

TEST(SettingSet, QuotesWhatAClientMayPutIntoItsOptions) {
    SettingSet from;
    from.set("a\"b.c", "x");
    SettingSet to;
    to.set("n'; drop table t; --", "v\\'");
    EXPECT_EQ(
        change_settings_sql(from, to),
        "RESET \"a\"\"b\".\"c\";SELECT pg_catalog.set_config('n''; drop table t; --',E'v\\\\''',false)");
}

TEST(SettingSet, IsOrderedSoThatEqualSetsAreEqual) {
    SettingSet a;
    a.set("x", "1");
    a.set("b", "2");
    SettingSet b;
    b.set("b", "0");
    b.set("x", "1");
    EXPECT_NE(a, b);
    b.set("b", "2");
    EXPECT_EQ(a, b);
}

std::string_view pinned_by(std::string_view sql, std::string_view tag) {
    const SessionUse use = read_session_use(sql, true);
    const auto sent = pin_reason_when_sent(use);
    return sent.empty() ? pin_reason_when_done(tag, use) : sent;
}

TEST(SessionUse, WhatEndsWithTheTransactionPinsNobody) {
    EXPECT_EQ(pinned_by("select 1", "SELECT 1"), "");
    EXPECT_EQ(pinned_by("SET LOCAL work_mem = '1MB'", "SET"), "");
    EXPECT_EQ(pinned_by("set transaction isolation level serializable", "SET"), "");
    EXPECT_EQ(pinned_by("/* x */ set local a.b to 1;", "SET"), "");
    EXPECT_EQ(pinned_by("update t set a = 1", "UPDATE 1"), "");
    EXPECT_EQ(pinned_by("declare c cursor for select 1", "DECLARE CURSOR"), "");
    EXPECT_EQ(pinned_by("select pg_advisory_xact_lock(1)", "SELECT 1"), "");
    EXPECT_EQ(pinned_by("begin; update t set a = 1; commit", "COMMIT"), "");
}

TEST(SessionUse, FollowedSettingsPinNobody) {
    EXPECT_EQ(pinned_by("SET TimeZone = 'UTC'", "SET"), "");
    EXPECT_EQ(pinned_by("set session datestyle to iso", "SET"), "");
    EXPECT_EQ(pinned_by("set time zone 'UTC'", "SET"), "");
    EXPECT_EQ(pinned_by("set names 'utf8'", "SET"), "");
}

TEST(SessionUse, WhatOutlivesTheTransactionPins) {
    EXPECT_EQ(pinned_by("set work_mem = '1MB'", "SET"), "SET");
    EXPECT_EQ(pinned_by("set session characteristics as transaction read only", "SET"), "SET");
    EXPECT_EQ(pinned_by("set local a.b = 1; set work_mem = '1MB'", "SET"), "SET");
    EXPECT_EQ(pinned_by("reset all", "RESET"), "RESET");
    EXPECT_EQ(pinned_by("listen x", "LISTEN"), "LISTEN");
    EXPECT_EQ(pinned_by("prepare p as select 1", "PREPARE"), "PREPARE");
    EXPECT_EQ(pinned_by("declare c cursor WITH HOLD for select 1", "DECLARE CURSOR"), "WITH HOLD cursor");
    EXPECT_EQ(pinned_by("create TEMP table t (a int)", "CREATE TABLE"), "temporary object");
    EXPECT_EQ(pinned_by("select 1 into temporary x", "SELECT 1"), "temporary object");
    EXPECT_EQ(pinned_by("create view pg_temp.v as select 1", "CREATE VIEW"), "temporary object");
    EXPECT_EQ(pinned_by("select pg_try_advisory_lock(1)", "SELECT 1"), "session advisory lock");
    EXPECT_EQ(pinned_by("select set_config('a.b', 'c', false)", "SELECT 1"), "set_config()");
    EXPECT_EQ(pinned_by("do $$ begin end $$", "DO"), "DO");
    EXPECT_EQ(pinned_by("call p()", "CALL"), "CALL");
    EXPECT_EQ(pinned_by("call p(); call pgxc.x()", "CALL"), "CALL");
    EXPECT_EQ(pinned_by("call pgxc.x()", "CALL"), "");
    EXPECT_EQ(pinned_by("register datanode slave identified by id 3", "CALL"), "");
}

TEST(SessionUse, ATextThatCannotBeSeenWholePins) {
    EXPECT_NE(pin_reason_when_sent(read_session_use("insert into t values ('", false)), "");
}

ClusterView view_of(std::vector<NodeView> nodes) {
    ClusterView view;
    view.nodes = std::move(nodes);
    return view;
}

constexpr NodeKey d1{NodeType::Datanode, NodeId{1}};
constexpr NodeKey d2{NodeType::Datanode, NodeId{2}};
constexpr NodeKey own{NodeType::Coordinator, NodeId{1}};
const HostPort own_server{"127.0.0.1", 5555};

Target target_in(const ClusterView& view, NodeKey key) {
    return find_target(view, key, own, own_server);
}

TEST(TopologySwitch, AGateThatClosesHoldsAndOneThatOpensReleases) {
    const auto open = target_in(view_of({FakeEnvironment::master(1, "h", 1)}), d1);
    const auto held = target_in(view_of({FakeEnvironment::master(1, "h", 1, 1, Gate::Held)}), d1);
    EXPECT_FALSE(open.held);
    EXPECT_TRUE(held.held);
    EXPECT_EQ(compare(open, held), Switch::Hold);
    EXPECT_EQ(compare(held, open), Switch::Release);
    EXPECT_EQ(compare(open, open), Switch::Nothing);
}

TEST(TopologySwitch, ANewAddressOrEpochMovesTheMaster) {
    const auto before = target_in(view_of({FakeEnvironment::master(1, "h", 1, 1)}), d1);
    EXPECT_EQ(compare(before, target_in(view_of({FakeEnvironment::master(1, "h", 2, 1)}), d1)), Switch::Move);
    // A slave that took the master's port over.
    EXPECT_EQ(compare(before, target_in(view_of({FakeEnvironment::master(1, "h", 1, 2)}), d1)), Switch::Move);
    EXPECT_EQ(compare(Target{}, before), Switch::Move);
}

TEST(TopologySwitch, ASlaveStaysThroughItsGroupsFailoverAndRetiresWhenGone) {
    const auto before =
        target_in(view_of({FakeEnvironment::master(1, "h", 1, 1), FakeEnvironment::slave(2, 1, "s", 2)}), d2);
    const auto after =
        target_in(view_of({FakeEnvironment::master(1, "n", 9, 2), FakeEnvironment::slave(2, 1, "s", 2)}), d2);
    EXPECT_EQ(before.epoch, Epoch{1});
    EXPECT_EQ(after.epoch, Epoch{2});
    EXPECT_FALSE(before.held);
    EXPECT_EQ(compare(before, after), Switch::Nothing);
    EXPECT_EQ(compare(before, target_in(view_of({FakeEnvironment::master(1, "s", 2, 2)}), d2)),
              Switch::Retire);
}

TEST(TopologySwitch, ThisCoordinatorIsAlwaysThere) {
    const auto target = target_in(view_of({}), own);
    EXPECT_TRUE(target.exists);
    EXPECT_FALSE(target.held);
    EXPECT_EQ(target.address, own_server);
}

TEST(TopologySwitch, ALoopOfSlavesEnds) {
    const auto target =
        target_in(view_of({FakeEnvironment::slave(1, 2, "a", 1), FakeEnvironment::slave(2, 1, "b", 2)}), d1);
    EXPECT_EQ(target.epoch, Epoch{});
}

TEST(CancelMap, FindsOnlyTheWholeKeyAndNamesItsWorker) {
    CancelMap map{5};
    // The map never looks into a session.
    alignas(8) char memory[8];
    auto& session = reinterpret_cast<Session&>(memory);
    const auto key = map.add(0xffffffffU, 42, session);
    ASSERT_TRUE(key.has_value());
    EXPECT_EQ(CancelMap::worker_of(*key), 5);
    EXPECT_EQ(key->pid >> 31U, 0U);
    EXPECT_EQ(map.find(*key), &session);
    EXPECT_EQ(map.find({key->pid, 43}), nullptr);
    EXPECT_FALSE(map.add(0xffffffffU, 44, session).has_value());
    map.remove(*key);
    EXPECT_EQ(map.find(*key), nullptr);
    EXPECT_FALSE(CancelMap{0}.add(0, 1, session).has_value());
}

std::string take_query(FailedBlock& block, std::string_view sql) {
    wire::Buffer query;
    wire::put_query(query, sql);
    wire::Buffer out;
    block.take(wire::FrontendMessage::Query, wire::Bytes{query}.substr(5), true, out);
    return out;
}

TEST(FailedBlock, RefusesStatementsUntilTheBlockIsEnded) {
    FailedBlock block;
    block.fail_block(std::nullopt);
    EXPECT_NE(take_query(block, "insert into t values (1)").find("25P02"), std::string::npos);
    EXPECT_NE(take_query(block, "rollback to s").find("25P02"), std::string::npos);
    EXPECT_TRUE(block.active());
    EXPECT_NE(take_query(block, "commit").find("ROLLBACK"), std::string::npos);
    EXPECT_FALSE(block.active());
}

TEST(FailedBlock, ACommitThatDoesNotKnowYetGetsTheError) {
    FailedBlock block;
    block.fail_block(Error{sqlstate::connection_failure, "lost"});
    const std::string out = take_query(block, "commit");
    EXPECT_NE(out.find("08006"), std::string::npos);
    EXPECT_EQ(out.back(), 'I');
    EXPECT_FALSE(block.active());
}

TEST(FailedBlock, EndsByRollbackInTheExtendedProtocol) {
    FailedBlock block;
    block.fail_block(std::nullopt);
    wire::Buffer in;
    wire::put_parse(in, "", "ROLLBACK");
    wire::Buffer out;
    block.take(wire::FrontendMessage::Parse, wire::Bytes{in}.substr(5), true, out);
    block.take(wire::FrontendMessage::Bind, {}, true, out);
    block.take(wire::FrontendMessage::Describe, "P", true, out);
    block.take(wire::FrontendMessage::Execute, {}, true, out);
    std::string types;
    for (std::size_t at = 0; at < out.size(); at += 1 + wire::get_u32(out.data() + at + 1)) types += out[at];
    EXPECT_EQ(types, "12nC");
    EXPECT_FALSE(block.active());
}

TEST(FailedBlock, SkipsThePipelineAfterItsError) {
    FailedBlock block;
    block.fail_block(std::nullopt);
    wire::Buffer in;
    wire::put_parse(in, "", "select 1");
    wire::Buffer out;
    block.take(wire::FrontendMessage::Parse, wire::Bytes{in}.substr(5), true, out);
    const std::size_t after_error = out.size();
    block.take(wire::FrontendMessage::Bind, {}, true, out);
    block.take(wire::FrontendMessage::Execute, {}, true, out);
    EXPECT_EQ(out.size(), after_error);
    block.take(wire::FrontendMessage::Sync, {}, true, out);
    EXPECT_EQ(out.back(), 'E');
}

TEST(QuietLevel, ReadsStatementsThatSetIt) {
    struct Case {
        const char* sql;
        bool found;
        bool quiet;
        bool reset;
        bool local;
        const char* value;
    };
    for (const Case& given :
         {Case{"set client_min_messages = error", true, true, false, false, "error"},
          Case{"SET SESSION client_min_messages TO 'Fatal';", true, true, false, false, "'Fatal'"},
          Case{"set local \"client_min_messages\" to panic", true, true, false, true, "panic"},
          Case{"set client_min_messages to warning", true, false, false, false, ""},
          Case{"set client_min_messages to default", true, false, true, false, ""},
          Case{"reset client_min_messages", true, false, true, false, ""},
          Case{"reset all", true, false, true, false, ""},
          Case{"reset work_mem", false, false, false, false, ""},
          Case{"set work_mem = 'error'", false, false, false, false, ""},
          Case{"select 'set client_min_messages = error'", false, false, false, false, ""},
          Case{"set client_min_messages = error; select 1", false, false, false, false, ""},
          Case{"create function f() returns int language sql set client_min_messages = error as 'select 1'",
               false, false, false, false, ""}}) {
        const auto set = read_min_messages(given.sql);
        ASSERT_EQ(set.has_value(), given.found) << given.sql;
        if (!set) continue;
        EXPECT_EQ(set->quiet, given.quiet) << given.sql;
        EXPECT_EQ(set->reset, given.reset) << given.sql;
        EXPECT_EQ(set->local, given.local) << given.sql;
        EXPECT_EQ(set->value, given.value) << given.sql;
    }
}

TEST(QuietLevel, FollowsTransactions) {
    const MinMessagesSet quiet{true, false, false, {}};
    const MinMessagesSet loud{};
    const MinMessagesSet local{true, false, true, {}};
    QuietLevel level;
    level.sent(quiet);
    EXPECT_FALSE(level.quiet());
    level.done(false);
    EXPECT_TRUE(level.quiet());
    level.sent(loud);
    level.done(true);
    EXPECT_FALSE(level.quiet());
    level.transaction_ended(false);
    EXPECT_TRUE(level.quiet());
    level.sent(loud);
    level.done(true);
    level.transaction_ended(true);
    EXPECT_FALSE(level.quiet());
    level.sent(local);
    level.done(false);
    EXPECT_FALSE(level.quiet());
    level.sent(local);
    level.done(true);
    EXPECT_TRUE(level.quiet());
    level.transaction_ended(true);
    EXPECT_FALSE(level.quiet());
    level.sent(quiet);  // it failed
    level.transaction_ended(false);
    level.done(false);
    EXPECT_FALSE(level.quiet());
    level.logged_in(true);
    level.sent(loud);
    level.done(false);
    level.discard_all();
    EXPECT_TRUE(level.quiet());
}

}  // namespace
}  // namespace pgxc::pooler
