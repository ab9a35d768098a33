// The small pure parts of the pooler: settings, what statements leave behind, targets, cancel keys, failed
// blocks.
#include <gtest/gtest.h>

#include "fakes/fake_environment.h"
#include "pooler/cancel_map.h"
#include "pooler/expected_answers.h"
#include "pooler/failed_block.h"
#include "pooler/quiet_level.h"
#include "pooler/session_probe.h"
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

/// Must the server be asked what is left, after that text succeeded with that tag?
bool asks(std::string_view sql, std::string_view tag) {
    const SessionUse use = read_session_use(sql, true);
    return left_when_sent(use).any() || left_when_done(tag, use).any();
}

TEST(SessionUse, NobodyIsAskedAboutWhatEndsWithTheTransaction) {
    EXPECT_FALSE(asks("select 1", "SELECT 1"));
    EXPECT_FALSE(asks("SET LOCAL work_mem = '1MB'", "SET"));
    EXPECT_FALSE(asks("set transaction isolation level serializable", "SET"));
    EXPECT_FALSE(asks("/* x */ set local a.b to 1;", "SET"));
    EXPECT_FALSE(asks("update t set a = 1", "UPDATE 1"));
    EXPECT_FALSE(asks("declare c cursor for select 1", "DECLARE CURSOR"));
    EXPECT_FALSE(asks("select pg_advisory_xact_lock(1)", "SELECT 1"));
    EXPECT_FALSE(asks("begin; update t set a = 1; commit", "COMMIT"));
    EXPECT_FALSE(asks("select set_config('a.b', $1, true), set_config($2, f(1, 2), true)", "SELECT 1"));
    // Words that only look like it.
    EXPECT_FALSE(asks("select temperature, attempt from template_1 as temp", "SELECT 1"));
    EXPECT_FALSE(asks("select threshold, household from t", "SELECT 1"));
    EXPECT_FALSE(asks("create table temporal (i int)", "CREATE TABLE"));
}

TEST(SessionUse, WhatTheServerReportsNeedsNoQuestion) {
    EXPECT_FALSE(asks("SET TimeZone = 'UTC'", "SET"));
    EXPECT_FALSE(asks("set session datestyle to iso", "SET"));
    EXPECT_FALSE(asks("set time zone 'UTC'", "SET"));
    EXPECT_FALSE(asks("set names 'utf8'", "SET"));
    // But its default may be what the login said.
    EXPECT_TRUE(asks("SET TimeZone TO DEFAULT", "SET"));
    EXPECT_TRUE(asks("set time zone local", "SET"));
    EXPECT_TRUE(asks("set session application_name = default;", "SET"));
    EXPECT_TRUE(asks("set names", "SET"));
}

TEST(SessionUse, TheServerIsAskedAboutWhatMayOutliveTheTransaction) {
    EXPECT_TRUE(asks("set work_mem = '1MB'", "SET"));
    EXPECT_TRUE(asks("set session characteristics as transaction read only", "SET"));
    EXPECT_TRUE(asks("set local a.b = 1; set work_mem = '1MB'", "SET"));
    EXPECT_TRUE(asks("reset all", "RESET"));
    EXPECT_TRUE(asks("set role x", "SET"));
    EXPECT_TRUE(asks("listen x", "LISTEN"));
    EXPECT_TRUE(asks("prepare p as select 1", "PREPARE"));
    EXPECT_TRUE(asks("declare c cursor WITH HOLD for select 1", "DECLARE CURSOR"));
    EXPECT_TRUE(asks("declare c cursor with /* x */ hold for select 1", "DECLARE CURSOR"));
    EXPECT_TRUE(asks("create TEMP table t (a int)", "CREATE TABLE"));
    EXPECT_TRUE(asks("create or replace temporary view v as select 1", "CREATE VIEW"));
    EXPECT_TRUE(asks("select 1 into temporary x", "SELECT 1"));
    EXPECT_TRUE(asks("create view pg_temp.v as select 1", "CREATE VIEW"));
    EXPECT_TRUE(asks("select pg_try_advisory_lock(1)", "SELECT 1"));
    EXPECT_TRUE(asks("select set_config('a.b', 'c', false)", "SELECT 1"));
    EXPECT_TRUE(asks("select set_config('a.b', 'c', $1)", "SELECT 1"));
    EXPECT_TRUE(asks("do $$ begin end $$", "DO"));
    EXPECT_TRUE(asks("call p()", "CALL"));
    EXPECT_TRUE(asks("call p(); call pgxc.x()", "CALL"));
    EXPECT_FALSE(asks("call pgxc.x()", "CALL"));
    EXPECT_FALSE(asks("register datanode slave identified by id 3", "CALL"));
    EXPECT_TRUE(left_when_sent(read_session_use("insert into t values ('", false)).any());
}

