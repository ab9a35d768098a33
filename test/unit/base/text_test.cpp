#include "base/text.h"

#include <gtest/gtest.h>

#include <array>

namespace pgxc {
namespace {

TEST(SqlLiteral, DoublesQuotes) {
    EXPECT_EQ(sql_literal(""), "''");
    EXPECT_EQ(sql_literal("a, b"), "'a, b'");
    EXPECT_EQ(sql_literal("it's"), "'it''s'");
    EXPECT_EQ(sql_literal("'; DROP TABLE t; --"), "'''; DROP TABLE t; --'");
}

TEST(SqlLiteral, SaysSoWhereABackslashIsOne) {
    EXPECT_EQ(sql_literal("a\\b"), "E'a\\\\b'");
    EXPECT_EQ(sql_literal("\\'"), "E'\\\\'''");
}

TEST(ToHex, WritesEveryByte) {
    const std::array<std::uint8_t, 5> bytes{0x00, 0x09, 0x7f, 0xa0, 0xff};
    EXPECT_EQ(to_hex(bytes), "00097fa0ff");
    EXPECT_EQ(to_hex({}), "");
}

}  // namespace
}  // namespace pgxc
