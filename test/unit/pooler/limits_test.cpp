// Limits and statistics of a pooler in front of scripted servers. Deadlines are looked at four times a
// second. Short ones are set after the logins, which may take longer and are under them, too.
#include <gtest/gtest.h>

#include "fakes/pooler_test.h"
#include "pooler/prepared_statements.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::Server;

class LimitsTest : public PoolerTest {
  protected:
    void SetUp() override { show_master(); }
    void show_master(Gate gate = Gate::Open) { show({master_at(*server, 1, gate)}); }
    std::unique_ptr<Client> login(const std::string& user = "u") { return PoolerTest::login({}, user); }
    /// The counters of the pool of that user.
    const PoolCounters& counters(const std::string& user = "u") {
        pooler->publish_stats();
        for (const auto& row : environment.statistics)
            if (row.user == user) return *row.counters;
        ADD_FAILURE() << "no statistics of " << user;
        static const PoolCounters none;
        return none;
    }

    std::unique_ptr<Server> server = std::make_unique<Server>(loop);
};

TEST_F(LimitsTest, WhoWaitsTooLongForAServerConnectionIsToldAndGoesOn) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    auto third = login();
    run(*first, "begin");
    environment.settings_now.query_wait_timeout = Millis{300};
    pooler->reload();
    run(*second, "select 2");
    const Error error = second->error();
    EXPECT_EQ(error.sqlstate, "53300");
    EXPECT_NE(error.message.find("datanode 1"), std::string::npos) << error.message;
    EXPECT_NE(error.message.find("pgxc.query_wait_timeout"), std::string::npos) << error.message;
    EXPECT_NE(error.hint.find("pgxc.max_pool_size is 1"), std::string::npos) << error.hint;
    EXPECT_EQ(second->types(), "EZ");
    environment.settings_now.query_wait_timeout = Millis{60'000};
    pooler->reload();
    // The order is kept by those who go on waiting.
    third->query("select 3");
    (void)loop.run_for(Millis{5});
    second->messages.clear();
    second->query("select 2");
    (void)loop.run_for(Millis{5});
    run(*first, "commit");
    EXPECT_TRUE(until([&] { return third->count('Z') == 1 && second->count('Z') == 1; }));
    EXPECT_EQ(server->queries(), (std::vector<std::string>{"begin", "commit", "select 3", "select 2"}));
}

