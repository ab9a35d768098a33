// Clients of a pooler in front of scripted servers.
#include <gtest/gtest.h>

#include "fakes/session_test.h"
#include "wire/scram.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;

TEST_F(SessionTest, LoginTellsWhatTheServerReported) {
    start();
    auto client = connect();
    client->start();
    ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->types(), "RSSKZ");
    EXPECT_EQ(client->status(), 'I');
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, ManyClientsShareOneServerConnection) {
    environment.settings_now.max_pool_size = 1;
    start();
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 10; ++i) clients.push_back(login());
    for (auto& client : clients) client->query("select 1");
    for (auto& client : clients) EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(server->backends.size(), 1U);
}

TEST_F(SessionTest, ATransactionKeepsItsConnectionAndOthersWaitInOrder) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    run(*first, "begin");
    second->query("select 2");
    settle();
    EXPECT_EQ(second->count('Z'), 0U);
    run(*first, "insert");
    run(*first, "commit");
    EXPECT_TRUE(until([&] { return second->count('Z') == 1; }));
    EXPECT_EQ(server->queries(), (std::vector<std::string>{"begin", "insert", "commit", "select 2"}));
}

TEST_F(SessionTest, RefusesEncryptionAndReplicationAndGarbage) {
    start();
    auto ssl = connect();
    ssl->raw_only = true;
    wire::Buffer request;
    wire::put_ssl_request(request);
    ssl->send(request);
    EXPECT_TRUE(until([&] { return ssl->raw == "N"; }));

    auto replication = connect();
    replication->start({{"replication", "true"}});
    EXPECT_TRUE(until([&] { return replication->ended(); }));
    EXPECT_EQ(replication->sqlstate(), "0A000");

    auto garbage = connect();
    garbage->send("GET / HTTP/1.1\r\n\r\n");
    EXPECT_TRUE(until([&] { return garbage->ended(); }));
    auto client = login();
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, SilenceAndHalfAMessageEndWithTheLoginTimeout) {
    start();
    auto client = login();
    environment.settings_now.login_timeout = Millis{300};
    auto silent = connect();
    auto half = connect();
    half->send(std::string("\0\0\0\x40\0\3\0\0user", 12));
    EXPECT_TRUE(until([&] { return silent->ended() && half->ended(); }));
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, ALoginWaitsUntilItIsKnownWhichGroupsThereAre) {
    environment.view = std::make_shared<ClusterView>();
    start();
    auto early = connect();
    early->start({{"options", "-c pgxc.node=1"}});
    auto missing = connect();
    missing->start({{"options", "-c pgxc.node=7"}});
    settle();
    // Told for another reason (a reload): it is still not known.
    pooler->view_changed();
    settle();
    EXPECT_TRUE(early->types().find('E') == std::string::npos && !missing->ended());
    show_master(*server);
    EXPECT_TRUE(until([&] { return early->count('Z') == 1 && missing->ended(); }));
    EXPECT_EQ(missing->sqlstate(), "08000");
    run(*early, "select 1");
    EXPECT_EQ(early->types(), "CZ");
}

TEST_F(SessionTest, AndNoLongerThanALoginMayTake) {
    environment.settings_now.login_timeout = Millis{300};
    environment.view = std::make_shared<ClusterView>();
    start();
    auto early = connect();
    early->start({});
    EXPECT_TRUE(until([&] { return early->ended(); }));
    EXPECT_EQ(early->sqlstate(), "57014");
}

TEST_F(SessionTest, AMalformedMessageEndsOnlyItsConnection) {
    start();
    for (const std::string& bad :
         {std::string("!\0\0\0\4", 5), std::string("Q\0\0\0\3", 5), std::string("Q\x7f\0\0\0", 5)}) {
        auto client = login();
        auto other = login();
        client->send(bad);
        EXPECT_TRUE(until([&] { return client->ended(); }));
        EXPECT_EQ(client->sqlstate(), "08P01");
        run(*other, "select 1");
        EXPECT_EQ(other->types(), "CZ");
    }
}

TEST_F(SessionTest, LimitsClients) {
    environment.settings_now.max_client_connections = 1;
    start();
    auto first = login();
    auto second = connect();
    second->start();
    EXPECT_TRUE(until([&] { return second->ended(); }));
    EXPECT_EQ(second->sqlstate(), "53300");
    first->hang_up();
    settle();
    auto third = login();
    EXPECT_FALSE(third->ended());
}

