#include "replication/conninfo.h"

#include <gtest/gtest.h>

namespace pgxc {
namespace {

using Values = std::map<std::string, std::string>;

/// What a changed connection string means, read back by libpq.
Values changed(const std::string& conninfo, const Values& changes) {
    const auto text = conninfo_with(conninfo, changes);
    EXPECT_TRUE(text.ok()) << text.error().message;
    if (!text.ok()) return {};
    const auto values = conninfo_values(*text);
    EXPECT_TRUE(values.ok()) << *text;
    return values.ok() ? *values : Values{};
}

TEST(Conninfo, ReadsBothSpellings) {
    const Values expected{{"host", "h"}, {"port", "5433"}, {"user", "u"}};
    EXPECT_EQ(*conninfo_values("host=h port=5433 user=u"), expected);
    EXPECT_EQ(*conninfo_values("postgresql://u@h:5433"), expected);
    EXPECT_TRUE(conninfo_values("")->empty());
}

TEST(Conninfo, ReplacesAddsAndRemoves) {
    EXPECT_EQ(
        changed("host=old hostaddr=10.0.0.1 port=1 user=u",
                {{"host", "new"}, {"hostaddr", ""}, {"port", "2"}, {"application_name", "pgxc_d_1_e0"}}),
        (Values{{"host", "new"}, {"port", "2"}, {"user", "u"}, {"application_name", "pgxc_d_1_e0"}}));
    EXPECT_EQ(changed("", {{"host", "h"}}), (Values{{"host", "h"}}));
    EXPECT_EQ(
        changed("postgresql://u:secret@h/db?sslmode=require", {{"host", "n"}}),
        (Values{
            {"host", "n"}, {"user", "u"}, {"password", "secret"}, {"dbname", "db"}, {"sslmode", "require"}}));
}

TEST(Conninfo, KeepsAwkwardValues) {
    for (const std::string value : {"it's", "a\\b", "with space", "'", "\\", "\\'", "tr\xc3\xa4iling ", "x=y",
                                    "\"q\"", "a\rb", "a\fb", "a\vb", "a\nb", "a\tb"}) {
        EXPECT_EQ(changed("host=h", {{"password", value}}), (Values{{"host", "h"}, {"password", value}}))
            << value;
        // And once more through a second change, as each failover does it.
        const auto first = conninfo_with("host=h", {{"password", value}});
        EXPECT_EQ(changed(*first, {{"host", "n"}}), (Values{{"host", "n"}, {"password", value}})) << value;
    }
}

TEST(Conninfo, RefusesWhatLibpqRefuses) {
    for (const char* text : {"no_such_option=1", "host", "host='unterminated", "postgresql://[::1", "=x"}) {
        const auto with = conninfo_with(text, {{"port", "1"}});
        ASSERT_FALSE(with.ok()) << text;
        EXPECT_EQ(with.error().sqlstate, sqlstate::invalid_parameter_value);
        const auto values = conninfo_values(text);
        ASSERT_FALSE(values.ok()) << text;
        EXPECT_EQ(values.error().sqlstate, sqlstate::invalid_parameter_value);
    }
}

TEST(Conninfo, AnErrorDoesNotShowAPassword) {
    for (const char* text : {"password=secret no_such_option=1", "password=secret host='unterminated"}) {
        const auto with = conninfo_with(text, {});
        ASSERT_FALSE(with.ok());
        EXPECT_EQ(with.error().message.find("secret"), std::string::npos) << with.error().message;
    }
}

}  // namespace
}  // namespace pgxc
