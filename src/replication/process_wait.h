#pragma once

#include <asio/awaitable.hpp>
#include <functional>
#include <optional>

#include "replication/process_runner.h"

/// Programs awaited on the loop.
namespace pgxc {

/// Waits until the descriptor is readable (-1: none) or the time has come; a second at most without a time.
[[nodiscard]] asio::awaitable<void> wait_for_event_on(int fd, std::optional<TimePoint> until);

/// Runs a program to its end. Ends it (57014) as soon as `cancelled` says so, which is asked several times a
/// second.
[[nodiscard]] asio::awaitable<Result<replication::ProcessResult>> run_process(
    replication::Command command, Millis time_limit, std::function<bool()> cancelled);

}  // namespace pgxc
