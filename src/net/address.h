#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pgxc::net {

/// A socket address of any family.
struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;

    /// An IPv4 or IPv6 address in text form (no name); nullopt where it is none.
    [[nodiscard]] static std::optional<SocketAddress> from_literal(const std::string& host,
                                                                   std::uint16_t port);
    /// `<directory>/.s.PGSQL.<port>`; nullopt where the path is too long for a socket.
    [[nodiscard]] static std::optional<SocketAddress> unix_socket(const std::string& path);
    [[nodiscard]] int family() const { return storage.ss_family; }
    /// The 4 or 16 bytes of an IP address in network order; empty for a unix socket.
    [[nodiscard]] std::vector<std::uint8_t> ip_bytes() const;
    [[nodiscard]] std::uint16_t port() const;
};

/// How long a peer may be silent before its connection counts as lost.
struct KeepAlive {
    int idle_s = 30;
    int interval_s = 5;
    int count = 3;
    int user_timeout_ms = 0;  // TCP_USER_TIMEOUT: unacknowledged data; 0 = the system's default
};

/// Sets TCP_NODELAY and keep-alive; does nothing to a unix socket.
void tune_tcp(int fd, const KeepAlive& keep_alive);

/// Makes a non-blocking socket and begins to connect it. It is connected when it is writable and
/// socket_error() is 0. On failure the error is an errno.
struct ConnectStart {
    UniqueFd fd;
    int error = 0;
    bool in_progress = false;  // false with error 0: connected already
};
[[nodiscard]] ConnectStart start_connect(const SocketAddress& address);

/// Takes SO_ERROR off the socket: how its connection attempt ended.
[[nodiscard]] int socket_error(int fd);

}  // namespace pgxc::net
