// What clients that share a server connection must not see of each other, and what one takes along to another
// connection: statements prepared in SQL, how a text is read, settings that code has set out of sight.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "fakes/auto_routing_test.h"
#include "fakes/session_test.h"
#include "fakes/statement_server.h"
#include "pooler/sql_statements.h"

namespace pgxc::pooler {
namespace {

using fakes::Backend;
using fakes::Client;
using fakes::put_run;
using fakes::StatementServer;

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
        if (backend.status == 'E' && !sql.starts_with("ROLLBACK TO") && !sql.starts_with("rollback")) {
            backend.fail("25P02");
        } else if (sql.starts_with(question)) {
            std::vector<std::vector<std::string>> rows = left;
            for (const auto& [name, text] : there) rows.push_back({"q", name, text});
            backend.tell_what_is_left(rows);
        } else if (named && named->verb == SqlStatementName::Verb::Prepare) {
            if (sql.find("gone") != std::string::npos && refuses) {
                backend.fail("42P01");
            } else if (!there.emplace(named->name, sql).second) {
                backend.fail("42P05");
            } else {
                one.state_of(backend).statements[named->name] = sql;
                backend.complete("PREPARE", backend.status);
            }
        } else if (named && named->verb == SqlStatementName::Verb::Deallocate) {
            const bool known = named->name.empty() ? there.clear(), true : there.erase(named->name) > 0;
            if (known) one.state_of(backend).statements.erase(named->name);
            known ? backend.complete(named->name.empty() ? "DEALLOCATE ALL" : "DEALLOCATE", backend.status)
                  : backend.fail("26000");
        } else if (named) {
            there.contains(named->name) ? backend.complete("SELECT 1", backend.status)
                                        : backend.fail("26000");
        } else if (sql.starts_with("do fails")) {
            backend.fail("P0001");
        } else if (sql.starts_with("do")) {
            backend.complete("DO", backend.status);
        } else if (sql == "discard all" || sql == "select 1; deallocate all") {
            there.clear();
            one.state_of(backend).statements.clear();
            backend.complete(sql == "discard all" ? "DISCARD ALL" : "DEALLOCATE ALL", backend.status);
        } else if (sql.starts_with("SAVEPOINT") || sql.starts_with("RELEASE")) {
            backend.status == 'T' ? backend.complete("SAVEPOINT", 'T') : backend.fail("25P02");
        } else if (sql.starts_with("ROLLBACK TO")) {
            backend.status == 'I' ? backend.fail("25P01") : backend.complete("ROLLBACK", 'T');
        } else {
            return rest_(backend, sql);
        }
        return true;
    }
    const std::vector<std::string>& queries() { return one.server.backends.front()->queries; }
    /// Binds and executes it, and waits for the answers.
    void send_run(Client& who, const std::string& name) {
        wire::Buffer out;
        put_run(out, name);
        wire::put_sync(out);
        who.messages.clear();
        who.send(out);
        EXPECT_TRUE(until([&] { return who.count('Z') == 1; })) << who.types();
    }
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

TEST_F(SharedTest, WhatAnotherHasReadUnderOtherSettingsIsReadAnew) {
    start();
    auto utc = login({{"TimeZone", "UTC"}});
    auto tokyo = login({{"TimeZone", "Asia/Tokyo"}});
    const std::string moment = "prepare p as select timestamptz '2024-02-03 04:05'";
    run(*utc, moment);
    run(*tokyo, moment);
    EXPECT_EQ(tokyo->types(), "CZ");
    run(*utc, "execute p");
    EXPECT_EQ(sent(moment), 3);
    run(*tokyo, "execute p");
    EXPECT_EQ(sent(moment), 4);
    for (Client* who : {utc.get(), tokyo.get()}) run(*who, "prepare q as select 1");
    run(*utc, "execute q");
    run(*tokyo, "execute q");
    const long before = sent("prepare q");
    for (Client* who : {utc.get(), tokyo.get()}) run(*who, "execute q");
    EXPECT_EQ(sent("prepare q"), before) << "there it makes no difference";
}

TEST_F(SharedTest, WhatIsPreparedInSqlAndBoundByTheProtocolIsAskedAboutToo) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare t(text) as select set_config('app.tenant', $1, false)");
    run(*other, "select 1");
    const long asked = sent(question);
    send_run(*client, "t");
    EXPECT_EQ(client->types(), "2DCZ") << client->sqlstate();
    settle();
    EXPECT_EQ(sent(question), asked + 1);
}

TEST_F(SharedTest, WhatIsBroughtIntoABlockDoesNotFailItNorKeepLocksThere) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare a as select gone");
    run(*client, "prepare b as select 1");
    run(*other, "select 1");
    refuses = true;
    run(*client, "begin");
    run(*client, "do something");
    EXPECT_EQ(client->types(), "CZ") << client->sqlstate();
    EXPECT_TRUE(there.contains("b"));
    run(*client, "execute b");
    EXPECT_EQ(client->types(), "CZ") << client->sqlstate();
    run(*client, "commit");
    EXPECT_EQ(sent("ROLLBACK TO SAVEPOINT"), 2);
    EXPECT_EQ(sent("RELEASE SAVEPOINT"), 1);
}

