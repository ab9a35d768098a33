#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/clock.h"
#include "net/asker.h"
#include "net/host_names.h"
#include "net/loop.h"
#include "net/resolver.h"

namespace pgxc::net {

/// Looks up the names of clients' addresses off the loop. Who comes from an address may also be who decides
/// how long its name servers take to answer: all who come from it share one look-up, and a host (of IPv6: a
/// network of 64 bits) has one at a time, so that it can't take all the threads.
class ConfirmedNames {
  public:
    using Address = std::vector<std::uint8_t>;
    /// nullopt: it could not be looked up, for want of memory or threads.
    using Answer = std::optional<ConfirmedName>;
    using Callback = std::function<void(const Answer&)>;
    using LookUp = std::function<ConfirmedName(const Address&)>;
    static constexpr int most_threads = 8;
    /// Also of one that says that there is no name.
    static constexpr Millis answer_is_good_for{5000};
    /// Answers that are kept; beyond it the oldest is forgotten.
    static constexpr std::size_t max_known = 1024;

    explicit ConfirmedNames(Loop& loop, LookUp look_up = look_up_confirmed_name);
    ~ConfirmedNames();
    ConfirmedNames(const ConfirmedNames&) = delete;
    ConfirmedNames& operator=(const ConfirmedNames&) = delete;

    /// Calls back from the loop; not after the handle is gone. What nobody waits for any more is not begun.
    [[nodiscard]] Handle ask(const Address& address, Callback callback);

  private:
    /// What waits for its turn, is being looked up, or has been a moment ago.
    struct Name {
        std::vector<std::shared_ptr<Asker<Answer>>> askers;
        Handle look_up;
        Answer answer;
        TimePoint answered_at;
    };

    void forget_old(TimePoint now);
    void begin_some();
    void looked_up(const Address& address, const Answer& answer);

    Loop& loop_;
    LookUp look_up_;
    Resolver threads_;
    std::map<Address, Name> names_;
    std::list<Address> waiting_;   // not begun, in the order in which they were asked for
    std::set<Address> busy_;       // the hosts that have a look-up now
    std::list<Address> answered_;  // oldest first
};

}  // namespace pgxc::net
