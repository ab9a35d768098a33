// What clients that share a server connection must not see of each other, and what one takes along to another
// connection: statements prepared in SQL, how a text is read, settings that code has set out of sight.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/limits.h"
#include "fakes/auto_routing_test.h"
#include "fakes/session_test.h"
#include "fakes/statement_server.h"
#include "pooler/expected_answers.h"
#include "pooler/setting_set.h"
#include "pooler/sql_statements.h"

namespace pgxc::pooler {
namespace {

using fakes::Backend;
using fakes::Client;
using fakes::put_run;
using fakes::StatementServer;

// ---- pure parts

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

TEST(ParseContext, IsWhatDecidesWhatTheTextMeans) {
    SettingSet tokyo;
    tokyo.set("timezone", "Asia/Tokyo");
    tokyo.set("work_mem", "1MB");
    const auto of = [](std::string_view sql, const SettingSet& set) { return parse_context(sql, set, {}); };
    EXPECT_EQ(of("select $1", tokyo), of("select $1", {}));
    EXPECT_NE(of("select timestamptz '2024-01-01'", tokyo), of("select timestamptz '2024-01-01'", {}));
    EXPECT_NE(of("select $$2024-01-01$$::timestamptz", tokyo), of("select $$2024-01-01$$::timestamptz", {}));
    EXPECT_NE(of("select t\xE9", tokyo), of("select t\xE9", {}));
    SettingSet path;
    path.set("search_path", "a");
    EXPECT_NE(of("select * from t", path), of("select * from t", {}));
    EXPECT_NE(parse_context("select 1", {}, "set local search_path = a"), of("select 1", {}));
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

// ---- sessions

/// One server connection for all, and a server that knows what is prepared in SQL.
class SharedTest : public PoolerTest {
  protected:
    void SetUp() override {
        environment.settings_now.max_pool_size = 1;
        show({master_at(one.server)});
        rest_ = one.server.on_query;
        one.server.on_query = [this](Backend& backend, const std::string& sql) { return take(backend, sql); };
    }
    bool take(Backend& backend, const std::string& sql) {
        const auto named = read_statement_name(sql);
        if (sql.starts_with(question)) {
            std::vector<std::vector<std::string>> rows = left;
            for (const auto& [name, text] : there) rows.push_back({"q", name, text});
            backend.tell_what_is_left(rows);
        } else if (named && named->verb == SqlStatementName::Verb::Prepare) {
            if (sql.find("gone") != std::string::npos && refuses) {
                backend.fail("42P01");
            } else if (!there.emplace(named->name, sql).second) {
                backend.fail("42P05");
            } else {
                backend.complete("PREPARE", backend.status);
            }
        } else if (named && named->verb == SqlStatementName::Verb::Deallocate) {
            const bool known = named->name.empty() ? there.clear(), true : there.erase(named->name) > 0;
            known ? backend.complete(named->name.empty() ? "DEALLOCATE ALL" : "DEALLOCATE", backend.status)
                  : backend.fail("26000");
        } else if (named) {
            there.contains(named->name) ? backend.complete("SELECT 1", backend.status)
                                        : backend.fail("26000");
        } else if (sql.starts_with("do fails")) {
            backend.fail("P0001");
        } else if (sql.starts_with("do")) {
            backend.complete("DO", 'I');
        } else {
            return rest_(backend, sql);
        }
        return true;
    }
    const std::vector<std::string>& queries() { return one.server.backends.front()->queries; }
    long sent(std::string_view part) {
        return std::count_if(queries().begin(), queries().end(),
                             [&](const std::string& sql) { return sql.find(part) != std::string::npos; });
    }

    StatementServer one{loop};
    std::map<std::string, std::string> there;
    std::vector<std::vector<std::string>> left;
    bool refuses = false;

  private:
    std::function<bool(Backend&, const std::string&)> rest_;
};

TEST_F(SharedTest, StatementsPreparedInSqlBelongToTheirClientAndGoWithIt) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare p as select 1");
    EXPECT_EQ(client->types(), "CZ");
    run(*other, "execute p");
    EXPECT_EQ(other->sqlstate(), "26000");
    run(*other, "prepare p as select 2");
    EXPECT_EQ(other->types(), "CZ");
    run(*client, "execute p");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(there["p"], "prepare p as select 1");
    run(*other, "execute p");
    EXPECT_EQ(there["p"], "prepare p as select 2");
    run(*other, "deallocate p");
    EXPECT_EQ(other->types(), "CZ");
    run(*other, "execute p");
    EXPECT_EQ(other->sqlstate(), "26000");
    run(*client, "deallocate all");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "execute p");
    EXPECT_EQ(client->sqlstate(), "26000");
    EXPECT_EQ(one.server.open_backends(), 1U);
}

TEST_F(SharedTest, OneThatCannotBePreparedAnyMoreStaysTheClientsAndKeepsNothingElseAway) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare a as select gone");
    run(*client, "prepare b as select 1");
    run(*other, "select 1");
    EXPECT_TRUE(there.empty());
    refuses = true;
    run(*client, "execute b");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "prepare c as select 1");  // the server is asked what there is
    run(*client, "execute a");
    EXPECT_EQ(client->sqlstate(), "26000");
    run(*other, "select 1");
    refuses = false;
    run(*client, "execute a");
    EXPECT_EQ(client->types(), "CZ") << client->sqlstate();
    EXPECT_EQ(one.server.open_backends(), 1U);
}

