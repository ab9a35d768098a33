#include "net/loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <stdexcept>

#include "base/unique_fd.h"

namespace pgxc::net {
namespace {

constexpr Millis deadline{5'000};

void write_one(int fd) {
    std::uint64_t one = 1;
    ASSERT_EQ(::write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
}

void drain(int fd) {
    std::uint64_t count = 0;
    ASSERT_EQ(::read(fd, &count, sizeof count), static_cast<ssize_t>(sizeof count));
}

TEST(Loop, CallsTheWatchEachTimeTheDescriptorIsWritten) {
    Loop loop;
    UniqueFd fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    int calls = 0;
    auto watch = loop.watch_readable(fd.get(), [&] {
        drain(fd.get());
        if (++calls == 3) {
            loop.stop();
        } else {
            write_one(fd.get());
        }
    });
    ASSERT_TRUE(watch.ok());
    write_one(fd.get());
    EXPECT_TRUE(loop.run_for(deadline));
    EXPECT_EQ(calls, 3);
}

TEST(Loop, CallsAgainWhileTheDescriptorIsNotRead) {
    Loop loop;
    UniqueFd fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    int calls = 0;
    auto watch = loop.watch_readable(fd.get(), [&] {
        if (++calls == 3) loop.stop();
    });
    ASSERT_TRUE(watch.ok());
    write_one(fd.get());
    EXPECT_TRUE(loop.run_for(deadline));
}

TEST(Loop, WatchCanBeDroppedInItsOwnCallbackAndLeavesTheDescriptorOpen) {
    Loop loop;
    UniqueFd fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    int calls = 0;
    Handle handle;
    auto watch = loop.watch_readable(fd.get(), [&] {
        ++calls;
        handle.reset();
        loop.post([&] { loop.stop(); });
    });
    ASSERT_TRUE(watch.ok());
    handle = std::move(*watch);
    write_one(fd.get());
    EXPECT_TRUE(loop.run_for(deadline));
    EXPECT_EQ(calls, 1);
    drain(fd.get());
    // and it can be watched anew
    EXPECT_TRUE(loop.watch_readable(fd.get(), [] {}).ok());
}

TEST(Loop, RefusesADescriptorThatCannotBeWatched) {
    Loop loop;
    auto watch = loop.watch_readable(-1, [] {});
    ASSERT_FALSE(watch.ok());
    EXPECT_NE(watch.error().message.find("-1"), std::string::npos);
}

TEST(Loop, TimerFiresOnceAndNotWhenCancelled) {
    Loop loop;
    int fired = 0;
    auto cancelled = loop.call_after(Millis{1}, [&] { fired += 100; });
    cancelled.reset();
    auto first = loop.call_after(Millis{2}, [&] { ++fired; });
    auto last = loop.call_after(Millis{20}, [&] { loop.stop(); });
    EXPECT_TRUE(loop.run_for(deadline));
    EXPECT_EQ(fired, 1);
}

TEST(Loop, PostRunsLaterInOrder) {
    Loop loop;
    std::string order;
    loop.post([&] { order += 'a'; });
    loop.post([&] {
        order += 'b';
        loop.post([&] {
            order += 'd';
            loop.stop();
        });
        order += 'c';
    });
    EXPECT_EQ(order, "");
    EXPECT_TRUE(loop.run_for(deadline));
    EXPECT_EQ(order, "abcd");
}

TEST(Loop, LosesNothingWhenACallbackThrows) {
    Loop loop;
    std::string order;
    UniqueFd first{::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)};
    UniqueFd second{::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)};
    const auto told = [&](int fd) {
        drain(fd);
        order += 'w';
        throw std::runtime_error("on purpose");
    };
    auto one = loop.watch_readable(first.get(), [&] { told(first.get()); });
    auto other = loop.watch_readable(second.get(), [&] { told(second.get()); });
    const auto posted = [&] {
        order += 'p';
        throw std::runtime_error("on purpose");
    };
    loop.post(posted);
    loop.post(posted);
    const auto due = [&] {
        order += 't';
        throw std::runtime_error("on purpose");
    };
    const auto early = loop.call_after(Millis{0}, due);
    const auto late = loop.call_after(Millis{1}, due);
    for (int i = 0; i < 6; ++i) EXPECT_THROW((void)loop.run_for(deadline), std::runtime_error);
    EXPECT_FALSE(loop.run_for(Millis{2}));
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, "ppttww");
}

TEST(Loop, ATimerThatIsDueCanBeCancelledByAnother) {
    Loop loop;
    int fired = 0;
    Handle first;
    Handle second;
    first = loop.call_after(Millis{0}, [&] {
        ++fired;
        second.reset();
    });
    second = loop.call_after(Millis{0}, [&] {
        ++fired;
        first.reset();
    });
    EXPECT_FALSE(loop.run_for(Millis{5}));
    EXPECT_EQ(fired, 1);
}

TEST(Loop, ServesCoroutinesOfAsioToo) {
    Loop loop;
    UniqueFd fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::string order;
    auto watch = loop.watch_readable(fd.get(), [&] {
        drain(fd.get());
        order += 'w';
        loop.post([&] {
            order += 'p';
            asio::post(loop.context(), [&] {
                order += 'a';
                loop.stop();
            });
        });
    });
    asio::steady_timer timer(loop.context(), Millis{1});
    timer.async_wait([&](const asio::error_code&) {
        order += 't';
        write_one(fd.get());
    });
    EXPECT_TRUE(loop.run_for(deadline));
    EXPECT_EQ(order, "twpa");
    EXPECT_FALSE(loop.run_for(Millis{2}));
}

TEST(Loop, RunForReturnsAtItsLimit) {
    Loop loop;
    EXPECT_FALSE(loop.run_for(Millis{5}));
}

}  // namespace
}  // namespace pgxc::net