TEST_F(SharedTest, OfSeveralStatementsInOneTextOnlyThoseThatItMentions) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare a as select 1");
    run(*client, "prepare \"B\" as select 2");
    run(*other, "select 1");
    run(*client, "begin");
    run(*client, "set transaction isolation level serializable; select 1");
    EXPECT_TRUE(there.empty());
    run(*client, "select 1; execute \"B\"");
    EXPECT_FALSE(there.contains("a"));
    EXPECT_TRUE(there.contains("B"));
}

TEST_F(SharedTest, APipelineInABlockHasWhatItNames) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare p as select 1");
    run(*other, "select 1");
    EXPECT_TRUE(there.empty());
    run(*client, "begin");
    client->messages.clear();
    wire::Buffer out;
    wire::put_parse(out, "", "select 1");
    put_run(out, "");
    put_run(out, "p");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->types(), "12DC2DCZ") << client->sqlstate();
    run(*client, "commit");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SharedTest, WhatIsPipelinedBehindItsEndFindsNoneAndLeavesNone) {
    for (const char* const end : {"discard all", "deallocate all", "select 1; deallocate all"}) {
        environment.settings_now.max_pool_size = 1;
        start();
        auto client = login();
        auto other = login();
        run(*client, "prepare p as select 1");
        run(*other, "select 1");
        client->messages.clear();
        wire::Buffer out;
        wire::put_query(out, end);
        out.append("D\0\0\0\7Sp", 8);  // its end is a zero, too
        wire::put_sync(out);
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('Z') == 2; })) << end;
        EXPECT_EQ(client->types(), "CZEZ") << end;
        EXPECT_EQ(client->sqlstate(), "26000") << end;
        run(*other, "execute p");
        EXPECT_EQ(other->sqlstate(), "26000") << end;
        pooler.reset();
    }
}

TEST_F(SharedTest, WhereABlockHasFailedThatIsSaidOfWhatCannotBeBrought) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare p as select 1");
    run(*other, "select 1");
    run(*client, "begin");
    run(*client, "div");
    send_run(*client, "p");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "25P02");
    run(*client, "rollback");
    send_run(*client, "p");
    EXPECT_EQ(client->types(), "2DCZ");
}

TEST_F(SharedTest, HoweverAPipelineBeginsItHasWhatItNames) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare p as select 1");
    for (const bool in_block : {false, true}) {
        run(*other, "select 1");
        EXPECT_TRUE(there.empty());
        if (in_block) run(*client, "begin");
        client->messages.clear();
        wire::Buffer out;
        wire::put_close_statement(out, "s");
        put_run(out, "p");
        wire::put_sync(out);
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
        EXPECT_EQ(client->types(), "32DCZ") << client->sqlstate();
        if (in_block) run(*client, "commit");
    }
}

TEST_F(SharedTest, NothingIsBroughtInFrontOfWhatMustBeTheFirstOfItsTransaction) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare p as select 1");
    run(*other, "select 1");
    run(*client, "begin");
    client->messages.clear();
    wire::Buffer out;
    wire::put_parse(out, "", "set transaction isolation level serializable");
    put_run(out, "");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_TRUE(there.empty());
    send_run(*client, "p");
    EXPECT_EQ(client->types(), "2DCZ") << client->sqlstate();
}

TEST_F(SharedTest, AQueryBehindAnOpenPipelineWaitsForNothing) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare p as select 1");
    run(*other, "select 1");
    run(*client, "begin");
    client->messages.clear();
    wire::Buffer out;
    wire::put_flush(out);
    wire::put_query(out, "select 1; select 2");
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
}

TEST_F(SharedTest, WhileACopyRunsNothingIsBroughtAndNobodyWaits) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare p as select 1");
    run(*other, "select 1");
    const auto rest = one.server.on_query;
    one.server.on_query = [&](Backend& backend, const std::string& sql) {
        if (sql != "copy") return rest(backend, sql);
        backend.send(std::string{"G\0\0\0\7\0\0\0", 8});
        return true;
    };
    client->messages.clear();
    wire::Buffer out;
    wire::put_query(out, "copy");
    wire::put_flush(out);
    out.append("d\0\0\0\5x", 6);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('G') == 1; }));
    EXPECT_TRUE(until([&] { return one.server.backends.front()->types.find('d') != std::string::npos; }));
    EXPECT_TRUE(there.empty());
}

TEST_F(SharedTest, WhatIsReadInATransactionThatHasSetSomethingIsSharedWithNobody) {
    start();
    auto client = login();
    auto other = login();
    run(*client, "prepare sets as select set_config('search_path', 'a', true)");
    for (Client* who : {client.get(), other.get()}) {
        run(*who, "begin");
        run(*who, who == client.get() ? "execute sets" : "set local search_path = a");
        who->messages.clear();
        wire::Buffer out;
        wire::put_parse(out, "s", "select * from t");
        put_run(out, "s");
        wire::put_sync(out);
        who->send(out);
        EXPECT_TRUE(until([&] { return who->count('Z') == 1; })) << who->types();
        run(*who, "commit");
    }
    EXPECT_EQ(std::count_if(one.only().statements.begin(), one.only().statements.end(),
                            [](const auto& each) { return each.second == "select * from t"; }),
              2);
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
