// Clients of a pooler that reads what they send, in front of a scripted master and slaves.
#include <gtest/gtest.h>

#include <algorithm>

#include "fakes/auto_routing_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Server;

TEST_F(AutoRoutingTest, ReadsGoToTheSlaveAndAllElseToTheMaster) {
    start();
    auto client = login();
    for (const char* sql : {"select 1", "insert", "what is it", "select now", "select 1"}) run(*client, sql);
    EXPECT_EQ(slave.queries(), (Queries{"select 1", "select now", "select 1"}));
    EXPECT_EQ(master.queries(), (Queries{"insert", "what is it"}));
    EXPECT_EQ(classifier.asked, 4);  // the same text again isn't parsed again
}

TEST_F(AutoRoutingTest, ExplicitDoesNotEvenLook) {
    environment.settings_now.read_routing = ReadRouting::Explicit;
    start();
    auto client = login();
    run(*client, "select 1");
    EXPECT_EQ(slave.queries(), Queries{});
    EXPECT_EQ(classifier.asked, 0);
    EXPECT_EQ(master.questions, 0U);
}

TEST_F(AutoRoutingTest, ABlockBeginsWhereItsFirstStatementGoes) {
    start();
    auto client = login_known();
    run(*client, "begin");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    settle();
    EXPECT_EQ(master.queries(), Queries{});
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    run(*client, "commit");
    EXPECT_EQ(client->status(), 'I');
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "commit"}));

    run(*client, "begin");
    run(*client, "insert");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "commit");
    EXPECT_EQ(master.queries(), (Queries{"begin", "insert", "commit"}));
}

TEST_F(AutoRoutingTest, ABlockThatBeganWithReadsMovesToTheMasterAtItsFirstWrite) {
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "select 2", "insert", "select 3"}) {
        run(*client, sql);
        EXPECT_EQ(client->types(), "CZ") << sql;
        EXPECT_EQ(client->status(), 'T');
    }
    run(*client, "commit");
    EXPECT_EQ(client->status(), 'I');
    settle();
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "select 2", "ROLLBACK"}));
    EXPECT_EQ(master.queries(), (Queries{"begin", "insert", "select 3", "commit"}));
    // The slave's connection is as good as before.
    const std::size_t connections = slave.backends.size();
    run(*client, "select 4");
    EXPECT_EQ(slave.backends.size(), connections);
    EXPECT_EQ(slave.queries().back(), "select 4");
}

TEST_F(AutoRoutingTest, WhatFollowsABeginThatFailsAtTheMasterIsNotDone) {
    master.refused = "begin";
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "insert");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "57014");
    EXPECT_EQ(client->status(), 'E');
    run(*client, "insert more");
    EXPECT_EQ(client->sqlstate(), "25P02");
    run(*client, "rollback");
    EXPECT_EQ(client->status(), 'I');
    EXPECT_EQ(master.queries(), Queries{"begin"});
}

TEST_F(AutoRoutingTest, WhatIsPipelinedBehindABeginThatFailsIsNotDone) {
    master.refused = "begin";
    start();
    auto client = login_known();
    run(*client, "begin");
    wire::Buffer out;
    for (const char* sql : {"insert", "insert more"}) {
        wire::put_parse(out, "", sql);
        wire::put_bind(out, "", "");
        wire::put_execute(out, "");
        wire::put_sync(out);
    }
    client->messages.clear();
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 2; })) << client->types();
    EXPECT_EQ(client->types(), "EZEZ");
    EXPECT_EQ(client->sqlstate(), "25P02");
    EXPECT_EQ(client->status(), 'E');
    EXPECT_EQ(master.queries(), Queries{"begin"});
}

