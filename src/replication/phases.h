#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/result.h"

/// How long the phases of a promotion took, as pgxc.failover_history tells them, and why one could not be
/// gone through.
namespace pgxc {

[[nodiscard]] inline double ms_between(TimePoint from, TimePoint to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

/// Wall clock, microseconds since 1970, of a moment of the monotonic clock.
[[nodiscard]] inline std::int64_t wall_us(TimePoint then) {
    const auto ago = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - then);
    const auto now =
        std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
    return (now.time_since_epoch() - ago).count();
}

/// The error, and what has led to it.
[[nodiscard]] inline Error with_reason(Error error, const std::string& reason) {
    if (!reason.empty()) error.message += " (" + reason + ")";
    return error;
}

}  // namespace pgxc
