#include "net/loop.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>

#include "net/poller.h"

namespace pgxc::net {
namespace {

class WatchTarget final : public Handle::Target,
                          public std::enable_shared_from_this<WatchTarget>,
                          private Watched {
  public:
    WatchTarget(Poller& poller, int fd, std::function<void()> callback)
        : poller_(poller), fd_(fd), callback_(std::move(callback)) {}

    ~WatchTarget() override { WatchTarget::cancel(); }

    Status begin() {
        const int flags = ::fcntl(fd_, F_GETFL);
        if (flags >= 0 && (flags & O_NONBLOCK) == 0) (void)::fcntl(fd_, F_SETFL, flags | O_NONBLOCK);
        Status status = poller_.add(fd_, EPOLLIN, *this);
        watching_ = status.ok();
        return status;
    }

    void cancel() override {
        if (std::exchange(watching_, false)) poller_.remove(fd_, *this);
    }

  private:
    void ready(std::uint32_t) override {
        const auto self = shared_from_this();
        callback_();
    }

    Poller& poller_;
    const int fd_;
    std::function<void()> callback_;
    bool watching_ = false;
};

/// All timers of a loop behind one descriptor of the kernel's, which is set anew only if the next one to come
/// is another: who waits for it needs no clock.
class Timers final : private Watched {
  public:
    class Timer;
    using Queue = std::multimap<TimePoint, std::shared_ptr<Timer>>;

    class Timer final : public Handle::Target {
      public:
        Timer(Timers& timers, std::function<void()> callback)
            : timers_(timers), callback_(std::move(callback)) {}
        void cancel() override {
            if (place_) timers_.queue_.erase(*std::exchange(place_, std::nullopt));
        }

      private:
        friend class Timers;
        Timers& timers_;
        std::function<void()> callback_;
        std::optional<Queue::iterator> place_;
    };

    explicit Timers(Poller& poller)
        : poller_(poller), fd_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
        if (!fd_.valid())
            throw std::runtime_error(std::string("could not make a timer: ") + std::strerror(errno));
        if (auto status = poller_.add(fd_.get(), EPOLLIN, *this); !status)
            throw std::runtime_error(status.error().message);
    }
    Timers(const Timers&) = delete;
    Timers& operator=(const Timers&) = delete;
    ~Timers() { poller_.remove(fd_.get(), *this); }

    Handle start(Millis delay, std::function<void()> callback) {
        auto timer = std::make_shared<Timer>(*this, std::move(callback));
        const TimePoint at = Clock::now() + delay;
        timer->place_ = queue_.emplace(at, timer);
        if (at < next_) set();
        return Handle{std::move(timer)};
    }

  private:
    void ready(std::uint32_t) override {
        const TimePoint now = Clock::now();
        // The descriptor stays readable until it is set anew: an exception loses none.
        while (!queue_.empty() && queue_.begin()->first <= now) {
            const auto timer = queue_.begin()->second;
            timer->cancel();
            timer->callback_();
        }
        set();
    }

    void set() {
        next_ = queue_.empty() ? TimePoint::max() : queue_.begin()->first;
        itimerspec when{};
        if (!queue_.empty()) {
            const auto since = next_.time_since_epoch();
            const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
            when.it_value.tv_sec = seconds.count();
            when.it_value.tv_nsec = std::chrono::nanoseconds{since - seconds}.count();
        }
        (void)::timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
    }

    Poller& poller_;
    UniqueFd fd_;
    Queue queue_;
    TimePoint next_ = TimePoint::max();  // what the descriptor is set for
};

Poller make_poller() {
    auto poller = Poller::make();
    if (!poller) throw std::runtime_error(poller.error().message);
    return std::move(*poller);
}

}  // namespace

struct Loop::Impl {
    /// Asio's loop for whoever runs coroutines: while there is one it waits, for the poller too.
    struct Guest {
        explicit Guest(Poller& poller) : events(context, poller.fd()) { wait_for(poller); }
        ~Guest() { (void)events.release(); }

        void wait_for(Poller& poller) {
            events.async_wait(asio::posix::stream_descriptor::wait_read,
                              [this, &poller](const asio::error_code& error) {
                                  if (error) return;
                                  wait_for(poller);  // first: an exception may come
                                  poller.wait(false);
                              });
        }

        // Without locks: one thread owns the loop.
        asio::io_context context{ASIO_CONCURRENCY_HINT_UNSAFE};
        asio::posix::stream_descriptor events;  // the poller's
    };

    /// Waits for events and tells them, then calls what was posted.
    void turn() {
        const bool block = posted.empty();
        if (guest == nullptr) {
            poller.wait(block);
        } else if (block) {
            (void)guest->context.run_one();
        } else {
            (void)guest->context.poll();
        }
        // Not what these post: others have their turn.
        for (std::size_t count = posted.size(); count > 0 && !stopped; --count) {
            const auto fn = std::move(posted.front());
            posted.pop_front();
            fn();
        }
    }

    void run() {
        stopped = false;
        if (guest != nullptr) guest->context.restart();
        while (!stopped) turn();
    }

    Poller poller = make_poller();
    Timers timers{poller};
    std::deque<std::function<void()>> posted;
    bool stopped = false;
    std::unique_ptr<Guest> guest;
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}
Loop::~Loop() = default;

void Loop::run() {
    impl_->run();
}

bool Loop::run_for(Millis limit) {
    bool over = false;
    const Handle end = call_after(limit, [&] {
        over = true;
        stop();
    });
    impl_->run();
    return !over;
}

void Loop::stop() {
    impl_->stopped = true;
    if (impl_->guest != nullptr) impl_->guest->context.stop();
}

Result<Handle> Loop::watch_readable(int fd, std::function<void()> callback) {
    auto target = std::make_shared<WatchTarget>(impl_->poller, fd, std::move(callback));
    if (auto status = target->begin(); !status) {
        return Error{sqlstate::internal_error,
                     "could not watch file descriptor " + std::to_string(fd) + ": " + status.error().message};
    }
    return Handle{std::move(target)};
}

Handle Loop::call_after(Millis delay, std::function<void()> callback) {
    return impl_->timers.start(delay, std::move(callback));
}

void Loop::post(std::function<void()> fn) {
    impl_->posted.push_back(std::move(fn));
}

Poller& Loop::poller() {
    return impl_->poller;
}

asio::io_context& Loop::context() {
    if (impl_->guest == nullptr) impl_->guest = std::make_unique<Impl::Guest>(impl_->poller);
    return impl_->guest->context;
}

}  // namespace pgxc::net
