#include "catalog/node.h"

#include <gtest/gtest.h>

namespace pgxc {
namespace {

TEST(HostPort, ReadsNamesAndBothFamilies) {
    for (const char* text : {"127.0.0.1:5432", "db-1.example:1", "[::1]:65535", "[fe80::1%eth0]:5433"}) {
        const auto parsed = HostPort::parse(text);
        ASSERT_TRUE(parsed.ok()) << text;
        EXPECT_EQ(parsed->to_string(), text);
    }
    EXPECT_EQ(HostPort::parse("[::1]:5433")->host, "::1");
}

TEST(HostPort, RefusesEveryMalformedForm) {
    const std::string long_host(300, 'a');
    for (const std::string& text :
         {std::string(""), std::string("host"), std::string("host:"), std::string(":5432"),
          std::string("host:0"), std::string("host:65536"), std::string("host:-1"), std::string("host:5432x"),
          std::string("::1:5432"), std::string("[::1]"), std::string("[::1:5432"), std::string("[host]:1"),
          std::string("a b:1"), std::string("a'b:1"), std::string("h:99999999999999999999"),
          long_host + ":1"}) {
        const auto parsed = HostPort::parse(text);
        ASSERT_FALSE(parsed.ok()) << text;
        EXPECT_EQ(parsed.error().sqlstate, sqlstate::invalid_parameter_value);
        EXPECT_NE(parsed.error().hint, "");
    }
}

}  // namespace
}  // namespace pgxc