TEST_F(AutoRoutingTest, SettingsInFrontOfABeginAreNotItsAnswer) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto client = login({{"application_name", "x"}});
    run(*client, "begin");
    run(*client, "rollback");
    ASSERT_TRUE(until([&] { return master.questions > 0; }));
    settle();
    forget();
    auto other = login();
    for (auto* one : {client.get(), other.get(), client.get()}) {
        run(*one, "begin");
        run(*one, "insert");
        EXPECT_EQ(one->types(), "CZ");
        run(*one, "commit");
    }
    const Queries queries = master.queries();
    EXPECT_TRUE(std::any_of(queries.begin(), queries.end(), [](const std::string& sql) {
        return sql.find("application_name") != std::string::npos;
    }));
    master.refused = "begin";
    run(*other, "begin");
    run(*other, "insert");
    EXPECT_EQ(other->types(), "EZ");
    EXPECT_EQ(other->sqlstate(), "57014");
}

TEST_F(AutoRoutingTest, ABlockThatGotNoServerLeavesNothingToTheNextTransaction) {
    start();
    auto client = login_known();
    environment.settings_now.failover_hold = Millis{50};
    pooler->reload();
    PoolerTest::show({master_at(master, 1, Gate::Held), slave_at(slave)});
    run(*client, "begin");
    run(*client, "insert");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->status(), 'E');
    run(*client, "rollback");
    show();
    slave.on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql == "select 1") backend.hang_up(true);
        return sql == "select 1";
    };
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(AutoRoutingTest, AReadThatEndsItsServerDoesNotEndOneAfterTheOther) {
    int ended = 0;
    for (Server* server : {&master, &slave})
        server->on_query = [&ended](fakes::Backend& backend, const std::string& sql) {
            if (sql != "select crash") return false;
            ++ended;
            backend.hang_up(true);
            return true;
        };
    start();
    auto client = login_known();
    run(*client, "begin read only");
    run(*client, "select crash");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_LE(ended, 4);
}

TEST_F(AutoRoutingTest, ABeginThatFailsAtASlaveIsTriedAtTheMaster) {
    slave.refused = "begin";
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    run(*client, "commit");
    EXPECT_EQ(client->status(), 'I');
    EXPECT_EQ(slave.queries(), Queries{"begin"});
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
}

TEST_F(AutoRoutingTest, AMasterLostInTheFirstStatementOfABlockIsToldOnce) {
    master.on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql == "insert") backend.hang_up(true);
        return sql == "insert";
    };
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "insert");
    settle();
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "08006");
    EXPECT_EQ(client->status(), 'E');
    run(*client, "rollback");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'I');
    // The next transaction is none of that block.
    run(*client, "insert");
    EXPECT_EQ(client->sqlstate(), "08007");
    EXPECT_EQ(client->status(), 'I');
}

TEST_F(AutoRoutingTest, ASlaveLostBeforeItBeganABlockIsReplacedUnnoticed) {
    slave.on_message = [](fakes::Backend& backend, const fakes::Message&) { backend.hang_up(true); };
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "select 1");
    settle();
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    run(*client, "commit");
    EXPECT_EQ(client->status(), 'I');
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
}

TEST_F(AutoRoutingTest, ASlaveLostBeforeItHasTheSettingsOfABlockIsReplacedUnnoticed) {
    int lost = 0;
    slave.on_query = [&lost](fakes::Backend& backend, const std::string& sql) {
        if (!sql.starts_with("SELECT set_config") && !sql.starts_with("SELECT pg_catalog.set_config"))
            return false;
        if (lost > 0) return false;
        ++lost;
        backend.hang_up(true);
        return true;
    };
    start();
    auto client = login({{"timezone", "Asia/Tokyo"}});
    run(*client, "begin");
    run(*client, "rollback");
    ASSERT_TRUE(until([&] { return master.questions > 0; }));
    settle();
    for (const char* sql : {"begin", "select 1"}) {
        run(*client, sql);
        settle();
        EXPECT_EQ(client->types(), "CZ") << sql;
        EXPECT_EQ(client->status(), 'T');
    }
    EXPECT_EQ(lost, 1);
}

