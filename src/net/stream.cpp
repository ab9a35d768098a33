#include "net/stream.h"

#include <sys/socket.h>

#include <asio/io_context.hpp>
#include <asio/posix/basic_stream_descriptor.hpp>
#include <cerrno>
#include <utility>

namespace pgxc::net {

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
        descriptor.async_wait(Descriptor::wait_read,
                              [self = Ref{this}, waited_in = round](const asio::error_code&) {
                                  if (self->closed || waited_in != self->round) return;
                                  self->reading = false;
                                  if (!self->read_wanted) return;
                                  self->events->on_readable();
                                  if (!self->closed && self->read_wanted && !self->reading) self->arm_read();
                              });
    }

    void arm_write() {
        writing = true;
        descriptor.async_wait(Descriptor::wait_write,
                              [self = Ref{this}, waited_in = round](const asio::error_code&) {
                                  if (self->closed || waited_in != self->round) return;
                                  self->writing = false;
                                  self->events->on_writable();
                              });
    }

    Descriptor descriptor;
    StreamEvents* events;
    int owners = 1;      // the Stream, and each wait that Asio has not reported
    unsigned round = 0;  // of registering the descriptor: an older round's waits are void
    bool read_wanted = false;
    bool reading = false;
    bool writing = false;
    bool closed = false;
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
    asio::error_code ignored;
    state->descriptor.close(ignored);
    state->release();
}

void Stream::want_readable(bool wanted) {
    state_->read_wanted = wanted;
    if (wanted && !state_->reading) state_->arm_read();
}

void Stream::want_writable() {
    if (!state_->writing) state_->arm_write();
}

Status Stream::forget_writable() {
    State& state = *state_;
    ++state.round;
    state.reading = false;
    state.writing = false;
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
    for (;;) {
        const ssize_t got = ::recv(fd(), into.data(), into.size(), 0);
        if (got > 0) return {IoResult::Outcome::Done, static_cast<std::size_t>(got), 0};
        if (got == 0) return {IoResult::Outcome::Ended, 0, 0};
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return {};
        return {IoResult::Outcome::Failed, 0, errno};
    }
}

IoResult Stream::write(std::span<const iovec> from) {
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
    for (;;) {
        const ssize_t put = ::send(fd(), from.data(), from.size(), MSG_NOSIGNAL);
        if (put >= 0) return {IoResult::Outcome::Done, static_cast<std::size_t>(put), 0};
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return {};
        return {IoResult::Outcome::Failed, 0, errno};
    }
}

}  // namespace pgxc::net
