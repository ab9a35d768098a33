#include "net/spawn.h"

#include <asio/co_spawn.hpp>
#include <exception>
#include <utility>

namespace pgxc::net {

void spawn(const asio::any_io_executor& executor, std::function<asio::awaitable<void>()> coroutine) {
    asio::co_spawn(executor, std::move(coroutine), [](const std::exception_ptr& thrown) {
        if (thrown) std::rethrow_exception(thrown);
    });
}

}  // namespace pgxc::net
