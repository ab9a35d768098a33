#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <memory>
#include <system_error>

#include "base/clock.h"

namespace pgxc::net {

/// Makes `descriptor` wait on a duplicate of `fd`, which it closes: whose number `fd` is may close that at
/// any time. The error is the system's.
[[nodiscard]] std::error_code wait_on_copy(asio::posix::stream_descriptor& descriptor, int fd);

/// Cancels what waits on an I/O object of Asio's when the deadline passes. The timer's handler may still be
/// queued when this object is gone, so what it touches is kept apart and switched off.
template <class IoObject>
class DeadlineGuard {
  public:
    DeadlineGuard(IoObject& object, TimePoint deadline)
        : timer_(object.get_executor(), deadline), armed_(std::make_shared<bool>(true)) {
        timer_.async_wait([armed = armed_, &object, this](const std::error_code& error) {
            if (error || !*armed) return;
            expired_ = true;
            object.cancel();
        });
    }
    DeadlineGuard(const DeadlineGuard&) = delete;
    DeadlineGuard& operator=(const DeadlineGuard&) = delete;
    ~DeadlineGuard() { *armed_ = false; }
    [[nodiscard]] bool expired() const { return expired_; }

  private:
    asio::steady_timer timer_;
    std::shared_ptr<bool> armed_;
    bool expired_ = false;
};

}  // namespace pgxc::net
