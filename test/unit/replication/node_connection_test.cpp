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

TEST_F(NodeConnections, AWatchDoesNotSpinWhereEachIsClosedSoon) {
    ScriptedServer server(context, [](const std::string&) { return std::string{}; });
    const NodeWatch::Timing timing{Millis(100), Millis(1'000)};
    const auto watch = std::make_shared<NodeWatch>(context.get_executor(), target(server), timing, [] {});
    watch->start();
    const TimePoint began = Clock::now();
    ASSERT_TRUE(run_until([&] { return server.accepted() >= 2; }));
    run_for(Millis(500));
    // How many are let in says this machine's speed; without a pause it is hundreds.
    EXPECT_LE(server.accepted(), 5 + 3 * (Clock::now() - began) / Millis(100));
    watch->stop();
    run_for(Millis(20));
}

/// Takes all free descriptors, and so many of those that are closed next, until it goes.
class FewDescriptors {
  public:
    explicit FewDescriptors(rlim_t less) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        const UniqueFd next(::dup(0));
        rlimit few = before_;
        few.rlim_cur = static_cast<rlim_t>(next.get()) - less;
        ::setrlimit(RLIMIT_NOFILE, &few);
    }
    ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
    FewDescriptors(const FewDescriptors&) = delete;
    FewDescriptors& operator=(const FewDescriptors&) = delete;

  private:
    rlimit before_{};
};

TEST_F(NodeConnections, AWatchOutlivesALackOfDescriptors) {
#ifdef __SANITIZE_ADDRESS__
    // UBSan needs a pipe to look at an object's type, and takes one without descriptors for none.
    GTEST_SKIP() << "the sanitizers need descriptors of their own";
#endif
    bool closes = false;
    ScriptedServer server(context, [&](const std::string&) { return closes ? "" : ScriptedServer::done(); });
    const NodeWatch::Timing timing{Millis(10), Millis(1'000)};
    const auto watch = std::make_shared<NodeWatch>(context.get_executor(), target(server), timing, [] {});
    watch->start();
    for (rlim_t less = 0; less < 5; ++less) {
        ASSERT_TRUE(run_until([&] {
            return watch->seen().silence == Silence::None && watch->seen().last_seen;
        })) << "after a lack of all but "
            << less << ": " << watch->seen().error;
        closes = true;
        {
            const FewDescriptors few(less);
            EXPECT_TRUE(run_until([&] { return watch->seen().silence != Silence::None; }));
            run_for(Millis(60));
        }
        closes = false;
        EXPECT_NE(watch->seen().silence, Silence::None);
    }
    watch->stop();
    run_for(Millis(20));
}

}  // namespace
}  // namespace pgxc
