#pragma once

#include <asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <vector>

#include "base/clock.h"

namespace pgxc::net {

using Task = std::function<asio::awaitable<void>()>;

/// Runs the tasks side by side on the caller's executor, and returns when none of them runs any more.
/// `patience`, where given, is asked whenever one has ended: nullopt = the others are needed; else how much
/// longer they may take, of which the shortest counts. Who takes longer is cancelled: what it waits for ends
/// with an error, and whatever it would wait for after that throws. The first exception of one that was not
/// cancelled is thrown on. A task may outlive the caller's frame where the loop is torn down: it must own
/// what it uses.
[[nodiscard]] asio::awaitable<void> side_by_side(std::vector<Task> tasks,
                                                 std::function<std::optional<Millis>()> patience = {});

}  // namespace pgxc::net
