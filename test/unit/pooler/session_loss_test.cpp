// What clients of a pooler see of a server that breaks, and of a failover.
#include <gtest/gtest.h>

#include <algorithm>

#include "fakes/session_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Backend;
using fakes::Client;
using fakes::Server;

// --- A server that breaks, in each phase ---

TEST_F(SessionTest, IdleClientsDoNotNoticeALostServer) {
    start();
    auto client = login();
    run(*client, "select 1");
    server->backends[0]->hang_up(true);
    settle();
    run(*client, "select 2");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(server->backends.size(), 2U);
    ASSERT_FALSE(environment.reports.empty());
    EXPECT_EQ(environment.reports[0].failure, TrafficFailure::ConnectionLost);
    EXPECT_EQ(environment.reports[0].node, d1);
}

TEST_F(SessionTest, AStatementInFlightEndsInUnknownOutcomeAndTheConnectionGoesOn) {
    server->on_query = die_at("insert and die");
    start();
    auto client = login();
    run(*client, "insert and die");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "08007");
    EXPECT_FALSE(client->error().hint.empty());
    EXPECT_EQ(client->status(), 'I');
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, InsideABlockTheTransactionIsKnownToBeLost) {
    server->on_query = die_at("insert and die");
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "insert and die");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_EQ(client->status(), 'E');
    run(*client, "insert more");
    EXPECT_EQ(client->sqlstate(), "25P02");
    run(*client, "rollback");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'I');
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    const auto queries = server->queries();
    EXPECT_EQ(std::count(queries.begin(), queries.end(), "insert more"), 0);
}

TEST_F(SessionTest, ACommitInFlightIsUnknown) {
    server->on_query = die_at("commit");
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "insert");
    run(*client, "commit");
    EXPECT_EQ(client->sqlstate(), "08007");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(SessionTest, ALossBetweenTwoStatementsOfABlockIsToldAtTheNext) {
    start();
    auto client = login();
    run(*client, "begin");
    client->messages.clear();
    server->backends[0]->hang_up(true);
    settle();
    EXPECT_EQ(client->types(), "");
    run(*client, "commit");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(SessionTest, AFatalErrorBetweenTwoStatementsOfABlockIsToldAtTheNext) {
    start();
    auto client = login();
    run(*client, "begin");
    client->messages.clear();
    server->backends[0]->fail("57P01", true);
    server->backends[0]->hang_up();
    settle();
    EXPECT_EQ(client->types(), "");
    run(*client, "insert");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_EQ(client->error().detail, "scripted error");
    EXPECT_EQ(client->status(), 'E');
    run(*client, "insert");
    EXPECT_EQ(client->sqlstate(), "25P02");
    run(*client, "rollback");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(SessionTest, WhatALostServerDidNotTakeIsRepeatedWithTheRest) {
    for (const bool at_slave : {true, false}) {
        Server slave{loop};
        show_master(*server);
        if (at_slave) environment.show({master_at(*server), slave_at(slave)});
        if (!pooler) start();
        pooler->view_changed();
        auto client = login();
        run(*client, "begin read only");
        client->messages.clear();
        // The pooler hears of both at once, and of the statement first.
        client->query("select 1");
        (at_slave ? slave : *server).backends.back()->hang_up(true);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << (at_slave ? "slave" : "master");
        EXPECT_EQ(client->types(), "CZ");
        EXPECT_EQ(client->status(), 'T');
    }
}

TEST_F(SessionTest, AReadOnlyBlockThatHasReadNothingMovesUnnoticed) {
    Server slave{loop};
    environment.show({master_at(*server), slave_at(slave)});
    start();
    auto client = login();
    run(*client, "begin read only");
    slave.backends[0]->hang_up(true);
    settle();
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(server->queries(), (std::vector<std::string>{"begin read only", "select 1"}));
    run(*client, "rollback");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(SessionTest, AReadOnlyBlockThatHasReadCannotMove) {
    Server slave{loop};
    environment.show({master_at(*server), slave_at(slave)});
    start();
    auto client = login();
    run(*client, "begin read only");
    run(*client, "select 1");
    slave.backends[0]->hang_up(true);
    settle();
    run(*client, "select 2");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_EQ(client->status(), 'E');
    EXPECT_TRUE(server->queries().empty());
}

TEST_F(SessionTest, TheRestOfAPipelineIsSkippedUpToSync) {
    server->on_message = [](fakes::Backend& backend, const fakes::Message& message) {
        if (message.type == 'H') backend.hang_up(true);
    };
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_parse(out, "", "insert");
    wire::put_bind(out, "", "");
    wire::put_execute(out, "");
    wire::put_flush(out);
    client->send(out);
    ASSERT_TRUE(until([&] { return client->count('E') == 1; }));
    EXPECT_EQ(client->sqlstate(), "08007");
    out.clear();
    wire::put_parse(out, "", "insert 2");
    wire::put_bind(out, "", "");
    wire::put_execute(out, "");
    wire::put_sync(out);
    client->send(out);
    ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->types(), "EZ");
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, ALossInTheMiddleOfARowEndsTheClient) {
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "big") return false;
        backend.send(std::string("D\0\0\x10\0", 5) + "abc");
        return true;
    };
    start();
    auto client = login();
    client->query("big");
    settle();
    server->backends[0]->hang_up(true);
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->count('E'), 0U);
}

