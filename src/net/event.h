#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/steady_timer.hpp>

namespace pgxc::net {

/// What happens once, and coroutines of one loop may wait for.
class Event {
  public:
    explicit Event(const asio::any_io_executor& executor);
    void happen();
    /// At once where it has happened. A cancelled wait ends too.
    [[nodiscard]] asio::awaitable<void> wait();

  private:
    asio::steady_timer waiters_;
    bool happened_ = false;
};

}  // namespace pgxc::net
