#include "net/stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <asio/io_context.hpp>
#include <asio/posix/basic_stream_descriptor.hpp>
#include <asio/post.hpp>
#include <cerrno>
#include <utility>

namespace pgxc::net {
namespace {

/// Encrypted bytes of one read, and plain ones gathered for one record. Shared by all streams: nothing stays
/// in them.
constexpr std::size_t tls_read_bytes = 64 * 1024;
constexpr std::size_t tls_record_bytes = 16 * 1024;
/// What is encrypted before the socket is asked to take it: also the most that waits here beside the owner's
/// own backlog.
constexpr std::size_t tls_write_bytes = 64 * 1024;

IoResult receive(int fd, std::span<char> into) {
    for (;;) {
        const ssize_t got = ::recv(fd, into.data(), into.size(), 0);
        if (got > 0) return {IoResult::Outcome::Done, static_cast<std::size_t>(got), 0};
        if (got == 0) return {IoResult::Outcome::Ended, 0, 0};
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return {};
        return {IoResult::Outcome::Failed, 0, errno};
    }
}

IoResult send_bytes(int fd, std::string_view from) {
    for (;;) {
        const ssize_t put = ::send(fd, from.data(), from.size(), MSG_NOSIGNAL);
        if (put >= 0) return {IoResult::Outcome::Done, static_cast<std::size_t>(put), 0};
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return {};
        return {IoResult::Outcome::Failed, 0, errno};
    }
}

}  // namespace

// Asio reports a cancelled wait after the fact, so each wait holds the state too: a callback may destroy the
// Stream, and the loop may end with waits that it has not reported. The executor is io_context's own: the
// type-erased one costs an allocation per wait.
struct Stream::State {
    using Descriptor = asio::posix::basic_stream_descriptor<asio::io_context::executor_type>;

    /// Counts the owners (one thread, so no atomics).
    class Ref {
      public:
        explicit Ref(State* state) : state_(state) { ++state_->owners; }
        Ref(Ref&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
        Ref& operator=(Ref&&) = delete;
        Ref(const Ref&) = delete;
        Ref& operator=(const Ref&) = delete;
        ~Ref() {
            if (state_ != nullptr) state_->release();
        }
        State* operator->() const { return state_; }

      private:
        State* state_;
    };

    State(asio::io_context& context, StreamEvents& receiver) : descriptor(context), events(&receiver) {}

    void release() {
        if (--owners == 0) delete this;
    }

    void arm_read() {
        reading = true;
        // What is decrypted, or could be, makes no socket readable.
        if (tls != nullptr && tls->more()) {
            asio::post(descriptor.get_executor(),
                       [self = Ref{this}, waited_in = round] { self->readable(waited_in); });
            return;
        }
        descriptor.async_wait(
            Descriptor::wait_read,
            [self = Ref{this}, waited_in = round](const asio::error_code&) { self->readable(waited_in); });
    }
    void readable(unsigned waited_in) {
        if (closed || waited_in != round) return;
        reading = false;
        if (!read_wanted) return;
        events->on_readable();
        if (!closed && read_wanted && !reading) arm_read();
    }

    void arm_write() {
        writing = true;
        descriptor.async_wait(Descriptor::wait_write,
                              [self = Ref{this}, waited_in = round](const asio::error_code&) {
                                  if (self->closed || waited_in != self->round) return;
                                  self->writing = false;
                                  if (self->tls != nullptr && !self->send_encrypted()) return;
                                  if (std::exchange(self->write_wanted, false)) self->events->on_writable();
                              });
    }

    /// True if nothing encrypted waits any more. A broken socket is told by the owner's next read or write.
    bool send_encrypted() {
        std::string& output = tls->output();
        if (!output.empty() && write_error == 0) {
            const IoResult result = send_bytes(descriptor.native_handle(), output);
            if (result.outcome == IoResult::Outcome::Failed) write_error = result.error;
            output.erase(0, result.bytes);
        }
        if (write_error != 0) output.clear();
        if (output.empty()) {
            std::string{}.swap(output);  // an idle connection costs no memory
            return true;
        }
        if (!writing) arm_write();
        return false;
    }

    IoResult read_tls(std::span<char> into) {
        static std::array<char, tls_read_bytes> encrypted;
        // What is left of the last read comes first; then one read, as without TLS.
        if (!tls->more()) {
            const IoResult received = receive(descriptor.native_handle(), encrypted);
            if (received.outcome != IoResult::Outcome::Done) return received;
            tls->feed({encrypted.data(), received.bytes});
        }
        IoResult result;
        TlsSession::Step step = tls->handshake();
        if (step == TlsSession::Step::Done) step = tls->read(into, result.bytes);
        tls->keep();
        (void)send_encrypted();
        switch (step) {
            case TlsSession::Step::Done:
                result.outcome = IoResult::Outcome::Done;
                break;
            case TlsSession::Step::NeedMore:
                break;
            case TlsSession::Step::Ended:
                result.outcome = IoResult::Outcome::Ended;
                break;
            case TlsSession::Step::Failed:
                result.outcome = IoResult::Outcome::Failed;
                result.error = EPROTO;
                break;
        }
        return result;
    }

