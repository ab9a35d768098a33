#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/address.h"
#include "net/loop.h"

namespace pgxc::net {

/// A new connection: non-blocking, and where it comes from.
struct Accepted {
    UniqueFd fd;
    SocketAddress peer;
};

/// The addresses that a name of listen_addresses means: '*' is all of IPv4 and, where there is IPv6, all of
/// that. May block in a name look-up: for the start only.
[[nodiscard]] Result<std::vector<SocketAddress>> listen_addresses(const std::string& name,
                                                                  std::uint16_t port);

/// A listening socket. Destroying it stops listening and removes a unix socket's files.
class Listener {
  public:
    using OnAccept = std::function<void(Accepted)>;
    virtual ~Listener() = default;

    /// Listens on one TCP address; `shared` allows several processes of ours on the same port.
    [[nodiscard]] static Result<std::unique_ptr<Listener>> tcp(Loop& loop, const SocketAddress& address,
                                                               bool shared, OnAccept on_accept);
    /// Listens on `<directory>/.s.PGSQL.<port>` as the server does: beside it a lock file with the owner's
    /// pid, whose owner must be gone before the path is taken over; then group and permissions.
    [[nodiscard]] static Result<std::unique_ptr<Listener>> unix_socket(Loop& loop,
                                                                       const std::string& directory, int port,
                                                                       const std::string& group,
                                                                       unsigned permissions,
                                                                       OnAccept on_accept);
};

}  // namespace pgxc::net
