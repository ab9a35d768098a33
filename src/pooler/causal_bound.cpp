#include "pooler/causal_bound.h"

#include <sched.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace pgxc::pooler {
namespace {

constexpr Millis wanted_for{1'000};
constexpr Millis shortest_pause{1};
constexpr Millis longest_pause{100};

std::int64_t to_ms(TimePoint time) {
    return std::chrono::duration_cast<Millis>(time.time_since_epoch()).count();
}

void raise(std::atomic<std::uint64_t>& value, std::uint64_t to) {
    std::uint64_t now = value.load();
    while (now < to && !value.compare_exchange_weak(now, to)) {
    }
}

/// CausalRecord::line: the registration in the upper half; the epoch plus 1 in the lower one, or 0 where no
/// master was asked since then.
std::uint64_t line_of(Registration registration, std::optional<Epoch> epoch) {
    const auto low = static_cast<std::uint32_t>(epoch ? epoch->value() + 1 : 0);
    return static_cast<std::uint64_t>(registration.value()) << 32 | low;
}

Registration registration_of(std::uint64_t line) {
    return Registration{static_cast<std::uint32_t>(line >> 32)};
}

/// For a handful of stores; who holds it doesn't wait for anything.
class Writing {
  public:
    explicit Writing(std::atomic<std::uint32_t>& flag) : flag_(flag) {
        while (flag_.exchange(1) != 0) ::sched_yield();
    }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;
    ~Writing() { flag_.store(0); }

  private:
    std::atomic<std::uint32_t>& flag_;
};

}  // namespace

void CausalPosition::attach(CausalRecord& record, int worker, int workers) {
    record_ = &record;
    worker_ = worker;
    workers_ = std::min(workers, limits::max_pooler_workers);
    // What ran when the former process ended: its clients will never hear of it, but it may have committed.
    // Counted first, as in commit_ends().
    record_->acked.fetch_add(1);
    record_->oldest_running[worker_].store(0);
}

void CausalPosition::registered(Registration registration, Generation view) {
    if (std::exchange(registration_, registration) == registration || registration == Registration{}) return;
    const Writing lock(record_->writing);
    // Another worker may have gone by a newer view, and what it has learned since is not taken back.
    if (view.value() < record_->registered_in.load()) return;
    record_->registered_in.store(view.value());
    if (registration_of(record_->line.load()) != registration)
        record_->line.store(line_of(registration, std::nullopt));
}

CausalPosition::Ticket CausalPosition::commit_begins() {
    const Ticket ticket = record_->begun.fetch_add(1) + 1;
    running_.push_back(ticket);
    if (running_.size() == 1) record_->oldest_running[worker_].store(ticket);
    return ticket;
}

void CausalPosition::commit_ends(Ticket ticket, bool maybe_async) {
    // It is counted before it stops running: to who reads these the other way round, as bound() does, it is
    // at every moment one or the other.
    const std::uint64_t number = record_->acked.fetch_add(1) + 1;
    if (maybe_async) raise(record_->acked_async, number);
    const auto found = std::find(running_.begin(), running_.end(), ticket);
    if (found == running_.end()) return;
    *found = running_.back();
    running_.pop_back();
    if (record_->oldest_running[worker_].load() != ticket) return;
    const auto oldest = std::min_element(running_.begin(), running_.end());
    record_->oldest_running[worker_].store(oldest == running_.end() ? 0 : *oldest);
}

bool CausalPosition::unresolved(Epoch epoch) const {
    return look_at(*record_, registration_, epoch).state != CausalBound::State::Known;
}

CausalBound look_at(const CausalRecord& record, Registration registration, Epoch epoch) {
    constexpr CausalBound unknown{CausalBound::State::Unknown, {}, {}};
    const std::uint64_t acked = record.acked.load();
    const std::uint64_t line = line_of(registration, epoch);
    if (acked > record.resolved.load() || record.line.load() != line) return unknown;
    const CausalBound known{CausalBound::State::Known, record.progress(), epoch};
    // It may have become another one's in between.
    return record.line.load() == line ? known : unknown;
}

CausalBound CausalPosition::bound(Epoch epoch, Ticket seen) const {
    constexpr CausalBound unknown{CausalBound::State::Unknown, {}, {}};
    if (workers_ == 0) return unknown;
    // What runs before what was answered: a commit that ends in between is seen as either.
    for (int worker = 0; worker < workers_; ++worker) {
        const Ticket oldest = record_->oldest_running[worker].load();
        if (oldest != 0 && oldest <= seen) return unknown;
    }
    const CausalBound now = look_at(*record_, registration_, epoch);
    return now.state == CausalBound::State::Known ? now : unknown;
}

void CausalPosition::want(TimePoint now) {
    record_->wanted_until_ms.store(to_ms(now + wanted_for));
}

bool CausalPosition::wanted(TimePoint now) const {
    return to_ms(now) < record_->wanted_until_ms.load();
}

void CausalPosition::answered(const Question& question, const Answer& answer) {
    const bool async = record_->acked_async.load() > record_->resolved.load();
    const std::uint64_t position =
        async ? std::max(answer.flushed, answer.inserted).bytes() : answer.flushed.bytes();
    const std::uint64_t line = line_of(question.registration, question.epoch);
    const Writing lock(record_->writing);
    const std::uint64_t known = record_->line.load();
    // Epochs have an order within a registration only.
    if (registration_of(known) != question.registration || known > line) return;
    // The progress before its line, and both before the count: whoever reads them the other way round never
    // pairs a count with an older progress. No line while the progress changes hands.
    if (known == line) {
        raise(record_->position, position);
        raise(record_->xmax, answer.xmax);
    } else {
        record_->line.store(line_of(question.registration, std::nullopt));
        record_->position.store(position);
        record_->xmax.store(answer.xmax);
        record_->line.store(line);
    }
    raise(record_->resolved, question.acked);
}

void ReplayProgress::answered(std::uint64_t version, const Progress& progress) {
    asking_ = false;
    if (version != version_) return;
    progress_.raise_to(progress);
    pause_ = behind() ? std::clamp(pause_ * 2, shortest_pause, longest_pause) : Millis{0};
}

}  // namespace pgxc::pooler
