#include "net/side_by_side.h"

#include <gtest/gtest.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <memory>
#include <stdexcept>
#include <string>

#include "net/spawn.h"

namespace pgxc::net {
namespace {

asio::awaitable<void> wait_for(Millis time) {
    asio::steady_timer timer(co_await asio::this_coro::executor, time);
    co_await timer.async_wait(asio::use_awaitable);
}

class SideBySide : public ::testing::Test {
  protected:
    Task takes(Millis time, char name) {
        return [this, time, name] { return note(time, name); };
    }
    Task hangs() {
        return [this] { return hang(); };
    }
    Task throws() {
        return [] { return fail(); };
    }
    /// Runs them to their end; false where that doesn't come.
    bool run(std::vector<Task> tasks, std::function<std::optional<Millis>()> patience = {}) {
        asio::co_spawn(context, side_by_side(std::move(tasks), std::move(patience)),
                       [this](std::exception_ptr thrown) {
                           returned = true;
                           failure = std::move(thrown);
                       });
        context.run_for(Millis(20'000));
        return returned;
    }

    asio::io_context context;
    std::string order;
    bool returned = false;
    bool cancelled = false;
    bool went_on = false;
    std::exception_ptr failure;

  private:
    asio::awaitable<void> note(Millis time, char name) {
        co_await wait_for(time);
        order += name;
    }
    /// As libpq's waits are written: a cancelled one looks like one whose time is up.
    asio::awaitable<void> hang() {
        asio::steady_timer never(co_await asio::this_coro::executor, TimePoint::max());
        std::error_code woken;
        co_await never.async_wait(asio::redirect_error(asio::use_awaitable, woken));
        cancelled = woken == asio::error::operation_aborted;
        co_await wait_for(Millis(0));
        went_on = true;
    }
    static asio::awaitable<void> fail() {
        co_await wait_for(Millis(0));
        throw std::runtime_error("broken");
    }
};

TEST_F(SideBySide, NothingToDoIsDoneAtOnce) {
    EXPECT_TRUE(run({}));
}

TEST_F(SideBySide, NobodyWaitsForAnother) {
    EXPECT_TRUE(run({takes(Millis(60), 'b'), takes(Millis(1), 'a')}));
    EXPECT_EQ(order, "ab");
}

TEST_F(SideBySide, WhoIsNotNeededIsCancelledAndLeavesNothingBehind) {
    const auto enough = [this] { return order == "a" ? std::optional(Millis(0)) : std::nullopt; };
    EXPECT_TRUE(run({hangs(), takes(Millis(1), 'a')}, enough));
    EXPECT_TRUE(cancelled);
    EXPECT_FALSE(went_on) << "its next wait throws";
    EXPECT_EQ(failure, nullptr) << "that it was cancelled is no failure";
}

TEST_F(SideBySide, ALateOneHasTheTimeThatItIsGiven) {
    const auto enough = [] { return std::optional(Millis(10'000)); };
    EXPECT_TRUE(run({takes(Millis(50), 'b'), takes(Millis(1), 'a')}, enough));
    EXPECT_EQ(order, "ab");
}

TEST_F(SideBySide, TheShortestPatienceCounts) {
    // Asked once only, where both have ended before it is looked.
    const auto enough = [asked = 0]() mutable {
        return std::optional(asked++ == 0 ? Millis(10) : Millis(600'000));
    };
    EXPECT_TRUE(run({hangs(), takes(Millis(1), 'a'), takes(Millis(2), 'b')}, enough));
    EXPECT_TRUE(cancelled);
}

TEST_F(SideBySide, AnExceptionIsThrownOnWhenAllHaveEnded) {
    EXPECT_TRUE(run({throws(), takes(Millis(30), 'a')}));
    EXPECT_EQ(order, "a");
    ASSERT_NE(failure, nullptr);
    EXPECT_THROW(std::rethrow_exception(failure), std::runtime_error);
}

TEST_F(SideBySide, ATornDownLoopLeavesNothing) {
    const auto used = std::make_shared<int>(0);
    {
        asio::io_context torn_down;
        Task task = [used]() -> asio::awaitable<void> { return wait_for(Millis(600'000)); };
        asio::co_spawn(torn_down, side_by_side({task, task}), asio::detached);
        torn_down.run_for(Millis(5));
        EXPECT_GT(used.use_count(), 1);
    }
    EXPECT_EQ(used.use_count(), 1);
}

TEST(Spawn, WhatIsThrownComesOutOfTheLoop) {
    asio::io_context context;
    spawn(context.get_executor(), []() -> asio::awaitable<void> {
        throw std::runtime_error("broken off");
        co_return;
    });
    EXPECT_THROW(context.run(), std::runtime_error);
}

}  // namespace
}  // namespace pgxc::net
