// Cancel requests that come while the server does something of the pooler's own, which they are not for.
#include <algorithm>

#include "fakes/session_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;

class EarlyCancelTest : public SessionTest {
  protected:
    void SetUp() override {
        SessionTest::SetUp();
        environment.settings_now.max_pool_size = 1;
        start();
        server->on_query = [this](fakes::Backend& backend, const std::string& sql) {
            asked = asked || sql == "asked for";
            if (sql == "asked for") return true;
            if (!holds.empty() && sql.find(holds) != std::string::npos) {
                held = &backend;
                return true;
            }
            if (!sql.starts_with("listen")) return false;
            backend.complete("LISTEN", 'I');
            return true;
        };
    }
    void log_in(std::vector<wire::Setting> settings) {
        client = connect();
        client->start(std::move(settings));
        ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
        for (const auto& message : client->messages) {
            if (message.type == 'K') key = *wire::parse_backend_key_data(message.body);
        }
        client->messages.clear();
    }
    /// The statement is sent while the server says nothing to what contains `text`.
    void ask_while_held(const std::string& text) {
        holds = text;
        client->query("asked for");
        ASSERT_TRUE(until([&] { return held != nullptr; }));
    }
    void ask_while_settings_are_applied() {
        log_in({{"role", "r"}});
        auto other = login();
        run(*other, "select 1");
        ask_while_held("role");
    }
    /// What the client has done last is being looked at.
    void end_a_transaction() {
        log_in({});
        holds = question;
        run(*client, "listen x");
        ASSERT_TRUE(until([&] { return held != nullptr; }));
        client->messages.clear();
    }
    void cancel() {
        auto asks = connect();
        wire::Buffer out;
        wire::put_cancel_request(out, {key.pid, key.secret});
        asks->send(out);
        EXPECT_TRUE(until([&] { return asks->ended(); }));
        settle();
        EXPECT_TRUE(server->cancels.empty());
    }
    void expect_refused() {
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
        EXPECT_EQ(client->sqlstate(), "57014");
        holds.clear();
        run(*client, "select 2");
        EXPECT_EQ(client->count('C'), 1U) << client->types();
        EXPECT_FALSE(asked);
        EXPECT_TRUE(server->cancels.empty());
    }

    std::string holds;
    fakes::Backend* held = nullptr;
    bool asked = false;  // the server has the statement
    std::unique_ptr<Client> client;
    wire::BackendKeyData key;
};

TEST_F(EarlyCancelTest, WhileSettingsAreAppliedItIsForTheStatementThatWaits) {
    ask_while_settings_are_applied();
    cancel();
    EXPECT_EQ(client->types(), "");
    held->complete("SELECT 1", 'I');
    expect_refused();
    EXPECT_EQ(server->backends.size(), 1U) << "the connection is used on";
}

TEST_F(EarlyCancelTest, AStatementThatWouldGoOnWaitingIsRefused) {
    ask_while_settings_are_applied();
    cancel();
    held->hang_up(true);
    expect_refused();
}

TEST_F(EarlyCancelTest, SettingsThatFailDoNotMakeItForgotten) {
    ask_while_settings_are_applied();
    cancel();
    held->fail("42501");
    expect_refused();
}

TEST_F(EarlyCancelTest, BehindATransactionItIsForTheStatementThatHasComeSince) {
    end_a_transaction();
    client->query("asked for");
    settle();
    cancel();
    EXPECT_FALSE(asked);
    held->tell_what_is_left({{"l", "", ""}});
    EXPECT_TRUE(until([&] { return server->cancels.size() == 1; }));
    EXPECT_TRUE(asked);
}

TEST_F(EarlyCancelTest, ItIsSoWhereNothingKeepsTheClientAtItsServer) {
    end_a_transaction();
    client->query("asked for");
    settle();
    cancel();
    held->tell_what_is_left({});
    EXPECT_TRUE(until([&] { return server->cancels.size() == 1; }));
    EXPECT_TRUE(asked);
}

TEST_F(EarlyCancelTest, BehindATransactionAStatementThatWaitsForItsTurnIsRefused) {
    end_a_transaction();
    auto other = login();
    other->query("select 1");
    client->query("asked for");
    settle();
    cancel();
    held->tell_what_is_left({});
    expect_refused();
}

TEST_F(EarlyCancelTest, BehindATransactionItIsForNothingThatComesLater) {
    end_a_transaction();
    cancel();
    held->tell_what_is_left({{"l", "", ""}});
    settle();
    client->query("asked for");
    EXPECT_TRUE(until([&] { return asked; }));
    settle();
    EXPECT_TRUE(server->cancels.empty());
}

}  // namespace
}  // namespace pgxc::pooler
