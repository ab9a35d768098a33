#include "base/ids.h"

#include <gtest/gtest.h>

namespace pgxc {
namespace {

TEST(Lsn, ReadsWhatItWrites) {
    for (const std::uint64_t bytes : {0x1ULL, 0x16B374D848ULL, 0xFFFFFFFFFFFFFFFFULL}) {
        const Lsn lsn{bytes};
        ASSERT_TRUE(Lsn::parse(lsn.to_string()).has_value());
        EXPECT_EQ(Lsn::parse(lsn.to_string())->bytes(), bytes);
    }
    EXPECT_EQ(Lsn{0x16B374D848ULL}.to_string(), "16/B374D848");
}

TEST(Lsn, RefusesWhatIsNone) {
    for (const char* text : {"", "/", "16", "16/", "/16", "1/1/1", "g/1", "1/123456789", "-1/2", "1 /2"})
        EXPECT_FALSE(Lsn::parse(text).has_value()) << text;
}

}  // namespace
}  // namespace pgxc