TEST(SessionUse, ASettingWhoseNameIsNotPlain) {
    EXPECT_TRUE(read_session_use("select set_config($1, 'x', false)", true).has(SessionUse::SetsUnknown));
    EXPECT_FALSE(read_session_use("select set_config('a.b', $1, false)", true).has(SessionUse::SetsUnknown));
}

TEST(SessionUse, CustomSettingsByName) {
    std::vector<std::string> names;
    add_custom_settings("SET app.user = '1'; set session \"My\".x to 2; select set_config('A.b', 'c', false)",
                        names);
    EXPECT_EQ(names, (std::vector<std::string>{"app.user", "my.x", "a.b"}));
    add_custom_settings("set work_mem = 1; select 1 as set", names);
    EXPECT_EQ(names.size(), 3U);
}

// ---- prepared statements

wire::Bytes tail_of(const std::string& text) {
    static std::string body;
    body = text + std::string(3, '\0');
    return body;
}

TEST(PreparedStatements, EqualTextsShareAStatement) {
    StatementStore store;
    const StatementRef one = store.intern(tail_of("select 1"));
    const StatementRef same = store.intern(tail_of("select 1"));
    StatementRef other = store.intern(tail_of("select 2"));
    EXPECT_EQ(one, same);
    EXPECT_NE(one->server_name, other->server_name);
    EXPECT_EQ(other->sql(), "select 2");
    EXPECT_EQ(store.size(), 2U);
    other.reset();
    EXPECT_EQ(store.size(), 1U);
    EXPECT_EQ(store.intern(tail_of("commit"))->control, wire::TransactionControl::Commit);
}

TEST(PreparedStatements, AnOutdatedOneIsNotGivenToOthers) {
    StatementStore store;
    StatementRef old = store.intern(tail_of("select * from t"));
    store.outdate();
    const StatementRef fresh = store.intern(tail_of("select * from t"));
    EXPECT_NE(old->server_name, fresh->server_name);
    old.reset();
    EXPECT_EQ(store.intern(tail_of("select * from t")), fresh);
}

TEST(PreparedStatements, AServerConnectionKeepsWhatWasUsedLast) {
    StatementStore store;
    ServerStatements there;
    const StatementRef a = store.intern(tail_of("a"));
    const StatementRef b = store.intern(tail_of("b"));
    there.add(a);
    there.add(b);
    EXPECT_EQ(there.surplus(3), nullptr);
    EXPECT_EQ(there.surplus(2), a);
    EXPECT_TRUE(there.use(a.get()));
    EXPECT_EQ(there.surplus(2), b);
    there.remove(b.get());
    EXPECT_FALSE(there.use(b.get()));
    EXPECT_EQ(there.size(), 1U);
}

ExpectedAnswers::Entry entry_of(ExpectedAnswers::Entry::Kind kind, bool own) {
    ExpectedAnswers::Entry entry;
    entry.kind = kind;
    entry.own = own;
    return entry;
}

TEST(ExpectedAnswers, AreTakenInOrder) {
    using Kind = ExpectedAnswers::Entry::Kind;
    ExpectedAnswers expected;
    expected.sent(entry_of(Kind::Close, true));
    expected.sent(entry_of(Kind::Parse, false));
    expected.sent_unit_end();
    EXPECT_EQ(expected.answered(Kind::Parse), nullptr);
    ASSERT_NE(expected.answered(Kind::Close), nullptr);
    const auto* parse = expected.answered(Kind::Parse);
    ASSERT_NE(parse, nullptr);
    EXPECT_FALSE(parse->own);
    EXPECT_TRUE(expected.empty());
}

TEST(ExpectedAnswers, AnErrorSkipsItsUnitAndNoOther) {
    using Kind = ExpectedAnswers::Entry::Kind;
    ExpectedAnswers expected;
    expected.sent(entry_of(Kind::Parse, false));
    expected.sent(entry_of(Kind::Parse, true));
    expected.sent_unit_end();
    expected.sent(entry_of(Kind::Close, false));
    expected.sent_unit_end();
    EXPECT_EQ(expected.failed().size(), 2U);
    EXPECT_EQ(expected.answered(Kind::Close), nullptr);  // the unit has not ended
    expected.ready();
    EXPECT_NE(expected.answered(Kind::Close), nullptr);
    expected.ready();
    expected.settle();
    EXPECT_TRUE(expected.empty());
}

TEST(ExpectedAnswers, UnitsOfThePoolersOwn) {
    ExpectedAnswers expected;
    expected.sent_unit_end(true);
    expected.sent_unit_end();
    EXPECT_TRUE(expected.in_own_unit());
    EXPECT_EQ(expected.own_units(), 1U);
    expected.ready();
    EXPECT_FALSE(expected.in_own_unit());
    expected.ready();
    expected.sent_unit_end();
    expected.sent_unit_end(true);
    EXPECT_FALSE(expected.in_own_unit());
    expected.ready();
    EXPECT_TRUE(expected.in_own_unit());
}

