// The sockets that the settings name, where one of them is another's for a while.
#include <filesystem>
#include <fstream>

#include "fakes/bystander.h"
#include "fakes/session_test.h"
#include "unit/replication/temporary_directory.h"

namespace pgxc::pooler {
namespace {

class ListeningTest : public SessionTest {
  protected:
    ListeningTest() { environment.settings_now.socket_directories = {directory.path()}; }
    void hold_socket(pid_t owner) { std::ofstream{lock} << owner << "\n"; }

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

}  // namespace
}  // namespace pgxc::pooler
