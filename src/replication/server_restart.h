#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "replication/lock_session.h"
#include "replication/node_request.h"
#include "replication/record.h"

/// Restarting and stopping servers, awaited on the loop (DESIGN 6.3): by their files and pg_ctl where those
/// are within reach of this process, else by our library on their own host (DESIGN 6.5).
namespace pgxc {

/// What a server that runs says of itself, as far as a restart asks for it.
struct ServerSays {
    ServerPlace place;
    std::string system_identifier;  // empty: not asked
    HostPort address;
    int version_num = 0;                // 0: its files tell
    std::uint16_t listens_on_port = 0;  // 0: not asked
    bool has_restore_command = false;
    bool has_recovery_target = false;
    std::string managed_by;  // not empty: it is to be restarted by that
};

/// Could the server be restarted on that port, as a standby that is promoted afterwards? Looks, changes
/// nothing. The error names what is in the way, and the command to run by hand where there is one.
[[nodiscard]] asio::awaitable<Result<ServerPlace>> can_restart(LockSession& server, std::uint16_t port);
/// The same by its files alone.
[[nodiscard]] Status can_restart_here(const ServerSays& says, std::uint16_t port);

/// Rewrites its files and restarts it on that port through pg_ctl. Takes the session, which ends with the
/// server; none where the server was found stopped in the middle of this. The claim is checked directly
/// before each pg_ctl. On an error the files are as before and, where that could be done, the server runs
/// again.
struct RestartRequest {
    ServerPlace place;
    HostPort address;        // where it listens before
    std::uint16_t port = 0;  // where it is to listen
    Millis timeout{0};
    NodeRequest library;  // what to ask the library for
};
[[nodiscard]] asio::awaitable<Status> restart_server(
    std::unique_ptr<LockSession> server, RestartRequest request,
    std::function<asio::awaitable<Status>()> claim_is_newest);
/// The same by its files alone. `before_stop` is called before the first pg_ctl, when nothing is left that
/// could refuse.
[[nodiscard]] asio::awaitable<Status> restart_server_here(
    ServerSays says, bool runs, std::uint16_t port, Millis timeout,
    std::function<asio::awaitable<Status>()> claim_is_newest, std::function<void()> before_stop);

/// Could the server be stopped from here? Looks, changes nothing; the error names the command.
[[nodiscard]] asio::awaitable<Status> can_stop(LockSession& server);

/// Stops a server for good through pg_ctl: fast, or immediately, which writes nothing more to its WAL.
/// `library` is what to ask the library for, where its files are out of reach.
[[nodiscard]] asio::awaitable<Status> stop_server(std::unique_ptr<LockSession> server, Millis timeout,
                                                  bool immediate,
                                                  std::optional<NodeRequest> library = std::nullopt);
/// The same by its files alone.
[[nodiscard]] asio::awaitable<Status> stop_server_here(ServerPlace place, Millis timeout, bool immediate);

}  // namespace pgxc
