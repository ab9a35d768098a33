#include "pooler/connection.h"

#include <array>

namespace pgxc::pooler {
namespace {

/// An idle connection keeps no more buffer than this.
constexpr std::size_t kept_capacity = 16 * 1024;

}  // namespace

bool Connection::flush(wire::Bytes tail) {
    if (!open()) return false;
    const std::size_t queued = out_.size() - sent_;
    if (queued + tail.size() + stream_.unsent() == 0) {
        blocked_ = false;
        return true;
    }
    net::IoResult result;
    if (queued == 0) {
        result = stream_.write(tail);
    } else if (tail.empty()) {
        result = stream_.write(wire::Bytes{out_}.substr(sent_));
    } else {
        const std::array<iovec, 2> parts{iovec{out_.data() + sent_, queued},
                                         iovec{const_cast<char*>(tail.data()), tail.size()}};
        result = stream_.write(parts);
    }
    if (result.outcome == net::IoResult::Outcome::Failed || result.outcome == net::IoResult::Outcome::Ended) {
        error_ = result.error;
        return false;
    }
    bytes_sent_ += result.bytes;
    keep(tail, result.bytes);
    blocked_ = backlog() > 0;
    if (blocked_) stream_.want_writable();
    return true;
}

void Connection::keep(wire::Bytes tail, std::size_t written) {
    const std::size_t queued = out_.size() - sent_;
    if (written < queued) {
        sent_ += written;
        out_.append(tail);
        return;
    }
    tail.remove_prefix(written - queued);
    sent_ = 0;
    out_.clear();
    if (!tail.empty()) out_.append(tail);
    if (out_.empty() && out_.capacity() > kept_capacity) wire::Buffer{}.swap(out_);
}

}  // namespace pgxc::pooler