TEST_F(LimitsTest, AMasterThatIsHeldIsWaitedForByItsOwnTime) {
    environment.settings_now.failover_hold = Millis{60'000};
    start();
    auto client = login();
    environment.settings_now.query_wait_timeout = Millis{250};
    pooler->reload();
    show_master(Gate::Held);
    client->query("select 1");
    (void)loop.run_for(Millis{900});
    EXPECT_EQ(client->types(), "");
    show_master();
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(LimitsTest, AClientThatIsIdleForTooLongIsToldWhy) {
    start();
    auto busy = login();
    run(*busy, "begin");
    environment.settings_now.client_idle_timeout = Millis{600};
    pooler->reload();
    auto idle = login();
    EXPECT_TRUE(until([&] { return idle->ended(); }));
    EXPECT_EQ(idle->sqlstate(), "57P05");
    EXPECT_NE(idle->error().message.find("pgxc.client_idle_timeout"), std::string::npos);
    EXPECT_NE(idle->error().hint, "");
    // In a transaction it is the server's own limit that counts.
    EXPECT_FALSE(busy->ended());
    run(*busy, "commit");
    EXPECT_EQ(busy->types(), "CZ");
    EXPECT_TRUE(until([&] { return busy->ended(); }));
}

TEST_F(LimitsTest, ALoginThatTakesTooLongIsToldWhy) {
    environment.settings_now.login_timeout = Millis{300};
    environment.hba = [](auto&, auto&) { return AuthRule{AuthMethod::Password, "password", "line 1"}; };
    start();
    auto client = std::make_unique<Client>(loop, pooler->port());
    client->start();
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->sqlstate(), "57014");
    EXPECT_NE(client->error().hint.find("pgxc.client_login_timeout"), std::string::npos);
}

TEST_F(LimitsTest, ServerConnectionsEndWhenIdleForTooLongButTheMinimum) {
    environment.settings_now.min_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    run(*first, "begin");
    run(*second, "select 1");
    run(*first, "commit");
    EXPECT_EQ(server->backends.size(), 2U);
    environment.settings_now.server_idle_timeout = Millis{300};
    pooler->reload();
    EXPECT_TRUE(until([&] { return server->open_backends() == 1; }));
    (void)loop.run_for(Millis{700});
    EXPECT_EQ(server->open_backends(), 1U);
}

TEST_F(LimitsTest, ServerConnectionsEndAtTheEndOfTheirLifetimeOutsideOfTransactions) {
    environment.settings_now.min_pool_size = 1;
    start();
    auto client = login();
    run(*client, "begin");
    environment.settings_now.server_lifetime = Millis{500};
    pooler->reload();
    (void)loop.run_for(Millis{1100});
    run(*client, "insert");
    run(*client, "commit");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_TRUE(until([&] { return server->backends.size() >= 2 && server->open_backends() == 1; }));
    EXPECT_EQ(server->backends[0]->queries, (std::vector<std::string>{"begin", "insert", "commit"}));
    // The minimum is there again, warm, and nobody has asked for it.
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(LimitsTest, AReloadWithASmallerMaximumClosesWhatIsTooMuch) {
    environment.settings_now.min_pool_size = 0;
    start();
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 4; ++i) {
        clients.push_back(login());
        run(*clients.back(), "begin");
    }
    EXPECT_EQ(server->open_backends(), 4U);
    environment.settings_now.max_pool_size = 2;
    pooler->reload();
    for (auto& client : clients) {
        run(*client, "commit");
        EXPECT_EQ(client->types(), "CZ");
    }
    EXPECT_TRUE(until([&] { return server->open_backends() == 2; }));
}

/// Rows of 100 kB each.
std::string rows(int count) {
    wire::Buffer out;
    for (int i = 0; i < count; ++i) {
        wire::put_u8(out, 'D');
        wire::put_u32(out, 100'000 + 4);
        out.append(100'000, 'x');
    }
    return out;
}

TEST_F(LimitsTest, AClientThatDoesNotReadHoldsTheServerBackAndCostsNoMemory) {
    start();
    auto client = login();
    constexpr int chunks = 600;  // 60 MB: more than the sockets between them take
    const std::string chunk = rows(1);
    int sent = 0;
    server->on_query = [&](fakes::Backend& backend, const std::string&) {
        for (; sent < chunks; ++sent) backend.send(chunk);
        wire::Buffer end;
        wire::put_command_complete(end, "SELECT 600");
        wire::put_ready_for_query(end, wire::TransactionStatus::Idle);
        backend.send(end);
        return true;
    };
    client->read_on(false);
    client->query("select lots");
    EXPECT_TRUE(until([&] { return sent == chunks; }));
    // What the pooler has taken over, and not given on, is bounded: the fake server still has most of it.
    std::uint64_t taken = 0;
    EXPECT_TRUE(until([&] {
        const auto before = std::exchange(taken, counters().bytes_out);
        for (int turn = 0; turn < 100; ++turn) (void)loop.run_for(Millis{1});
        return taken > 0 && before == taken && counters().bytes_out == taken;
    }));
    EXPECT_LT(taken, 30'000'000U);
    client->read_on(true);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->count('D'), static_cast<std::size_t>(chunks));
}

TEST(ClientStatements, KnowHowManyBytesTheyHold) {
    StatementStore store;
    const auto statement = [&](std::size_t bytes) {
        std::string tail = "select '" + std::string(bytes, 'x') + "'";
        tail += std::string(3, '\0');
        return store.intern(tail);
    };
    ClientStatements mine;
    const auto small = statement(10);
    const auto large = statement(1000);
    mine.put("a", small);
    mine.put("b", large);
    EXPECT_EQ(mine.bytes(), small->key.size() + large->key.size());
    mine.put("b", small);
    EXPECT_EQ(mine.bytes(), 2 * small->key.size());
    (void)mine.take("a");
    (void)mine.take("none");
    EXPECT_EQ(mine.bytes(), small->key.size());
    mine.clear();
    EXPECT_EQ(mine.bytes(), 0U);
}

TEST_F(LimitsTest, AClientWithTooManyBytesOfStatementsKeepsItsConnection) {
    start();
    auto client = login();
    server->on_message = [](fakes::Backend& backend, const fakes::Message& message) {
        wire::Buffer out;
        if (message.type == 'P') {
            wire::put_u8(out, '1');
            wire::put_u32(out, 4);
        } else if (message.type == 'S') {
            wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
        }
        backend.send(out);
    };
    const auto prepare = [&](int number) {
        client->messages.clear();
        std::string body = "s" + std::to_string(number);
        body += '\0';
        body += "select " + std::to_string(number) + " -- " + std::string(50'000, 'x');
        body += std::string(3, '\0');
        wire::Buffer out;
        wire::put_u8(out, 'P');
        wire::put_u32(out, static_cast<std::uint32_t>(body.size() + 4));
        out += body;
        wire::put_u8(out, 'S');
        wire::put_u32(out, 4);
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << number << client->types();
    };
    const auto pinned = [&] {
        pooler->publish_stats();
        return environment.clients[0].state == "pinned";
    };
    int number = 0;
    for (; number < 200 && !pinned(); ++number) prepare(number);
    EXPECT_GT(number, 80);
    EXPECT_LT(number, 90);  // of 50 kB
}

TEST_F(LimitsTest, CountsTransactionsQueriesErrorsAndBytes) {
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "insert");
    run(*client, "commit");
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "wrong") return false;
        backend.fail("42601");
        return true;
    };
    run(*client, "wrong");
    run(*client, "select 1");
    const PoolCounters& seen = counters();
    EXPECT_EQ(seen.transactions, 3U);
    EXPECT_EQ(seen.queries, 5U);
    EXPECT_EQ(seen.errors, 1U);
    EXPECT_EQ(seen.query_time.count(), 5U);
    EXPECT_EQ(seen.wait_time.count(), 4U);  // one for the login
    EXPECT_TRUE(seen.is_master);
    EXPECT_GT(seen.since_us, 0);
    const std::uint64_t before = seen.bytes_in;
    EXPECT_GT(before, 50U);
    EXPECT_GT(seen.bytes_out, 50U);
    run(*client, "select 1");
    EXPECT_EQ(counters().bytes_in - before, std::string("select 1").size() + 6);
}

