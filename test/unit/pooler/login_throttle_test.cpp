#include "pooler/login_throttle.h"

#include <gtest/gtest.h>

#include "net/address.h"
#include "pooler/environment.h"
#include "pooler/pass_keys.h"

namespace pgxc::pooler {
namespace {

const TimePoint start{std::chrono::hours{1}};

TEST(LoginThrottle, GrowsForAnAddressAndForAUserUpToItsBound) {
    LoginThrottle throttle;
    EXPECT_EQ(throttle.failed("10.0.0.1", "me", start), Millis{100});
    EXPECT_EQ(throttle.failed("10.0.0.1", "you", start), Millis{200});
    // From elsewhere, but for a user that was tried.
    EXPECT_EQ(throttle.failed("10.0.0.2", "me", start), Millis{200});
    EXPECT_EQ(throttle.failed("10.0.0.3", "nobody", start), Millis{100});
    for (int i = 0; i < 100; ++i) (void)throttle.failed("10.0.0.1", "me", start);
    EXPECT_EQ(throttle.failed("10.0.0.1", "me", start), LoginThrottle::longest_delay);
}

TEST(LoginThrottle, ANetworkOfIpv6IsOneHost) {
    const auto key = [](const std::string& address) {
        ClientAddress from;
        from.address = net::SocketAddress::from_literal(address, 1)->ip_bytes();
        return from.throttle_key();
    };
    EXPECT_EQ(key("2001:db8:0:7::1"), key("2001:db8:0:7:ffff::2"));
    EXPECT_NE(key("2001:db8:0:7::1"), key("2001:db8:0:8::1"));
    EXPECT_NE(key("::ffff:10.0.0.1"), key("::ffff:10.0.0.2"));
    EXPECT_NE(key("10.0.0.1"), key("10.0.0.2"));
}

TEST(LoginThrottle, ForgetsAfterAWhile) {
    LoginThrottle throttle;
    (void)throttle.failed("a", "u", start);
    EXPECT_EQ(throttle.failed("a", "u", start + std::chrono::seconds{100}), Millis{200});
    EXPECT_EQ(throttle.failed("a", "u", start + std::chrono::seconds{221}), Millis{100});
    EXPECT_EQ(throttle.known(), 2U);
}

TEST(LoginThrottle, KeepsNoMoreThanItsBound) {
    LoginThrottle throttle;
    for (int i = 0; i < 20'000; ++i)
        (void)throttle.failed("a" + std::to_string(i), "u" + std::to_string(i % 7), start);
    EXPECT_LE(throttle.known(), LoginThrottle::max_known);
    // The newest are those that are known.
    EXPECT_EQ(throttle.failed("a19999", "fresh", start), Millis{200});
    EXPECT_EQ(throttle.failed("a0", "fresher", start), Millis{100});
}

TEST(LoginThrottle, AnAddressThatIsTheUsersNameIsAnother) {
    LoginThrottle throttle;
    (void)throttle.failed("x", "y", start);
    EXPECT_EQ(throttle.failed("y", "x", start), Millis{100});
}

TEST(LoginThrottle, CrowdedWhileTooManyWait) {
    LoginThrottle throttle;
    for (std::size_t i = 0; i < LoginThrottle::max_waiting; ++i) throttle.waits("a");
    EXPECT_TRUE(throttle.crowded("a"));
    EXPECT_FALSE(throttle.crowded("b"));
    throttle.waits_no_more("a");
    EXPECT_FALSE(throttle.crowded("a"));
    throttle.waits_no_more("b");
}

wire::ScramPassThrough keys(std::uint8_t byte) {
    wire::ScramPassThrough made;
    made.keys.client_key.fill(byte);
    made.salt = "salt";
    made.iterations = 4096;
    return made;
}
constexpr NodeKey d1{NodeType::Datanode, NodeId{1}};
constexpr NodeKey d2{NodeType::Datanode, NodeId{2}};

TEST(PassKeys, LiveAsLongAsWhoBroughtThem) {
    PassKeys known;
    auto first = known.remember("me", keys(1));
    auto second = known.remember("me", keys(1));
    EXPECT_EQ(first, second);
    first.reset();
    EXPECT_EQ(known.find("me"), second);
    second.reset();
    EXPECT_EQ(known.find("me"), nullptr);
    EXPECT_EQ(known.find("you"), nullptr);
}

TEST(PassKeys, TheNewestCountAndARefusedNodeIsNotAskedAgain) {
    PassKeys known;
    const auto old = known.remember("me", keys(1));
    old->refused_by(d1);
    EXPECT_FALSE(known.find("me")->serves(d1));
    EXPECT_TRUE(known.find("me")->serves(d2));
    // Brought anew they may be tried once more.
    EXPECT_TRUE(known.remember("me", keys(1))->serves(d1));
    const auto fresh = known.remember("me", keys(2));
    EXPECT_EQ(known.find("me"), fresh);
    EXPECT_EQ(known.find("me")->pass_through(), keys(2));
}

TEST(PassKeys, ForgetsWhoHasGone) {
    PassKeys known;
    for (int i = 0; i < 10'000; ++i) (void)known.remember("user" + std::to_string(i), keys(1));
    EXPECT_LE(known.size(), 130U);
}

}  // namespace
}  // namespace pgxc::pooler