// ---- what a session was asked

std::string row_of(std::initializer_list<std::optional<std::string_view>> values) {
    std::string body;
    wire::put_u16(body, static_cast<std::uint16_t>(values.size()));
    for (const auto& value : values) {
        wire::put_u32(body, value ? static_cast<std::uint32_t>(value->size()) : 0xffffffffU);
        if (value) body += *value;
    }
    return body;
}

TEST(SessionProbe, ReadsSettingsAndReasons) {
    ProbeAnswer answer;
    EXPECT_TRUE(answer.take_row(row_of({"s", "DateStyle", "ISO, MDY"})));
    EXPECT_TRUE(answer.take_row(row_of({"s", "role", "bob"})));
    EXPECT_TRUE(answer.take_row(row_of({"a", "alice", ""})));
    EXPECT_TRUE(answer.take_row(row_of({"c", "app.x", "1"})));
    EXPECT_TRUE(answer.take_row(row_of({"c", "app.y", std::nullopt})));
    EXPECT_TRUE(answer.take_row(row_of({"s", "transaction_read_only", "off"})));
    EXPECT_TRUE(answer.take_row(row_of({"l", "", ""})));
    EXPECT_TRUE(answer.take_row(row_of({"t", "", ""})));
    EXPECT_EQ(*answer.settings.find("datestyle"), "ISO, MDY");
    EXPECT_EQ(*answer.settings.find("app.x"), "1");
    EXPECT_EQ(answer.settings.find("transaction_read_only"), nullptr);
    EXPECT_EQ(answer.settings.find("app.y"), nullptr);
    EXPECT_EQ(*answer.settings.find("session_authorization"), "alice");
    EXPECT_EQ(answer.pins.text(), "LISTEN, temporary object");
    EXPECT_FALSE(answer.take_row(row_of({"s", "x"})));
    EXPECT_FALSE(answer.take_row("\0\3"));
}

TEST(SettingSet, ARoleIsLeftFirstAndTakenLast) {
    SettingSet from;
    from.set("role", "bob");
    SettingSet to;
    to.set("role", "eve");
    to.set("work_mem", "1MB");
    EXPECT_EQ(change_settings_sql(from, to),
              "RESET \"role\";SELECT pg_catalog.set_config('work_mem','1MB',false),"
              "pg_catalog.set_config('role','eve',false)");
    EXPECT_FALSE(change_is_safe(from, to));
}

TEST(SettingSet, WhatCannotFailIsSafe) {
    SettingSet from;
    SettingSet to;
    to.set("search_path", "a");
    to.set("work_mem", "4096");
    EXPECT_TRUE(change_is_safe(from, to));
    EXPECT_TRUE(change_is_safe(to, from));
    to.set("default_tablespace", "x");
    EXPECT_FALSE(change_is_safe(from, to));
    EXPECT_TRUE(change_is_safe(to, to));
}

