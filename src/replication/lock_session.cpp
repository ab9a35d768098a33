#include "replication/lock_session.h"

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

namespace pgxc {
namespace {

// The two halves of the advisory lock's key: "pgxc" and "lock" in ASCII.
constexpr const char* lock_key = "1885829219, 1819239275";

}  // namespace

asio::awaitable<Result<std::unique_ptr<LockSession>>> LockSession::open(
    ConnectTarget target, Millis timeout, std::function<asio::awaitable<Status>()> claim_is_newest) {
    const TimePoint deadline = Clock::now() + timeout;
    auto opened = co_await NodeConnection::open(target, timeout);
    if (!opened.ok()) co_return opened.error().error;
    std::unique_ptr<LockSession> session(new LockSession(target, std::move(*opened)));
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (;;) {
        auto taken = co_await session->run(
            std::string("SELECT pg_catalog.pg_try_advisory_lock(") + lock_key + ")", timeout);
        if (!taken.ok()) co_return taken.error();
        if (taken->text() == "t") break;
        if (Clock::now() >= deadline)
            co_return Error{
                sqlstate::lock_not_available,
                "node at " + target.address.to_string() + ": another coordinator's session keeps its lock"};
        auto ended = co_await session->run(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_locks "
            "WHERE locktype = 'advisory' AND classid = 1885829219 AND objid = 1819239275 AND objsubid = 2 "
            "AND granted AND database = "
            "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
            timeout);
        if (!ended.ok()) co_return ended.error();
        timer.expires_after(Millis(5));
        std::error_code ignored;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    Status newest = co_await claim_is_newest();
    if (!newest.ok()) co_return newest.error();
    co_return std::move(session);
}

asio::awaitable<Result<Rows>> LockSession::run(std::string sql, Millis timeout) {
    auto rows = co_await connection_->query(std::move(sql), timeout);
    if (!rows.ok()) co_return rows.error().error;
    co_return std::move(*rows);
}

asio::awaitable<Result<std::unique_ptr<NodeConnection>>> LockSession::second_session(Millis timeout) const {
    auto opened = co_await NodeConnection::open(target_, timeout);
    if (!opened.ok()) co_return opened.error().error;
    co_return std::move(*opened);
}

asio::awaitable<bool> LockSession::lost() {
    if (connection_->broken()) co_return true;
    co_return co_await connection_->wait_broken(Clock::now());
}

}  // namespace pgxc
