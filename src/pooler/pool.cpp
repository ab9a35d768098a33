#include "pooler/pool.h"

#include <algorithm>
#include <utility>

namespace pgxc::pooler {

namespace {

/// How many idle connections are looked at for one that is nobody's last.
constexpr int max_looked_at = 8;
/// And for the oldest one.
constexpr int max_compared = 128;

}  // namespace

void Waiter::forget_member() {
    if (last_member_ != nullptr) last_member_->last_user_ = nullptr;
    last_member_ = nullptr;
}

Member* Pool::oldest_idle() {
    Member* oldest = idle_.front();
    Member* member = oldest;
    for (int looked_at = 0; member != nullptr && looked_at < max_compared; ++looked_at) {
        if (member->number_ < oldest->number_) oldest = member;
        member = idle_.after(*member);
    }
    return oldest;
}

Member* Pool::choose(const Waiter& waiter) {
    if (!waiters_.empty() && concurrency_.limit() != ConcurrencyLimit::none) return oldest_idle();
    if (Member* last = waiter.last_member(); last != nullptr && last->list() == &idle_) return last;
    Member* member = idle_.front();
    for (int looked_at = 0; member != nullptr && looked_at < max_looked_at; ++looked_at) {
        if (member->last_user() == nullptr) return member;
        member = idle_.after(*member);
    }
    return idle_.back();
}

void Pool::lend(Member& member, Waiter& waiter) {
    member.lent_at_tick_ = member.long_lent_ = false;
    waiter.again_ = member.last_user_ == &waiter;
    if (!waiter.again_) {
        waiter.forget_member();
        if (member.last_user_ != nullptr) member.last_user_->last_member_ = nullptr;
        member.last_user_ = &waiter;
        waiter.last_member_ = &member;
    }
    lent_.push_back(member);
}

Member* Pool::borrow(Waiter& waiter, TimePoint now) {
    waiter.since_ = now;
    if (limits_.adaptive) concurrency_.passed(running(), waiters_.size(), now);
    if (waiters_.empty()) return borrow_again(waiter);
    used_ = true;
    waiters_.push_back(waiter);
    return nullptr;
}

Member* Pool::borrow_again(Waiter& waiter) {
    used_ = true;
    if (paused_ || idle_.empty() || room() <= 0) {
        waiters_.push_front(waiter);
        return nullptr;
    }
    Member* member = choose(waiter);
    lend(*member, waiter);
    return member;
}

std::optional<Pool::Match> Pool::match() {
    if (!may_match()) return std::nullopt;
    Waiter& first = *waiters_.front();
    const Match match{&first, choose(first)};
    first.unlink();
    lend(*match.member, first);
    return match;
}

void Pool::transaction_ended(Member& member, TimePoint now) {
    if (!limits_.adaptive || member.list() != &lent_) return;
    if (std::exchange(member.long_lent_, false)) --long_lent_;
    concurrency_.passed(running(), waiters_.size(), now);
    concurrency_.ended(limits_.max_members, now);
}

void Pool::tick(TimePoint now) {
    if (!limits_.adaptive) return;
    concurrency_.tick(now);
    // Who thinks, waits for a lock or runs for long isn't what others have to wait for.
    long_lent_ = 0;
    for (Member* member = lent_.front(); member != nullptr; member = lent_.after(*member)) {
        member->long_lent_ = std::exchange(member->lent_at_tick_, true);
        if (member->long_lent_) ++long_lent_;
    }
}

bool Pool::outlived(const Member& member, TimePoint now) const {
    if (static_cast<int>(members()) > limits_.max_members) return true;
    const auto least = limits_.max_age - limits_.max_age * member.early_ / 1000;
    return limits_.max_age > Clock::duration{0} && now - member.connected_at() >= least;
}

Member* Pool::surplus(TimePoint now) {
    for (Member* member = idle_.front(); member != nullptr; member = idle_.after(*member)) {
        if (outlived(*member, now)) return member;
    }
    Member* longest = idle_.back();
    if (longest == nullptr || limits_.max_idle == Clock::duration{0}) return nullptr;
    const int kept = used_ ? limits_.min_members : 0;
    const bool due = now - longest->idle_since() >= limits_.max_idle;
    return due && static_cast<int>(members()) > kept ? longest : nullptr;
}

int Pool::members_wanted() const {
    if (paused_) return 0;
    const auto members_now = static_cast<int>(members());
    const auto on_the_way = static_cast<int>(connecting_.size() + idle_.size());
    const int for_waiters = std::min(static_cast<int>(waiters_.size()), room()) - on_the_way;
    const int for_minimum = used_ ? limits_.min_members - members_now : 0;
    return std::clamp(std::max(for_waiters, for_minimum), 0, std::max(0, limits_.max_members - members_now));
}

}  // namespace pgxc::pooler
