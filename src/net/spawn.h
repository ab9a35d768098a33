#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <functional>

namespace pgxc::net {

/// Runs a coroutine that nobody waits for. What it throws is thrown on out of the loop, and so ends its
/// process, which is started again: asio::detached would let the coroutine end unseen.
void spawn(const asio::any_io_executor& executor, std::function<asio::awaitable<void>()> coroutine);

}  // namespace pgxc::net
