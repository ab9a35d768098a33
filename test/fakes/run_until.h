#pragma once

#include <functional>

#include "net/loop.h"

namespace pgxc::fakes {

inline constexpr Millis deadline{20'000};

/// Runs the loop until `condition` holds; false if it doesn't within the deadline.
inline bool run_until(net::Loop& loop, const std::function<bool()>& condition) {
    const TimePoint end = Clock::now() + deadline;
    while (!condition()) {
        if (Clock::now() > end) return false;
        (void)loop.run_for(Millis{2});
    }
    return true;
}

}  // namespace pgxc::fakes