TEST(SettingSet, WhatRunsUnderATimeLimitIsNotSafe) {
    for (const char* name : {"statement_timeout", "lock_timeout"}) {
        SettingSet from;
        SettingSet to;
        from.set(name, "1ms");
        to.set("work_mem", "4096");
        EXPECT_FALSE(change_is_safe(from, to)) << name;
        EXPECT_TRUE(change_is_safe(to, from)) << name;
        from.set(name, "0");
        EXPECT_TRUE(change_is_safe(from, to)) << name;
    }
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

TEST(FailedBlock, AChainHasNothingToGoOnWith) {
    FailedBlock block;
    block.fail_block(std::nullopt);
    for (const char* chain : {"rollback and chain", "commit work and chain"}) {
        EXPECT_NE(take_query(block, chain).find("25P02"), std::string::npos) << chain;
        EXPECT_TRUE(block.active()) << chain;
    }
    EXPECT_NE(take_query(block, "rollback and no chain").find("ROLLBACK"), std::string::npos);
    EXPECT_FALSE(block.active());
}

wire::Bytes bind_of(std::string_view statement) {
    static std::string body;
    body = std::string(1, '\0') + std::string(statement) + '\0';
    return body;
}

std::string types_of(const wire::Buffer& out) {
    std::string types;
    for (std::size_t at = 0; at < out.size(); at += 1 + wire::get_u32(out.data() + at + 1)) types += out[at];
    return types;
}

TEST(FailedBlock, EndsByRollbackInTheExtendedProtocol) {
    FailedBlock block;
    block.fail_block(std::nullopt);
    wire::Buffer in;
    wire::put_parse(in, "", "ROLLBACK");
    wire::Buffer out;
    EXPECT_TRUE(block.take(wire::FrontendMessage::Parse, wire::Bytes{in}.substr(5), true, out));
    EXPECT_TRUE(block.take(wire::FrontendMessage::Bind, bind_of(""), true, out));
    EXPECT_TRUE(block.take(wire::FrontendMessage::Describe, {"P\0", 2}, true, out));
    EXPECT_TRUE(block.take(wire::FrontendMessage::Execute, {}, true, out));
    EXPECT_EQ(types_of(out), "12nC");
    EXPECT_FALSE(block.active());
    // The next one knows nothing of that.
    block.fail_block(std::nullopt);
    out.clear();
    EXPECT_FALSE(block.take(wire::FrontendMessage::Bind, bind_of("s"), true, out, "insert"));
    EXPECT_EQ(types_of(out), "E");
    EXPECT_TRUE(block.active());
}

TEST(FailedBlock, EndsByWhatWasPreparedBefore) {
    FailedBlock block;
    block.fail_block(std::nullopt);
    wire::Buffer out;
    EXPECT_TRUE(block.take(wire::FrontendMessage::Bind, bind_of("s"), true, out, "rollback"));
    EXPECT_TRUE(block.take(wire::FrontendMessage::Execute, {}, true, out));
    EXPECT_TRUE(block.take(wire::FrontendMessage::Sync, {}, true, out));
    EXPECT_EQ(types_of(out), "2CZ");
    EXPECT_EQ(out.back(), 'I');
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
    };
    for (const Case& given :
         {Case{"set client_min_messages = error", true, true, false, false},
          Case{"SET SESSION client_min_messages TO 'Fatal';", true, true, false, false},
          Case{"set local \"client_min_messages\" to panic", true, true, false, true},
          Case{"set client_min_messages to warning", true, false, false, false},
          Case{"set client_min_messages to default", true, false, true, false},
          Case{"reset client_min_messages", true, false, true, false},
          Case{"reset all", true, false, true, false}, Case{"reset work_mem", false, false, false, false},
          Case{"set work_mem = 'error'", false, false, false, false},
          Case{"select 'set client_min_messages = error'", false, false, false, false},
          Case{"set client_min_messages = error; select 1", false, false, false, false},
          Case{"create function f() returns int language sql set client_min_messages = error as 'select 1'",
               false, false, false, false}}) {
        const auto set = read_min_messages(given.sql);
        ASSERT_EQ(set.has_value(), given.found) << given.sql;
        if (!set) continue;
        EXPECT_EQ(set->quiet, given.quiet) << given.sql;
        EXPECT_EQ(set->reset, given.reset) << given.sql;
        EXPECT_EQ(set->local, given.local) << given.sql;
    }
}

TEST(QuietLevel, FindsWhereATextSetsIt) {
    using Values = std::vector<std::string_view>;
    for (const auto& [sql, values] : std::vector<std::pair<std::string_view, Values>>{
             {"set client_min_messages = error", {"error"}},
             {"/* app */ SET SESSION client_min_messages TO 'Fatal';", {"'Fatal'"}},
             {"set local \"client_min_messages\" to panic", {"panic"}},
             {"set client_min_messages to warning", {}},
             {"set work_mem = 'error'", {}},
             {"select 'set client_min_messages = error'", {}},
             {"set client_min_messages = error; select 1; set client_min_messages = 'panic'",
              {"error", "'panic'"}},
             {"select set_config('client_min_messages', 'error', false)", {"'error'"}},
             {"select 1, pg_catalog.set_config('Client_Min_Messages', 'Error', false)", {"'Error'"}},
             {"select set_config('client_min_messages', $1, false)", {}},
             {"select set_config('work_mem', 'error', false)", {}},
             {"set client_min_messages = $$error$$", {}},
             {"create function f() returns int language sql set client_min_messages = error as 'select 1'",
              {}},
             {"create view v as select set_config('client_min_messages', 'error', false)", {}},
             {"alter role r set client_min_messages = error", {}}})
        EXPECT_EQ(quiet_values(sql), values) << sql;
}

TEST(QuietLevel, BelievesWhatTheServerSays) {
    QuietLevel level;
    level.found("error");
    EXPECT_TRUE(level.quiet());
    level.found("info");  // put in place of that
    EXPECT_TRUE(level.quiet());
    level.found("warning");
    EXPECT_FALSE(level.quiet());
    level.found("info");
    EXPECT_FALSE(level.quiet());
    level.sent_unseen();
    level.found("info");
    EXPECT_TRUE(level.quiet());
    level.found(std::nullopt);
    EXPECT_FALSE(level.quiet());
    level.sent_unseen();  // and rolled back
    level.found(std::nullopt);
    EXPECT_FALSE(level.quiet());
}

TEST(QuietLevel, FollowsTransactions) {
    const MinMessagesSet quiet{true, false, false};
    const MinMessagesSet loud{};
    const MinMessagesSet local{true, false, true};
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
