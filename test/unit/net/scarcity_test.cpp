// Where the system has no thread or memory to spare.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <cerrno>
#include <csignal>
#include <stdexcept>

#include "fakes/run_until.h"
#include "net/resolver.h"

namespace {

bool no_more_threads = false;

template <class Function>
Function next_one(const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

// In this program, in place of the C library's.

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
    void TearDown() override { no_more_threads = false; }
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

}  // namespace
}  // namespace pgxc::net
