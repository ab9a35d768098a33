#include "net/loop.h"

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <string>

namespace pgxc::net {
namespace {

class WatchTarget final : public Handle::Target, public std::enable_shared_from_this<WatchTarget> {
  public:
    WatchTarget(asio::io_context& context, std::function<void()> callback)
        : descriptor_(context), callback_(std::move(callback)) {}

    ~WatchTarget() override { WatchTarget::cancel(); }

    asio::error_code assign(int fd) {
        asio::error_code error;
        descriptor_.assign(fd, error);
        return error;
    }

    void arm() {
        descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                               [self = shared_from_this()](const asio::error_code& error) {
                                   if (error || self->cancelled_) return;
                                   self->callback_();
                                   if (!self->cancelled_) self->arm();
                               });
    }

    void cancel() override {
        if (cancelled_) return;
        cancelled_ = true;
        // release() and not close(): the descriptor is the caller's.
        if (descriptor_.is_open()) descriptor_.release();
    }

  private:
    asio::posix::stream_descriptor descriptor_;
    std::function<void()> callback_;
    bool cancelled_ = false;
};

class TimerTarget final : public Handle::Target, public std::enable_shared_from_this<TimerTarget> {
  public:
    TimerTarget(asio::io_context& context, std::function<void()> callback)
        : timer_(context), callback_(std::move(callback)) {}

    void arm(Millis delay) {
        timer_.expires_after(delay);
        timer_.async_wait([self = shared_from_this()](const asio::error_code& error) {
            if (!error && !self->cancelled_) self->callback_();
        });
    }

    void cancel() override {
        cancelled_ = true;
        timer_.cancel();
    }

  private:
    asio::steady_timer timer_;
    std::function<void()> callback_;
    bool cancelled_ = false;
};

}  // namespace

struct Loop::Impl {
    // Without locks: one thread owns the loop, and a mutex per operation would be paid for on every query.
    asio::io_context context{ASIO_CONCURRENCY_HINT_UNSAFE};
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}
Loop::~Loop() = default;

void Loop::run() {
    auto work = asio::make_work_guard(impl_->context);
    impl_->context.restart();
    impl_->context.run();
}

bool Loop::run_for(Millis limit) {
    auto work = asio::make_work_guard(impl_->context);
    impl_->context.restart();
    impl_->context.run_for(limit);
    return impl_->context.stopped();
}

void Loop::stop() {
    impl_->context.stop();
}

Result<Handle> Loop::watch_readable(int fd, std::function<void()> callback) {
    auto target = std::make_shared<WatchTarget>(impl_->context, std::move(callback));
    if (auto error = target->assign(fd); error) {
        return Error{sqlstate::internal_error,
                     "could not watch file descriptor " + std::to_string(fd) + ": " + error.message()};
    }
    target->arm();
    return Handle{std::move(target)};
}

Handle Loop::call_after(Millis delay, std::function<void()> callback) {
    auto target = std::make_shared<TimerTarget>(impl_->context, std::move(callback));
    target->arm(delay);
    return Handle{std::move(target)};
}

void Loop::post(std::function<void()> fn) {
    asio::post(impl_->context, std::move(fn));
}

asio::io_context& Loop::context() {
    return impl_->context;
}

}  // namespace pgxc::net
