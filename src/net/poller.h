#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"

struct epoll_event;

namespace pgxc::net {

/// Who is told of the events of one descriptor.
class Watched {
  public:
    /// `events`: of epoll (EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP). May remove and destroy anything, itself
    /// included.
    virtual void ready(std::uint32_t events) = 0;

  protected:
    ~Watched() = default;
};

/// The epoll set of one thread. Level-triggered, so that a descriptor stays as it is from one event to the
/// next: waiting anew for a message costs no system call (Asio's, which is edge-triggered, makes one for each
/// wait). docs/performance.md has the figures.
class Poller {
  public:
    [[nodiscard]] static Result<Poller> make();

    /// Told of until remove(), which comes before the descriptor is closed. `events` as in epoll_ctl.
    [[nodiscard]] Status add(int fd, std::uint32_t events, Watched& watched);
    void change(int fd, std::uint32_t events, Watched& watched);
    /// No event comes any more, even if it has been seen already.
    void remove(int fd, Watched& watched);

    /// Waits for events, for ever or not at all, and tells those that are there.
    void wait(bool block);
    /// Readable when wait() has something to tell.
    [[nodiscard]] int fd() const { return fd_.get(); }

  private:
    explicit Poller(UniqueFd fd) : fd_(std::move(fd)) {}

    UniqueFd fd_;
    std::span<epoll_event> untold_;  // of the batch that wait() tells
};

}  // namespace pgxc::net
