#pragma once

#include <functional>
#include <memory>

#include "base/clock.h"
#include "base/result.h"

namespace asio {
class io_context;
}

namespace pgxc::net {

/// Stops what it stands for (a watch or a timer) when it is destroyed or reset: the callback is not called
/// any more, even if its event has already been seen. Movable; an empty one does nothing. Must be gone before
/// the Loop is.
class Handle {
  public:
    class Target {
      public:
        virtual ~Target() = default;
        virtual void cancel() = 0;
    };

    Handle() = default;
    explicit Handle(std::shared_ptr<Target> target) : target_(std::move(target)) {}
    Handle(Handle&&) noexcept = default;
    Handle& operator=(Handle&& other) noexcept {
        if (this != &other) {
            reset();
            target_ = std::move(other.target_);
        }
        return *this;
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { reset(); }

    void reset() {
        if (target_) target_->cancel();
        target_.reset();
    }
    /// Is something to be cancelled? Stays true after a timer has fired.
    explicit operator bool() const { return target_ != nullptr; }

  private:
    std::shared_ptr<Target> target_;
};

class Poller;

/// One thread's event loop. Everything here is called from the thread that runs it. Signal handlers and other
/// threads wake it by writing an eventfd that it watches.
class Loop {
  public:
    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    /// Runs callbacks until stop(); can be run again afterwards. A callback's exception leaves through here.
    void run();
    /// Runs until stop() or until `limit` has passed, whichever is first; true if it was stopped.
    bool run_for(Millis limit);
    void stop();

    /// Calls `callback` whenever `fd` is readable (or at its end, or in error: read it to know), until the
    /// handle is destroyed. Level-triggered: a callback that doesn't read is called again. The caller keeps
    /// the fd, and closes it only after the handle is gone. An fd can be watched once at a time. Sets
    /// O_NONBLOCK on it. The error says why it can't be watched.
    [[nodiscard]] Result<Handle> watch_readable(int fd, std::function<void()> callback);
    /// Calls `callback` once, not before `delay` has passed.
    [[nodiscard]] Handle call_after(Millis delay, std::function<void()> callback);
    /// Calls `fn` from run(), after what is already queued; never from inside post.
    void post(std::function<void()> fn);

    /// For descriptors with more to tell than that they can be read: streams.
    [[nodiscard]] Poller& poller();
    /// Asio's, for coroutines. Whoever asks for it makes the loop wait by way of Asio from then on, which
    /// costs system calls for every event: the monitor does, the pooler doesn't. It is ended by stop() alone.
    [[nodiscard]] asio::io_context& context();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgxc::net
