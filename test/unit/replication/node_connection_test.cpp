#include "replication/node_connection.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <filesystem>

#include "base/unique_fd.h"
#include "fakes/scripted_server.h"
#include "replication/node_watch.h"

namespace pgxc {
namespace {

using test::ScriptedServer;

constexpr Millis patience{20'000};

std::size_t open_descriptors() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
}

class NodeConnections : public ::testing::Test {
  protected:
    ConnectTarget target(const ScriptedServer& server) const {
        return {server.address(), NodeLogin{}, "test"};
    }
    template <class Condition>
    bool run_until(Condition holds) {
        const TimePoint deadline = Clock::now() + patience;
        while (!holds()) {
            if (Clock::now() >= deadline) return false;
            context.run_one_for(Millis(5));
        }
        return true;
    }
    void run_for(Millis time) {
        const TimePoint end = Clock::now() + time;
        (void)run_until([end] { return Clock::now() >= end; });
    }

    asio::io_context context;
};

asio::awaitable<void> open_and_close(ConnectTarget target, int* times) {
    for (;;) {
        auto opened = co_await NodeConnection::open(target, patience);
        EXPECT_TRUE(opened.ok());
        if (!opened.ok()) co_return;
        auto rows = co_await (*opened)->query("SELECT", patience);
        EXPECT_TRUE(rows.ok());
        ++*times;
    }
}

TEST_F(NodeConnections, LeaveNoDescriptorBehind) {
    ScriptedServer server(context, [](const std::string&) { return ScriptedServer::done(); });
    int times = 0;
    asio::co_spawn(context, open_and_close(target(server), &times), asio::detached);
    ASSERT_TRUE(run_until([&] { return times >= 5; }));
    const std::size_t before = open_descriptors();
    ASSERT_TRUE(run_until([&] { return times >= 55; }));
    EXPECT_LT(open_descriptors(), before + 20);
}

}  // namespace
}  // namespace pgxc