    IoResult write_tls(std::span<const iovec> from) {
        if (write_error != 0) return {IoResult::Outcome::Failed, 0, write_error};
        if (!tls->established() || !send_encrypted()) return {};
        IoResult result{IoResult::Outcome::Done, 0, 0};
        std::size_t waiting = 0;  // encrypted since the socket was asked
        std::array<char, tls_record_bytes> record;
        std::size_t filled = 0;
        const auto encrypt = [&](std::string_view plain) {
            if (!tls->write(plain)) return false;
            result.bytes += plain.size();
            waiting += plain.size();
            return true;
        };
        // Small parts share a record, as they share a system call without TLS.
        for (const iovec& part : from) {
            std::string_view rest{static_cast<const char*>(part.iov_base), part.iov_len};
            while (!rest.empty()) {
                const std::size_t bytes = std::min(rest.size(), record.size() - filled);
                bool done = true;
                if (filled == 0 && bytes == record.size()) {
                    done = encrypt(rest.substr(0, bytes));
                } else {
                    std::copy_n(rest.data(), bytes, record.data() + filled);
                    filled += bytes;
                    if (filled == record.size()) {
                        done = encrypt({record.data(), filled});
                        filled = 0;
                    }
                }
                if (!done) return {IoResult::Outcome::Failed, 0, EPROTO};
                rest.remove_prefix(bytes);
                if (waiting >= tls_write_bytes && filled == 0) {
                    waiting = 0;
                    if (!send_encrypted()) return result;
                }
            }
        }
        if (filled > 0 && !encrypt({record.data(), filled})) return {IoResult::Outcome::Failed, 0, EPROTO};
        (void)send_encrypted();
        if (write_error != 0) return {IoResult::Outcome::Failed, 0, write_error};
        return result;
    }

    Descriptor descriptor;
    StreamEvents* events;
    int owners = 1;      // the Stream, and each wait that Asio has not reported
    unsigned round = 0;  // of registering the descriptor: an older round's waits are void
    bool read_wanted = false;
    bool reading = false;
    bool writing = false;
    bool write_wanted = false;  // on_writable() is to be called
    bool closed = false;
    int write_error = 0;  // TLS only: met while the owner wasn't writing
    std::unique_ptr<TlsSession> tls;
};

Result<Stream> Stream::adopt(Loop& loop, UniqueFd fd, StreamEvents& events) {
    auto state = std::make_unique<State>(loop.context(), events);
    asio::error_code error;
    state->descriptor.assign(fd.get(), error);
    if (error) {
        return Error{sqlstate::internal_error, "could not watch a socket: " + error.message()};
    }
    (void)fd.release();
    return Stream{state.release()};
}

Stream::Stream(Stream&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
    if (this != &other) {
        close();
        state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
}

Stream::~Stream() {
    close();
}

int Stream::fd() const {
    return state_ == nullptr ? -1 : state_->descriptor.native_handle();
}

void Stream::close() {
    if (state_ == nullptr) return;
    State* state = std::exchange(state_, nullptr);
    state->closed = true;
    if (state->tls != nullptr && state->tls->output().empty()) {
        state->tls->shut_down();
        if (!state->tls->output().empty())
            (void)send_bytes(state->descriptor.native_handle(), state->tls->output());
    }
    asio::error_code ignored;
    state->descriptor.close(ignored);
    state->release();
}

void Stream::want_readable(bool wanted) {
    state_->read_wanted = wanted;
    if (wanted && !state_->reading) state_->arm_read();
}

void Stream::want_writable() {
    state_->write_wanted = true;
    if (!state_->writing) state_->arm_write();
}

Status Stream::forget_writable() {
    State& state = *state_;
    ++state.round;
    state.reading = false;
    state.writing = false;
    state.write_wanted = false;
    const int fd = state.descriptor.release();
    asio::error_code error;
    state.descriptor.assign(fd, error);
    if (error) {
        UniqueFd{fd}.reset();
        return Error{sqlstate::internal_error, "could not watch a socket: " + error.message()};
    }
    if (state.read_wanted) state.arm_read();
    return {};
}

IoResult Stream::read(std::span<char> into) {
    if (state_->tls != nullptr) [[unlikely]]
        return state_->read_tls(into);
    return receive(fd(), into);
}

IoResult Stream::write(std::span<const iovec> from) {
    if (state_->tls != nullptr) [[unlikely]]
        return state_->write_tls(from);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(from.data());
    message.msg_iovlen = from.size();
    for (;;) {
        const ssize_t put = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
        if (put >= 0) return {IoResult::Outcome::Done, static_cast<std::size_t>(put), 0};
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return {};
        return {IoResult::Outcome::Failed, 0, errno};
    }
}

IoResult Stream::write(std::string_view from) {
    if (state_->tls != nullptr) [[unlikely]] {
        const iovec part{const_cast<char*>(from.data()), from.size()};
        return state_->write_tls({&part, 1});
    }
    return send_bytes(fd(), from);
}

Status Stream::start_tls(std::shared_ptr<const TlsContext> context, const std::string& server_name) {
    auto session = TlsSession::start(std::move(context), server_name);
    if (!session) return session.error();
    state_->tls = std::move(*session);
    // A client speaks first.
    if (state_->tls->handshake() == TlsSession::Step::Failed)
        return Error{sqlstate::connection_exception, "could not begin TLS: " + state_->tls->error()};
    (void)state_->send_encrypted();
    return {};
}

bool Stream::secured() const {
    return state_ != nullptr && state_->tls != nullptr && state_->tls->established();
}

const TlsSession* Stream::tls() const {
    return state_ == nullptr ? nullptr : state_->tls.get();
}

}  // namespace pgxc::net
