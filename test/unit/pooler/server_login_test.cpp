// How the pooler logs in at servers that are slow, hidden or not what they should be.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

#include "fakes/name_servers.h"
#include "fakes/session_test.h"
#include "unit/replication/temporary_directory.h"
#include "wire/scram.h"

namespace pgxc::pooler {
namespace {

using fakes::name_servers;

class ServerLoginTest : public SessionTest {
  protected:
    void SetUp() override {
        SessionTest::SetUp();
        environment.settings_now.failover_hold = Millis{3000};
    }
    void TearDown() override {
        SessionTest::TearDown();
        name_servers().answer(true);
    }
    /// What the client of a login gets to hear; "" if it is let in.
    std::string refusal() {
        if (!pooler) start();
        auto client = connect();
        client->start();
        EXPECT_TRUE(until([&] { return client->count('Z') == 1 || client->ended(); }));
        return client->count('Z') == 1 ? "" : client->error().message;
    }
    void show_master_at(const std::string& host) {
        show({FakeEnvironment::master(1, host, static_cast<std::uint16_t>(server->port))});
    }
};

std::string ready_for_query() {
    wire::Buffer out;
    wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
    return out;
}

TEST_F(ServerLoginTest, AServerThatLetsEverybodyInWithoutSayingSoIsNotUsed) {
    environment.settings_now.failover_hold = Millis{700};
    server->on_startup = [](fakes::Backend& backend) { backend.send(ready_for_query()); };
    EXPECT_NE(refusal().find("expected authentication request from datanode 1"), std::string::npos);
    server->on_startup = [](fakes::Backend& backend) {
        wire::Buffer out;
        wire::put_notice_response(out, wire::Severity::Notice, {"00000", "hello"});
        wire::put_parameter_status(out, "TimeZone", "UTC");
        wire::put_authentication_ok(out);
        backend.send(out + ready_for_query());
    };
    EXPECT_NE(refusal().find("but received \"S\""), std::string::npos);
}

TEST_F(ServerLoginTest, AServerThatAsksForScramAndDoesNotGoOnWithItIsNotUsed) {
    environment.settings_now.failover_hold = Millis{300};
    const replication::TemporaryDirectory directory;
    replication::write_text(directory / "pgpass", "*:*:*:*:secret\n");
    std::filesystem::permissions(directory / "pgpass", std::filesystem::perms{0600});
    ASSERT_EQ(::setenv("PGPASSFILE", (directory / "pgpass").c_str(), 1), 0);
    bool answered = false;
    server->on_startup = [](fakes::Backend& backend) {
        wire::Buffer out;
        wire::put_authentication_sasl(out, std::array{wire::scram_sha_256});
        backend.send(out);
    };
    server->on_message = [&](fakes::Backend& backend, const fakes::Message&) {
        answered = true;
        backend.send(ready_for_query());
    };
    EXPECT_NE(refusal().find("but received \"Z\""), std::string::npos);
    EXPECT_TRUE(answered);
    ::unsetenv("PGPASSFILE");
}

TEST_F(ServerLoginTest, NoChannelMustBeBoundOverAUnixSocket) {
    const replication::TemporaryDirectory directory;
    server = std::make_unique<fakes::Server>(loop, directory.path());
    environment.node_tls_now.mode = SslMode::Require;
    environment.node_tls_now.must_bind_channel = true;
    show_master_at(directory.path());
    EXPECT_EQ(refusal(), "");
    pooler.reset();
    server.reset();
}

/// An address where connections aren't answered, as behind a firewall that drops them.
class SilentAddress {
  public:
    SilentAddress(const std::string& address, int port) {
        const auto at = *net::SocketAddress::from_literal(address, static_cast<std::uint16_t>(port));
        listener_.reset(::socket(at.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
        EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&at.storage), at.length), 0);
        EXPECT_EQ(::listen(listener_.get(), 0), 0);
        // Nobody takes it, and there is room for no more.
        first_ = net::start_connect(at).fd;
    }

  private:
    UniqueFd listener_;
    UniqueFd first_;
};

TEST_F(ServerLoginTest, ANodesSecondAddressIsReachedThoughTheFirstIsSilent) {
    environment.settings_now.connect_timeout = Millis{200};
    const SilentAddress silent{"127.0.0.2", server->port};
    name_servers().know("two.test", {"127.0.0.2", "127.0.0.1"});
    show_master_at("two.test");
    EXPECT_EQ(refusal(), "");
    EXPECT_TRUE(environment.reports.empty());
}

TEST_F(ServerLoginTest, ANodeWhoseAddressesAreAllSilentIsReported) {
    environment.settings_now.connect_timeout = Millis{100};
    environment.settings_now.failover_hold = Millis{500};
    const SilentAddress first{"127.0.0.2", server->port};
    const SilentAddress second{"127.0.0.3", server->port};
    name_servers().know("silent.test", {"127.0.0.2", "127.0.0.3"});
    show_master_at("silent.test");
    EXPECT_NE(refusal().find("no answer from datanode 1"), std::string::npos);
    ASSERT_FALSE(environment.reports.empty());
    EXPECT_EQ(environment.reports[0].failure, TrafficFailure::ConnectTimeout);
}

TEST_F(ServerLoginTest, ANodeWhoseNameTakesLongToLookUpIsReached) {
    environment.settings_now.connect_timeout = Millis{100};
    name_servers().know("late.test", {"127.0.0.1"});
    name_servers().answer(true, Millis{300});
    show_master_at("late.test");
    EXPECT_EQ(refusal(), "");
    EXPECT_EQ(name_servers().asked("late.test"), 1);
}

TEST_F(ServerLoginTest, BytesAreCountedThoughTheLoginIsBegunAnew) {
    environment.node_tls_now.mode = SslMode::Allow;
    std::vector<std::uint64_t> sent;  // as known when each first packet comes
    server->on_startup = [&](fakes::Backend& backend) {
        pooler->publish_stats();
        sent.push_back(environment.statistics.at(0).counters->bytes_in);
        if (sent.size() == 1) {
            backend.fail("28000", true);
        } else if (sent.size() == 2) {  // it asks for TLS
            backend.started = false;
            backend.send("N");
        } else {
            server->welcome(backend);
        }
    };
    EXPECT_EQ(refusal(), "");
    ASSERT_EQ(sent.size(), 3U);
    wire::Buffer request;
    wire::put_ssl_request(request);
    EXPECT_EQ(sent[1], sent[0] + request.size());
    EXPECT_EQ(sent[2], sent[1] + sent[0]);
}

}  // namespace
}  // namespace pgxc::pooler
