// What clients leave in a server session in ways that are easily missed: nobody else may get it.
#include <gtest/gtest.h>

#include <algorithm>

#include "fakes/auto_routing_test.h"
#include "fakes/session_test.h"
#include "fakes/statement_server.h"

namespace pgxc::pooler {
namespace {

using fakes::Backend;
using fakes::Client;
using fakes::put_run;

class LeftoversTest : public SessionTest {
  protected:
    void SetUp() override {
        SessionTest::SetUp();
        environment.settings_now.max_pool_size = 1;
        server->on_query = [this](Backend& backend, const std::string& sql) {
            if (sql.starts_with(question)) {
                ++asked;
                left_fails ? backend.fail("57014") : backend.tell_what_is_left(left);
            } else if (sql == "discard all") {
                backend.complete("DISCARD ALL", 'I');
            } else if (sql == "discard sequences") {
                backend.complete("DISCARD SEQUENCES", 'I');
            } else if (sql == "listen x") {
                backend.complete("LISTEN", 'I');
            } else {
                return false;
            }
            return true;
        };
        server->on_message = [this](Backend& backend, const fakes::Message& message) {
            if (message.type != 'E') {
                server->answer_extended(backend, message);
                return;
            }
            wire::Buffer out;
            if (backend.prepared == "discard all") {
                wire::put_command_complete(out, "DISCARD ALL");
            } else if (backend.prepared.starts_with("set")) {
                wire::put_command_complete(out, "SET");
            } else {
                wire::put_u8(out, 's');
                wire::put_u32(out, 4);
            }
            backend.send(out);
        };
    }
    static void put_statement(wire::Buffer& out, const std::string& sql) {
        wire::put_parse(out, "", sql);
        put_run(out, "");
    }
    void send(Client& client, const wire::Buffer& out, std::size_t units) {
        client.messages.clear();
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('Z') == units || client.ended(); })) << client.types();
        settle();
    }

    std::vector<std::vector<std::string>> left{{"s", "search_path", "t1"}};
    bool left_fails = false;
    int asked = 0;
};

TEST_F(LeftoversTest, OfAPortalThatWasNotReadToItsEnd) {
    start();
    auto client = login();
    wire::Buffer out;
    put_statement(out, "select set_config('search_path', $1, false)");
    wire::put_sync(out);
    send(*client, out, 1);
    EXPECT_EQ(client->types(), "12sZ");
    EXPECT_EQ(asked, 1);
}

TEST_F(LeftoversTest, OfWhatWasSentBehindDiscardAll) {
    start();
    auto client = login({{"application_name", "one"}});
    server->backends[0]->queries.clear();
    wire::Buffer out;
    wire::put_query(out, "discard all");
    wire::put_query(out, "set search_path = t1");
    send(*client, out, 2);
    EXPECT_EQ(client->types(), "CZCZ");
    EXPECT_EQ(asked, 1);
    const auto& queries = server->backends[0]->queries;
    ASSERT_EQ(queries.size(), 4U);
    EXPECT_EQ(queries[0], "discard all");
    EXPECT_NE(queries[1].find("application_name"), std::string::npos) << "before what follows";
    EXPECT_EQ(queries[2], "set search_path = t1");
    auto other = login();
    run(*other, "select 1");
    EXPECT_NE(queries[queries.size() - 2].find("RESET \"search_path\""), std::string::npos);
}

TEST_F(LeftoversTest, OfWhatIsInOnePipelineWithDiscardAll) {
    start();
    auto client = login();
    wire::Buffer out;
    put_statement(out, "discard all");
    wire::put_sync(out);
    send(*client, out, 1);
    EXPECT_EQ(asked, 0) << "alone it leaves nothing";
    out.clear();
    put_statement(out, "discard all");
    put_statement(out, "set search_path = t1");
    wire::put_sync(out);
    send(*client, out, 1);
    EXPECT_EQ(client->types(), "12C12CZ");
    EXPECT_EQ(asked, 1);
}

TEST_F(LeftoversTest, OfWhatIsSentOnceDiscardAllIsAnswered) {
    start();
    auto client = login();
    wire::Buffer out;
    put_statement(out, "discard all");
    wire::put_flush(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('C') == 1; }));
    out.clear();
    put_statement(out, "set TimeZone = 'Asia/Tokyo'");
    wire::put_sync(out);
    send(*client, out, 1);
    EXPECT_EQ(asked, 1);
}

