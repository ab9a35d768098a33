#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace pgxc::net {
namespace {

template <class T>
T read_as(const sockaddr_storage& storage) {
    T value;
    std::memcpy(&value, &storage, sizeof value);
    return value;
}

template <class T>
SocketAddress make(const T& value, socklen_t length) {
    SocketAddress address;
    std::memcpy(&address.storage, &value, sizeof value);
    address.length = length;
    return address;
}

void set_option(int fd, int level, int option, int value) {
    // A refusal costs only the earlier notice of a dead peer.
    (void)::setsockopt(fd, level, option, &value, sizeof value);
}

}  // namespace

std::optional<SocketAddress> SocketAddress::from_literal(const std::string& host, std::uint16_t port) {
    sockaddr_in v4{};
    if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        return make(v4, sizeof v4);
    }
    sockaddr_in6 v6{};
    if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        return make(v6, sizeof v6);
    }
    return std::nullopt;
}

std::optional<SocketAddress> SocketAddress::unix_socket(const std::string& path) {
    sockaddr_un un{};
    if (path.size() >= sizeof un.sun_path) return std::nullopt;
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, path.c_str(), path.size() + 1);
    return make(un, sizeof un);
}

std::vector<std::uint8_t> SocketAddress::ip_bytes() const {
    std::vector<std::uint8_t> bytes;
    if (family() == AF_INET) {
        const auto v4 = read_as<sockaddr_in>(storage);
        bytes.resize(sizeof v4.sin_addr);
        std::memcpy(bytes.data(), &v4.sin_addr, sizeof v4.sin_addr);
    } else if (family() == AF_INET6) {
        const auto v6 = read_as<sockaddr_in6>(storage);
        bytes.resize(sizeof v6.sin6_addr);
        std::memcpy(bytes.data(), &v6.sin6_addr, sizeof v6.sin6_addr);
    }
    return bytes;
}

std::uint16_t SocketAddress::port() const {
    if (family() == AF_INET) return ntohs(read_as<sockaddr_in>(storage).sin_port);
    if (family() == AF_INET6) return ntohs(read_as<sockaddr_in6>(storage).sin6_port);
    return 0;
}

void tune_tcp(int fd, const KeepAlive& keep_alive) {
    sockaddr_storage name{};
    socklen_t length = sizeof name;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return;
    if (name.ss_family != AF_INET && name.ss_family != AF_INET6) return;
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, keep_alive.idle_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, keep_alive.interval_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, keep_alive.count);
    if (keep_alive.user_timeout_ms > 0) {
        set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, keep_alive.user_timeout_ms);
    }
}

ConnectStart start_connect(const SocketAddress& address) {
    ConnectStart start;
    start.fd.reset(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!start.fd.valid()) {
        start.error = errno;
        return start;
    }
    if (::connect(start.fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0) {
        return start;
    }
    if (errno == EINPROGRESS || errno == EINTR) {
        start.in_progress = true;
    } else {
        start.error = errno;
    }
    return start;
}

int socket_error(int fd) {
    int error = 0;
    socklen_t length = sizeof error;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
    return error;
}

}  // namespace pgxc::net
