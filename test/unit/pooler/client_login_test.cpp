// Logins of clients that guess, wait and leave.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "fakes/session_test.h"
#include "pooler/login_throttle.h"
#include "unit/replication/temporary_directory.h"
#include "wire/scram.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;

class ClientLoginTest : public SessionTest {
  protected:
    void ask_for(AuthMethod method) {
        environment.hba = [method](auto&, auto&) { return AuthRule{method, "scripted", "line 1"}; };
    }
    /// A client that has answered what it was asked for.
    std::unique_ptr<Client> give(const std::string& password, std::vector<wire::Setting> settings = {}) {
        auto client = connect();
        client->start(std::move(settings));
        EXPECT_TRUE(until([&] { return client->count('R') == 1; })) << client->types();
        send_password(*client, password);
        return client;
    }
    static void send_password(Client& client, const std::string& password) {
        wire::Buffer out;
        wire::put_password(out, password);
        client.send(out);
    }
    std::string refusal(const std::string& password) {
        auto client = give(password);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1 || client->ended(); }));
        return client->count('Z') == 1 ? "" : client->error().message;
    }
};

/// OpenSSL as where only what FIPS allows is there.
class Fips {
  public:
    Fips() { EXPECT_EQ(EVP_default_properties_enable_fips(nullptr, 1), 1); }
    Fips(const Fips&) = delete;
    Fips& operator=(const Fips&) = delete;
    ~Fips() { EXPECT_EQ(EVP_default_properties_enable_fips(nullptr, 0), 1); }
};

TEST_F(ClientLoginTest, AnEmptyPasswordIsRefusedWithMd5) {
    environment.roles["u"] = {true, true, wire::md5_secret("pw", "u")};
    ask_for(AuthMethod::Md5);
    start();
    EXPECT_EQ(refusal(""), "empty password returned by client");
    const std::string wrong = "password authentication failed for user \"u\"";
    EXPECT_EQ(refusal("md5"), wrong);
    const Fips on;
    EXPECT_EQ(refusal(""), "empty password returned by client");
    EXPECT_EQ(refusal("md5"), wrong);
}

TEST_F(ClientLoginTest, AnEmptyPasswordIsRefusedInPlainText) {
    environment.roles["u"] = {true, true, wire::md5_secret("pw", "u")};
    ask_for(AuthMethod::Password);
    start();
    EXPECT_EQ(refusal(""), "empty password returned by client");
    EXPECT_EQ(refusal("pw"), "");
}

TEST_F(ClientLoginTest, WhoHangsUpWhileItWaitsForAServerKeepsNoPlace) {
    environment.settings_now.max_pool_size = 1;
    environment.roles["u"] = {true, true,
                              wire::to_string(wire::make_scram_secret("pw", "0123456789abcdef", 4096))};
    ask_for(AuthMethod::Password);
    start();
    auto busy = give("pw");
    EXPECT_TRUE(until([&] { return busy->count('Z') == 1; }));
    run(*busy, "begin");
    // Its settings are others: they are tried on a server connection.
    auto waits = give("pw", {{"application_name", "other"}});
    const auto waiting = [&] {
        pooler->publish_stats();
        return environment.pools.at(0).clients_waiting;
    };
    EXPECT_TRUE(until([&] { return waiting() == 1; }));
    waits->hang_up();
    EXPECT_TRUE(until([&] { return waiting() == 0; }));
}

TEST_F(ClientLoginTest, WhatARoleMayCountsWhenItIsProven) {
    const std::string secret = wire::md5_secret("pw", "u");
    environment.roles["u"] = {true, true, secret};
    environment.roles["other"] = {true, true, std::nullopt};
    ask_for(AuthMethod::Md5);
    start();
    const auto answer_after = [&](const std::function<void()>& change) {
        auto client = connect();
        client->start();
        EXPECT_TRUE(until([&] { return client->count('R') == 1; }));
        change();
        std::array<std::uint8_t, 4> salt{};
        std::copy_n(client->messages[0].body.end() - 4, 4, salt.begin());
        send_password(*client, wire::md5_response(secret, salt));
        EXPECT_TRUE(until([&] { return client->count('Z') == 1 || client->ended(); }));
        return client->error().message;
    };
    EXPECT_EQ(answer_after([] {}), "");
    EXPECT_EQ(answer_after([&] { environment.roles["u"].can_login = false; }),
              "role \"u\" is not permitted to log in");
    environment.roles["u"].can_login = true;
    EXPECT_EQ(answer_after([&] { environment.roles.erase("u"); }), "role \"u\" does not exist");
}

TEST_F(ClientLoginTest, APasswordIsComparedWithTheSecretOfThatMoment) {
    environment.roles["u"] = {true, true, wire::md5_secret("old", "u")};
    ask_for(AuthMethod::Password);
    start();
    auto client = connect();
    client->start();
    EXPECT_TRUE(until([&] { return client->count('R') == 1; }));
    environment.roles["u"].stored_password = wire::md5_secret("new", "u");
    send_password(*client, "old");
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->sqlstate(), sqlstate::invalid_password);
}

