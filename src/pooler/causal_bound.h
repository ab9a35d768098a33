#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "catalog/cluster_view.h"
#include "pooler/router.h"

namespace pgxc::pooler {

/// What all pooler workers know together of the commits at one group's master. Zero is "nothing is known
/// yet". Lies in shared memory: plain lock-free atomics, sequentially consistent; `writing` is held for a few
/// stores only, by who changes line and progress.
struct CausalRecord {
    std::atomic<std::uint64_t> begun;        // commits that were ever forwarded: the newest ticket
    std::atomic<std::uint64_t> acked;        // commits that were answered, or whose answer nobody will hear
    std::atomic<std::uint64_t> acked_async;  // the newest of these that may not have waited for its WAL
    std::atomic<std::uint64_t> resolved;     // so many of `acked` are covered by `position` and `xmax`
    std::atomic<std::uint64_t> line;         // whose these two are: a registration and an epoch
    std::atomic<std::uint64_t> position;     // Progress
    std::atomic<std::uint64_t> xmax;
    std::atomic<std::uint64_t> registered_in;   // generation of the view that brought `line` its registration
    std::atomic<std::int64_t> wanted_until_ms;  // on the steady clock, which all processes of a host share
    std::atomic<std::uint32_t> writing;
    std::atomic<std::uint64_t> oldest_running[limits::max_pooler_workers];  // ticket; 0 = none runs

    [[nodiscard]] Progress progress() const { return {Lsn{position.load()}, xmax.load()}; }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
              std::atomic<std::int64_t>::is_always_lock_free);

/// What of a group's master a read must see. One worker's end of a CausalRecord.
///
/// A commit gets a ticket before it is forwarded, and is counted as answered before its client hears of it.
/// The master's progress is asked for after that; the answer covers every commit that had been answered when
/// the question was sent. So as long as something answered isn't covered, the bound is unknown. A commit that
/// still runs may be seen at the master already: whoever has looked there since it began must not look
/// elsewhere until it is covered (`seen`).
class CausalPosition {
  public:
    using Ticket = std::uint64_t;

    /// Goes over to a record that other workers share; what a former process of that number left is taken
    /// back.
    void attach(CausalRecord& record, int worker, int workers);

    /// What a view of that generation says of the group: where it was dropped and registered anew, nothing is
    /// known of the new one, whose epochs and positions may look like the old one's. 0: the view can't tell
    /// which it is.
    void registered(Registration registration, Generation view);

    /// There are others, of whose commits nothing is known here: no bound is ever known.
    void know_nothing() { workers_ = 0; }

    /// Something is about to be sent to the master that may commit.
    [[nodiscard]] Ticket commit_begins();
    /// It was answered (before the client is told), or nobody will hear its answer. `maybe_async`: it may not
    /// have waited until its WAL was flushed (synchronous_commit = off).
    void commit_ends(Ticket ticket, bool maybe_async);

    /// What a look at the master that ends now may have seen.
    [[nodiscard]] Ticket newest() const { return record_->begun.load(); }
    /// What a read that begins now must see. `seen`: newest() as of the end of the reader's last look at the
    /// master.
    [[nodiscard]] CausalBound bound(Epoch epoch, Ticket seen) const;

    /// Reads would like to know the position: for a second from now on it is asked for after each commit.
    void want(TimePoint now);
    [[nodiscard]] bool wanted(TimePoint now) const;
    [[nodiscard]] bool unresolved(Epoch epoch) const;

    struct Question {
        std::uint64_t acked = 0;
        Registration registration;
        Epoch epoch;
    };
    /// Call it before the question is sent to the master of that epoch.
    [[nodiscard]] Question ask(Epoch epoch) const { return {record_->acked.load(), registration_, epoch}; }
    struct Answer {
        Lsn flushed;
        Lsn inserted;
        std::uint64_t xmax = 0;
    };
    void answered(const Question& question, const Answer& answer);
    /// The newest that is known, whether or not it covers everything.
    [[nodiscard]] Progress progress() const { return record_->progress(); }

  private:
    CausalRecord own_{};
    CausalRecord* record_ = &own_;
    int worker_ = 0;
    int workers_ = 1;
    Registration registration_;    // by this worker's view
    std::vector<Ticket> running_;  // this worker's
};

/// The bound as somebody sees it who has no part in it.
[[nodiscard]] CausalBound look_at(const CausalRecord& record, Registration registration, Epoch epoch);

/// How far a slave is, as one worker was told by that slave itself over a connection that it still has.
class ReplayProgress {
  public:
    [[nodiscard]] const Progress& progress() const { return progress_; }
    /// A connection to the slave was made or lost, or it belongs to another epoch: it may be another server,
    /// or the same one behind where it was.
    void forget() {
        progress_ = {};
        ++version_;
    }
    [[nodiscard]] std::uint64_t ask(TimePoint now) {
        asking_ = true;
        asked_at_ = now;
        return version_;
    }
    void answered(std::uint64_t version, const Progress& progress);
    void not_answered() { asking_ = false; }
    [[nodiscard]] bool asking() const { return asking_; }
    /// The longer it is behind what was wanted, the less often it is asked.
    [[nodiscard]] Millis pause() const { return pause_; }
    [[nodiscard]] bool due(TimePoint now) const { return !asking_ && now >= asked_at_ + pause_; }

    /// What reads wait for.
    Progress wanted;
    [[nodiscard]] bool behind() const { return !progress_.covers(wanted); }
    /// Transactions under way at the slave, as this worker counts them.
    std::uint32_t outstanding = 0;

  private:
    Progress progress_;
    std::uint64_t version_ = 0;
    bool asking_ = false;
    TimePoint asked_at_;
    Millis pause_{0};
};

/// Counts one transaction at a node as long as it lives.
class Outstanding {
  public:
    Outstanding() = default;
    explicit Outstanding(std::uint32_t& counter) : counter_(&counter) { ++*counter_; }
    Outstanding(const Outstanding&) = delete;
    Outstanding& operator=(const Outstanding&) = delete;
    Outstanding(Outstanding&& other) noexcept : counter_(other.counter_) { other.counter_ = nullptr; }
    Outstanding& operator=(Outstanding&& other) noexcept {
        if (this != &other) {
            end();
            counter_ = other.counter_;
            other.counter_ = nullptr;
        }
        return *this;
    }
    ~Outstanding() { end(); }
    void end() {
        if (counter_ != nullptr) --*counter_;
        counter_ = nullptr;
    }

  private:
    std::uint32_t* counter_ = nullptr;
};

}  // namespace pgxc::pooler
