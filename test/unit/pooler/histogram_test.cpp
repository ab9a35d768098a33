#include "pooler/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace pgxc::pooler {
namespace {

using Us = Histogram::Microseconds;

TEST(Histogram, BucketsFollowEachOtherWithoutAGap) {
    std::uint64_t next = 0;
    for (std::size_t bucket = 0; bucket < Histogram::buckets; ++bucket) {
        ASSERT_EQ(Histogram::begin_of(bucket), next) << bucket;
        ASSERT_EQ(Histogram::bucket_of(Us{static_cast<std::int64_t>(next)}), bucket);
        next += Histogram::width_of(bucket);
        ASSERT_EQ(Histogram::bucket_of(Us{static_cast<std::int64_t>(next - 1)}), bucket);
    }
    EXPECT_EQ(next, static_cast<std::uint64_t>(Histogram::longest.count()) + 1);
}

TEST(Histogram, TakesWhatCannotBe) {
    EXPECT_EQ(Histogram::bucket_of(Us{-5}), 0U);
    EXPECT_EQ(Histogram::bucket_of(Us::max()), Histogram::buckets - 1);
    Histogram none;
    EXPECT_EQ(none.count(), 0U);
    EXPECT_EQ(none.percentile_us(0.99), 0);
}

TEST(Histogram, SmallDurationsAreExact) {
    for (int us = 0; us < 16; ++us) {
        Histogram one;
        one.add(Us{us});
        EXPECT_EQ(one.percentile_us(0.5), us);
    }
}

TEST(Histogram, APercentileIsOffByASixteenthAtMost) {
    std::mt19937 random{1};
    for (const double scale : {20.0, 300.0, 1e4, 1e6, 1e8}) {
        Histogram histogram;
        std::vector<double> values;
        std::exponential_distribution<double> draw{1 / scale};
        for (int i = 0; i < 20000; ++i) {
            values.push_back(std::floor(draw(random)));
            histogram.add(Us{static_cast<std::int64_t>(values.back())});
        }
        std::sort(values.begin(), values.end());
        ASSERT_EQ(histogram.count(), values.size());
        for (const double share : {0.001, 0.5, 0.95, 0.99, 1.0}) {
            const double exact =
                values[static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size()))) - 1];
            EXPECT_NEAR(histogram.percentile_us(share), exact, exact / 16) << scale << " at " << share;
        }
    }
}

TEST(Histogram, HistogramsAddUp) {
    Histogram fast;
    Histogram slow;
    for (int i = 0; i < 90; ++i) fast.add(Us{10});
    for (int i = 0; i < 10; ++i) slow.add(Us{5000});
    fast.add(slow);
    EXPECT_EQ(fast.count(), 100U);
    EXPECT_EQ(fast.percentile_us(0.90), 10);
    EXPECT_NEAR(fast.percentile_us(0.91), 5000, 5000.0 / 16);
}

}  // namespace
}  // namespace pgxc::pooler
