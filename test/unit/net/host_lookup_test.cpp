#include "net/host_lookup.h"

#include <gtest/gtest.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <optional>

#include "fakes/name_servers.h"

namespace pgxc::net {
namespace {

using fakes::name_servers;

class HostLookup : public ::testing::Test {
  protected:
    void SetUp() override {
        name_servers().know("silent.test", {"127.0.0.9"});
        name_servers().know("nobody.invalid", {});
    }
    using Answer = std::shared_ptr<std::optional<Result<std::string>>>;

    Answer ask(std::string host, Millis limit) {
        auto answer = std::make_shared<std::optional<Result<std::string>>>();
        asio::co_spawn(context, look_up(std::move(host), Clock::now() + limit, answer), asio::detached);
        return answer;
    }
    /// Runs the loop until it is there.
    bool there(const Answer& answer) {
        const TimePoint deadline = Clock::now() + Millis(20'000);
        context.restart();
        while (!answer->has_value() && Clock::now() < deadline) context.run_one_for(Millis(10));
        return answer->has_value();
    }

    asio::io_context context;

  private:
    static asio::awaitable<void> look_up(std::string host, TimePoint deadline, Answer answer) {
        auto found = co_await resolve_host(std::move(host), deadline);
        answer->emplace(std::move(found));
    }
};

TEST_F(HostLookup, TakesNoLongerThanItMay) {
    name_servers().answer(false);
    const Answer first = ask("silent.test", Millis(30));
    ASSERT_TRUE(there(first));
    ASSERT_FALSE((*first)->ok());
    EXPECT_EQ((*first)->error().sqlstate, sqlstate::unable_to_connect);
    EXPECT_NE((*first)->error().message.find("silent.test"), std::string::npos);
    // The thread of the first still asks.
    const Answer second = ask("silent.test", Millis(20'000));
    context.restart();
    context.run_for(Millis(30));
    EXPECT_FALSE(second->has_value());
    // Its own thread, which may be late.
    const TimePoint deadline = Clock::now() + Millis(20'000);
    while (name_servers().asked("silent.test") == 0 && Clock::now() < deadline)
        context.run_one_for(Millis(5));
    EXPECT_EQ(name_servers().asked("silent.test"), 1);
    name_servers().answer(true);
    ASSERT_TRUE(there(second));
    ASSERT_TRUE((*second)->ok()) << (*second)->error().message;
    EXPECT_EQ(***second, "127.0.0.9");
}

TEST_F(HostLookup, AnAddressIsNotLookedUp) {
    const Answer answer = ask("::1", Millis(0));
    ASSERT_TRUE(there(answer));
    ASSERT_TRUE((*answer)->ok());
    EXPECT_EQ(***answer, "::1");
}

TEST_F(HostLookup, TellsWhichNameHasNoAddress) {
    const Answer answer = ask("nobody.invalid", Millis(20'000));
    ASSERT_TRUE(there(answer));
    ASSERT_FALSE((*answer)->ok());
    EXPECT_NE((*answer)->error().message.find("nobody.invalid"), std::string::npos);
}

}  // namespace
}  // namespace pgxc::net