TEST_F(SharedTest, OnlyWhatATextNamesIsPreparedForIt) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare a as select 1");
    run(*client, "prepare b as select 2");
    run(*other, "select 1");
    EXPECT_TRUE(there.empty());
    run(*client, "select 1");
    EXPECT_TRUE(there.empty());
    run(*client, "execute b");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_FALSE(there.contains("a"));
    run(*other, "select 1");
    run(*client, "deallocate a");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(sent("deallocate a"), 0);
    run(*client, "execute a");
    EXPECT_EQ(client->sqlstate(), "26000");
    run(*client, "do something");
    EXPECT_TRUE(there.contains("b")) << "what code does isn't known";
}

TEST_F(SharedTest, ANameIsTakenHoweverItWasPrepared) {
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_parse(out, "s", "select 1");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    run(*client, "prepare t as select 1");
    client->messages.clear();
    out.clear();
    wire::put_parse(out, "t", "select 1");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(one.only().statements.count("t"), 1U) << "the server was asked, under the client's name";
}

TEST_F(SharedTest, ATextIsNotSharedWhereItsConstantsMeanSomethingElse) {
    start();
    auto utc = login({{"TimeZone", "UTC"}});
    auto tokyo = login({{"TimeZone", "Asia/Tokyo"}});
    const auto prepare = [&](Client& who, const std::string& sql) {
        wire::Buffer out;
        wire::put_parse(out, "s", sql);
        wire::put_sync(out);
        put_run(out, "s");
        wire::put_sync(out);
        who.messages.clear();
        who.send(out);
        EXPECT_TRUE(until([&] { return who.count('Z') == 2; })) << who.types();
        out.clear();
        wire::put_close_statement(out, "s");
        wire::put_sync(out);
        who.messages.clear();
        who.send(out);
        EXPECT_TRUE(until([&] { return who.count('Z') == 1; })) << who.types();
    };
    for (const char* sql : {"select timestamptz '2024-01-01'", "select 1"})
        for (Client* who : {utc.get(), tokyo.get(), utc.get(), tokyo.get()}) prepare(*who, sql);
    EXPECT_EQ(one.only().statements.size(), 3U) << "two of the one, one of the other";
}

TEST_F(SharedTest, WhatCodeHasSetOutOfSightIsNotTheNextClients) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "do something");
    run(*client, "select 1");
    EXPECT_EQ(sent("RESET ALL"), 0);
    run(*other, "select 2");
    EXPECT_EQ(sent("RESET ALL"), 1);
    EXPECT_EQ(queries().back(), "select 2");
    run(*client, "select 1");
    EXPECT_EQ(sent("RESET ALL"), 1);
}