TEST_F(LimitsTest, AReadThatTheMasterDoesInPlaceOfItsSlaveIsNoError) {
    Server slave{loop};
    show({master_at(*server), slave_at(slave)});
    start();
    auto client = login();
    slave.die();
    run(*client, "begin read only");
    EXPECT_EQ(client->types(), "CZ");
    pooler->publish_stats();
    ASSERT_EQ(environment.statistics.size(), 2U);
    for (const auto& row : environment.statistics)
        EXPECT_EQ(row.counters->errors, 0U) << row.node.to_string();
}

TEST_F(LimitsTest, ACancelledWaitIsAnErrorAndAWait) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto busy = login();
    run(*busy, "begin");
    auto waiting = connect();
    waiting->start();
    ASSERT_TRUE(until([&] { return waiting->count('Z') == 1; }));
    wire::Buffer cancel;
    for (const auto& message : waiting->messages) {
        if (message.type != 'K') continue;
        const auto key = wire::parse_backend_key_data(message.body);
        wire::put_cancel_request(cancel, {key->pid, key->secret});
    }
    const std::uint64_t waits = counters().wait_time.count();
    waiting->query("select 1");
    (void)loop.run_for(Millis{60});
    auto asks = connect();
    asks->send(cancel);
    EXPECT_TRUE(until([&] { return waiting->sqlstate() == "57014"; }));
    EXPECT_EQ(counters().errors, 1U);
    EXPECT_EQ(counters().wait_time.count(), waits + 1);
    EXPECT_GE(counters().wait_us, 50'000U);
}

