#pragma once

#include <memory>
#include <vector>

#include "replication/lock_session.h"
#include "replication/node_request.h"

/// The coordinator's side of our library on a datanode (DESIGN 6.5).
namespace pgxc {

/// Is our library loaded in that server?
[[nodiscard]] asio::awaitable<Result<bool>> has_library(LockSession& server);

/// Hands the request over. For those that only look, and where it is refused, this is the answer; the others
/// have been begun when it returns.
[[nodiscard]] asio::awaitable<Status> send_to_library(LockSession& server, NodeRequest request);

/// Waits until the server, at one of the addresses, tells what became of the request.
[[nodiscard]] asio::awaitable<Status> await_library(ConnectTarget target, std::vector<HostPort> addresses,
                                                    std::string ticket, TimePoint deadline);

/// Waits until nothing takes connections at the address, or the library tells that the request failed.
[[nodiscard]] asio::awaitable<Status> await_stopped(ConnectTarget target, std::string ticket,
                                                    TimePoint deadline);

}  // namespace pgxc