TEST_F(SessionTest, APinnedClientEndsWithItsServer) {
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql.starts_with(question)) {
            backend.tell_what_is_left({{"t", "", ""}});
        } else {
            backend.complete("CREATE TABLE", 'I');
        }
        return true;
    };
    start();
    auto client = login();
    run(*client, "create temp table t (i int)");
    settle();
    server->backends[0]->hang_up(true);
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_NE(client->error().hint.find("temporary object"), std::string::npos);
}

TEST_F(SessionTest, AFatalErrorOfTheServerIsALossAndNotTheClientsEnd) {
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "insert and die") return false;
        backend.fail("57P01", true);
        backend.hang_up();
        return true;
    };
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "insert and die");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_EQ(client->error().detail, "scripted error");
    run(*client, "rollback");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(SessionTest, ACommitThatNoSynchronousSlaveHasIsNoSuccess) {
    const auto warning = [] {
        wire::Buffer body;
        body = "SWARNING";
        body.push_back('\0');
        for (const char* field :
             {"VWARNING", "C01000", "Mcanceling wait for synchronous replication", "RSyncRepWaitForLSN"}) {
            body += field;
            body.push_back('\0');
        }
        body.push_back('\0');
        wire::Buffer out = "N";
        wire::put_u32(out, static_cast<std::uint32_t>(body.size() + 4));
        return out + body;
    }();
    server->on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (sql == "insert") {
            backend.send(warning);
        } else if (sql == "insert late") {
            // As in the extended protocol: the warning comes behind the tag.
            wire::Buffer out;
            wire::put_command_complete(out, "INSERT 0 1");
            backend.send(out);
            backend.send(warning);
            out.clear();
            wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
            backend.send(out);
            return true;
        }
        return false;
    };
    start();
    auto client = login();
    for (const std::string sql : {"insert", "insert late"}) {
        run(*client, sql);
        EXPECT_EQ(client->types(), "EZ") << sql;
        EXPECT_EQ(client->sqlstate(), "08007");
        EXPECT_FALSE(client->error().hint.empty());
    }
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

// --- Failover ---

