// Where prepared statements go with pgxc.read_routing = auto.
#include <gtest/gtest.h>

#include <map>

#include "fakes/auto_routing_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::Server;

/// Servers that know what was prepared, and on which connection.
class PreparedRoutingTest : public AutoRoutingTest {
  protected:
    struct Kept {
        std::map<std::string, std::string> statements;
        std::string bound;
        bool skipping = false;
    };
    void SetUp() override {
        AutoRoutingTest::SetUp();
        for (Server* server : {&master, &slave}) {
            server->on_message = [this, server](fakes::Backend& backend, const fakes::Message& message) {
                answer(*server, backend, message);
            };
            server->on_query = [this](fakes::Backend& backend, const std::string&) {
                kept[&backend].statements.erase("");
                return false;
            };
        }
    }
    void answer(Server& server, fakes::Backend& backend, const fakes::Message& message) {
        Kept& here = kept[&backend];
        wire::BodyReader body{message.body};
        wire::Buffer out;
        const auto fail = [&](std::string_view state) {
            here.skipping = true;
            if (backend.status == 'T') backend.status = 'E';
            wire::put_error_response(out, wire::Severity::Error, {std::string{state}, "scripted error"});
        };
        if (message.type == 'S') {
            here.skipping = false;
            wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(backend.status));
        } else if (here.skipping) {
            return;
        } else if (message.type == 'P') {
            const std::string name{body.cstring()};
            if (!name.empty() && here.statements.count(name) != 0) {
                fail("42P05");
            } else {
                here.statements[name] = body.cstring();
                wire::put_parse_complete(out);
            }
        } else if (message.type == 'B') {
            (void)body.cstring();
            const auto found = here.statements.find(std::string{body.cstring()});
            if (found == here.statements.end()) {
                fail("26000");
            } else {
                here.bound = found->second;
                wire::put_bind_complete(out);
            }
        } else if (message.type == 'C') {
            (void)body.u8();
            here.statements.erase(std::string{body.cstring()});
            wire::put_close_complete(out);
        } else if (message.type == 'E') {
            backend.queries.push_back(here.bound);
            if (&server == &slave && here.bound == "select hidden write") {
                fail("25006");
            } else {
                if (here.bound == "begin") backend.status = 'T';
                if (here.bound == "commit") backend.status = 'I';
                wire::put_command_complete(out, "SELECT 1");
            }
        }
        backend.send(out);
    }
    void sync(Client& client, wire::Buffer out) {
        client.messages.clear();
        wire::put_sync(out);
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1 || client.ended(); })) << client.types();
    }
    void prepare(Client& client, const std::string& name, const std::string& sql) {
        wire::Buffer out;
        wire::put_parse(out, name, sql);
        sync(client, out);
        EXPECT_EQ(client.types(), "1Z");
    }
    void execute(Client& client, const std::vector<std::string>& names, const std::string& portal = {}) {
        wire::Buffer out;
        for (const auto& name : names) {
            wire::put_bind(out, portal, name);
            wire::put_execute(out, portal);
        }
        sync(client, out);
    }
    std::map<fakes::Backend*, Kept> kept;
};

TEST_F(PreparedRoutingTest, AStatementGoesWhereItsTextMayBeDoneWhereverItWasPrepared) {
    start();
    auto client = login();
    prepare(*client, "r", "select 1");
    prepare(*client, "w", "insert");
    prepare(*client, "u", "what is it");
    forget();
    for (const char* name : {"r", "w", "u", "r"}) {
        execute(*client, {name});
        EXPECT_EQ(client->types(), "2CZ") << name;
    }
    EXPECT_EQ(slave.queries(), (Queries{"select 1", "select 1"}));
    EXPECT_EQ(master.queries(), (Queries{"insert", "what is it"}));
    execute(*client, {"r", "w"});
    EXPECT_EQ(client->types(), "2C2CZ");
    EXPECT_EQ(master.queries(), (Queries{"insert", "what is it", "select 1", "insert"}));
    execute(*client, {"nobody's"});
    EXPECT_EQ(client->sqlstate(), "26000");
}

TEST_F(PreparedRoutingTest, TheUnnamedStatementIsBoundLaterWhereItMayBeDone) {
    start();
    auto client = login();
    for (const char* sql : {"select 1", "insert"}) {
        prepare(*client, "", sql);
        execute(*client, {""});
        EXPECT_EQ(client->types(), "2CZ");
    }
    EXPECT_EQ(slave.queries(), Queries{"select 1"});
    EXPECT_EQ(master.queries(), Queries{"insert"});
}

