#pragma once

#include <cstddef>

#include "net/stream.h"
#include "wire/bytes.h"

namespace pgxc::pooler {

/// A stream with what could not be written yet. Small messages are collected in out() and leave together with
/// what flush() is given, in one write.
class Connection {
  public:
    Connection() = default;
    explicit Connection(net::Stream stream) : stream_(std::move(stream)) {}

    [[nodiscard]] net::Stream& stream() { return stream_; }
    [[nodiscard]] const net::Stream& stream() const { return stream_; }
    [[nodiscard]] bool open() const { return stream_.open(); }
    void close() { stream_.close(); }

    /// Where messages to send are appended; flush() sends them.
    [[nodiscard]] wire::Buffer& out() { return out_; }
    /// Sends out() and then `tail`; what the socket doesn't take now is kept and goes when it is writable
    /// (call flush() then). False: the connection is broken, error() says how.
    [[nodiscard]] bool flush(wire::Bytes tail = {});
    /// Bytes that the socket hasn't taken yet: while there are any, read no more for this side.
    [[nodiscard]] std::size_t backlog() const { return out_.size() - sent_ + stream_.unsent(); }
    /// The same, without what was collected since and not flushed.
    [[nodiscard]] bool congested() const { return open() && blocked_; }
    [[nodiscard]] int error() const { return error_; }
    /// Bytes that the socket has taken since it was opened.
    [[nodiscard]] std::uint64_t bytes_sent() const { return bytes_sent_; }

  private:
    void keep(wire::Bytes tail, std::size_t written);

    net::Stream stream_;
    wire::Buffer out_;
    std::size_t sent_ = 0;  // of out_
    bool blocked_ = false;  // the socket has not taken all that it was given
    std::uint64_t bytes_sent_ = 0;
    int error_ = 0;
};

}  // namespace pgxc::pooler
