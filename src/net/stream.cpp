#include "net/stream.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "net/poller.h"

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

// A callback may destroy the Stream, so whoever calls one holds the state too.
struct Stream::State final : Watched {
    /// Counts the owners (one thread, so no atomics).
    class Ref {
      public:
        explicit Ref(State* state) : state_(state) { ++state_->owners; }
        Ref(const Ref& other) : Ref(other.state_) {}
        Ref& operator=(const Ref&) = delete;
        ~Ref() { state_->release(); }
        State* operator->() const { return state_; }

      private:
        State* state_;
    };

    State(Loop& the_loop, UniqueFd socket, StreamEvents& receiver)
        : loop(the_loop), fd(std::move(socket)), events(&receiver) {}

    void release() {
        if (--owners == 0) delete this;
    }

    void ready(std::uint32_t happened) override {
        const Ref self{this};
        // An error or the end is met by whoever reads or writes next.
        if ((happened & ~EPOLLOUT) != 0) readable();
        if (!closed && (happened & ~EPOLLIN) != 0 && wants_to_write()) writable();
        if (!closed) renew_interest(happened);
    }

    void readable() {
        if (!read_wanted) return;
        events->on_readable();
        if (!closed && read_wanted) read_on();
    }
    /// What is decrypted, or could be, makes no socket readable.
    void read_on() {
        if (tls == nullptr || !tls->more() || reads_on) return;
        reads_on = true;
        loop.post([self = Ref{this}] {
            self->reads_on = false;
            if (!self->closed) self->readable();
        });
    }

    void writable() {
        if (tls != nullptr && !send_encrypted()) return;
        if (std::exchange(write_wanted, false)) events->on_writable();
    }
    [[nodiscard]] bool wants_to_write() const { return write_wanted || encrypted_waits; }

    /// What isn't wanted any more is taken out of the set when it has happened, not before: mostly it is
    /// wanted again until then. Errors are told of whatever is wanted; if that is nothing, once is enough.
    void renew_interest(std::uint32_t happened = 0) {
        const std::uint32_t wanted = (read_wanted ? EPOLLIN : 0U) | (wants_to_write() ? EPOLLOUT : 0U);
        if ((wanted & ~watched) == 0 && (happened & ~wanted) == 0) return;
        const std::uint32_t mask = wanted != 0 ? wanted : static_cast<std::uint32_t>(EPOLLET);
        if (mask == watched) return;
        watched = mask;
        loop.poller().change(fd.get(), watched, *this);
    }

    /// True if nothing encrypted waits any more. A broken socket is told by the owner's next read or write.
    bool send_encrypted() {
        std::string& output = tls->output();
        if (!output.empty() && write_error == 0) {
            const IoResult result = send_bytes(fd.get(), output);
            if (result.outcome == IoResult::Outcome::Failed) write_error = result.error;
            output.erase(0, result.bytes);
        }
        if (write_error != 0) output.clear();
        encrypted_waits = !output.empty();
        if (encrypted_waits) {
            renew_interest();
        } else {
            std::string{}.swap(output);  // an idle connection costs no memory
        }
        return !encrypted_waits;
    }

    IoResult read_tls(std::span<char> into) {
        static std::array<char, tls_read_bytes> encrypted;
        // What is left of the last read comes first; then one read, as without TLS.
        if (!tls->more()) {
            const IoResult received = receive(fd.get(), encrypted);
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

    Loop& loop;
    UniqueFd fd;
    StreamEvents* events;
    int owners = 1;             // the Stream, and whoever calls back
    std::uint32_t watched = 0;  // in the poller's set
    bool read_wanted = false;
    bool write_wanted = false;     // on_writable() is to be called
    bool encrypted_waits = false;  // for the socket to take it
    bool reads_on = false;         // it is posted
    bool closed = false;
    int write_error = 0;  // TLS only: met while the owner wasn't writing
    std::unique_ptr<TlsSession> tls;
};

Result<Stream> Stream::adopt(Loop& loop, UniqueFd fd, StreamEvents& events) {
    auto state = std::make_unique<State>(loop, std::move(fd), events);
    state->watched = EPOLLIN;  // which is wanted next, as a rule
    if (auto status = loop.poller().add(state->fd.get(), state->watched, *state); !status)
        return status.error();
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
    return state_ == nullptr ? -1 : state_->fd.get();
}

void Stream::close() {
    if (state_ == nullptr) return;
    State* state = std::exchange(state_, nullptr);
    state->closed = true;
    if (state->tls != nullptr && state->tls->output().empty()) {
        state->tls->shut_down();
        if (!state->tls->output().empty()) (void)send_bytes(state->fd.get(), state->tls->output());
    }
    state->loop.poller().remove(state->fd.get(), *state);
    state->fd.reset();
    state->release();
}

void Stream::want_readable(bool wanted) {
    State& state = *state_;
    if (state.read_wanted == wanted) return;
    state.read_wanted = wanted;
    if (!wanted) return;
    state.renew_interest();
    state.read_on();
}

void Stream::want_writable() {
    state_->write_wanted = true;
    state_->renew_interest();
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

std::size_t Stream::unsent() const {
    return state_ == nullptr || state_->tls == nullptr ? 0 : state_->tls->output().size();
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