TEST_F(LimitsTest, ACommitThatIsNotDurableIsAnError) {
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "insert") return false;
        wire::Buffer fields;
        for (const char* field : {"SWARNING", "VWARNING", "C01000", "Mcanceling wait", "RSyncRepWaitForLSN"})
            wire::put_cstring(fields, field);
        fields += '\0';
        wire::Buffer out = "N";
        wire::put_u32(out, static_cast<std::uint32_t>(fields.size() + 4));
        out += fields;
        backend.send(out);
        backend.complete("INSERT 0 1", 'I');
        return true;
    };
    start();
    auto client = login();
    run(*client, "insert");
    EXPECT_EQ(client->sqlstate(), "08007");
    EXPECT_EQ(counters().errors, 1U);
}

TEST_F(LimitsTest, TimesAreThoseOfTheServerAndOfTheQueue) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    fakes::Backend* asked = nullptr;
    server->on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (sql == "slow") asked = &backend;
        return sql == "slow";
    };
    first->query("slow");
    EXPECT_TRUE(until([&] { return asked != nullptr; }));
    second->query("select 1");
    EXPECT_TRUE(until([&] {
        pooler->publish_stats();
        return environment.pools[0].clients_waiting == 1;
    }));
    (void)loop.run_for(Millis{60});
    asked->complete("SELECT 1", 'I');
    EXPECT_TRUE(until([&] { return second->count('Z') == 1; }));
    const PoolCounters& seen = counters();
    EXPECT_GE(seen.query_us, 55'000U);
    EXPECT_GE(seen.wait_us, 50'000U);
    EXPECT_GE(seen.query_time.percentile_us(1.0), 55'000 * 15.0 / 16);
    EXPECT_GE(seen.wait_time.percentile_us(1.0), 50'000 * 15.0 / 16);
}

TEST_F(LimitsTest, AResetBeginsAnewAndCountsOn) {
    start();
    auto client = login();
    run(*client, "select 1");
    EXPECT_EQ(counters().queries, 1U);
    ++environment.resets;
    pooler->view_changed();
    EXPECT_EQ(counters().queries, 0U);
    EXPECT_EQ(counters().bytes_in, 0U);
    EXPECT_EQ(counters().query_time.count(), 0U);
    run(*client, "select 1");
    EXPECT_EQ(counters().queries, 1U);
    EXPECT_GT(counters().bytes_in, 0U);
}

TEST_F(LimitsTest, ServerRowsTellWhoHasThem) {
    start();
    auto first = login();
    auto second = login();
    run(*first, "begin");
    run(*second, "begin");
    run(*second, "commit");
    pooler->publish_stats();
    ASSERT_EQ(environment.servers.size(), 2U);
    int active = 0;
    for (const auto& row : environment.servers) {
        EXPECT_EQ(row.node, (NodeKey{NodeType::Datanode, NodeId{1}}));
        EXPECT_EQ(row.address, "127.0.0.1:" + std::to_string(server->port));
        EXPECT_NE(row.pid, 0U);
        EXPECT_TRUE(row.connected_at.has_value());
        EXPECT_EQ(row.idle_since.has_value(), row.state == "idle");
        EXPECT_EQ(row.client.has_value(), row.state == "active");
        EXPECT_FALSE(row.tls);
        if (row.state == "active") ++active;
    }
    EXPECT_EQ(active, 1);
}

}  // namespace
}  // namespace pgxc::pooler
