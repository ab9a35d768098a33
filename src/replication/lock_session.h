#pragma once

#include <functional>
#include <memory>

#include "replication/arbiter.h"
#include "replication/node_connection.h"

namespace pgxc {

/// A session that holds a server's one lock (FAILOVER_PROTOCOL rule 2): every effect on a node runs in one.
/// The lock is a session advisory lock with a fixed key, which works on stock standbys and survives
/// promotion.
class LockSession {
  public:
    /// Connects, takes the lock, ending the session that holds it, and only then asks `claim_is_newest`: an
    /// answer from before the lock would prove nothing.
    [[nodiscard]] static asio::awaitable<Result<std::unique_ptr<LockSession>>> open(
        ConnectTarget target, Millis timeout, std::function<asio::awaitable<Status>()> claim_is_newest);

    /// Runs one statement under the lock.
    [[nodiscard]] asio::awaitable<Result<Rows>> run(std::string sql, Millis timeout);
    /// A second session to the same server, for what must be seen from outside or by a session begun later.
    [[nodiscard]] asio::awaitable<Result<std::unique_ptr<NodeConnection>>> second_session(
        Millis timeout) const;

    /// Has the session ended (a newer claimant took the lock, or the server is gone)? Looks at the socket.
    [[nodiscard]] asio::awaitable<bool> lost();
    [[nodiscard]] const HostPort& address() const { return target_.address; }
    [[nodiscard]] const ConnectTarget& target() const { return target_; }
    [[nodiscard]] int server_version() const { return connection_->server_version(); }

  private:
    LockSession(ConnectTarget target, std::unique_ptr<NodeConnection> connection)
        : target_(std::move(target)), connection_(std::move(connection)) {}
    ConnectTarget target_;
    std::unique_ptr<NodeConnection> connection_;
};

}  // namespace pgxc
