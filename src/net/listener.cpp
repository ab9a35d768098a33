#include "net/listener.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <vector>

#include "base/log.h"
#include "net/resolver.h"

namespace pgxc::net {
namespace {

constexpr int backlog = 1024;
/// Connections taken per wake-up, so that a flood of them does not starve those that are there.
constexpr int accepts_per_event = 64;
/// Pause after accept() ran out of descriptors or memory; level-triggered events would spin otherwise.
constexpr Millis accept_retry{100};

Error system_error(const std::string& what, int error_number) {
    return Error{sqlstate::connection_exception, what + ": " + std::strerror(error_number)};
}

class SocketListener : public Listener {
  public:
    SocketListener(Loop& loop, UniqueFd fd, OnAccept on_accept)
        : loop_(loop), fd_(std::move(fd)), on_accept_(std::move(on_accept)) {}

    Status start() {
        auto watch = loop_.watch_readable(fd_.get(), [this] { accept_some(); });
        if (!watch) return watch.error();
        watch_ = std::move(*watch);
        return {};
    }

    int port() const override {
        SocketAddress name;
        name.length = sizeof name.storage;
        if (::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&name.storage), &name.length) != 0) return 0;
        return name.port();
    }
    [[nodiscard]] int descriptor() const { return fd_.get(); }

  private:
    void accept_some() {
        for (int i = 0; i < accepts_per_event; ++i) {
            Accepted accepted;
            accepted.peer.length = sizeof accepted.peer.storage;
            accepted.fd.reset(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&accepted.peer.storage),
                                        &accepted.peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (accepted.fd.valid()) {
                on_accept_(std::move(accepted));
                continue;
            }
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                log_warning(std::string("pooler: could not accept a connection: ") + std::strerror(errno));
                watch_.reset();
                start_later();
                return;
            }
            if (errno == EINTR || errno == ECONNABORTED) continue;
            return;
        }
    }

    /// What accept() ran out of, watching may lack too: until there is enough of it.
    void start_later() {
        retry_ = loop_.call_after(accept_retry, [this] {
            if (auto status = start(); !status) {
                log_warning("pooler: " + status.error().message);
                start_later();
            }
        });
    }

    Loop& loop_;
    UniqueFd fd_;
    OnAccept on_accept_;
    Handle watch_;
    Handle retry_;
};

/// Holds `<path>.lock`, made as the server's CreateLockFile makes it: by O_EXCL, with the owner's pid on its
/// first line.
class SocketLock {
  public:
    static Result<SocketLock> take(const std::string& path) {
        // Twice at most: once to find a stale file, once to take its place.
        for (int attempt = 0; attempt < 3; ++attempt) {
            UniqueFd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
            if (fd.valid()) {
                const std::string line = std::to_string(::getpid()) + "\n";
                if (::write(fd.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
                    const int error = errno;
                    ::unlink(path.c_str());
                    return system_error("could not write lock file \"" + path + "\"", error);
                }
                return SocketLock{path};
            }
            if (errno != EEXIST && errno != EACCES) {
                return system_error("could not create lock file \"" + path + "\"", errno);
            }
            const pid_t owner = read_owner(path);
            // A pid of our own or of our parent is left from an earlier life and was given out again.
            const bool alive = owner > 0 && owner != ::getpid() && owner != ::getppid() &&
                               (::kill(owner, 0) == 0 || (errno != ESRCH && errno != EPERM));
            if (alive) {
                return Error{
                    sqlstate::object_not_in_prerequisite_state, "lock file \"" + path + "\" already exists",
                    "Is another server or pooler (PID " + std::to_string(owner) + ") using this socket?"};
            }
            if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
                return system_error("could not remove old lock file \"" + path + "\"", errno);
            }
        }
        return Error{sqlstate::object_not_in_prerequisite_state,
                     "could not create lock file \"" + path + "\""};
    }

    SocketLock(SocketLock&& other) noexcept : path_(std::exchange(other.path_, {})) {}
    SocketLock& operator=(SocketLock&&) = delete;
    SocketLock(const SocketLock&) = delete;
    SocketLock& operator=(const SocketLock&) = delete;
    ~SocketLock() {
        if (!path_.empty()) ::unlink(path_.c_str());
    }

  private:
    explicit SocketLock(std::string path) : path_(std::move(path)) {}

