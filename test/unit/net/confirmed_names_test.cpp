#include "net/confirmed_names.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>

#include "fakes/run_until.h"

namespace pgxc::net {
namespace {

using fakes::run_until;
using Address = ConfirmedNames::Address;

/// Name servers, some of which don't answer. Outlives the look-ups that nobody waits for.
struct Servers {
    ConfirmedName ask(const Address& address) {
        std::unique_lock lock{mutex};
        ++asked[address];
        changed.wait(lock, [&] { return !silent.contains(address); });
        return {"host" + std::to_string(address.back()), true};
    }
    int times(const Address& address) {
        const std::lock_guard lock{mutex};
        return asked[address];
    }
    void be_silent(const Address& address, bool is) {
        const std::lock_guard lock{mutex};
        is ? (void)silent.insert(address) : (void)silent.erase(address);
        changed.notify_all();
    }

    std::mutex mutex;
    std::condition_variable changed;
    std::map<Address, int> asked;
    std::set<Address> silent;
};

Address v6(std::uint8_t network, std::uint8_t host) {
    Address address(16, 0);
    address[0] = 0x20;
    address[7] = network;
    address[15] = host;
    return address;
}

class ConfirmedNamesTest : public ::testing::Test {
  protected:
    void TearDown() override {
        for (const Address& address : std::set<Address>{servers->silent}) servers->be_silent(address, false);
    }
    [[nodiscard]] Handle ask(const Address& address) {
        return names.ask(address, [this](const ConfirmedNames::Answer& answer) {
            told.push_back(answer ? answer->name : "failed");
        });
    }
    bool until_told(std::size_t count) {
        return run_until(loop, [&] { return told.size() >= count; });
    }

    std::shared_ptr<Servers> servers = std::make_shared<Servers>();
    Loop loop;
    ConfirmedNames names{loop, [servers = servers](const Address& address) { return servers->ask(address); }};
    std::vector<std::string> told;
    const Address slow{10, 0, 0, 1};
    const Address other{10, 0, 0, 2};
};

TEST_F(ConfirmedNamesTest, AHostWhoseNameServersAreSilentKeepsNobodyElseWaiting) {
    servers->be_silent(slow, true);
    std::vector<Handle> stranger;
    for (int i = 0; i < 50; ++i) stranger.push_back(ask(slow));
    const auto handle = ask(other);
    ASSERT_TRUE(until_told(1));
    EXPECT_EQ(told, std::vector<std::string>{"host2"});
    servers->be_silent(slow, false);
    EXPECT_TRUE(until_told(51));
    EXPECT_EQ(servers->times(slow), 1);
}

TEST_F(ConfirmedNamesTest, ANetworkOfIpv6HasOneLookUpAtATime) {
    std::vector<Handle> handles;
    for (std::uint8_t host = 1; host <= 20; ++host) {
        servers->be_silent(v6(7, host), true);
        handles.push_back(ask(v6(7, host)));
    }
    handles.push_back(ask(v6(8, 99)));
    ASSERT_TRUE(until_told(1));
    EXPECT_EQ(told, std::vector<std::string>{"host99"});
    // Who has gone is not asked for any more.
    handles[1].reset();
    for (std::uint8_t host = 1; host <= 20; ++host) servers->be_silent(v6(7, host), false);
    EXPECT_TRUE(until_told(20));
    EXPECT_EQ(servers->times(v6(7, 1)), 1);
    EXPECT_EQ(servers->times(v6(7, 2)), 0);
    EXPECT_EQ(servers->times(v6(7, 20)), 1);
}

TEST_F(ConfirmedNamesTest, MoreHostsThanThreadsHaveTheirTurns) {
    constexpr std::uint8_t hosts = 3 * ConfirmedNames::most_threads;
    std::vector<Handle> handles;
    for (std::uint8_t host = 1; host <= hosts; ++host) handles.push_back(ask({10, 0, 1, host}));
    EXPECT_TRUE(until_told(hosts));
}

TEST_F(ConfirmedNamesTest, AnAnswerServesForAWhile) {
    auto handle = ask(other);
    ASSERT_TRUE(until_told(1));
    handle = ask(other);
    ASSERT_TRUE(until_told(2));
    EXPECT_EQ(servers->times(other), 1);
    bool outdated = false;
    const Handle expiry = loop.call_after(ConfirmedNames::answer_is_good_for, [&] { outdated = true; });
    ASSERT_TRUE(run_until(loop, [&] { return outdated; }));
    handle = ask(other);
    ASSERT_TRUE(until_told(3));
    EXPECT_EQ(servers->times(other), 2);
}

TEST_F(ConfirmedNamesTest, NoMoreAnswersAreKeptThanTheirBound) {
    std::vector<Handle> handles;
    const auto address = [](std::size_t i) {
        return Address{11, 0, static_cast<std::uint8_t>(i / 256), static_cast<std::uint8_t>(i % 256)};
    };
    for (std::size_t i = 0; i < ConfirmedNames::max_known + 2; ++i) {
        handles.push_back(ask(address(i)));
        ASSERT_TRUE(until_told(i + 1));
    }
    handles.push_back(ask(address(0)));
    ASSERT_TRUE(until_told(ConfirmedNames::max_known + 3));
    EXPECT_EQ(servers->times(address(0)), 2);
}

TEST(ConfirmedNames, AnExceptionIsNoAnswer) {
    Loop loop;
    ConfirmedNames names{loop, [](const Address&) -> ConfirmedName { throw std::bad_alloc(); }};
    bool failed = false;
    const auto handle =
        names.ask({10, 0, 0, 1}, [&](const ConfirmedNames::Answer& answer) { failed = !answer.has_value(); });
    EXPECT_TRUE(run_until(loop, [&] { return failed; }));
}

}  // namespace
}  // namespace pgxc::net
