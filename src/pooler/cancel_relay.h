#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/loop.h"
#include "pooler/environment.h"

namespace pgxc::pooler {

/// Carries cancel requests to the worker whose client is meant: a datagram socket
/// `<directory>/.s.pgxc.<port>.w<worker>` for each, which only the server's own user can write to.
class CancelRelay {
  public:
    using OnCancel = std::function<void(CancelKey)>;
    [[nodiscard]] static Result<std::unique_ptr<CancelRelay>> listen(net::Loop& loop,
                                                                     const std::string& directory, int port,
                                                                     int worker, OnCancel on_cancel);
    ~CancelRelay();
    CancelRelay(const CancelRelay&) = delete;
    CancelRelay& operator=(const CancelRelay&) = delete;

    /// Hands a request over; it is lost if that worker isn't there, as its clients are.
    void send(int worker, CancelKey key);

  private:
    CancelRelay(std::string prefix, std::string path, UniqueFd fd, OnCancel on_cancel);
    void receive();

    std::string prefix_;  // of the sockets' paths, all but the number
    std::string path_;
    UniqueFd fd_;
    OnCancel on_cancel_;
    net::Handle watch_;
};

}  // namespace pgxc::pooler