TEST_F(SessionTest, AHeldGroupMakesTransactionsWaitAndOpensToTheNewMaster) {
    Server next{loop};
    start();
    auto client = login();
    run(*client, "select 1");
    auto in_block = login();
    run(*in_block, "begin");
    show_master(*server, 1, Gate::Held);
    client->messages.clear();
    client->query("select 2");
    settle();
    EXPECT_EQ(client->types(), "");
    pooler->publish_stats();
    EXPECT_EQ(environment.clients[0].state, "held");
    run(*in_block, "insert");  // what runs may finish
    EXPECT_EQ(in_block->types(), "CZ");
    show_master(next, 2);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(next.queries(), std::vector<std::string>{"select 2"});
    EXPECT_TRUE(until([&] { return server->open_backends() == 0; }));
    run(*in_block, "insert");
    EXPECT_EQ(in_block->sqlstate(), "08006");
    run(*in_block, "rollback");
    run(*in_block, "insert");
    EXPECT_EQ(in_block->types(), "CZ");
}

TEST_F(SessionTest, ClientsHeldBesideIdleConnectionsGoToTheNewMaster) {
    // As with a master that is cut off: its connections are idle, and look as good as ever.
    environment.settings_now.failover_hold = Millis{8000};
    start();
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(login());
    for (auto& client : clients) run(*client, "begin");
    for (auto& client : clients) run(*client, "commit");
    show_master(*server, 1, Gate::Held);
    for (auto& client : clients) {
        client->messages.clear();
        client->query("insert");
    }
    settle();
    Server other(loop);
    show_master(other, 2, Gate::Open);
    for (auto& client : clients) {
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
        EXPECT_EQ(client->types(), "CZ");
    }
    EXPECT_EQ(other.queries(), (std::vector<std::string>{"insert", "insert", "insert"}));
}

TEST_F(SessionTest, AGroupThatIsRegisteredAnewElsewhereLeavesNobodyAtItsOldServer) {
    bool commits_end = true;
    server->on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (sql.starts_with(question)) {
            backend.tell_what_is_left({{"l", "", ""}});
        } else if (sql == "listen c") {
            backend.complete("LISTEN", 'I');
        } else {
            return sql == "commit" && !commits_end;
        }
        return true;
    };
    start();
    auto pinned = login();
    run(*pinned, "listen c");
    auto in_block = login();
    run(*in_block, "begin");
    auto commits = login();
    run(*commits, "begin");
    show({});
    run(*in_block, "insert");  // what runs may finish
    EXPECT_EQ(in_block->types(), "CZ");
    commits_end = false;
    commits->messages.clear();
    commits->query("commit");
    settle();
    Server next{loop};
    show_master(next);
    EXPECT_TRUE(until([&] { return server->open_backends() == 0; }));
    EXPECT_TRUE(until([&] { return pinned->ended() && commits->count('Z') == 1; }));
    EXPECT_EQ(pinned->sqlstate(), "08006");
    EXPECT_EQ(commits->sqlstate(), "08007");
    run(*in_block, "insert");
    EXPECT_EQ(in_block->sqlstate(), "08006");
    run(*in_block, "rollback");
    run(*in_block, "select 1");
    EXPECT_EQ(next.queries(), std::vector<std::string>{"select 1"});
}

TEST_F(SessionTest, AHeldTransactionFailsInTimeAndSaysWhy) {
    start();
    auto client = login();
    environment.settings_now.failover_hold = Millis{400};
    pooler->reload();
    auto view = master_at(*server, 1, Gate::Held);
    view.why = "its master does not answer";
    environment.show({view});
    pooler->view_changed();
    run(*client, "select 1");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_NE(client->error().message.find("datanode 1"), std::string::npos);
    EXPECT_NE(client->error().message.find("its master does not answer"), std::string::npos);
    EXPECT_EQ(client->status(), 'I');
    show_master(*server);
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, ADeadMasterIsReportedAndClientsWaitForTheNext) {
    environment.settings_now.failover_hold = Millis{8000};
    Server next{loop};
    start();
    auto client = login();
    run(*client, "select 1");
    server->die();
    settle();
    client->messages.clear();
    client->query("insert");
    ASSERT_TRUE(until([&] {
        return std::any_of(environment.reports.begin(), environment.reports.end(), [](const auto& report) {
            return report.failure == TrafficFailure::ConnectRefused;
        });
    }));
    EXPECT_EQ(client->types(), "");
    show_master(next, 2);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, AMasterInRecoveryIsNotUsed) {
    server->parameters.emplace_back("in_hot_standby", "on");
    start();
    auto client = connect();
    client->start();
    ASSERT_TRUE(until([&] {
        return !environment.reports.empty() &&
               environment.reports.back().failure == TrafficFailure::ServerSaysReadOnly;
    }));
    EXPECT_EQ(client->types(), "");
}

