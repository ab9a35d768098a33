#include "net/event.h"

#include <gtest/gtest.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/use_awaitable.hpp>
#include <utility>
#include <vector>

#include "net/side_by_side.h"

namespace pgxc::net {
namespace {

asio::awaitable<void> wait_and_count(Event& event, int& waited) {
    co_await event.wait();
    ++waited;
}

TEST(Event, WakesAllThatWaitAndLetsLaterOnesPass) {
    asio::io_context context;
    Event event(context.get_executor());
    int waited = 0;
    for (int i = 0; i < 2; ++i) asio::co_spawn(context, wait_and_count(event, waited), asio::detached);
    context.poll();
    EXPECT_EQ(waited, 0);
    event.happen();
    context.restart();
    context.poll();
    EXPECT_EQ(waited, 2);
    asio::co_spawn(context, wait_and_count(event, waited), asio::detached);
    context.restart();
    context.poll();
    EXPECT_EQ(waited, 3);
}

TEST(Event, AWaitThatIsGivenUpEnds) {
    asio::io_context context;
    Event never(context.get_executor());
    Event happened(context.get_executor());
    happened.happen();
    bool ended = false;
    int waited = 0;
    std::vector<Task> tasks;
    tasks.emplace_back([&] { return wait_and_count(never, waited); });
    tasks.emplace_back([&] { return wait_and_count(happened, waited); });
    std::function<std::optional<Millis>()> no_longer = [] { return Millis(0); };
    asio::co_spawn(context, side_by_side(std::move(tasks), std::move(no_longer)),
                   [&](std::exception_ptr) { ended = true; });
    context.run_for(std::chrono::seconds(5));
    EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace pgxc::net
