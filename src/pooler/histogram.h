#pragma once

#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

/// How often which duration was seen, in a fixed number of counters.
namespace pgxc::pooler {

/// Log-linear: microseconds, each power of two cut into 8 equal buckets. Below 16 us a bucket is one
/// microsecond and exact; above, it is an eighth of its power of two wide, and a percentile is given as its
/// middle: **off by at most 1/16 (6.25 %)** of the true value. What takes longer than `longest` (71 minutes)
/// counts as that. Plain data: it may lie in shared memory, and histograms of several processes add up.
class Histogram {
  public:
    using Microseconds = std::chrono::microseconds;

    static constexpr unsigned part_bits = 3;
    static constexpr unsigned value_bits = 32;
    static constexpr std::size_t buckets = (value_bits - part_bits + 1) << part_bits;
    static constexpr Microseconds longest{(std::uint64_t{1} << value_bits) - 1};

    /// A negative duration counts as none.
    void add(Microseconds duration) { ++counts_[bucket_of(duration)]; }
    void add(const Histogram& other);
    [[nodiscard]] std::uint64_t count() const;
    /// The duration that `share` (0 .. 1) of all stay at or below; 0 if nothing was counted.
    [[nodiscard]] double percentile_us(double share) const;

    [[nodiscard]] static constexpr std::size_t bucket_of(Microseconds duration) {
        constexpr std::uint64_t parts = std::uint64_t{1} << part_bits;
        if (duration.count() <= 0) return 0;
        const auto value = static_cast<std::uint64_t>((duration < longest ? duration : longest).count());
        if (value < parts) return value;
        const auto shift = static_cast<unsigned>(std::bit_width(value)) - part_bits - 1;
        return ((std::size_t{shift} + 1) << part_bits) + ((value >> shift) & (parts - 1));
    }
    /// The least duration of a bucket, and how many microseconds it is wide.
    [[nodiscard]] static constexpr std::uint64_t begin_of(std::size_t bucket) {
        constexpr std::uint64_t parts = std::uint64_t{1} << part_bits;
        if (bucket < parts) return bucket;
        return (parts + (bucket & (parts - 1))) << ((bucket >> part_bits) - 1);
    }
    [[nodiscard]] static constexpr std::uint64_t width_of(std::size_t bucket) {
        return bucket < 2U << part_bits ? 1 : std::uint64_t{1} << ((bucket >> part_bits) - 1);
    }

  private:
    std::array<std::uint64_t, buckets> counts_{};
};

}  // namespace pgxc::pooler