TEST_F(SessionTest, TellsWhyALoginIsRefused) {
    environment.roles["u"] = {true, false, std::nullopt};
    start();
    auto client = connect();
    client->start();
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->error().message, "role \"u\" is not permitted to log in");
    EXPECT_EQ(client->sqlstate(), "28000");

    environment.hba = [](auto&, auto&) {
        return AuthRule{AuthMethod::Reject, "", "no line of pg_hba.conf matches"};
    };
    client = connect();
    client->start();
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->error().message,
              "no pg_hba.conf entry for host \"127.0.0.1\", user \"u\", database \"d\", no encryption");

    environment.hba = [](auto&, auto&) {
        return AuthRule{AuthMethod::Unsupported, "gss", "pg_hba.conf line 9"};
    };
    client = connect();
    client->start();
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_NE(client->error().message.find("\"gss\" (pg_hba.conf line 9)"), std::string::npos);
}

TEST_F(SessionTest, ScramLetsTheRightPasswordInAndTellsNothingOtherwise) {
    const auto secret = wire::make_scram_secret("pw", "0123456789abcdef", 4096);
    environment.roles["u"] = {true, true, wire::to_string(secret)};
    environment.roles["nopw"] = {true, true, std::nullopt};
    environment.hba = [](auto&, auto&) {
        return AuthRule{AuthMethod::ScramSha256, "scram-sha-256", "line 1"};
    };
    start();
    const auto attempt = [&](const std::string& user, const std::string& password) {
        auto client = connect();
        client->start({}, user);
        EXPECT_TRUE(until([&] { return client->count('R') == 1; }));
        const std::array<std::uint8_t, wire::scram_raw_nonce_bytes> random{1, 2, 3};
        wire::ScramClientExchange exchange{password, random};
        wire::Buffer out;
        wire::put_sasl_initial_response(out, wire::scram_sha_256, exchange.first());
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('R') == 2; }));
        auto final = exchange.server_first(client->messages.back().body.substr(4));
        EXPECT_TRUE(final.ok());
        out.clear();
        wire::put_sasl_response(out, *final);
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1 || client->ended(); }));
        return client;
    };
    EXPECT_EQ(attempt("u", "pw")->status(), 'I');
    for (const auto& [user, password] :
         {std::pair{"u", "wrong"}, std::pair{"nopw", "pw"}, std::pair{"nobody", "pw"}}) {
        auto client = attempt(user, password);
        EXPECT_EQ(client->sqlstate(), "28P01");
        EXPECT_EQ(client->error().message,
                  "password authentication failed for user \"" + std::string{user} + "\"");
    }
}

TEST_F(SessionTest, TheServersRefusalReachesTheClientAtLogin) {
    server->on_startup = [](fakes::Backend& backend) {
        wire::Buffer out;
        wire::put_error_response(out, wire::Severity::Fatal, {"3D000", "database \"d\" does not exist"});
        backend.send(out);
    };
    start();
    auto client = connect();
    client->start();
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->sqlstate(), "3D000");
    EXPECT_NE(client->error().detail.find("datanode 1"), std::string::npos);
}

TEST_F(SessionTest, ADatabaseThatIsNotThereIsAskedForOnlyByItsClients) {
    int asked = 0;
    server->on_startup = [&](fakes::Backend& backend) {
        ++asked;
        wire::Buffer out;
        wire::put_error_response(out, wire::Severity::Fatal, {"3D000", "database \"d\" does not exist"});
        backend.send(out);
    };
    start();
    for (int i = 1; i <= 2; ++i) {
        auto client = connect();
        client->start();
        EXPECT_TRUE(until([&] { return client->ended(); }));
        (void)loop.run_for(Millis{60});
        EXPECT_EQ(asked, i);
    }
}

TEST_F(SessionTest, StartupSettingsAreAppliedForTheirClientOnly) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login({{"application_name", "one"}});
    auto second = login();
    run(*first, "select 1");
    run(*second, "select 2");
    run(*first, "select 3");
    const std::string set = "SELECT pg_catalog.set_config('application_name','one',false)";
    EXPECT_EQ(server->queries(),
              (std::vector<std::string>{set, "RESET \"application_name\";", set, "select 1",
                                        "RESET \"application_name\";", "select 2", set, "select 3"}));
}

