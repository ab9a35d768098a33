#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "pooler/concurrency_limit.h"
#include "pooler/list.h"

/// The arithmetic of one pool, without sockets: who gets which server connection, and how many there should
/// be.
namespace pgxc::pooler {

/// Somebody who wants a server connection. Base of a client's session.
class Member;

class Waiter : public ListNode<Waiter> {
  public:
    Waiter() = default;
    ~Waiter() { forget_member(); }
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    /// The connection that it had last, if nobody has had it since.
    [[nodiscard]] Member* last_member() const { return last_member_; }
    void forget_member();
    /// Nobody else has had the connection that it got last since it had that before.
    [[nodiscard]] bool same_member_again() const { return again_; }
    [[nodiscard]] bool waiting() const { return list() != nullptr; }
    [[nodiscard]] TimePoint waiting_since() const { return since_; }

  private:
    friend class Pool;
    friend class Member;
    TimePoint since_;
    Member* last_member_ = nullptr;
    bool again_ = false;
};

/// A server connection. Base of Backend.
class Member : public ListNode<Member> {
  public:
    Member() = default;
    ~Member() {
        if (last_user_ != nullptr) last_user_->last_member_ = nullptr;
    }
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;
    [[nodiscard]] TimePoint idle_since() const { return idle_since_; }
    [[nodiscard]] TimePoint connected_at() const { return connected_at_; }
    [[nodiscard]] Waiter* last_user() const { return last_user_; }

  private:
    friend class Pool;
    friend class Waiter;
    TimePoint idle_since_;
    TimePoint connected_at_;
    std::uint64_t number_ = 0;  // those of a pool in the order in which they were opened
    bool lent_at_tick_ = false;
    bool long_lent_ = false;  // at the tick before, too
    unsigned early_ = 0;      // thousandths of its lifetime that it ends before the others
    Waiter* last_user_ = nullptr;
};

class Pool {
  public:
    struct Limits {
        int max_members = 1;
        int min_members = 0;  // kept from the first use on
        // Zero: for ever.
        Clock::duration max_idle{0};
        Clock::duration max_age{0};
        /// Lends fewer than there may be where that serves everybody sooner.
        bool adaptive = false;
    };

    void set_limits(Limits limits) {
        limits_ = limits;
        if (!limits.adaptive) concurrency_.forget();
    }

    /// Asks for a connection, at once if one is idle, may be lent, and nobody waits longer: the one that it
    /// had last if nobody had it since (its settings and statements are there, and what nobody can see), else
    /// the most recently used one that is nobody's last, else the least recently used. Where some wait
    /// because of a concurrency limit: the oldest. Otherwise nullptr, and the waiter stands last in the
    /// queue.
    [[nodiscard]] Member* borrow(Waiter& waiter, TimePoint now);
    /// The same for one who has borrowed a connection that was of no use: it was its turn, and it has waited
    /// since it asked first.
    [[nodiscard]] Member* borrow_again(Waiter& waiter);
    void stop_waiting(Waiter& waiter) { waiter.unlink(); }

    /// While paused nothing is lent, and no connection is wanted.
    void pause() {
        paused_ = true;
        concurrency_.rest();
    }
    void resume() { paused_ = false; }
    [[nodiscard]] bool paused() const { return paused_; }

    struct Match {
        Waiter* waiter = nullptr;
        Member* member = nullptr;
    };
    /// The longest waiting one and an idle connection that may be lent, if there are both; it is lent then.
    /// Call until nullopt after became_idle(), resume() and tick(), and when one that was lent is gone.
    [[nodiscard]] std::optional<Match> match();
    [[nodiscard]] bool may_match() const {
        return !paused_ && !waiters_.empty() && !idle_.empty() && room() > 0;
    }

    void add_connecting(Member& member) { connecting_.push_back(member); }
    /// Its login is over: its lifetime begins.
    void connected(Member& member, TimePoint now) {
        member.connected_at_ = now;
        member.number_ = ++opened_;
        // Those that were opened together mustn't end together.
        member.early_ = next_early_;
        next_early_ = (next_early_ + 37) % 100;
    }
    void became_idle(Member& member, TimePoint now) {
        member.idle_since_ = now;
        idle_.push_front(member);
    }
    /// Who had it has done with it; before it is anything else; once. Nothing if it isn't lent any more.
    void transaction_ended(Member& member, TimePoint now);
    /// Some have waited too long: all are lent until many run again.
    void lift_concurrency_limit() { concurrency_.rest(); }
    /// To be called a few times a second.
    void tick(TimePoint now);
    /// No more than so many transactions are to run at once, beside those that run for long.
    [[nodiscard]] int concurrency_limit() const { return concurrency_.limit(); }
    /// It ends: it counts as a connection until it is gone, and is lent no more.
    void retire(Member& member) { retiring_.push_back(member); }

    /// Nobody needs the minimum until the next borrow().
    void rest() { used_ = false; }
    /// Not to be lent any more once it is free: it has lived its time (up to a tenth less), or there are more
    /// than may be.
    [[nodiscard]] bool outlived(const Member& member, TimePoint now) const;
    /// An idle connection to close now: one that is outlived(), or one that has been idle for too long and
    /// that the minimum allows to go. Call until nullptr.
    [[nodiscard]] Member* surplus(TimePoint now);

    /// How many connections to begin now.
    [[nodiscard]] int members_wanted() const;

    [[nodiscard]] const List<Waiter>& waiters() const { return waiters_; }
    [[nodiscard]] List<Waiter>& waiters() { return waiters_; }
    [[nodiscard]] List<Member>& idle() { return idle_; }
    [[nodiscard]] const List<Member>& idle() const { return idle_; }
    [[nodiscard]] List<Member>& lent() { return lent_; }
    [[nodiscard]] const List<Member>& lent() const { return lent_; }
    [[nodiscard]] List<Member>& connecting() { return connecting_; }
    [[nodiscard]] const List<Member>& connecting() const { return connecting_; }
    [[nodiscard]] List<Member>& retiring() { return retiring_; }
    [[nodiscard]] std::size_t members() const {
        return idle_.size() + lent_.size() + connecting_.size() + retiring_.size();
    }
    /// Connections that answered once and may again.
    [[nodiscard]] std::size_t usable_members() const { return idle_.size() + lent_.size(); }

  private:
    [[nodiscard]] Member* choose(const Waiter& waiter);
    /// Always the same few server processes: their page tables and caches are filled already.
    [[nodiscard]] Member* oldest_idle();
    /// Without those that have been lent for long.
    [[nodiscard]] std::size_t running() const { return lent_.size() - std::min(long_lent_, lent_.size()); }
    /// How many more may be lent.
    [[nodiscard]] int room() const { return concurrency_.limit() - static_cast<int>(running()); }
    void lend(Member& member, Waiter& waiter);

    Limits limits_;
    ConcurrencyLimit concurrency_;
    std::size_t long_lent_ = 0;  // when tick() counted them
    bool paused_ = false;
    bool used_ = false;
    std::uint64_t opened_ = 0;
    unsigned next_early_ = 0;
    List<Waiter> waiters_;  // longest waiting first
    List<Member> idle_;     // most recently used first
    List<Member> lent_;
    List<Member> connecting_;
    List<Member> retiring_;
};

}  // namespace pgxc::pooler
