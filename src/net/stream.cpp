#include "net/stream.h"

#include <sys/socket.h>

#include <asio/io_context.hpp>
#include <asio/posix/basic_stream_descriptor.hpp>
#include <cerrno>
#include <utility>

namespace pgxc::net {

// Asio reports a cancelled wait after the fact, so the state outlives the Stream by its pending waits and
// deletes itself with the last one. The executor is io_context's own: the type-erased one costs an allocation
// per wait.
struct Stream::State {
    using Descriptor = asio::posix::basic_stream_descriptor<asio::io_context::executor_type>;

    State(asio::io_context& context, StreamEvents& receiver) : descriptor(context), events(&receiver) {}

    void arm_read() {
        reading = true;
        ++pending;
        descriptor.async_wait(Descriptor::wait_read, [this, round = round](const asio::error_code&) {
            if (done_with_one(round)) return;
            reading = false;
            if (!read_wanted) return;
            events->on_readable();
            done_in_callback();
        });
        // The callback re-arms by want_readable(true) of its owner or, while that stays wanted, by
        // done_in_callback.
    }

    void arm_write() {
        writing = true;
        ++pending;
        descriptor.async_wait(Descriptor::wait_write, [this, round = round](const asio::error_code&) {
            if (done_with_one(round)) return;
            writing = false;
            events->on_writable();
            done_in_callback();
        });
    }

    // Counts a wait as over; true where nobody is to be told. A closed state is kept by `pending` during a
    // callback.
    bool done_with_one(unsigned waited_in) {
        if (closed) {
            if (--pending == 0) delete this;
            return true;
        }
        if (waited_in != round) {
            --pending;
            return true;
        }
        return false;
    }

    void done_in_callback() {
        --pending;
        if (closed) {
            if (pending == 0) delete this;
            return;
        }
        if (read_wanted && !reading) arm_read();
    }

    Descriptor descriptor;
    StreamEvents* events;
    int pending = 0;     // waits that Asio has not reported yet, and the one whose callback runs
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
    if (state->pending == 0) delete state;
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
