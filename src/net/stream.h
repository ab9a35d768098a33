#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/loop.h"
#include "net/tls.h"

namespace pgxc::net {

/// Who is told that a stream can go on. A callback may destroy the stream, itself included.
class StreamEvents {
  public:
    virtual void on_readable() = 0;
    virtual void on_writable() = 0;

  protected:
    ~StreamEvents() = default;
};

/// What one read or write did.
struct IoResult {
    enum class Outcome : std::uint8_t {
        Done,        // `bytes` > 0 were moved
        WouldBlock,  // nothing moved: wait for the event
        Ended,       // read: the peer has closed its side
        Failed,      // `error` is the errno
    };
    Outcome outcome = Outcome::WouldBlock;
    std::size_t bytes = 0;
    int error = 0;  // EPROTO: TLS has failed, tls()->error() says how
};

/// A connected (or connecting) stream socket that tells when it is ready and leaves reading and writing to
/// its owner, so that one buffer serves all connections and an idle one costs no memory.
class Stream {
  public:
    Stream() = default;
    /// Takes the descriptor (non-blocking). `events` outlives the stream.
    [[nodiscard]] static Result<Stream> adopt(Loop& loop, UniqueFd fd, StreamEvents& events);
    Stream(Stream&& other) noexcept;
    Stream& operator=(Stream&& other) noexcept;
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream();

    [[nodiscard]] bool open() const { return state_ != nullptr; }
    [[nodiscard]] int fd() const;
    /// Closes now; no callback comes any more.
    void close();

    /// Asks for on_readable() while `wanted`. It is level-triggered.
    void want_readable(bool wanted);
    /// Asks for one on_writable().
    void want_writable();

    [[nodiscard]] IoResult read(std::span<char> into);
    [[nodiscard]] IoResult write(std::span<const iovec> from);
    [[nodiscard]] IoResult write(std::string_view from);

    /// Bytes that were written and that the socket has not taken yet: encrypted ones. on_writable() comes
    /// when there are none any more.
    [[nodiscard]] std::size_t unsent() const;

    /// From here on everything goes through TLS. The handshake is made by read(), which says WouldBlock until
    /// it is over: a client begins it at once, so call read() when on_readable() comes. Nothing may be
    /// written before secured().
    [[nodiscard]] Status start_tls(std::shared_ptr<const TlsContext> context,
                                   const std::string& server_name = {});
    [[nodiscard]] bool secured() const;
    /// nullptr without TLS.
    [[nodiscard]] const TlsSession* tls() const;

  private:
    struct State;
    explicit Stream(State* state) : state_(state) {}
    State* state_ = nullptr;
};

}  // namespace pgxc::net
