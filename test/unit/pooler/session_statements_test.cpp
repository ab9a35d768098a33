// Prepared statements of clients that share server connections, in front of servers that keep statements.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "base/limits.h"
#include "fakes/pooler_test.h"
#include "fakes/statement_server.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::put_run;
using fakes::StatementServer;

class SessionStatementsTest : public PoolerTest {
  protected:
    void SetUp() override {
        environment.settings_now.max_pool_size = 1;
        show_master(one, 1);
        start();
    }
    void show_master(const StatementServer& at, int epoch) { show({master_at(at.server, epoch)}); }
    /// Sends that with a Sync, and waits for its answer: the types of the messages.
    std::string send(Client& client, wire::Buffer out) {
        wire::put_sync(out);
        client.messages.clear();
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1 || client.ended(); }));
        return client.types();
    }
    std::string parse(Client& client, const std::string& name, const std::string& sql) {
        wire::Buffer out;
        wire::put_parse(out, name, sql);
        return send(client, out);
    }
    /// Binds and executes it: the row, or the SQLSTATE.
    std::string run(Client& client, const std::string& name) {
        wire::Buffer out;
        put_run(out, name);
        const std::string types = send(client, out);
        if (types == "EZ") return client.sqlstate();
        EXPECT_EQ(types, "2DCZ");
        return client.messages.size() < 2 ? types : client.messages[1].body.substr(6);
    }
    std::string query(Client& client, const std::string& sql) {
        PoolerTest::run(client, sql);
        return client.types();
    }

    StatementServer one{loop};
    StatementServer two{loop};
};

TEST_F(SessionStatementsTest, NamesAreTheClientsOwnAndTextsAreShared) {
    auto a = login();
    auto b = login();
    auto c = login();
    EXPECT_EQ(parse(*a, "s", "select a"), "1Z");
    EXPECT_EQ(parse(*b, "s", "select b"), "1Z");
    EXPECT_EQ(parse(*c, "other", "select a"), "1Z");
    EXPECT_EQ(one.only().parses, 2U);
    EXPECT_EQ(run(*a, "s"), "select a");
    EXPECT_EQ(run(*b, "s"), "select b");
    EXPECT_EQ(run(*c, "other"), "select a");
    EXPECT_EQ(run(*c, "s"), "26000");
    EXPECT_EQ(parse(*a, "s", "select again"), "EZ");
    EXPECT_EQ(a->sqlstate(), "42P05");
    EXPECT_EQ(run(*a, "s"), "select a");
}

TEST_F(SessionStatementsTest, WhatWasPreparedWithoutTheServerIsNotRunInAPause) {
    auto a = login();
    auto b = login();
    EXPECT_EQ(parse(*a, "s", "select a"), "1Z");
    wire::Buffer out;
    wire::put_parse(out, "s", "select a");
    b->send(out);
    ASSERT_TRUE(until([&] { return b->count('1') == 1; }));
    EXPECT_EQ(one.only().parses, 1U);
    auto paused = master_at(one.server);
    paused.paused = true;
    show({paused});
    EXPECT_EQ(environment.in_use[d1], 0U);
    out.clear();
    put_run(out, "s");
    wire::put_sync(out);
    b->messages.clear();
    b->send(out);
    settle();
    EXPECT_EQ(b->types(), "");
    show_master(one, 1);
    EXPECT_TRUE(until([&] { return b->count('Z') == 1; }));
    EXPECT_EQ(b->types(), "2DCZ");
}

TEST_F(SessionStatementsTest, AreBroughtToTheNextMaster) {
    auto client = login();
    EXPECT_EQ(parse(*client, "s", "select a"), "1Z");
    EXPECT_EQ(parse(*client, "", "select unnamed"), "1Z");
    one.server.die();
    show_master(two, 2);
    EXPECT_EQ(run(*client, "s"), "select a");
    EXPECT_EQ(run(*client, ""), "select unnamed");
    EXPECT_EQ(run(*client, "never"), "26000");
}

TEST_F(SessionStatementsTest, AServerConnectionKeepsNoMoreThanItsLimit) {
    auto client = login();
    const std::size_t count = limits::max_server_statements + 50;
    for (std::size_t i = 0; i < count; ++i)
        EXPECT_EQ(parse(*client, std::to_string(i), "select " + std::to_string(i)), "1Z");
    for (std::size_t i = 0; i < count; ++i)
        EXPECT_EQ(run(*client, std::to_string(i)), "select " + std::to_string(i));
    EXPECT_LE(one.only().statements.size(), limits::max_server_statements);
}

TEST_F(SessionStatementsTest, WhatAnErrorSkippedIsNotThere) {
    auto client = login();
    EXPECT_EQ(parse(*client, "d", "div"), "1Z");
    EXPECT_EQ(parse(*client, "b", "bad"), "EZ");
    EXPECT_EQ(run(*client, "b"), "26000");
    wire::Buffer out;
    put_run(out, "d");
    wire::put_parse(out, "n", "select n");
    wire::put_close_statement(out, "d");
    EXPECT_EQ(send(*client, out), "2EZ");
    EXPECT_EQ(run(*client, "n"), "26000");
    EXPECT_EQ(parse(*client, "n", "select n"), "1Z");
    EXPECT_EQ(run(*client, "n"), "select n");
    EXPECT_EQ(parse(*client, "d", "select d"), "EZ") << "its Close was skipped, too";
}

