#include "pooler/login_throttle.h"

#include <algorithm>

namespace pgxc::pooler {

Millis LoginThrottle::failed(const std::string& address, const std::string& user, TimePoint now) {
    forget_old(now);
    const unsigned failures = std::max(count("address " + address, now), count("user " + user, now));
    Millis delay = first_delay;
    for (unsigned i = 1; i < failures && delay < longest_delay; ++i) delay *= 2;
    return std::min(delay, longest_delay);
}

unsigned LoginThrottle::count(const std::string& key, TimePoint now) {
    if (const auto found = by_key_.find(key); found != by_key_.end()) {
        entries_.splice(entries_.end(), entries_, found->second);
    } else {
        entries_.push_back({key, 0, now});
        by_key_.emplace(entries_.back().key, std::prev(entries_.end()));
    }
    Entry& entry = entries_.back();
    entry.last = now;
    return ++entry.failures;
}

void LoginThrottle::forget_old(TimePoint now) {
    // Two are about to come.
    while (!entries_.empty() && (now - entries_.front().last > memory || entries_.size() + 2 > max_known)) {
        by_key_.erase(entries_.front().key);
        entries_.pop_front();
    }
}

void LoginThrottle::waits_no_more(const std::string& address) {
    const auto found = waiting_.find(address);
    if (found != waiting_.end() && --found->second == 0) waiting_.erase(found);
}

bool LoginThrottle::crowded(const std::string& address) const {
    const auto found = waiting_.find(address);
    return found != waiting_.end() && found->second >= max_waiting;
}

}  // namespace pgxc::pooler
