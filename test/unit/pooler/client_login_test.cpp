// Logins of clients that guess, wait and leave.
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include "fakes/session_test.h"
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

}  // namespace
}  // namespace pgxc::pooler
