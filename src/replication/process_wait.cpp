#include "replication/process_wait.h"

#include <fcntl.h>

#include <algorithm>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/unique_fd.h"

namespace pgxc {
namespace {

constexpr Millis cancel_interval{100};
/// Where a descriptor can't be watched it is looked at this often.
constexpr Millis look_interval{20};

}  // namespace

asio::awaitable<void> wait_for_event_on(int fd, std::optional<TimePoint> until) {
    const auto executor = co_await asio::this_coro::executor;
    asio::steady_timer timer(executor, until.value_or(Clock::now() + Millis(1'000)));
    std::error_code ignored;
    if (fd < 0) {
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        co_return;
    }
    asio::posix::stream_descriptor descriptor(executor);
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    std::error_code cannot_watch = asio::error::no_descriptors;
    if (copy.valid()) descriptor.assign(copy.get(), cannot_watch);
    if (cannot_watch) {
        // Looking is the next best: what was begun must come to its end.
        timer.expires_at(std::min(timer.expiry(), Clock::now() + look_interval));
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        co_return;
    }
    (void)copy.release();
    auto alive = std::make_shared<bool>(true);
    timer.async_wait([alive, &descriptor](const std::error_code& error) {
        if (!error && *alive) descriptor.cancel();
    });
    co_await descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                   asio::redirect_error(asio::use_awaitable, ignored));
    *alive = false;
}

asio::awaitable<Result<replication::ProcessResult>> run_process(replication::Command command,
                                                                Millis time_limit,
                                                                std::function<bool()> cancelled) {
    auto process = replication::ChildProcess::start(command, Clock::now() + time_limit);
    if (!process.ok()) co_return process.error();
    for (;;) {
        if (auto result = process->poll(Clock::now())) co_return std::move(*result);
        // Its destructor ends the program.
        if (cancelled())
            co_return Error{sqlstate::query_canceled, command.arguments[0] + " was ended: no longer wanted"};
        const TimePoint look_again = Clock::now() + cancel_interval;
        co_await wait_for_event_on(process->event_fd(),
                                   std::min(process->next_wakeup().value_or(look_again), look_again));
    }
}

}  // namespace pgxc