TEST_F(SessionTest, ABadStartupSettingRefusesTheLogin) {
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql.find("set_config") == std::string::npos) return false;
        backend.fail("22023");
        return true;
    };
    start();
    auto client = connect();
    client->start({{"options", "-c work_mem=x"}});
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->sqlstate(), "22023");
}

TEST_F(SessionTest, ASettingOfOursThatIsNotThereRefusesTheLogin) {
    start();
    for (const wire::Setting& setting :
         {wire::Setting{"options", "-c pgxc.noode=2"},
          wire::Setting{"options", "-c work_mem=1 --PGXC.Noode=2"}, wire::Setting{"Pgxc.NOODE", "2"}}) {
        auto client = connect();
        client->start({setting});
        EXPECT_TRUE(until([&] { return client->ended(); }));
        EXPECT_EQ(client->sqlstate(), "42704");
        EXPECT_EQ(client->error().message, "unrecognized configuration parameter \"pgxc.noode\"");
        EXPECT_NE(client->error().hint.find("pgxc.node and pgxc.read_routing"), std::string::npos);
    }
    auto client = login({{"options", "-c PGXC.Node=1 -c pgxc.READ-routing=master"}});
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, ASettingGoesWithItsClient) {
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (!sql.starts_with(question)) return false;
        backend.tell_what_is_left({{"s", "work_mem", "1024"}, {"a", "u", ""}});
        return true;
    };
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    run(*first, "set work_mem = '1MB'");
    EXPECT_EQ(first->types(), "CZ");
    run(*second, "select 2");
    run(*first, "select 1");
    ASSERT_EQ(server->backends.size(), 1U);
    auto& queries = server->backends[0]->queries;
    ASSERT_EQ(queries.size(), 6U);
    EXPECT_TRUE(queries[1].starts_with(question));
    queries.erase(queries.begin() + 1);
    EXPECT_EQ(queries, (std::vector<std::string>{"set work_mem = '1MB'", "RESET \"work_mem\";", "select 2",
                                                 "SELECT pg_catalog.set_config('work_mem','1024',false)",
                                                 "select 1"}));
    EXPECT_EQ(first->types(), "CZ");  // it has seen nothing of that
}

TEST_F(SessionTest, AListenerKeepsItsConnectionUntilItStopsListening) {
    bool listens = true;
    server->on_query = [&listens](fakes::Backend& backend, const std::string& sql) {
        if (sql.starts_with(question)) {
            backend.tell_what_is_left(listens ? std::vector<std::vector<std::string>>{{"l", "", ""}}
                                              : std::vector<std::vector<std::string>>{});
        } else if (sql.starts_with("listen")) {
            backend.complete("LISTEN", 'I');
        } else if (sql.starts_with("unlisten")) {
            listens = false;
            backend.complete("UNLISTEN", 'I');
        } else {
            return false;
        }
        return true;
    };
    environment.settings_now.max_pool_size = 2;
    start();
    auto first = login();
    auto second = login();
    run(*first, "listen x");
    settle();
    run(*second, "select 2");
    EXPECT_EQ(server->backends[1]->queries, std::vector<std::string>{"select 2"});
    pooler->publish_stats();
    ASSERT_EQ(environment.clients.size(), 2U);
    EXPECT_EQ(environment.clients[0].state, "pinned");
    EXPECT_EQ(environment.clients[0].why, "LISTEN");
    run(*first, "unlisten *");
    settle();
    pooler->publish_stats();
    EXPECT_EQ(environment.clients[0].state, "idle");
    listens = true;
    run(*first, "listen x");
    settle();
    first->hang_up();
    EXPECT_TRUE(until([&] { return server->backends[0]->ended() || server->backends[1]->ended(); }));
}

