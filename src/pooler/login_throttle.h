#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"

namespace pgxc::pooler {

/// How long an answer to a wrong password is held back, so that guessing takes its time: 100 ms for the first
/// one of an address or for a user, twice as long for each further one, 3 s at most. Right ones are never
/// held back: nobody is locked out by guesses from elsewhere, but who shares an address with a guesser
/// (behind a NAT) is while it is crowded. What is known of an address or user is forgotten after two minutes
/// without another failure, and the oldest of too many at once. Pure: time is passed in. An address is a
/// ClientAddress::throttle_key().
class LoginThrottle {
  public:
    static constexpr Millis first_delay{100};
    static constexpr Millis longest_delay{3000};
    static constexpr std::chrono::seconds memory{120};
    static constexpr std::size_t max_known = 4096;  // addresses and users together
    /// Answers held back for one address at a time; while there are so many, it gets no further connection.
    static constexpr std::size_t max_waiting = 64;

    /// A login failed: how long its answer is to be held back.
    [[nodiscard]] Millis failed(const std::string& address, const std::string& user, TimePoint now);
    /// An answer begins to wait, and has been given (or its client has gone).
    void waits(const std::string& address) { ++waiting_[address]; }
    void waits_no_more(const std::string& address);
    [[nodiscard]] bool crowded(const std::string& address) const;
    [[nodiscard]] std::size_t known() const { return entries_.size(); }

  private:
    struct Entry {
        std::string key;
        unsigned failures = 0;
        TimePoint last;
    };
    unsigned count(const std::string& key, TimePoint now);
    void forget_old(TimePoint now);

    std::list<Entry> entries_;  // the last failure's at the back
    std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_;  // keys of entries_
    std::unordered_map<std::string, std::size_t> waiting_;                     // by address
};

}  // namespace pgxc::pooler
