#pragma once

#include <functional>
#include <memory>

#include "replication/lock_session.h"

/// Restarting and stopping servers whose files are within reach, awaited on the loop (DESIGN 6.3).
namespace pgxc {

/// Where a server's files are, as it told.
struct ServerPlace {
    std::string data_directory;
    std::string config_file;
};

/// Could the server be restarted on that port, as a standby that is promoted afterwards? Looks, changes
/// nothing. The error names what is in the way, and the command to run by hand where there is one.
[[nodiscard]] asio::awaitable<Result<ServerPlace>> can_restart(LockSession& server, std::uint16_t port);

/// Rewrites its files and restarts it on that port through pg_ctl. Takes the session, which ends with the
/// server; none where the server was found stopped in the middle of this. The claim is checked directly
/// before each pg_ctl. On an error the files are as before and, where that could be done, the server runs
/// again.
struct RestartRequest {
    ServerPlace place;
    HostPort address;        // where it listens before
    std::uint16_t port = 0;  // where it is to listen
    Millis timeout{0};
};
[[nodiscard]] asio::awaitable<Status> restart_server(
    std::unique_ptr<LockSession> server, RestartRequest request,
    std::function<asio::awaitable<Status>()> claim_is_newest);

/// Stops a master for good, fast, through pg_ctl: so that its port is free.
[[nodiscard]] asio::awaitable<Status> stop_server(std::unique_ptr<LockSession> server, Millis timeout);

}  // namespace pgxc