    static pid_t read_owner(const std::string& path) {
        UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
        char text[32] = {};
        if (!fd.valid()) return 0;
        const ssize_t got = ::read(fd.get(), text, sizeof text - 1);
        pid_t owner = 0;
        if (got > 0) (void)std::from_chars(text, text + got, owner);
        // The server writes a negative pid for a standalone backend.
        return owner < 0 ? -owner : owner;
    }

    std::string path_;
};

class UnixListener final : public SocketListener {
  public:
    UnixListener(Loop& loop, UniqueFd fd, OnAccept on_accept, std::string path, SocketLock lock)
        : SocketListener(loop, std::move(fd), std::move(on_accept)),
          lock_(std::move(lock)),
          path_(std::move(path)) {}
    ~UnixListener() override { ::unlink(path_.c_str()); }

  private:
    SocketLock lock_;  // given up after the socket is gone
    std::string path_;
};

Status set_group(const std::string& path, const std::string& group) {
    gid_t gid = 0;
    const char* end = group.data() + group.size();
    if (const auto [stop, error] = std::from_chars(group.data(), end, gid);
        error != std::errc{} || stop != end) {
        struct group entry {};
        struct group* found = nullptr;
        std::vector<char> buffer(16384);
        if (::getgrnam_r(group.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
            found == nullptr) {
            return Error{sqlstate::invalid_parameter_value, "group \"" + group + "\" does not exist"};
        }
        gid = found->gr_gid;
    }
    if (::chown(path.c_str(), static_cast<uid_t>(-1), gid) != 0) {
        return system_error("could not set group of file \"" + path + "\"", errno);
    }
    return {};
}

}  // namespace

Result<std::vector<SocketAddress>> listen_addresses(const std::string& name, std::uint16_t port) {
    if (name == "*") {
        std::vector<SocketAddress> all{*SocketAddress::from_literal("0.0.0.0", port)};
        const UniqueFd probe{::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        if (probe.valid()) all.push_back(*SocketAddress::from_literal("::", port));
        return all;
    }
    return look_up_host(name, port);
}

Result<std::unique_ptr<Listener>> Listener::tcp(Loop& loop, const SocketAddress& address, bool shared,
                                                OnAccept on_accept) {
    UniqueFd fd{::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd.valid()) return system_error("could not create socket", errno);
    const int one = 1;
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address.family() == AF_INET6) {
        (void)::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    }
    if (shared && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) {
        return system_error("could not share the port", errno);
    }
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0) {
        const int error = errno;
        auto failure = system_error("could not bind to port " + std::to_string(address.port()), error);
        if (error == EADDRINUSE) failure.hint = "Is another pooler or server already running on this port?";
        return failure;
    }
    if (::listen(fd.get(), backlog) != 0) return system_error("could not listen", errno);
    auto listener = std::make_unique<SocketListener>(loop, std::move(fd), std::move(on_accept));
    if (auto status = listener->start(); !status) return status.error();
    return std::unique_ptr<Listener>{std::move(listener)};
}

Result<std::unique_ptr<Listener>> Listener::unix_socket(Loop& loop, const std::string& directory, int port,
                                                        const std::string& group, unsigned permissions,
                                                        OnAccept on_accept) {
    const std::string path = directory + "/.s.PGSQL." + std::to_string(port);
    const auto address = SocketAddress::unix_socket(path);
    if (!address) {
        return Error{sqlstate::invalid_parameter_value,
                     "unix-domain socket path \"" + path + "\" is too long"};
    }
    auto lock = SocketLock::take(path + ".lock");
    if (!lock) return lock.error();
    // The lock is ours, so whatever lies there was left by somebody who is gone.
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return system_error("could not remove old socket \"" + path + "\"", errno);
    }
    UniqueFd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd.valid()) return system_error("could not create socket", errno);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->length) != 0) {
        return system_error("could not bind to \"" + path + "\"", errno);
    }
    auto listener =
        std::make_unique<UnixListener>(loop, std::move(fd), std::move(on_accept), path, std::move(*lock));
    if (!group.empty()) {
        if (auto status = set_group(path, group); !status) return status.error();
    }
    if (::chmod(path.c_str(), permissions) != 0) {
        return system_error("could not set permissions of \"" + path + "\"", errno);
    }
    if (::listen(listener->descriptor(), backlog) != 0) {
        return system_error("could not listen on \"" + path + "\"", errno);
    }
    if (auto status = listener->start(); !status) return status.error();
    return std::unique_ptr<Listener>{std::move(listener)};
}

}  // namespace pgxc::net
