#include "pooler/histogram.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pgxc::pooler {

void Histogram::add(const Histogram& other) {
    for (std::size_t i = 0; i < buckets; ++i) counts_[i] += other.counts_[i];
}

std::uint64_t Histogram::count() const {
    return std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
}

double Histogram::percentile_us(double share) const {
    const std::uint64_t all = count();
    if (all == 0) return 0;
    const auto rank = std::clamp<std::uint64_t>(
        static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(all))), 1, all);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets; ++i) {
        seen += counts_[i];
        if (seen >= rank) return static_cast<double>(begin_of(i)) + static_cast<double>(width_of(i) - 1) / 2;
    }
    return 0;
}

}  // namespace pgxc::pooler