TEST_F(SessionStatementsTest, DeallocateTakesNothingFromOthers) {
    auto a = login();
    auto b = login();
    EXPECT_EQ(parse(*a, "s", "select 1"), "1Z");
    EXPECT_EQ(parse(*a, "t", "select 2"), "1Z");
    EXPECT_EQ(parse(*b, "s", "select 1"), "1Z");
    EXPECT_EQ(query(*a, "deallocate s"), "CZ");
    EXPECT_EQ(run(*a, "s"), "26000");
    EXPECT_EQ(run(*a, "t"), "select 2");
    EXPECT_EQ(query(*a, "DEALLOCATE ALL;"), "CZ");
    EXPECT_EQ(run(*a, "t"), "26000");
    EXPECT_EQ(run(*b, "s"), "select 1");
    EXPECT_EQ(one.only().parses, 2U);
}

TEST_F(SessionStatementsTest, AnUnnamedOneThatWasTooLargeIsNeverAnothers) {
    auto a = login();
    auto b = login();
    wire::Buffer out;
    wire::put_parse(out, "", "select " + std::string(limits::max_unnamed_bytes, 'x'));
    put_run(out, "");
    EXPECT_EQ(send(*a, out), "12DCZ");
    EXPECT_EQ(parse(*b, "", "select b"), "1Z");
    EXPECT_EQ(run(*a, ""), "26000");
    EXPECT_EQ(run(*b, ""), "select b");
}

TEST_F(SessionStatementsTest, RandomClientsSeeTheirOwnOnly) {
    environment.settings_now.max_pool_size = 2;
    for (const unsigned seed : {1U, 2U, 3U, 4U}) {
        std::mt19937 random{seed};
        const auto pick = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
        struct Known {
            std::unique_ptr<Client> client;
            std::map<std::string, std::string> statements;
        };
        std::vector<Known> clients(5);
        for (auto& known : clients) known.client = login();
        for (int step = 0; step < 300; ++step) {
            SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(step));
            auto& [client, statements] = clients[pick(5)];
            // The name "" is the unnamed one: it may be prepared again, and a simple query ends it.
            const std::string name = pick(4) == 0 ? "" : "n" + std::to_string(pick(3));
            const std::string text = "select " + std::to_string(pick(6));
            switch (pick(6)) {
                case 0:
                case 1: {
                    const bool taken = !name.empty() && statements.contains(name);
                    EXPECT_EQ(parse(*client, name, text), taken ? "EZ" : "1Z");
                    if (!taken) statements[name] = text;
                    break;
                }
                case 2: {
                    wire::Buffer out;
                    wire::put_close_statement(out, name);
                    EXPECT_EQ(send(*client, out), "3Z");
                    statements.erase(name);
                    break;
                }
                case 3: {
                    // What stands behind the failure is as if it had not been sent.
                    wire::Buffer out;
                    wire::put_parse(out, "", "div");
                    put_run(out, "");
                    wire::put_close_statement(out, "n1");
                    wire::put_parse(out, "n2", text);
                    EXPECT_EQ(send(*client, out), "12EZ");
                    statements[""] = "div";
                    break;
                }
                case 4:
                    if (pick(3) > 0) break;
                    EXPECT_EQ(query(*client, "select 1"), "CZ");
                    statements.erase("");
                    break;
                default: {
                    const auto known = statements.find(name);
                    const std::string expected = known == statements.end() ? "26000" : known->second;
                    if (expected == "div") break;
                    EXPECT_EQ(run(*client, name), expected);
                    break;
                }
            }
            if (HasFailure()) return;
        }
        for (auto& known : clients) known.client->hang_up();
    }
    EXPECT_GE(one.server.backends.size(), 1U);
}

TEST_F(SessionStatementsTest, WhatGoesInFrontOfAMessageThatIsAnsweredHereGoesToNoOtherServer) {
    environment.settings_now.max_pool_size = 2;
    auto holder = login();
    auto asker = login();
    auto late = login();
    EXPECT_EQ(parse(*holder, "n", "select nextval('s')"), "1Z");
    EXPECT_EQ(query(*holder, "begin"), "CZ");
    // Whose values somebody asks for are told apart from now on, and this one is bound to the second server.
    EXPECT_EQ(query(*asker, "select currval('s')"), "CZ");
    EXPECT_EQ(query(*holder, "commit"), "CZ");
    wire::Buffer out;
    wire::put_parse(out, "m", "select nextval('s')");
    late->send(out);
    EXPECT_TRUE(until([&] { return late->count('1') == 1; }));
    EXPECT_EQ(one.only().parses, 1U) << "it is there already";
    EXPECT_TRUE(until([&] { return one.server.backends.front()->queries.back() == "DISCARD SEQUENCES"; }));
    EXPECT_EQ(query(*asker, "select 1"), "CZ");
    const auto& askers = one.server.backends.back()->queries;
    EXPECT_EQ(std::count(askers.begin(), askers.end(), "DISCARD SEQUENCES"), 1);
    EXPECT_EQ(run(*late, "m"), "select nextval('s')");
}

TEST_F(SessionStatementsTest, ValuesDrawnInATransactionStayWhereNobodyHasAskedForAnyBefore) {
    environment.settings_now.max_pool_size = 1;
    auto client = login();
    auto other = login();
    EXPECT_EQ(query(*other, "select 1"), "CZ");
    for (const char* sql : {"begin", "select nextval('s')", "select currval('s')", "commit"})
        EXPECT_EQ(query(*client, sql), "CZ");
    for (const std::string& sql : one.server.queries()) EXPECT_NE(sql, "DISCARD SEQUENCES");
}

}  // namespace
}  // namespace pgxc::pooler
