#include "net/resolver.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>

#include "fakes/name_servers.h"
#include "fakes/run_until.h"

namespace pgxc::net {
namespace {

using fakes::name_servers;
using fakes::run_until;

TEST(Resolver, AnswersLiteralsAndNamesFromTheLoop) {
    Loop loop;
    Resolver resolver{loop};
    int answers = 0;
    bool failed = false;
    auto literal =
        resolver.resolve("127.0.0.1", 1, [&](Resolver::Answer answer) { answers += answer.ok() ? 1 : 0; });
    auto name =
        resolver.resolve("localhost", 1, [&](Resolver::Answer answer) { answers += answer.ok() ? 1 : 0; });
    auto dropped = resolver.resolve("localhost", 1, [&](Resolver::Answer) { answers += 100; });
    // Too long for a label: no name server is asked.
    auto nobody = resolver.resolve(std::string(64, 'x') + ".invalid", 1,
                                   [&](Resolver::Answer answer) { failed = !answer.ok(); });
    dropped.reset();
    EXPECT_EQ(answers, 0);
    EXPECT_TRUE(run_until(loop, [&] { return answers == 2; }));
    EXPECT_TRUE(run_until(loop, [&] { return failed; }));
    EXPECT_EQ(answers, 2);
}

TEST(Resolver, ItsThreadTakesNoSignals) {
    Loop loop;
    Resolver resolver{loop};
    bool answered = false;
    auto name = resolver.resolve("localhost", 1, [&](Resolver::Answer) { answered = true; });
    ASSERT_TRUE(run_until(loop, [&] { return answered; }));
    int threads = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        if (task.path().filename() == std::to_string(::getpid())) continue;
        std::ifstream status{task.path() / "status"};
        for (std::string line; std::getline(status, line);) {
            if (!line.starts_with("SigBlk:")) continue;
            ++threads;
            const auto blocked = std::strtoull(line.c_str() + 7, nullptr, 16);
            for (const int signal : {SIGTERM, SIGHUP, SIGUSR1, SIGINT})
                EXPECT_NE(blocked >> (signal - 1) & 1U, 0U);
        }
    }
    EXPECT_GE(threads, 1);
}

TEST(Resolver, AJobThatNobodyWaitsForIsNotBegun) {
    Loop loop;
    Resolver resolver{loop};
    std::promise<void> go_on;
    std::atomic<int> begun = 0;
    bool done = false;
    auto running = resolver.run([&, wait = go_on.get_future().share()] { wait.wait(); }, [] {});
    auto dropped = resolver.run([&] { ++begun; }, [] {});
    auto last = resolver.run([] {}, [&] { done = true; });
    dropped.reset();
    go_on.set_value();
    EXPECT_TRUE(run_until(loop, [&] { return done; }));
    EXPECT_EQ(begun, 0);
}

class NameTest : public ::testing::Test {
  protected:
    void SetUp() override { name_servers().know("db.test", {"127.0.0.9"}); }
    void TearDown() override { name_servers().answer(true); }
    [[nodiscard]] Handle ask(std::uint16_t port = 1) {
        return resolver.resolve("db.test", port, [this](const Resolver::Answer& answer) {
            answer.ok() ? ++answers : ++failures;
            if (answer.ok()) last = answer->front();
        });
    }
    /// What the thread has been asked for until now is done.
    bool idle() {
        bool done = false;
        auto handle = resolver.run([] {}, [&] { done = true; });
        return run_until(loop, [&] { return done; });
    }
    static int asked() { return name_servers().asked("db.test"); }

    Loop loop;
    Resolver resolver{loop};
    int answers = 0;
    int failures = 0;
    SocketAddress last;
};

TEST_F(NameTest, IsLookedUpOnceForAllWhoWait) {
    name_servers().answer(false);
    auto first = ask();
    auto second = ask();
    auto dropped = ask();
    dropped.reset();
    auto other_port = ask(2);
    name_servers().answer(true);
    EXPECT_TRUE(run_until(loop, [&] { return answers == 3; }));
    EXPECT_TRUE(idle());
    EXPECT_EQ(answers, 3);
    EXPECT_EQ(asked(), 2);
    EXPECT_EQ(last.port(), 2);
}

TEST_F(NameTest, AnAnswerThatComesTooLateIsForWhoAsksNext) {
    name_servers().answer(false);
    for (int i = 0; i < 3; ++i) {
        auto impatient = ask();
        EXPECT_TRUE(run_until(loop, [] { return asked() == 1; }));
    }
    name_servers().answer(true);
    EXPECT_TRUE(idle());
    EXPECT_EQ(answers, 0);
    name_servers().answer(false);
    auto next = ask();
    EXPECT_EQ(answers, 0);
    EXPECT_TRUE(run_until(loop, [&] { return answers == 1; }));
    EXPECT_EQ(asked(), 1);
    EXPECT_EQ(last.ip_bytes(), (std::vector<std::uint8_t>{127, 0, 0, 9}));
}

TEST_F(NameTest, AnAnswerIsGoodForAShortTimeOnly) {
    auto first = ask();
    EXPECT_TRUE(run_until(loop, [&] { return answers == 1; }));
    bool outdated = false;
    const Handle expiry = loop.call_after(Resolver::answer_is_good_for, [&] { outdated = true; });
    EXPECT_TRUE(run_until(loop, [&] { return outdated; }));
    auto second = ask();
    EXPECT_TRUE(run_until(loop, [&] { return answers == 2; }));
    EXPECT_EQ(asked(), 2);
}

TEST_F(NameTest, AFailureIsNotRemembered) {
    name_servers().know("db.test", {});
    auto first = ask();
    auto second = ask();
    EXPECT_TRUE(run_until(loop, [&] { return failures == 2; }));
    name_servers().know("db.test", {"127.0.0.9"});
    auto third = ask();
    EXPECT_TRUE(run_until(loop, [&] { return answers == 1; }));
}

TEST_F(NameTest, WhoIsAnsweredMayAskAgain) {
    Handle again;
    auto first = resolver.resolve("db.test", 1, [&](const Resolver::Answer&) { again = ask(); });
    EXPECT_TRUE(run_until(loop, [&] { return answers == 1; }));
    name_servers().know("db.test", {});
    first = resolver.resolve("db.test", 2, [&](const Resolver::Answer&) { again = ask(2); });
    EXPECT_TRUE(run_until(loop, [&] { return failures == 1; }));
}

}  // namespace
}  // namespace pgxc::net