TEST_F(ClientLoginTest, WhoWaitsForTheFirstViewCountsForTheLimitOfItsRole) {
    const auto view = std::exchange(environment.view, std::make_shared<ClusterView>());
    environment.roles["u"] = {true, true, std::nullopt};
    environment.roles["u"].connection_limit = 1;
    environment.roles["gone"] = {true, true, std::nullopt};
    start();
    std::vector<std::unique_ptr<Client>> clients;
    for (const std::string user : {"u", "u", "u", "gone"}) {
        clients.push_back(connect());
        clients.back()->start({}, user);
    }
    settle();
    environment.roles.erase("gone");
    environment.view = view;
    pooler->view_changed();
    std::size_t in = 0;
    std::size_t refused = 0;
    EXPECT_TRUE(until([&] {
        in = refused = 0;
        for (const auto& client : clients) {
            in += client->count('Z');
            refused += client->ended() ? 1 : 0;
        }
        return in + refused == clients.size();
    }));
    EXPECT_EQ(in, 1U);
    EXPECT_EQ(refused, 3U);
    EXPECT_EQ(clients.back()->error().message, "role \"gone\" does not exist");
}

TEST_F(ClientLoginTest, ARoleThatIsMadeAnewGetsNothingOfTheOldOne) {
    environment.roles["u"] = {true, true, std::nullopt};
    environment.roles["u"].oid = 1;
    environment.roles["v"] = {true, true, std::nullopt};
    start();
    auto idle = login();
    auto busy = login();
    auto other = login({}, "v");
    run(*busy, "begin");
    run(*idle, "select 'old'");
    run(*other, "select 'other'");
    ASSERT_EQ(server->backends.size(), 3U);
    environment.roles["u"].oid = 2;
    auto fresh = login();
    EXPECT_TRUE(until([&] { return idle->ended(); }));
    EXPECT_EQ(idle->sqlstate(), sqlstate::admin_shutdown);
    // Its login has asked a server, and its statements go to that.
    run(*fresh, "select 'new'");
    ASSERT_EQ(server->backends.size(), 4U);
    EXPECT_EQ(server->backends[3]->queries, std::vector<std::string>{"select 'new'"});
    // What runs is finished, and then over for both.
    EXPECT_FALSE(busy->ended());
    run(*busy, "commit");
    EXPECT_TRUE(until([&] { return busy->ended(); }));
    EXPECT_TRUE(until([&] { return server->open_backends() == 2; }));
    EXPECT_FALSE(server->backends[3]->ended());
    run(*other, "select 'other'");
    EXPECT_EQ(other->types(), "CZ");
    EXPECT_EQ(server->backends.size(), 4U);
}

TEST_F(ClientLoginTest, ASecretWithTooManyIterationsKeepsNobodyElseWaiting) {
    wire::ScramSecret secret = wire::make_scram_secret("pw", "0123456789abcdef", 1);
    secret.iterations = 2'147'483'647;
    environment.roles["u"] = {true, true, wire::to_string(secret)};
    ask_for(AuthMethod::Password);
    start();
    EXPECT_EQ(refusal("pw"), "password authentication failed for user \"u\"");
}

/// Clients of the pooler's Unix socket, run by one system user or another.
class LocalClientsTest : public ClientLoginTest {
  protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "only root can be somebody else";
        ClientLoginTest::SetUp();
        std::filesystem::permissions(directory.path(), std::filesystem::perms{0755});
        environment.settings_now.listen_addresses.clear();
        environment.settings_now.socket_directories = {directory.path()};
    }
    std::unique_ptr<Client> connect_as(uid_t user) {
        EXPECT_EQ(::seteuid(user), 0);
        auto client =
            std::make_unique<Client>(loop, *net::SocketAddress::unix_socket(directory / ".s.PGSQL.0"));
        EXPECT_EQ(::seteuid(0), 0);
        client->start();
        EXPECT_TRUE(until([&] { return client->count('R') == 1 || client->ended(); }));
        return client;
    }

    replication::TemporaryDirectory directory;
};

TEST_F(LocalClientsTest, WhoGuessesLocksOutNoOtherSystemUser) {
    environment.roles["u"] = {true, true, wire::md5_secret("pw", "u")};
    ask_for(AuthMethod::Password);
    start();
    std::vector<std::unique_ptr<Client>> guessers;
    const auto turned_away = [&] {
        guessers.push_back(connect_as(1));
        if (guessers.back()->ended()) return true;
        send_password(*guessers.back(), "wrong");
        return false;
    };
    EXPECT_TRUE(until(turned_away));
    EXPECT_GT(guessers.size(), LoginThrottle::max_waiting);
    auto other = connect_as(2);
    ASSERT_FALSE(other->ended());
    send_password(*other, "pw");
    EXPECT_TRUE(until([&] { return other->count('Z') == 1; }));
    pooler->publish_stats();
    for (const auto& row : environment.clients) EXPECT_EQ(row.address, "[local]");
}

}  // namespace
}  // namespace pgxc::pooler
