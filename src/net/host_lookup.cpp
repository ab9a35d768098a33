#include "net/host_lookup.h"

#include <netdb.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <asio/error.hpp>
#include <asio/ip/address.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <csignal>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/unique_fd.h"
#include "net/bounded_wait.h"
#include "net/resolver.h"

namespace pgxc::net {
namespace {

struct Lookup {
    std::string host;
    UniqueFd done{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::string address;  // written by the thread before it signals `done`, read only after that
    std::string failure = "no memory for it";

    /// An exception must not leave the thread.
    void run() {
        try {
            look_up();
        } catch (...) {
            address.clear();
        }
        const std::uint64_t one = 1;
        (void)!::write(done.get(), &one, sizeof one);
    }

    void look_up() {
        auto found = look_up_host(host, 0);
        if (!found.ok()) {
            failure = found.error().message;
        } else {
            for (const int family : {AF_INET, AF_INET6})
                for (const SocketAddress& candidate : *found)
                    if (address.empty() && candidate.family() == family) numeric(candidate);
            if (address.empty()) failure = "host \"" + host + "\" has no address";
        }
    }

    void numeric(const SocketAddress& candidate) {
        char text[NI_MAXHOST];
        const auto* raw = reinterpret_cast<const sockaddr*>(&candidate.storage);
        if (::getnameinfo(raw, candidate.length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
            address = text;
    }
};

/// Begins to look it up, unless that runs already.
Result<std::shared_ptr<Lookup>> begin_lookup(const std::string& host) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<Lookup>> running;
    const std::lock_guard<std::mutex> guard(mutex);
    std::erase_if(running, [](const auto& entry) { return entry.second.expired(); });
    if (auto lookup = running[host].lock()) return lookup;
    auto lookup = std::make_shared<Lookup>();
    lookup->host = host;
    // A new thread inherits the mask: signals belong to the thread that knows PostgreSQL's handlers.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::string cannot_start;
    try {
        std::thread([lookup] { lookup->run(); }).detach();
    } catch (const std::system_error& problem) {
        cannot_start = problem.what();
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!cannot_start.empty())
        return Error{sqlstate::unable_to_connect, "can't look up host \"" + host + "\": " + cannot_start};
    running[host] = lookup;
    return lookup;
}

}  // namespace

asio::awaitable<Result<std::string>> resolve_host(std::string host, TimePoint deadline) {
    std::error_code not_numeric;
    const auto address = asio::ip::make_address(host, not_numeric);
    if (!not_numeric) co_return address.to_string();

    auto begun = begin_lookup(host);
    if (!begun.ok()) co_return begun.error();
    const std::shared_ptr<Lookup> lookup = *begun;
    const auto executor = co_await asio::this_coro::executor;
    asio::posix::stream_descriptor done(executor);
    std::error_code failed = wait_on_copy(done, lookup->done.get());
    if (!failed) {
        const DeadlineGuard guard(done, deadline);
        co_await done.async_wait(asio::posix::stream_descriptor::wait_read,
                                 asio::redirect_error(asio::use_awaitable, failed));
        if (failed && guard.expired()) failed = asio::error::timed_out;
    }
    // Whoever was cancelled leaves the answer to the thread, which may be writing it.
    if (failed)
        co_return Error{sqlstate::unable_to_connect,
                        "can't look up host \"" + host + "\": " + failed.message()};
    if (lookup->address.empty()) co_return Error{sqlstate::unable_to_connect, lookup->failure};
    co_return lookup->address;
}

}  // namespace pgxc::net
