#include "pooler/pool.h"

#include <algorithm>

namespace pgxc::pooler {

Member* Pool::borrow(Waiter& waiter, TimePoint now) {
    used_ = true;
    if (!paused_ && waiters_.empty() && !idle_.empty()) {
        Member* member = idle_.front();
        lent_.push_back(*member);
        return member;
    }
    waiter.since_ = now;
    waiters_.push_back(waiter);
    return nullptr;
}

std::optional<Pool::Match> Pool::match() {
    if (paused_ || waiters_.empty() || idle_.empty()) return std::nullopt;
    const Match match{waiters_.front(), idle_.front()};
    match.waiter->unlink();
    lent_.push_back(*match.member);
    return match;
}

Member* Pool::surplus(TimePoint since) {
    Member* oldest = idle_.back();
    if (oldest == nullptr || oldest->idle_since() >= since) return nullptr;
    return static_cast<int>(members()) > (used_ ? limits_.min_members : 0) ? oldest : nullptr;
}

int Pool::members_wanted() const {
    if (paused_) return 0;
    const auto members_now = static_cast<int>(members());
    const auto on_the_way = static_cast<int>(connecting_.size() + idle_.size());
    const int for_waiters = static_cast<int>(waiters_.size()) - on_the_way;
    const int for_minimum = used_ ? limits_.min_members - members_now : 0;
    return std::clamp(std::max(for_waiters, for_minimum), 0, std::max(0, limits_.max_members - members_now));
}

}  // namespace pgxc::pooler
