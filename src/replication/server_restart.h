#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replication/lock_session.h"
#include "replication/node_request.h"
#include "replication/promotion_plan.h"
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
    std::string restore_command;  // that a fence has taken away; empty: none
    std::string managed_by;       // not empty: it is to be restarted by that
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
    /// That the fence has taken away: put back, it ends recovery by itself. Empty: none. The library restarts
    /// without it; it comes back after the promotion.
    std::string restore_command;
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

/// Could a slave before PostgreSQL 13 be restarted with other settings of its stream (plan_stream_restart)?
[[nodiscard]] asio::awaitable<Status> can_restart_slave(LockSession& slave);
/// The same, asked by somebody who has no session there but knows what it says of itself.
[[nodiscard]] Status can_restart_slave(const ServerPlace& place, const HostPort& address,
                                       int server_version_num, std::uint64_t system_identifier);

/// Restarts a slave before PostgreSQL 13 with these settings of its stream. Session, claim and errors as of
/// restart_server(). `intent` is called with the place of its files when nothing is done yet and everything
/// can be done; its error ends it.
[[nodiscard]] asio::awaitable<Status> restart_slave(
    std::unique_ptr<LockSession> slave, std::vector<replication::StreamSetting> settings, Millis timeout,
    std::function<asio::awaitable<Status>(ServerPlace)> intent,
    std::function<asio::awaitable<Status>()> claim_is_newest);

/// Starts a slave that a restart_slave() has left stopped, with the files that it had before. One that runs
/// is left alone.
[[nodiscard]] asio::awaitable<Status> start_stopped_slave(
    ServerPlace place, HostPort address, std::uint64_t system_identifier, Millis timeout,
    std::function<asio::awaitable<Status>()> claim_is_newest);

/// Promotes a slave before PostgreSQL 12, which has no pg_promote(), by pg_ctl, and waits until it is out of
/// recovery.
[[nodiscard]] asio::awaitable<Status> promote_by_pg_ctl(LockSession& slave, Millis timeout);

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
