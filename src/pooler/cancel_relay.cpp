#include "pooler/cancel_relay.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "net/address.h"

namespace pgxc::pooler {

CancelRelay::CancelRelay(std::string prefix, std::string path, UniqueFd fd, OnCancel on_cancel)
    : prefix_(std::move(prefix)),
      path_(std::move(path)),
      fd_(std::move(fd)),
      on_cancel_(std::move(on_cancel)) {}

CancelRelay::~CancelRelay() {
    watch_.reset();
    ::unlink(path_.c_str());
}

Result<std::unique_ptr<CancelRelay>> CancelRelay::listen(net::Loop& loop, const std::string& directory,
                                                         int port, int worker, OnCancel on_cancel) {
    const std::string prefix = directory + "/.s.pgxc." + std::to_string(port) + ".w";
    const std::string path = prefix + std::to_string(worker);
    const auto failed = [&](const std::string& what) {
        return Error{sqlstate::connection_exception, what + " \"" + path + "\": " + std::strerror(errno)};
    };
    const auto address = net::SocketAddress::unix_socket(path);
    if (!address) return Error{sqlstate::invalid_parameter_value, "socket path \"" + path + "\" is too long"};
    UniqueFd fd{::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd.valid()) return failed("could not create socket");
    // A worker's number is one process's at a time, so a file there is a dead one's.
    (void)::unlink(path.c_str());
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->length) != 0) {
        return failed("could not bind");
    }
    (void)::chmod(path.c_str(), 0600);
    std::unique_ptr<CancelRelay> relay{new CancelRelay{prefix, path, std::move(fd), std::move(on_cancel)}};
    auto watch = loop.watch_readable(relay->fd_.get(), [made = relay.get()] { made->receive(); });
    if (!watch) return watch.error();
    relay->watch_ = std::move(*watch);
    return relay;
}

void CancelRelay::send(int worker, CancelKey key) {
    const auto address = net::SocketAddress::unix_socket(prefix_ + std::to_string(worker));
    if (!address) return;
    const std::array<std::uint32_t, 2> message{key.pid, key.secret};
    if (::sendto(fd_.get(), message.data(), sizeof message, MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address->storage), address->length) < 0) {
        log_info("pooler: cancel request for worker " + std::to_string(worker) +
                 " got lost: " + std::strerror(errno));
    }
}

void CancelRelay::receive() {
    std::array<std::uint32_t, 2> message{};
    while (::recv(fd_.get(), message.data(), sizeof message, MSG_TRUNC) ==
           static_cast<ssize_t>(sizeof message)) {
        on_cancel_({message[0], message[1]});
    }
}

}  // namespace pgxc::pooler
