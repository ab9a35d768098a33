#include "replication/process_wait.h"

#include <algorithm>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "net/bounded_wait.h"

namespace pgxc {
namespace {

constexpr Millis cancel_interval{100};
/// Where a descriptor can't be watched it is looked at this often.
constexpr Millis look_interval{20};

}  // namespace

asio::awaitable<void> wait_for_event_on(int fd, std::optional<TimePoint> until) {
    const auto executor = co_await asio::this_coro::executor;
    const TimePoint deadline = until.value_or(Clock::now() + Millis(1'000));
    std::error_code ignored;
    asio::posix::stream_descriptor descriptor(executor);
    if (fd < 0 || net::wait_on_copy(descriptor, fd)) {
        // Where it can't be watched looking is the next best: what was begun must come to its end.
        asio::steady_timer timer(executor,
                                 fd < 0 ? deadline : std::min(deadline, Clock::now() + look_interval));
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        co_return;
    }
    const net::DeadlineGuard guard(descriptor, deadline);
    co_await descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                   asio::redirect_error(asio::use_awaitable, ignored));
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
