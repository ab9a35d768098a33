#include "net/poller.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace pgxc::net {
namespace {

/// Descriptors told of for each system call.
constexpr int batch = 128;

Error system_error(const char* what, int error) {
    return {sqlstate::internal_error, std::string("could not ") + what + ": " + std::strerror(error)};
}

}  // namespace

Result<Poller> Poller::make() {
    UniqueFd fd{::epoll_create1(EPOLL_CLOEXEC)};
    if (!fd.valid()) return system_error("make an epoll set", errno);
    return Poller{std::move(fd)};
}

Status Poller::add(int fd, std::uint32_t events, Watched& watched) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &watched;
    if (::epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
        return system_error("watch a file descriptor", errno);
    return {};
}

void Poller::change(int fd, std::uint32_t events, Watched& watched) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &watched;
    // It is in the set, and that is all that could be wrong.
    (void)::epoll_ctl(fd_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Poller::remove(int fd, Watched& watched) {
    (void)::epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr);
    for (epoll_event& event : untold_) {
        if (event.data.ptr == &watched) event.data.ptr = nullptr;
    }
}

void Poller::wait(bool block) {
    std::array<epoll_event, batch> events;
    const int count = ::epoll_wait(fd_.get(), events.data(), batch, block ? -1 : 0);
    if (count <= 0) return;  // a signal: whoever wants to know of it has a descriptor here
    untold_ = {events.data(), static_cast<std::size_t>(count)};
    // An exception leaves the rest untold: epoll tells it again.
    struct Forget {
        std::span<epoll_event>& untold;
        ~Forget() { untold = {}; }
    } forget{untold_};
    while (!untold_.empty()) {
        const epoll_event event = untold_.front();
        untold_ = untold_.subspan(1);
        if (event.data.ptr != nullptr) static_cast<Watched*>(event.data.ptr)->ready(event.events);
    }
}

}  // namespace pgxc::net