TEST_F(SharedTest, CodeThatFailsIsAskedAboutToo) {
    left = {{"k", "", ""}};
    start();
    auto client = login();
    run(*client, "do fails");
    EXPECT_EQ(client->sqlstate(), "P0001");
    settle();
    ASSERT_EQ(sent(question), 1);
    EXPECT_EQ(sent("pg_lock_status"), 1);
}

TEST_F(SharedTest, WhatIsPipelinedBehindACopyHasItsOwnAnswers) {
    auto rest = one.server.on_message;
    bool copies = false;
    one.server.on_message = [&](Backend& backend, const fakes::Message& message) {
        wire::Buffer out;
        if (message.type == 'E' && one.state_of(backend).bound == "copy") {
            one.state_of(backend).bound.clear();
            copies = true;
            out = std::exchange(one.state_of(backend).out, {});
            out.append("G\0\0\0\7\0\0\0", 8);
            backend.send(out);
        } else if (message.type == 'c') {
            copies = false;
            wire::put_command_complete(out, "COPY 1");
            backend.send(out);
        } else if (!copies || message.type != 'S') {
            rest(backend, message);
        }
    };
    start();
    auto client = login();
    auto other = login();
    wire::Buffer out;
    wire::put_parse(out, "s", "select s");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    // Somebody else's connection is the only one now, and lacks the statement.
    one.server.backends.front()->hang_up(true);
    settle();
    client->messages.clear();
    out.clear();
    wire::put_parse(out, "", "copy");
    put_run(out, "");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('G') == 1; })) << client->types();
    out = "c";
    wire::put_u32(out, 4);
    wire::put_sync(out);
    put_run(out, "s");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 2; })) << client->types();
    EXPECT_EQ(client->types(), "12GCZ2DCZ");
    run(*other, "select 1");
    EXPECT_EQ(other->types(), "CZ");
}

/// Transactions that are declared read only go to a slave.
class DeclaredTest : public AutoRoutingTest {
  protected:
    void SetUp() override {
        AutoRoutingTest::SetUp();
        environment.settings_now.read_routing = ReadRouting::Explicit;
    }
    static bool got(const fakes::Server& server, const std::string& sql) {
        return std::any_of(server.backends.begin(), server.backends.end(), [&](const auto& backend) {
            return std::find(backend->queries.begin(), backend->queries.end(), sql) != backend->queries.end();
        });
    }
};

TEST_F(DeclaredTest, WhatKeepsItsSessionMovesToTheMasterWhileNothingElseWasDone) {
    start();
    auto client = login();
    run(*client, "begin read only");
    EXPECT_TRUE(got(slave, "begin read only"));
    run(*client, "declare c cursor with hold for select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_FALSE(got(slave, "declare c cursor with hold for select 1"));
    EXPECT_TRUE(got(master, "declare c cursor with hold for select 1"));
    run(*client, "commit");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(DeclaredTest, ToForgetAStatementKeepsNothing) {
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_parse(out, "s", "select 1");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    run(*client, "begin read only");
    run(*client, "select 1");
    run(*client, "deallocate s");
    EXPECT_EQ(client->types(), "CZ") << client->sqlstate();
    run(*client, "commit");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(DeclaredTest, AndIsRefusedWhereItComesTooLate) {
    start();
    auto client = login();
    run(*client, "begin read only");
    run(*client, "select 1");
    run(*client, "select pg_advisory_lock(1)");
    EXPECT_EQ(client->sqlstate(), "0A000");
    EXPECT_FALSE(got(slave, "select pg_advisory_lock(1)"));
    EXPECT_FALSE(got(master, "select pg_advisory_lock(1)"));
    run(*client, "select 1");
    EXPECT_EQ(client->sqlstate(), "25P02");
    run(*client, "rollback");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "select 2");
    EXPECT_EQ(client->types(), "CZ");
}

}  // namespace
}  // namespace pgxc::pooler
