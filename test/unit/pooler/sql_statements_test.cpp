// How texts are read that prepare statements or decide how others are read, and what is expected of a server.
#include <gtest/gtest.h>

#include "base/limits.h"
#include "pooler/expected_answers.h"
#include "pooler/prepared_statements.h"
#include "pooler/setting_set.h"
#include "pooler/sql_statements.h"

namespace pgxc::pooler {
namespace {

TEST(SqlStatements, OnlyWhatIsReadTheSameElsewhere) {
    SqlStatements set;
    EXPECT_TRUE(set.put("p", "PREPARE p AS SELECT 1"));
    EXPECT_TRUE(set.put("Q", "/* c */ prepare \"Q\" (int) as select $1;"));
    EXPECT_FALSE(set.put("r", "PREPARE r AS SELECT 1; SELECT 2"));
    EXPECT_FALSE(set.put("r", "SELECT 1")) << "code has made it";
    EXPECT_FALSE(set.put("r", "PREPARE r AS SELECT 'a\\b'"));
    EXPECT_FALSE(set.put("r", "PREPARE r AS SELECT '\xC3\xA9'"));
    EXPECT_EQ(set.entries().size(), 2U);
    ASSERT_NE(set.find("p"), nullptr);
    EXPECT_FALSE(set.find("p")->use.any());
    EXPECT_TRUE(set.put("l", "PREPARE l AS SELECT pg_advisory_lock(1)"));
    EXPECT_TRUE(set.find("l")->use.has(SessionUse::LocksSession));
}

TEST(SqlStatements, Limits) {
    SqlStatements set;
    const auto put = [&](std::size_t number, std::size_t bytes) {
        const std::string name = "p" + std::to_string(number);
        return set.put(name, "PREPARE " + name + " AS SELECT " + std::string(bytes, '1'));
    };
    for (std::size_t i = 0; i < limits::max_sql_statements; ++i) EXPECT_TRUE(put(i, 1));
    EXPECT_FALSE(put(limits::max_sql_statements, 1));
    EXPECT_FALSE(put(0, limits::max_sql_statement_bytes));
    EXPECT_TRUE(put(0, 1)) << "there is room again";
}

TEST(SqlStatements, NamesThatMayBeTaken) {
    StatementNames names;
    EXPECT_FALSE(names.may_have("a"));
    names.add("a");
    EXPECT_TRUE(names.may_have("a"));
    EXPECT_FALSE(names.may_have("b"));
    names.add({});
    EXPECT_TRUE(names.may_have("b")) << "one isn't known";
    names.clear();
    EXPECT_FALSE(names.may_have("a"));
    EXPECT_EQ(deallocate_sql("a\"b"), "DEALLOCATE \"a\"\"b\"");
}

TEST(SessionUse, CodeAndPrepareBeginTheirStatements) {
    const auto use = [](std::string_view sql) { return read_session_use(sql, true); };
    EXPECT_TRUE(use("select 1; do $$begin end$$").has(SessionUse::RunsCode));
    EXPECT_TRUE(use("/* c */ call p(); select 1").has(SessionUse::RunsCode));
    EXPECT_TRUE(use("select 1;\n-- c\ndo $$begin end$$").has(SessionUse::RunsCode));
    EXPECT_FALSE(use("insert into t values (1) on conflict do nothing; select 1").has(SessionUse::RunsCode));
    EXPECT_FALSE(use("update t set done = true; select double_it from document").has(SessionUse::RunsCode));
    EXPECT_FALSE(use("update o set prepared_at = now(); select 1").has(SessionUse::Prepares));
    EXPECT_TRUE(use("select 1; prepare p as select 1").has(SessionUse::Prepares));
}

TEST(SessionUse, WhatMayChangeHowTextsAreRead) {
    const auto changes = [](std::string_view sql) {
        return may_change_reading(sql, read_session_use(sql, true));
    };
    EXPECT_TRUE(changes("set local search_path = a"));
    EXPECT_TRUE(changes("set time zone 'UTC'"));
    EXPECT_TRUE(changes("select set_config($1, $2, true)"));
    EXPECT_TRUE(changes("do $$begin end$$"));
    EXPECT_FALSE(changes("select set_config('app.tenant', $1, true)"));
    EXPECT_FALSE(changes("set local statement_timeout = 5"));
    EXPECT_FALSE(changes("set transaction isolation level serializable"));
}

TEST(SqlStatements, NamesInTexts) {
    const auto name = [](std::string_view sql) {
        const auto found = read_statement_name(sql);
        return found ? found->name : "-";
    };
    EXPECT_EQ(name("EXECUTE Foo(1)"), "foo");
    EXPECT_EQ(name("prepare \"Foo\" as select 1"), "Foo");
    EXPECT_EQ(name("DEALLOCATE PREPARE x;"), "x");
    EXPECT_EQ(name("deallocate all"), "");
    EXPECT_EQ(name("prepare transaction 'x'"), "-");
    EXPECT_EQ(name("execute x; select 1"), "-");
    EXPECT_EQ(name("explain execute x"), "-");
}

TEST(SqlStatements, WordsThatMayBeNames) {
    EXPECT_TRUE(may_name("select 1; execute P(1)", "p"));
    EXPECT_TRUE(may_name("select 1; execute \"Q\"", "Q"));
    EXPECT_TRUE(may_name("p", "p"));
    EXPECT_TRUE(may_name("execute \"a\"\"b\"", "a\"b"));
    EXPECT_FALSE(may_name("select p1, _p, xp from pp", "p"));
    EXPECT_FALSE(may_name("", "p"));
}

TEST(ParseContext, IsWhatDecidesWhatTheTextMeans) {
    SettingSet tokyo;
    tokyo.set("timezone", "Asia/Tokyo");
    tokyo.set("work_mem", "1MB");
    const auto of = [](std::string_view sql, const SettingSet& set) { return parse_context(sql, set); };
    EXPECT_EQ(of("select $1", tokyo), of("select $1", {}));
    EXPECT_NE(of("select timestamptz '2024-01-01'", tokyo), of("select timestamptz '2024-01-01'", {}));
    EXPECT_NE(of("select $$2024-01-01$$::timestamptz", tokyo), of("select $$2024-01-01$$::timestamptz", {}));
    EXPECT_NE(of("select t\xE9", tokyo), of("select t\xE9", {}));
    SettingSet path;
    path.set("search_path", "a");
    EXPECT_NE(of("select * from t", path), of("select * from t", {}));
}

TEST(ParseContext, Moments) {
    EXPECT_TRUE(names_a_moment("select date 'today'"));
    EXPECT_TRUE(names_a_moment("select ' NOW'::timestamptz"));
    EXPECT_FALSE(names_a_moment("select now(), 'x', '2024-01-01'"));
}

TEST(SettingSet, ValuesBeyondAsciiAreNotReadInTheEncodingBefore) {
    SettingSet to;
    to.set("app.tenant", "Jos\xE9");
    to.set("client_encoding", "LATIN1");
    const std::string sql = change_settings_sql({}, to);
    EXPECT_TRUE(
        std::all_of(sql.begin(), sql.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
    EXPECT_LT(sql.find("client_encoding"), sql.find("app.tenant")) << sql;
    EXPECT_NE(sql.find("4a6f73e9"), std::string::npos) << sql;
    EXPECT_TRUE(depends_on_encoding(to));
}

TEST(SettingSet, WhatIsNotKnownIsResetToo) {
    SettingSet from;
    from.set("role", "r");
    SettingSet to;
    to.set("work_mem", "1MB");
    EXPECT_EQ(change_settings_sql(from, to, true),
              "RESET \"role\";RESET ALL;SELECT pg_catalog.set_config('work_mem','1MB',false)");
    EXPECT_EQ(change_settings_sql({}, {}, true), "RESET ALL;");
}

TEST(ExpectedAnswers, SyncsThatACopyEats) {
    ExpectedAnswers expected;
    expected.sent_unit_end();  // the Sync behind the COPY
    expected.sent({});         // behind the data
    expected.syncs_eaten(1);
    EXPECT_NE(expected.answered(ExpectedAnswers::Entry::Kind::Parse), nullptr);
    EXPECT_EQ(expected.unit_sent(), 1U);
}

TEST(ExpectedAnswers, OfAClientThatAlwaysHasMoreUnderWayOnlyThatIsKept) {
    ExpectedAnswers expected;
    const auto send = [&](int number) {
        ExpectedAnswers::Entry entry;
        entry.client_name = std::to_string(number);
        expected.sent(std::move(entry));
    };
    send(0);
    for (int number = 1; number < 100'000; ++number) {
        send(number);
        const auto* answered = expected.answered(ExpectedAnswers::Entry::Kind::Parse);
        ASSERT_NE(answered, nullptr);
        ASSERT_EQ(answered->client_name, std::to_string(number - 1));
    }
    EXPECT_EQ(expected.outstanding().size(), 1U);
    EXPECT_LT(expected.kept(), 5'000U);
}

}  // namespace
}  // namespace pgxc::pooler
