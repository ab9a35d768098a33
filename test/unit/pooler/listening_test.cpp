// The sockets that the settings name, where one of them is another's for a while.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "base/log.h"
#include "fakes/bystander.h"
#include "fakes/name_servers.h"
#include "fakes/session_test.h"
#include "unit/replication/temporary_directory.h"

namespace pgxc::pooler {
namespace {

class ListeningTest : public SessionTest {
  protected:
    ListeningTest() { environment.settings_now.socket_directories = {directory.path()}; }
    ~ListeningTest() override {
        set_log_sink([](LogLevel, std::string_view line) { std::cerr << line << "\n"; });
    }
    void hold_socket(pid_t owner) { std::ofstream{lock} << owner << "\n"; }
    /// A socket of somebody else's on the port that the pooler is to listen on.
    UniqueFd hold_port() {
        UniqueFd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        auto address = *net::SocketAddress::from_literal("127.0.0.1", 0);
        auto* const name = reinterpret_cast<sockaddr*>(&address.storage);
        EXPECT_EQ(::bind(fd.get(), name, address.length), 0);
        EXPECT_EQ(::listen(fd.get(), 1), 0);
        EXPECT_EQ(::getsockname(fd.get(), name, &address.length), 0);
        environment.settings_now.port = address.port();
        return fd;
    }
    void be_the_second_of_two_workers() {
        environment.settings_now.workers = 2;
        environment.settings_now.relay_directory = directory.path();
        environment.index = 1;
    }
    bool serves(const std::string& address) {
        const auto port = static_cast<std::uint16_t>(environment.settings_now.port);
        fakes::Client client{loop, *net::SocketAddress::from_literal(address, port)};
        client.start({}, "u");
        return until([&] { return client.count('Z') == 1 || client.ended(); }) && client.count('Z') == 1;
    }
    static std::vector<std::string>& warnings() {
        static std::vector<std::string> all;
        return all;
    }
    static void keep_warnings() {
        warnings().clear();
        set_log_sink([](LogLevel level, std::string_view line) {
            if (level == LogLevel::Warning) warnings().emplace_back(line);
        });
    }

    replication::TemporaryDirectory directory;
    const std::string path = directory / ".s.PGSQL.0";
    const std::string lock = path + ".lock";
};

// A killed server's pooler may not be gone yet, or not be reaped, when the next one starts.
TEST_F(ListeningTest, ASocketThatAnotherHeldIsListenedOnWhenTheOtherIsGone) {
    fakes::Bystander other;
    ASSERT_GT(other.pid(), 0);
    hold_socket(other.pid());
    start();
    EXPECT_GT(pooler->port(), 0);  // TCP doesn't wait for it
    EXPECT_FALSE(std::filesystem::exists(path));
    other.end();
    EXPECT_TRUE(until([&] { return std::filesystem::exists(path); }));
    fakes::Client client{loop, *net::SocketAddress::unix_socket(path)};
    client.start({}, "u");
    EXPECT_TRUE(until([&] { return client.count('Z') == 1; })) << client.types();
}

TEST_F(ListeningTest, WithoutAnySocketTheErrorNamesWhoHasIt) {
    fakes::Bystander other;
    environment.settings_now.listen_addresses.clear();
    hold_socket(other.pid());
    auto made = Pooler::start(loop, environment);
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.error().message.find(lock), std::string::npos) << made.error().message;
    EXPECT_NE(made.error().hint.find(std::to_string(other.pid())), std::string::npos) << made.error().hint;
}

// What is waited for from all workers must come from this one, too.
TEST_F(ListeningTest, AWorkerButTheFirstNeedsNoSocket) {
    be_the_second_of_two_workers();
    environment.settings_now.listen_addresses.clear();
    start();
    NodeView paused = master_at(*server);
    paused.paused = true;
    show({paused});
    EXPECT_EQ(environment.in_use.count(d1), 1U);
}

TEST_F(ListeningTest, AWorkerButTheFirstWaitsForAPortThatAnotherHas) {
    be_the_second_of_two_workers();
    UniqueFd other = hold_port();
    keep_warnings();
    start();
    EXPECT_EQ(pooler->port(), 0);
    EXPECT_EQ(warnings().size(), 1U);
    other.reset();
    EXPECT_TRUE(until([&] { return pooler->port() != 0; }));
    EXPECT_TRUE(serves("127.0.0.1"));
}

TEST_F(ListeningTest, ANameIsLookedUpUntilItIsFound) {
    hold_port().reset();
    fakes::name_servers().know("late.pooler", {});
    environment.settings_now.listen_addresses = {"127.0.0.1", "late.pooler"};
    start();
    const auto asked = [] { return fakes::name_servers().asked("late.pooler"); };
    ASSERT_EQ(asked(), 1);
    EXPECT_TRUE(until([&] { return asked() >= 2; }));
    EXPECT_FALSE(serves("127.0.0.2"));
    // One of them is wanted already.
    fakes::name_servers().know("late.pooler", {"127.0.0.1", "127.0.0.2"});
    keep_warnings();
    EXPECT_TRUE(until([&] { return serves("127.0.0.2"); }));
    EXPECT_TRUE(warnings().empty()) << warnings().front();
}

TEST_F(ListeningTest, AnAddressThatIsNamedTwiceIsListenedOnOnce) {
    fakes::name_servers().know("same.pooler", {"127.0.0.1"});
    for (const std::vector<std::string>& names :
         {std::vector<std::string>{"same.pooler", "127.0.0.1"}, {"127.0.0.1", "*"}, {"*", "127.0.0.1"}}) {
        hold_port().reset();
        environment.settings_now.listen_addresses = names;
        keep_warnings();
        start();
        EXPECT_TRUE(warnings().empty()) << warnings().front();
        EXPECT_TRUE(serves("127.0.0.1"));
        pooler.reset();
    }
}

}  // namespace
}  // namespace pgxc::pooler
