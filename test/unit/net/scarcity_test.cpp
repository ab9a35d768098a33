// Where the system has no thread or memory to spare.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <csignal>
#include <stdexcept>

#include "fakes/run_until.h"
#include "net/address.h"
#include "net/listener.h"
#include "net/resolver.h"

namespace {

bool no_more_threads = false;
int accepts_to_fail = 0;
int watches_to_fail = 0;

template <class Function>
Function next_one(const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

int fail_with(int error_number) {
    errno = error_number;
    return -1;
}

}  // namespace

// In this program, in place of the C library's.

extern "C" int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
    static const auto real = next_one<int (*)(int, sockaddr*, socklen_t*, int)>("accept4");
    if (accepts_to_fail == 0) return real(fd, address, length, flags);
    --accepts_to_fail;
    return fail_with(ENOMEM);
}

extern "C" int epoll_ctl(int set, int operation, int fd, epoll_event* event) noexcept {
    static const auto real = next_one<int (*)(int, int, int, epoll_event*)>("epoll_ctl");
    if (operation != EPOLL_CTL_ADD || watches_to_fail == 0) return real(set, operation, fd, event);
    --watches_to_fail;
    return fail_with(ENOMEM);
}

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                              void* argument) noexcept {
    static const auto real =
        next_one<int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>("pthread_create");
    return no_more_threads ? EAGAIN : real(thread, attributes, run, argument);
}

namespace pgxc::net {
namespace {

using fakes::run_until;

class ScarcityTest : public ::testing::Test {
  protected:
    void TearDown() override {
        no_more_threads = false;
        accepts_to_fail = watches_to_fail = 0;
    }
    Loop loop;
};

TEST_F(ScarcityTest, WhatNeedsAThreadFailsAndTheNextOneIsTried) {
    Resolver resolver{loop};
    no_more_threads = true;
    int begun = 0;
    int done = 0;
    auto first = resolver.run([&] { ++begun; }, [&] { ++done; });
    auto dropped = resolver.run([&] { ++begun; }, [&] { done += 100; });
    dropped.reset();
    bool refused = false;
    auto name = resolver.resolve("no.such.name.invalid", 1, [&](const Resolver::Answer& answer) {
        refused = !answer.ok() && answer.error().sqlstate == sqlstate::unable_to_connect;
    });
    EXPECT_EQ(done, 0);
    EXPECT_TRUE(run_until(loop, [&] { return done == 1 && refused; }));
    EXPECT_EQ(begun, 0);
    sigset_t blocked;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    EXPECT_EQ(sigismember(&blocked, SIGTERM), 0);
    no_more_threads = false;
    auto second = resolver.run([&] { ++begun; }, [&] { ++done; });
    EXPECT_TRUE(run_until(loop, [&] { return done == 2; }));
    EXPECT_EQ(begun, 1);
}

TEST_F(ScarcityTest, ThoseThatThereAreDoItAll) {
    Resolver resolver{loop, 4};
    int done = 0;
    std::vector<Handle> handles;
    handles.push_back(resolver.run([] {}, [&] { ++done; }));
    no_more_threads = true;
    for (int i = 0; i < 20; ++i) handles.push_back(resolver.run([] {}, [&] { ++done; }));
    EXPECT_TRUE(run_until(loop, [&] { return done == 21; }));
}

TEST_F(ScarcityTest, AJobThatThrowsIsDone) {
    Resolver resolver{loop};
    int done = 0;
    auto first = resolver.run([] { throw std::runtime_error("no memory"); }, [&] { ++done; });
    auto second = resolver.run([] {}, [&] { ++done; });
    EXPECT_TRUE(run_until(loop, [&] { return done == 2; }));
}

TEST_F(ScarcityTest, AListenerThatCanNotWatchItsSocketTriesAgain) {
    int accepted = 0;
    auto listener = Listener::tcp(loop, *SocketAddress::from_literal("127.0.0.1", 0), false,
                                  [&](Accepted) { ++accepted; });
    ASSERT_TRUE(listener.ok());
    accepts_to_fail = 1;
    watches_to_fail = 2;
    const auto client = start_connect(
        *SocketAddress::from_literal("127.0.0.1", static_cast<std::uint16_t>((*listener)->port())));
    EXPECT_TRUE(run_until(loop, [&] { return accepted == 1; }));
    EXPECT_EQ(watches_to_fail, 0);
}

}  // namespace
}  // namespace pgxc::net