TEST_F(PreparedRoutingTest, ABlockOfPreparedStatementsMovesToTheMaster) {
    start();
    auto client = login_known();
    prepare(*client, "b", "begin");
    prepare(*client, "r", "select 1");
    prepare(*client, "w", "insert");
    prepare(*client, "c", "commit");
    forget();
    execute(*client, {"b", "r"});
    EXPECT_EQ(client->types(), "2C2CZ");
    EXPECT_EQ(client->status(), 'T');
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1"}));
    for (const char* name : {"r", "w", "r"}) {
        execute(*client, {name});
        EXPECT_EQ(client->types(), "2CZ") << name;
        EXPECT_EQ(client->status(), 'T');
    }
    execute(*client, {"c"});
    EXPECT_EQ(client->status(), 'I');
    settle();
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "select 1", "ROLLBACK"}));
    EXPECT_EQ(master.queries(), (Queries{"begin", "insert", "select 1", "commit"}));
    forget();
    // All of it at a slave, the end too, also in one pipeline.
    execute(*client, {"b", "r"});
    execute(*client, {"c"});
    execute(*client, {"b", "r", "c"});
    EXPECT_EQ(client->types(), "2C2C2CZ");
    EXPECT_EQ(client->status(), 'I');
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "commit", "begin", "select 1", "commit"}));
    EXPECT_EQ(master.queries(), Queries{});
}

TEST_F(PreparedRoutingTest, WhatASessionHasUnnamedOutlivesTheMoveOfItsBlock) {
    start();
    auto client = login_known();
    run(*client, "begin");
    prepare(*client, "", "select 1");
    execute(*client, {""});
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1"}));
    prepare(*client, "w", "insert");  // that moves it
    execute(*client, {""});
    EXPECT_EQ(client->types(), "2CZ");
    run(*client, "commit");
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
    // A Query drops it.
    execute(*client, {""});
    EXPECT_EQ(client->sqlstate(), "26000");
}

TEST_F(PreparedRoutingTest, APortalThatMayBeGoneOnWithKeepsItsBlockAtTheMaster) {
    start();
    auto client = login_known();
    prepare(*client, "r", "select 1");
    forget();
    run(*client, "begin");
    execute(*client, {"r"}, "portal");
    EXPECT_EQ(client->types(), "2CZ");
    run(*client, "commit");
    EXPECT_EQ(slave.queries(), Queries{});
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
    // Outside of a block it is gone with the Sync.
    execute(*client, {"r"}, "portal");
    EXPECT_EQ(slave.queries(), Queries{"select 1"});
}

TEST_F(PreparedRoutingTest, WhatASlaveRefusedIsPreparedAndDoneAtTheMaster) {
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_parse(out, "h", "select hidden write");
    wire::put_bind(out, "", "h");
    wire::put_execute(out, "");
    sync(*client, out);
    EXPECT_EQ(client->types(), "12CZ");
    execute(*client, {"h"});
    EXPECT_EQ(client->types(), "2CZ");
    // The second time it is known.
    EXPECT_EQ(slave.queries(), Queries{"select hidden write"});
    EXPECT_EQ(master.queries(), (Queries{"select hidden write", "select hidden write"}));
}

TEST_F(PreparedRoutingTest, WhoAsksForAPartOfTheAnswerGetsIt) {
    environment.settings_now.read_routing = ReadRouting::Explicit;
    start();
    auto client = login();
    run(*client, "begin read only");
    client->messages.clear();
    wire::Buffer out;
    wire::put_parse(out, "r", "select 1");
    wire::put_flush(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('1') == 1; }));
    execute(*client, {"r"});
    EXPECT_EQ(client->types(), "2CZ");
    EXPECT_EQ(slave.queries(), (Queries{"begin read only", "select 1"}));
}

TEST_F(PreparedRoutingTest, ACommitOfAPreparedStatementIsOneThatReadsMustSee) {
    environment.settings_now.causal_reads = true;
    start();
    auto client = login();
    prepare(*client, "r", "select 1");
    prepare(*client, "w", "insert");
    const auto reads_at_slave = [&] {
        const std::size_t before = slave.queries().size();
        execute(*client, {"r"});
        return slave.queries().size() > before;
    };
    EXPECT_TRUE(until(reads_at_slave));
    master.position = master.inserted = "0/7D0";
    execute(*client, {"w"});
    settle();
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(reads_at_slave());
    slave.position = "0/7D0";
    EXPECT_TRUE(until(reads_at_slave));
}

}  // namespace
}  // namespace pgxc::pooler
