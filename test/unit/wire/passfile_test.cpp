#include "wire/passfile.h"

#include <gtest/gtest.h>

namespace pgxc::wire {
namespace {

constexpr std::string_view file =
    "# comment:5432:app:alice:no\n"
    "\n"
    "db1:5432:app:alice:first\r\n"
    "db1:5432:app:alice:second\n"
    "db1:*:app:bob:any port\n"
    "::1:5432:app:eve:unescaped\n"
    "\\:\\:1:5432:app:eve:v6\n"
    "db2:5432:a\\:b:c\\\\d:p\\:w\\\\x:rest is not read\n"
    "star*:5432:app:alice:not a wildcard\n"
    "db3:5432:app:short\n"
    "*:*:*:carol:everywhere";

TEST(Passfile, FindsTheFirstLineThatMatches) {
    EXPECT_EQ(find_password(file, "db1", 5432, "app", "alice"), "first");
    EXPECT_EQ(find_password(file, "db1", 1, "app", "bob"), "any port");
    EXPECT_EQ(find_password(file, "anything", 77, "x", "carol"), "everywhere");
    EXPECT_EQ(find_password(file, "star*", 5432, "app", "alice"), "not a wildcard");
}

TEST(Passfile, UndoesEscapes) {
    EXPECT_EQ(find_password(file, "::1", 5432, "app", "eve"), "v6");
    EXPECT_EQ(find_password(file, "db2", 5432, "a:b", "c\\d"), "p:w\\x");
}

TEST(Passfile, FindsNothingElse) {
    EXPECT_EQ(find_password(file, "db1", 5433, "app", "alice"), std::nullopt);
    EXPECT_EQ(find_password(file, "db1", 5432, "ap", "alice"), std::nullopt);
    EXPECT_EQ(find_password(file, "db1", 5432, "app", "alicex"), std::nullopt);
    EXPECT_EQ(find_password(file, "# comment", 5432, "app", "alice"), std::nullopt);
    EXPECT_EQ(find_password(file, "starry", 5432, "app", "alice"), std::nullopt);
    EXPECT_EQ(find_password(file, "db3", 5432, "app", "short"), std::nullopt);
    EXPECT_EQ(find_password(file, "db1", 5432, "", "carol"), std::nullopt);
    EXPECT_EQ(find_password(file, "db1", 5432, "app", ""), std::nullopt);
    EXPECT_EQ(find_password("", "db1", 5432, "app", "alice"), std::nullopt);
    EXPECT_EQ(find_password("*", "*", 5432, "app", "alice"), std::nullopt);
    EXPECT_EQ(find_password("a:1:b:c:", "a", 1, "b", "c"), "");
    EXPECT_EQ(find_password("a:1:b:c:x\\", "a", 1, "b", "c"), "x\\");
}

}  // namespace
}  // namespace pgxc::wire
