#pragma once

#include <functional>
#include <memory>

#include "replication/lock_session.h"

/// Restarting and stopping servers whose files are within reach, awaited on the loop (DESIGN 6.3).
namespace pgxc {

/// Could the server be restarted on that port, as a standby that is promoted afterwards? Looks, changes
/// nothing. The error names what is in the way, and the command to run by hand where there is one.
[[nodiscard]] asio::awaitable<Status> can_restart(LockSession& server, std::uint16_t port);

/// Rewrites its files and restarts it on that port through pg_ctl. Takes the session, which ends with the
/// server. The claim is checked directly before each pg_ctl. On an error the files are as before and the
/// server runs again.
[[nodiscard]] asio::awaitable<Status> restart_server(
    std::unique_ptr<LockSession> server, std::uint16_t port, Millis timeout,
    std::function<asio::awaitable<Status>()> claim_is_newest);

/// Stops a master for good, fast, through pg_ctl: so that its port is free.
[[nodiscard]] asio::awaitable<Status> stop_server(std::unique_ptr<LockSession> server, Millis timeout);

}  // namespace pgxc
