#pragma once

#include <chrono>

namespace pgxc {

/// Time for deciding and for deadlines: monotonic, never the wall clock. Pure code gets it passed in.
using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;
using Millis = std::chrono::milliseconds;

/// Wall clock, only for what people read (history, last_seen).
using WallTime = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

}  // namespace pgxc
