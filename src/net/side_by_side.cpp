#include "net/side_by_side.h"

#include <algorithm>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <exception>
#include <memory>

namespace pgxc::net {
namespace {

/// Shared with the tasks: a cancelled one comes back to it.
struct Running {
    Running(const asio::any_io_executor& executor, std::size_t tasks)
        : changed(executor), cancel(tasks), ended(tasks, false), left(tasks) {}

    void end(std::size_t task, std::exception_ptr failure) {
        ended[task] = true;
        --left;
        if (!failed && !giving_up) failed = std::move(failure);
        changed.cancel();
    }

    asio::steady_timer changed;
    std::vector<asio::cancellation_signal> cancel;
    std::vector<bool> ended;
    std::size_t left;
    std::exception_ptr failed;
    bool giving_up = false;
};

}  // namespace

asio::awaitable<void> side_by_side(std::vector<Task> tasks, std::function<std::optional<Millis>()> patience) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const auto running = std::make_shared<Running>(executor, tasks.size());
    for (std::size_t task = 0; task < tasks.size(); ++task) {
        auto ended = [running, task](std::exception_ptr failure) { running->end(task, std::move(failure)); };
        asio::co_spawn(executor, tasks[task],
                       asio::bind_cancellation_slot(running->cancel[task].slot(), std::move(ended)));
    }
    TimePoint deadline = TimePoint::max();
    std::size_t asked_at = tasks.size();
    std::error_code woken;
    while (running->left > 0) {
        if (patience && running->left < asked_at) {
            asked_at = running->left;
            if (const auto longer = patience()) deadline = std::min(deadline, Clock::now() + *longer);
        }
        if (Clock::now() >= deadline) break;
        running->changed.expires_at(deadline);
        co_await running->changed.async_wait(asio::redirect_error(asio::use_awaitable, woken));
    }
    if (running->left > 0) {
        running->giving_up = true;
        for (std::size_t task = 0; task < tasks.size(); ++task)
            if (!running->ended[task]) running->cancel[task].emit(asio::cancellation_type::terminal);
    }
    while (running->left > 0) {
        running->changed.expires_at(TimePoint::max());
        co_await running->changed.async_wait(asio::redirect_error(asio::use_awaitable, woken));
    }
    if (running->failed) std::rethrow_exception(running->failed);
}

}  // namespace pgxc::net