TEST_F(LeftoversTest, AFailedCopyWhoseSyncCameEarlyHoldsNothingUp) {
    const auto rest = server->on_message;
    server->on_message = [&](Backend& backend, const fakes::Message& message) {
        wire::Buffer out;
        if (message.type == 'E' && backend.prepared == "copy") {
            out.append("G\0\0\0\7\0\0\0", 8);
        } else if (message.type == 'c') {
            wire::put_error_response(out, wire::Severity::Error, {"22P04", "scripted error"});
            wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
        } else {
            // The Sync that came with it is eaten by the COPY.
            if (message.type != 'S' || backend.prepared != "copy") rest(backend, message);
            return;
        }
        backend.send(out);
    };
    start();
    auto client = login();
    wire::Buffer out;
    put_statement(out, "copy");
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('G') == 1; }));
    out = "c";
    wire::put_u32(out, 4);
    wire::put_sync(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') >= 1; })) << client->types();
    settle();
    run(*client, "discard all");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(LeftoversTest, AnothersSettingThatCannotBeTakenBackIsNotTheNextClientsError) {
    left = {{"s", "log_statement", "all"}};
    const auto rest = server->on_query;
    server->on_query = [&](Backend& backend, const std::string& sql) {
        if (sql.find("RESET \"log_statement\"") == std::string::npos) return rest(backend, sql);
        backend.fail("42501");
        return true;
    };
    start();
    auto client = login();
    auto other = login();
    run(*client, "select set_config('log_statement', 'all', false)");
    settle();
    EXPECT_EQ(asked, 1);
    run(*other, "select 1");
    EXPECT_EQ(other->types(), "CZ") << other->sqlstate();
    EXPECT_EQ(server->open_backends(), 1U);
}

TEST_F(LeftoversTest, OfFollowedSettingsOfAClientThatWasPinned) {
    left.clear();
    start();
    auto client = login();
    run(*client, "select currval('s')");
    run(*client, "set client_encoding = 'latin1'");
    EXPECT_EQ(asked, 0);
    run(*client, "discard sequences");
    settle();
    EXPECT_EQ(asked, 1);
}

TEST_F(LeftoversTest, AQuestionThatFailsIsNotTakenForRefusedSettings) {
    left = {{"l", "", ""}};
    start();
    auto other = login({{"application_name", "two"}});
    auto client = login();
    run(*other, "select 1");
    run(*client, "listen x");  // behind settings
    settle();
    EXPECT_EQ(asked, 1);
    left_fails = true;
    run(*client, "set work_mem = '1MB'");
    EXPECT_EQ(client->types(), "CZ");
    settle();
    EXPECT_EQ(asked, 2);
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_FALSE(client->ended());
}

TEST_F(PoolerTest, WhatIsPreparedBehindDeallocateAllStays) {
    fakes::StatementServer server{loop};
    environment.settings_now.max_pool_size = 1;
    show({master_at(server.server)});
    start();
    auto client = login();
    auto other = login();
    const auto send = [&](Client& who, const wire::Buffer& out) {
        who.messages.clear();
        who.send(out);
        EXPECT_TRUE(until([&] { return who.count('Z') == 1; })) << who.types();
        return who.types();
    };
    wire::Buffer out;
    wire::put_parse(out, "s", "select a");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out), "1Z");
    out.clear();
    wire::put_parse(out, "", "deallocate all");
    put_run(out, "");
    wire::put_parse(out, "t", "select b");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out), "12C1Z");
    out.clear();
    put_run(out, "t");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out), "2DCZ");
    out.clear();
    put_run(out, "s");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out), "EZ");
    out.clear();
    wire::put_parse(out, "theirs", "select b");
    put_run(out, "theirs");
    wire::put_sync(out);
    EXPECT_EQ(send(*other, out), "12DCZ");
    pooler.reset();
}

TEST_F(AutoRoutingTest, ASettingThatASlaveRefusesTakesTheReadToTheMaster) {
    const auto refuse = [](Backend& backend, const std::string& sql) {
        if (sql.find("set_config") == std::string::npos) return false;
        backend.fail("0A000");
        return true;
    };
    start();
    auto client = login({{"application_name", "one"}});
    run(*client, "begin");
    run(*client, "rollback");
    EXPECT_TRUE(until([&] { return master.questions > 0; }));
    settle();
    forget();
    slave.on_query = refuse;
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ") << client->sqlstate();
    EXPECT_EQ(master.queries().back(), "select 1");
}

TEST_F(AutoRoutingTest, WhatFollowsTheEndOfABlockThatFailedAtASlaveIsDoneAtTheMaster) {
    slave.on_query = [](Backend& backend, const std::string& sql) {
        if (sql != "select bad") return false;
        backend.fail("22012");
        return true;
    };
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "select bad");
    EXPECT_EQ(client->sqlstate(), "22012");
    EXPECT_EQ(client->status(), 'E');
    run(*client, "select 1");
    EXPECT_EQ(slave.queries().back(), "select 1") << "it fails there as anywhere";
    wire::Buffer out;
    wire::put_parse(out, "", "rollback");
    wire::put_sync(out);
    client->messages.clear();
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->status(), 'E') << "it is only prepared";
    run(*client, "rollback; insert");
    EXPECT_EQ(master.queries(), (Queries{"begin", "rollback; insert"}));
}

TEST_F(AutoRoutingTest, AClientThatDoesNotReadIsSentNoMore) {
    wire::Buffer answer = "D";
    const std::string value(64'000, 'x');
    wire::put_u32(answer, static_cast<std::uint32_t>(4 + 2 + 4 + value.size()));
    wire::put_u16(answer, 1);
    wire::put_u32(answer, static_cast<std::uint32_t>(value.size()));
    answer += value;
    wire::put_command_complete(answer, "SELECT 1");
    wire::put_ready_for_query(answer, wire::TransactionStatus::Idle);
    start();
    auto client = login_known();
    slave.on_query = [&](Backend& backend, const std::string&) {
        backend.send(answer);
        return true;
    };
    constexpr std::size_t queries = 2'000;
    client->messages.clear();
    client->read_on(false);
    for (std::size_t i = 0; i < queries; ++i) client->query("select " + std::to_string(i));
    std::size_t before = 0;
    do {
        before = slave.queries().size();
        settle();
    } while (slave.queries().size() > before);
    EXPECT_LT(before, queries / 2) << "what two sockets hold";
    client->read_on(true);
    EXPECT_TRUE(until([&] { return client->count('Z') == queries; }));
}

}  // namespace
}  // namespace pgxc::pooler
