// The unnamed statement of clients that prepare it in one transaction and bind it in the next, as drivers do
// that ask for its description first. Servers keep it as PostgreSQL does: until the next Parse of it, or the
// next simple query.
#include <gtest/gtest.h>

#include "base/limits.h"
#include "fakes/auto_routing_test.h"
#include "fakes/session_test.h"
#include "fakes/statement_server.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::put_run;
using fakes::StatementServer;

class UnnamedTest : public PoolerTest {
  protected:
    void SetUp() override {
        environment.settings_now.max_pool_size = 2;
        show({master_at(one.server)});
        slave.server.in_recovery = true;
    }
    std::string parse(Client& client, const std::string& sql) {
        wire::Buffer out;
        wire::put_parse(out, "", sql);
        wire::put_sync(out);
        return send(client, out);
    }
    /// Binds and executes it: the row, or the SQLSTATE.
    std::string bind(Client& client) {
        wire::Buffer out;
        put_run(out, "");
        wire::put_sync(out);
        const std::string types = send(client, out);
        if (types != "2DCZ") return types == "EZ" ? client.sqlstate() : types;
        return client.messages[1].body.substr(6);
    }
    std::string send(Client& client, const wire::Buffer& out) {
        client.messages.clear();
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1 || client.ended(); })) << client.types();
        return client.types();
    }
    /// Keeps a server connection without a simple query, until let_go().
    void take(Client& client) {
        wire::Buffer out;
        wire::put_parse(out, "named", "select named");
        put_run(out, "named");
        wire::put_flush(out);
        client.messages.clear();
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('C') == 1; })) << client.types();
    }
    void let_go(Client& client) {
        wire::Buffer out;
        wire::put_sync(out);
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1; })) << client.types();
    }

    StatementServer one{loop};
    StatementServer slave{loop};
};

TEST_F(UnnamedTest, TheNewestIsRunWhereverItWasPrepared) {
    start();
    auto client = login();
    auto x = login();
    auto y = login();
    EXPECT_EQ(parse(*client, "select first"), "1Z");
    take(*x);
    EXPECT_EQ(parse(*client, "select second"), "1Z");
    EXPECT_EQ(one.server.open_backends(), 2U);
    take(*y);
    let_go(*x);
    EXPECT_EQ(bind(*client), "select second");
    let_go(*y);
}

TEST_F(UnnamedTest, WhatItLeavesIsLookedForInTheTransactionInWhichItIsBound) {
    one.server.on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (!sql.starts_with(question)) return false;
        backend.tell_what_is_left({{"s", "search_path", "theirs"}});
        return true;
    };
    environment.settings_now.max_pool_size = 1;
    start();
    auto client = login();
    auto other = login();
    EXPECT_EQ(parse(*client, "select set_config('search_path', $1, false)"), "1Z");
    EXPECT_EQ(bind(*client), "select set_config('search_path', $1, false)");
    run(*other, "select 1");
    const auto& queries = one.server.backends.front()->queries;
    const auto reset = [&] {
        return std::any_of(queries.begin(), queries.end(), [](const std::string& sql) {
            return sql.find("RESET \"search_path\"") != std::string::npos;
        });
    };
    EXPECT_TRUE(reset());
    run(*client, "select 2");
    EXPECT_EQ(queries.back(), "select 2");
    EXPECT_NE(queries[queries.size() - 2].find("theirs"), std::string::npos) << queries[queries.size() - 2];
}

TEST_F(UnnamedTest, ALargeOneKeepsItsConnectionUntilItIsBoundAndNotLonger) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto client = login();
    auto other = login();
    const std::string large = "select " + std::string(limits::max_unnamed_bytes, 'x');
    EXPECT_EQ(parse(*client, large), "1Z");
    EXPECT_EQ(bind(*client), large);
    run(*other, "select 1");
    EXPECT_EQ(other->types(), "CZ");
}

TEST_F(UnnamedTest, ALargeOneIsPreparedAtTheMasterWhereTheNextTransactionCanWrite) {
    FirstWord classifier;
    environment.classifier_now = &classifier;
    show({master_at(one.server), slave_at(slave.server)});
    start();
    for (const char* routing : {"explicit", "auto"}) {
        auto client = login({{"options", std::string{"-c pgxc.read_routing="} + routing},
                             {"default_transaction_read_only", "on"}});
        const std::string large = "select " + std::string(limits::max_unnamed_bytes, 'x');
        EXPECT_EQ(parse(*client, large), "1Z");
        EXPECT_EQ(bind(*client), large);
        EXPECT_EQ(parse(*client, large), "1Z");
        run(*client, "begin read write");
        run(*client, "insert");
        run(*client, "commit");
        EXPECT_EQ(one.server.queries().back(), "commit") << routing;
        EXPECT_EQ(slave.server.queries(), Queries{}) << routing;
    }
    pooler.reset();
}

TEST_F(UnnamedTest, ALargeOneDoesNotKeepItsClientAtASlave) {
    show({master_at(one.server), slave_at(slave.server)});
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_parse(out, "c", "commit");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out), "1Z");
    run(*client, "begin read only");
    EXPECT_EQ(slave.server.queries(), Queries{"begin read only"});
    EXPECT_EQ(parse(*client, "select " + std::string(limits::max_unnamed_bytes, 'x')), "1Z");
    // It is there when the transaction ends without a simple query.
    slave.server.backends.back()->status = 'I';
    out.clear();
    put_run(out, "c");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out), "2DCZ");
    // Gone with that server, and from now on the master keeps them.
    EXPECT_EQ(bind(*client), "26000");
    run(*client, "insert");
    EXPECT_EQ(one.server.queries().back(), "insert");
}

TEST_F(UnnamedTest, AQuestionOfThePoolersOwnTakesItAwayAndItIsBroughtAgain) {
    auto& settings = environment.settings_now;
    settings.causal_reads = true;
    settings.read_routing = ReadRouting::Auto;
    settings.max_pool_size = 1;
    FirstWord classifier;
    environment.classifier_now = &classifier;
    show({master_at(one.server), slave_at(slave.server)});
    start();
    auto client = login();
    auto writer = login();
    auto reader = login();
    // So long as there are reads for slaves, each commit makes the pooler ask how far the master is.
    for (int i = 0; i < 20; ++i) {
        run(*reader, "select 1");
        const std::size_t asked = one.server.questions;
        run(*writer, "insert");
        EXPECT_EQ(parse(*client, "insert $1"), "1Z");
        EXPECT_TRUE(until([&] { return one.server.questions > asked; }));
        settle();
        EXPECT_EQ(bind(*client), "insert $1");
    }
}

TEST_F(UnnamedTest, ACommitUnderTheClientsOwnNameIsKnownForOne) {
    environment.settings_now.max_pool_size = 1;
    one.server.on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (!sql.starts_with("begin")) return false;
        backend.complete("BEGIN", 'T');
        return true;
    };
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_parse(out, "c", "commit");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out), "1Z");
    // What names statements in SQL has them under the client's own names.
    run(*client, "select * from pg_prepared_statements");
    run(*client, "begin");
    one.server.backends.front()->queries.clear();
    out.clear();
    put_run(out, "c");
    wire::put_sync(out);
    client->messages.clear();
    one.silent = true;
    client->send(out);
    settle();
    one.server.die();
    EXPECT_TRUE(until([&] { return client->ended() || client->count('E') > 0; }));
    EXPECT_EQ(client->sqlstate(), "08007");
}

}  // namespace
}  // namespace pgxc::pooler
