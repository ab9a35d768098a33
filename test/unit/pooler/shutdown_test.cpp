// Who is in a transaction: whom a smart shutdown lets finish, and what pgxc_pooler_clients tells.
#include "fakes/auto_routing_test.h"
#include "fakes/session_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Backend;
using fakes::Client;

class ShutdownTest : public SessionTest {
  protected:
    void stop() { pooler->begin_shutdown(ShutdownMode::Smart); }
    /// Its query has been answered, and then it was sent away.
    void expect_answered(Client& client, const std::string& types = "CZE") {
        EXPECT_TRUE(until([&] { return client.ended(); }));
        EXPECT_EQ(client.types(), types);
        EXPECT_EQ(client.sqlstate(), "57P01");
    }
    void expect_drained() {
        EXPECT_TRUE(until([&] { return pooler->drained(); }));
        EXPECT_TRUE(until([&] { return server->open_backends() == 0; }));
    }
};

TEST_F(ShutdownTest, WhoWaitsForAServerConnectionGetsIt) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    run(*first, "begin");
    second->query("insert");
    settle();
    stop();
    settle();
    EXPECT_EQ(second->types(), "");
    EXPECT_FALSE(second->ended());
    run(*first, "commit");
    expect_answered(*second);
    expect_drained();
}

TEST_F(ShutdownTest, WhoIsHeldGoesToTheNextMaster) {
    start();
    auto client = login();
    show_master(*server, 1, Gate::Held);
    client->query("insert");
    settle();
    stop();
    settle();
    EXPECT_FALSE(client->ended());
    show_master(*server);
    expect_answered(*client);
    expect_drained();
}

TEST_F(ShutdownTest, OrIsToldThatThereIsNone) {
    environment.settings_now.failover_hold = Millis{500};
    start();
    auto client = login();
    show_master(*server, 1, Gate::Held);
    client->query("insert");
    settle();
    stop();
    expect_answered(*client, "EZE");
    expect_drained();
}

TEST_F(ShutdownTest, WhoIsHeldByAPauseGoes) {
    start();
    auto before = login();
    auto behind = login();
    auto view = master_at(*server);
    view.paused = true;
    show({view});
    before->query("insert");
    settle();
    stop();
    expect_answered(*before, "E");
    EXPECT_TRUE(until([&] { return behind->ended(); }));
    expect_drained();
}

TEST_F(ShutdownTest, APauseThatComesLaterEndsWhoWaits) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login();
    auto second = login();
    run(*first, "begin");
    second->query("insert");
    settle();
    stop();
    auto view = master_at(*server);
    view.paused = true;
    show({view});
    expect_answered(*second, "E");
    run(*first, "commit");
    expect_answered(*first);
    expect_drained();
}

TEST_F(ShutdownTest, WhoseSettingsAreAppliedIsServed) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login({{"default_tablespace", "a"}});
    auto second = login({{"default_tablespace", "b"}});
    run(*first, "select 1");
    Backend* asked = nullptr;
    server->on_query = [&](Backend& backend, const std::string& sql) {
        if (sql.find("set_config") == std::string::npos || asked != nullptr) return false;
        asked = &backend;
        return true;
    };
    second->query("insert");
    ASSERT_TRUE(until([&] { return asked != nullptr; }));
    stop();
    settle();
    EXPECT_FALSE(second->ended());
    asked->complete("SELECT 1", 'I');
    expect_answered(*second);
    expect_drained();
}

TEST_F(ShutdownTest, ABlockThatHasFailedEndsWithTheClientsRollback) {
    server->on_query = die_at("insert and die");
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "insert and die");
    stop();
    run(*client, "insert more");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "25P02");
    EXPECT_FALSE(client->ended());
    run(*client, "rollback");
    expect_answered(*client);
    expect_drained();
}

TEST_F(ShutdownTest, ABlockThatFailsMeanwhileToo) {
    server->on_query = die_at("insert and die");
    start();
    auto client = login();
    run(*client, "begin");
    stop();
    run(*client, "insert and die");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "08006");
    run(*client, "rollback");
    expect_answered(*client);
    expect_drained();
}

TEST_F(AutoRoutingTest, ABlockThatHasNoServerYetGetsOneInASmartShutdown) {
    start();
    auto client = login_known();
    run(*client, "begin");
    pooler->begin_shutdown(ShutdownMode::Smart);
    settle();
    EXPECT_FALSE(client->ended());
    run(*client, "insert");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "commit");
    EXPECT_TRUE(until([&] { return client->ended() && pooler->drained(); }));
    EXPECT_EQ(client->sqlstate(), "57P01");
}

// --- What is shown ---

/// What the pooler has published of its only client: its state, and why.
std::string shown(const FakeEnvironment& environment) {
    if (environment.clients.size() != 1) return {};
    const ClientRow& row = environment.clients.front();
    return row.why.empty() ? row.state : row.state + ": " + row.why;
}

TEST_F(AutoRoutingTest, ABlockWithoutAServerIsNotShownAsIdle) {
    start();
    auto client = login_known();
    EXPECT_TRUE(until([&] { return shown(environment) == "idle"; }));
    run(*client, "begin");
    EXPECT_TRUE(until([&] { return shown(environment) == "active: its transaction has no server yet"; }));
    run(*client, "insert");
    EXPECT_TRUE(until([&] { return shown(environment) == "active"; }));
    run(*client, "commit");
    EXPECT_TRUE(until([&] { return shown(environment) == "idle"; }));
}

TEST_F(SessionTest, ABlockThatLostItsServerIsNotShownAsIdle) {
    server->on_query = die_at("insert and die");
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "insert and die");
    EXPECT_TRUE(until(
        [&] { return shown(environment) == "active: its transaction failed, and it has not ended it"; }));
    run(*client, "rollback");
    EXPECT_TRUE(until([&] { return shown(environment) == "idle"; }));
}

}  // namespace
}  // namespace pgxc::pooler
