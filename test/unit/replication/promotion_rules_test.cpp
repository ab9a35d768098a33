#include "replication/promotion_rules.h"

#include <gtest/gtest.h>

namespace pgxc {
namespace {

/// The history file of timeline 4, as the server writes it.
const std::string history =
    "1\t0/3000000\tno recovery target specified\n"
    "\n"
    "2\tA/5000060\tno recovery target specified\n"
    "\n"
    "3\t10/0\tbefore 2000-01-01 00:00:00+00\n";

TEST(SwitchPoint, IsWhereATimelineWasLeft) {
    EXPECT_EQ(switch_point(history, TimelineId{1}), Lsn{0x3000000});
    EXPECT_EQ(switch_point(history, TimelineId{2}), Lsn{0xA'0500'0060});
    EXPECT_EQ(switch_point(history, TimelineId{3}), Lsn{0x10'0000'0000});
}

TEST(SwitchPoint, NoAncestorHasNone) {
    EXPECT_EQ(switch_point(history, TimelineId{4}), std::nullopt);
    EXPECT_EQ(switch_point(history, TimelineId{0}), std::nullopt);
    EXPECT_EQ(switch_point("", TimelineId{1}), std::nullopt);
}

TEST(SwitchPoint, SkipsCommentsAndWhatItCantRead) {
    EXPECT_EQ(switch_point("# 1\t0/1000000\n1\t0/2000000\n", TimelineId{1}), Lsn{0x2000000});
    EXPECT_EQ(switch_point("x\ty\n1\t0/2000000\n", TimelineId{1}), Lsn{0x2000000});
    EXPECT_EQ(switch_point("1\n2\n", TimelineId{1}), std::nullopt);
    EXPECT_EQ(switch_point("1\tnonsense\treason\n", TimelineId{1}), std::nullopt);
    EXPECT_EQ(switch_point("99999999999999999999\t0/2000000\n", TimelineId{0xffffffff}), std::nullopt);
}

TEST(SwitchPoint, ReadsWindowsLineEndsAndAMissingLastOne) {
    EXPECT_EQ(switch_point("1\t0/2000000", TimelineId{1}), Lsn{0x2000000});
    EXPECT_EQ(switch_point("1\t0/2000000\r\n2\t0/3000000\r\n", TimelineId{2}), Lsn{0x3000000});
}

}  // namespace
}  // namespace pgxc
