#include "net/host_lookup.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>

namespace {

/// Name servers that are silent about "silent.test" until they are told to speak.
struct NameServers {
    std::mutex mutex;
    std::condition_variable changed;
    bool speak = false;
    std::atomic<int> asked{0};

    void wait() {
        ++asked;
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [this] { return speak; });
    }
    void answer(bool from_now_on) {
        const std::lock_guard<std::mutex> lock(mutex);
        speak = from_now_on;
        changed.notify_all();
    }
};

NameServers& name_servers() {
    static NameServers them;
    return them;
}

}  // namespace

/// In place of the C library's.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
    using Function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
    static const auto real = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    if (node != nullptr && std::strcmp(node, "silent.test") == 0) {
        name_servers().wait();
        node = "127.0.0.9";
    }
    if (node != nullptr && std::strcmp(node, "nobody.invalid") == 0) return EAI_NONAME;
    return real(node, service, hints, found);
}

namespace pgxc::net {
namespace {

class HostLookup : public ::testing::Test {
  protected:
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
    while (name_servers().asked == 0 && Clock::now() < deadline) context.run_one_for(Millis(5));
    EXPECT_EQ(name_servers().asked, 1);
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