TEST_F(SessionTest, AReadOnSlaveIsRepeatedOnTheMaster) {
    Server slave{loop};
    slave.on_query = die_at("select and die");
    environment.show({master_at(*server), slave_at(slave)});
    start();
    auto client = login();
    run(*client, "begin read only");
    EXPECT_EQ(slave.queries(), std::vector<std::string>{"begin read only"});
    run(*client, "select and die");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    EXPECT_EQ(server->queries(), (std::vector<std::string>{"begin read only", "select and die"}));
    run(*client, "commit");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(SessionTest, ASlaveThatRefusesConnectionsIsReplacedByTheMaster) {
    Server slave{loop};
    slave.die();
    environment.show({master_at(*server), slave_at(slave)});
    start();
    auto client = login();
    run(*client, "begin read only");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(server->queries(), std::vector<std::string>{"begin read only"});
}

TEST_F(SessionTest, AWritePipelinedBehindAReadOnlyTransactionGoesToTheMaster) {
    Server slave{loop};
    environment.show({master_at(*server), slave_at(slave)});
    start();
    auto client = login();
    wire::Buffer out;
    for (const char* sql : {"begin read only", "select 1", "commit", "insert"}) wire::put_query(out, sql);
    client->send(out);
    ASSERT_TRUE(until([&] { return client->count('Z') == 4; }));
    EXPECT_EQ(slave.queries(), (std::vector<std::string>{"begin read only", "select 1", "commit"}));
    EXPECT_EQ(server->queries(), std::vector<std::string>{"insert"});
}

/// A server that tells what a transaction sets, may go on with another one, and is gone when it is told to
/// be.
bool sets_and_dies(Backend& backend, const std::string& sql) {
    if (sql == "set local timezone" || sql == "set timezone") {
        wire::Buffer out;
        wire::put_parameter_status(out, "TimeZone", "Asia/Tokyo");
        backend.send(out);
        backend.complete("SET", 'T');
    } else if (sql == "commit and chain") {
        backend.complete("COMMIT", 'T');
    } else if (sql == "die") {
        backend.hang_up(true);
    } else {
        return false;
    }
    return true;
}

TEST_F(SessionTest, WhatALostTransactionHadSetIsNotTheClientsAnyMore) {
    server->on_query = sets_and_dies;
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "set local timezone");
    EXPECT_EQ(client->types(), "SCZ");
    run(*client, "die");
    EXPECT_EQ(client->types(), "SEZ");
    EXPECT_EQ(client->sqlstate(), "08006");
    const auto status = wire::parse_parameter_status(client->messages.front().body);
    ASSERT_TRUE(status.ok());
    EXPECT_EQ(status->name, "TimeZone");
    EXPECT_EQ(status->value, "UTC");
    run(*client, "rollback");
    run(*client, "select 1");
    const auto& queries = server->backends.back()->queries;
    EXPECT_EQ(queries.back(), "select 1");
    EXPECT_EQ(std::count_if(queries.begin(), queries.end(),
                            [](const std::string& sql) { return sql.find("Tokyo") != std::string::npos; }),
              0);
}

TEST_F(SessionTest, WhatWasCommittedInFrontOfALostTransactionStays) {
    server->on_query = sets_and_dies;
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "set timezone");
    run(*client, "commit and chain");
    run(*client, "die");
    EXPECT_EQ(client->types(), "EZ");
    run(*client, "rollback");
    run(*client, "select 1");
    EXPECT_NE(server->backends.back()->queries.front().find("Tokyo"), std::string::npos);
}

}  // namespace
}  // namespace pgxc::pooler