TEST_F(SessionTest, AListenerHearsWhatComesWhileThePoolerAsksItsServer) {
    server->on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql.starts_with(question)) {
            wire::Buffer body;
            wire::put_u32(body, 4711);
            wire::put_cstring(body, "x");
            wire::put_cstring(body, "news");
            wire::Buffer out;
            wire::put_u8(out, 'A');
            wire::put_u32(out, static_cast<std::uint32_t>(body.size() + 4));
            backend.send(out + body);
            backend.tell_what_is_left({{"l", "", ""}});
        } else if (sql.starts_with("listen")) {
            backend.complete("LISTEN", 'I');
        } else {
            return false;
        }
        return true;
    };
    start();
    auto client = login();
    run(*client, "listen x");
    EXPECT_TRUE(until([&] { return client->types() == "CZA"; }));
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, CancelReachesTheServerOrTheQueue) {
    environment.settings_now.max_pool_size = 1;
    server->on_query = [](fakes::Backend&, const std::string& sql) { return sql == "sleep"; };
    start();
    auto busy = connect();
    busy->start();
    ASSERT_TRUE(until([&] { return busy->count('Z') == 1; }));
    auto waiting = connect();
    waiting->start();
    ASSERT_TRUE(until([&] { return waiting->count('Z') == 1; }));
    const auto key_of = [](const Client& client) {
        for (const auto& message : client.messages) {
            if (message.type == 'K') return *wire::parse_backend_key_data(message.body);
        }
        return wire::BackendKeyData{};
    };
    const auto cancel = [&](wire::BackendKeyData key) {
        auto client = connect();
        wire::Buffer out;
        wire::put_cancel_request(out, {key.pid, key.secret});
        client->send(out);
        EXPECT_TRUE(until([&] { return client->ended(); }));
    };
    const auto busy_key = key_of(*busy);
    const auto waiting_key = key_of(*waiting);
    busy->query("sleep");
    waiting->messages.clear();
    waiting->query("select 1");
    settle();
    cancel({busy_key.pid, busy_key.secret + 1});
    settle();
    EXPECT_TRUE(server->cancels.empty());
    cancel(busy_key);
    ASSERT_TRUE(until([&] { return server->cancels.size() == 1; }));
    EXPECT_EQ(server->cancels[0].secret, 4711U);
    cancel(waiting_key);
    EXPECT_TRUE(until([&] { return waiting->count('Z') == 1; }));
    EXPECT_EQ(waiting->sqlstate(), "57014");
}

TEST_F(SessionTest, ACancelDoesNotHitTheSettingsInFrontOfWhatItIsFor) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto client = connect();
    client->start({{"application_name", "x"}});
    ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
    wire::Buffer cancel;
    for (const auto& message : client->messages) {
        if (message.type != 'K') continue;
        const auto key = wire::parse_backend_key_data(message.body);
        wire::put_cancel_request(cancel, {key->pid, key->secret});
    }
    auto other = login();
    run(*other, "select 1");
    fakes::Backend* setting = nullptr;
    bool sleeps = false;
    server->on_query = [&](fakes::Backend& backend, const std::string& sql) {
        sleeps = sleeps || sql == "sleep";
        if (sql.find("application_name") != std::string::npos) setting = &backend;
        return true;
    };
    client->messages.clear();
    client->query("sleep");
    ASSERT_TRUE(until([&] { return setting != nullptr && sleeps; }));
    auto asks = connect();
    asks->send(cancel);
    EXPECT_TRUE(until([&] { return asks->ended(); }));
    settle();
    EXPECT_TRUE(server->cancels.empty());
    setting->complete("SELECT 1", 'I');
    EXPECT_TRUE(until([&] { return server->cancels.size() == 1; }));
    setting->fail("57014");
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->sqlstate(), "57014");
}

class LateCancelTest : public SessionTest {
  protected:
    /// A client asks to cancel what it runs, and the server has got that and says nothing.
    void SetUp() override {
        SessionTest::SetUp();
        environment.settings_now.max_pool_size = 1;
        environment.settings_now.connect_timeout = Millis{300};
        server->closes_cancels = false;
        server->on_query = [](fakes::Backend&, const std::string& sql) { return sql == "sleep"; };
        start();
        client = connect();
        client->start();
        ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
        wire::Buffer cancel;
        for (const auto& message : client->messages) {
            if (message.type != 'K') continue;
            const auto key = wire::parse_backend_key_data(message.body);
            wire::put_cancel_request(cancel, {key->pid, key->secret});
        }
        client->messages.clear();
        client->query("sleep");
        ASSERT_TRUE(until([&] { return server->queries() == std::vector<std::string>{"sleep"}; }));
        auto asks = connect();
        asks->send(cancel);
        ASSERT_TRUE(until([&] { return server->cancels.size() == 1; }));
    }
    /// The next client isn't hit by what may still come.
    void expect_another_connection() {
        auto next = login();
        run(*next, "select 1");
        EXPECT_EQ(next->types(), "CZ");
        EXPECT_TRUE(server->backends[0]->ended());
        EXPECT_EQ(server->backends[0]->queries, std::vector<std::string>{"sleep"});
    }
    void finish() {
        server->backends[0]->complete("SELECT 1", 'I');
        ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
    }