TEST_F(AutoRoutingTest, ABlockIsBegunByTheClientsWords) {
    start();
    auto client = login_known();
    run(*client, "start transaction");
    ASSERT_FALSE(client->messages.empty());
    EXPECT_EQ(client->messages[0].body, std::string("START TRANSACTION") + '\0');
    EXPECT_EQ(client->status(), 'T');
}

TEST_F(AutoRoutingTest, TheTimeOfATransactionDoesNotMove) {
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "select now", "commit"}) run(*client, sql);
    EXPECT_EQ(master.queries(), (Queries{"begin", "select now", "commit"}));
}

TEST_F(AutoRoutingTest, StrictIsolationStaysAtTheMaster) {
    master.isolation = "repeatable read";
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "commit"}) run(*client, sql);
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
    forget();
    for (const char* sql : {"begin isolation level serializable", "select 1", "commit"}) run(*client, sql);
    EXPECT_EQ(master.queries().size(), 3U);
}

TEST_F(AutoRoutingTest, APipelineGoesWhereAllOfItCanBeDone) {
    start();
    auto client = login_known();
    for (Server* server : {&master, &slave})
        server->on_message = [](fakes::Backend& backend, const fakes::Message& message) {
            wire::Buffer out;
            if (message.type == 'P') wire::put_parse_complete(out);
            if (message.type == 'B') wire::put_bind_complete(out);
            if (message.type == 'E') wire::put_command_complete(out, "SELECT 1");
            if (message.type == 'S') wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
            backend.send(out);
        };
    const auto pipeline = [&](const std::vector<std::string>& statements) {
        client->messages.clear();
        for (auto& server : {&master, &slave})
            for (auto& backend : server->backends) backend->types.clear();
        wire::Buffer out;
        for (const auto& sql : statements) {
            wire::put_parse(out, "", sql);
            wire::put_bind(out, "", "");
            wire::put_execute(out, "");
        }
        wire::put_sync(out);
        // In two pieces: nothing may be sent before the end is seen.
        client->send(out.substr(0, out.size() - 3));
        settle();
        client->send(out.substr(out.size() - 3));
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << client->types();
        std::string at_slave;
        for (auto& backend : slave.backends) at_slave += backend->types;
        return !at_slave.empty();
    };
    EXPECT_TRUE(pipeline({"select 1"}));
    EXPECT_EQ(client->types(), "12CZ");
    EXPECT_TRUE(pipeline({"select 1", "select 2"}));
    EXPECT_EQ(client->types(), "12C12CZ");
    EXPECT_FALSE(pipeline({"select 1", "insert"}));
    EXPECT_FALSE(pipeline({"insert", "select 1"}));
}

TEST_F(AutoRoutingTest, AQueryBehindMessagesWithoutSyncGoesToTheMaster) {
    start();
    auto client = login_known();
    wire::Buffer close;
    wire::put_close_statement(close, "s");
    wire::Buffer parse;
    wire::put_parse(parse, "", "commit");
    for (wire::Buffer out : {close, parse}) {
        wire::put_query(out, "select 1");
        client->messages.clear();
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    }
    EXPECT_EQ(master.queries(), (Queries{"select 1", "select 1"}));
    EXPECT_EQ(slave.queries(), Queries{});
}

TEST_F(AutoRoutingTest, AnErrorOfASlaveIsNoAnswer) {
    for (const std::string state : {"25006", "0A000", "40001", "40P01", "55000", "57P01", "08006"}) {
        slave.on_query = [&](fakes::Backend& backend, const std::string& sql) {
            if (!sql.starts_with("select and")) return false;
            // What it announces first is held back.
            backend.send(std::string{"T\0\0\0\6\0\0", 7});
            backend.fail(state, state == "57P01");
            return true;
        };
        if (!pooler) start();
        auto client = login();
        run(*client, "select and fail with " + state);
        EXPECT_EQ(client->types(), "CZ") << state;
        EXPECT_EQ(master.queries().back(), "select and fail with " + state);
    }
}

