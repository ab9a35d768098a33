#include "net/event.h"

#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/clock.h"

namespace pgxc::net {

Event::Event(const asio::any_io_executor& executor) : waiters_(executor, TimePoint::max()) {}

void Event::happen() {
    happened_ = true;
    waiters_.cancel();
}

asio::awaitable<void> Event::wait() {
    std::error_code woken;
    if (!happened_) co_await waiters_.async_wait(asio::redirect_error(asio::use_awaitable, woken));
}

}  // namespace pgxc::net