    std::unique_ptr<Client> client;
};

TEST_F(LateCancelTest, AConnectionThatMayStillBeCancelledIsForNobodyElse) {
    finish();
    expect_another_connection();
}

TEST_F(LateCancelTest, AndNotEvenWhenItsStatementEndsLater) {
    (void)loop.run_for(Millis{600});
    EXPECT_FALSE(server->backends[0]->ended());
    finish();
    expect_another_connection();
}

TEST_F(LateCancelTest, OneThatWasAnsweredInTimeIsForTheNext) {
    finish();
    server->backends[1]->hang_up();
    auto next = login();
    run(*next, "select 1");
    EXPECT_EQ(server->backends[0]->queries, (std::vector<std::string>{"sleep", "select 1"}));
}

// --- Flow and shutdown ---

TEST_F(SessionTest, ASlowReaderStopsTheServerInsteadOfFillingMemory) {
    const std::size_t rows = 400;
    const std::string row = [] {
        wire::Buffer out = "D";
        wire::put_u32(out, 100'004);
        return out + std::string(100'000, 'x');
    }();
    server->on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (sql != "rows") return false;
        for (std::size_t i = 0; i < rows; ++i) backend.send(row);
        backend.complete("SELECT 400", 'I');
        return true;
    };
    start();
    auto client = login();
    client->read_on(false);
    client->query("rows");
    settle();
    settle();
    client->read_on(true);
    ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->count('D'), rows);
}

TEST_F(SessionTest, MessagesCutAnywhereArePutTogether) {
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_query(out, "select 1");
    wire::put_query(out, "insert");
    for (const char byte : out) {
        client->send(std::string(1, byte));
        (void)loop.run_for(Millis{1});
    }
    ASSERT_TRUE(until([&] { return client->count('Z') == 2; }));
    EXPECT_EQ(server->queries(), (std::vector<std::string>{"select 1", "insert"}));
}

TEST_F(SessionTest, SmartShutdownLetsTransactionsFinish) {
    start();
    auto idle = login();
    auto busy = login();
    run(*busy, "begin");
    bool drained = false;
    pooler->begin_shutdown(ShutdownMode::Smart, [&] { drained = true; });
    EXPECT_TRUE(until([&] { return idle->ended(); }));
    EXPECT_EQ(idle->sqlstate(), "57P01");
    run(*busy, "insert");
    EXPECT_EQ(busy->types(), "CZ");
    EXPECT_FALSE(pooler->drained());
    busy->messages.clear();
    busy->query("commit");
    EXPECT_TRUE(until([&] { return busy->ended() && drained; }));
    EXPECT_EQ(busy->types(), "CZE");
    EXPECT_TRUE(until([&] { return server->open_backends() == 0; }));
}

TEST_F(SessionTest, FastShutdownEndsEverybody) {
    start();
    auto client = login();
    run(*client, "begin");
    bool drained = false;
    pooler->begin_shutdown(ShutdownMode::Fast, [&] { drained = true; });
    EXPECT_TRUE(until([&] { return client->ended() && drained; }));
    EXPECT_EQ(client->sqlstate(), "57P01");
    EXPECT_TRUE(until([&] { return server->open_backends() == 0; }));
}

TEST_F(SessionTest, ClosesIdleConnectionsOfADatabaseOfThisCoordinator) {
    environment.settings_now.own_server = {"127.0.0.1", static_cast<std::uint16_t>(server->port)};
    environment.show({});
    start();
    auto client = login();
    run(*client, "select 1");
    pooler->close_database("other");
    settle();
    EXPECT_EQ(server->open_backends(), 1U);
    pooler->close_database("d");
    EXPECT_TRUE(until([&] { return server->open_backends() == 0; }));
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SessionTest, PoolRowsCount) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    run(*first, "begin");
    second->query("select 1");
    settle();
    pooler->publish_stats();
    ASSERT_EQ(environment.pools.size(), 1U);
    const PoolRow& row = environment.pools[0];
    EXPECT_EQ(row.node, d1);
    EXPECT_EQ(row.clients_active, 1U);
    EXPECT_EQ(row.clients_waiting, 1U);
    EXPECT_EQ(row.servers_active, 1U);
    EXPECT_EQ(row.servers_idle, 0U);
}

}  // namespace
}  // namespace pgxc::pooler