TEST_F(AutoRoutingTest, OtherErrorsAreTheClientsAnswer) {
    slave.on_query = [](fakes::Backend& backend, const std::string&) {
        backend.fail("22012");
        return true;
    };
    start();
    auto client = login();
    run(*client, "select 1/0");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "22012");
    EXPECT_EQ(master.queries(), Queries{});
}

TEST_F(AutoRoutingTest, WhatASlaveRefusedToWriteIsRemembered) {
    slave.on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "select hidden write") return false;
        backend.fail("25006");
        return true;
    };
    start();
    auto client = login();
    run(*client, "select hidden write");
    run(*client, "select hidden write");
    EXPECT_EQ(slave.queries(), Queries{"select hidden write"});
    EXPECT_EQ(master.queries(), (Queries{"select hidden write", "select hidden write"}));
}

TEST_F(AutoRoutingTest, AHiddenWriteInABlockMovesItToo) {
    slave.on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "select hidden write") return false;
        backend.fail("25006");
        return true;
    };
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "select hidden write", "commit"}) {
        run(*client, sql);
        EXPECT_EQ(client->types(), "CZ") << sql;
    }
    EXPECT_EQ(master.queries(), (Queries{"begin", "select hidden write", "commit"}));
}

TEST_F(AutoRoutingTest, ALostSlaveIsNotNoticedBetweenTheStatementsOfABlock) {
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "select 1");
    slave.die();
    settle();
    run(*client, "select 2");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    run(*client, "commit");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 2", "commit"}));
}

TEST_F(AutoRoutingTest, ADeadSlaveLeavesTheRotationAndComesBackByItself) {
    start();
    auto client = login();
    run(*client, "select 1");
    EXPECT_EQ(slave.queries(), Queries{"select 1"});
    slave.die();
    for (int i = 0; i < 20; ++i) {
        run(*client, "select 1");
        EXPECT_EQ(client->types(), "CZ");
    }
    Server again{loop};
    again.in_recovery = true;
    // The same node at the same address would be the real thing: another address stands in for it here.
    environment.show({environment.view->nodes[0],
                      FakeEnvironment::slave(2, 1, "127.0.0.1", static_cast<std::uint16_t>(again.port))});
    pooler->view_changed();
    EXPECT_TRUE(until([&] {
        run(*client, "select 1");
        return !again.queries().empty();
    }));
}

// --- Pauses ---

TEST_F(AutoRoutingTest, APauseHoldsNewTransactionsAndCountsThoseThatRun) {
    start();
    auto running = login();
    auto waiting = login();
    run(*running, "begin");
    run(*running, "insert");
    show(true);
    EXPECT_EQ(environment.in_use[d1], 1U);
    waiting->query("select 1");
    settle();
    EXPECT_EQ(waiting->types(), "");
    run(*running, "commit");
    EXPECT_EQ(running->types(), "CZ");
    EXPECT_EQ(environment.in_use[d1], 0U);
    running->messages.clear();
    running->query("insert");
    // Longer than pgxc.failover_hold would let them wait.
    environment.settings_now.failover_hold = Millis{1};
    (void)loop.run_for(Millis{600});
    EXPECT_EQ(waiting->types() + running->types(), "");
    show(false);
    EXPECT_TRUE(until([&] { return waiting->count('Z') == 1 && running->count('Z') == 1; }));
}

TEST_F(AutoRoutingTest, APauseHoldsPinnedClientsTooAndDoesNotWaitForThemWhileTheyAreIdle) {
    start();
    auto pinned = login();
    run(*pinned, "select pg_advisory_lock(1)");
    run(*pinned, "set work_mem = 1");
    show(true);
    EXPECT_TRUE(until([&] { return environment.in_use[d1] == 0U; }));
    pinned->messages.clear();
    pinned->query("insert");
    settle();
    EXPECT_EQ(pinned->types(), "");
    show(false);
    EXPECT_TRUE(until([&] { return pinned->count('Z') == 1; }));
    EXPECT_EQ(pinned->types(), "CZ");
}

}  // namespace
}  // namespace pgxc::pooler
