#include "replication/node_group.h"

#include <algorithm>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <set>
#include <utility>

#include "base/log.h"
#include "net/spawn.h"

namespace pgxc {
namespace {

/// A group that nothing happens to looks around this often: lag and settings change without an event.
constexpr Millis idle_interval{200};
/// While a judgement waits for slaves that were asked, it is repeated at least this often.
constexpr Millis ask_interval{5};
/// How long a statement that asked for synchronous replication is kept waiting for it.
constexpr Millis settle_limit{12'000};

}  // namespace

NodeGroup::NodeGroup(asio::any_io_executor executor, NodeKey key, std::string claim_token,
                     MonitorEnvironment& environment, Surroundings& surroundings)
    : executor_(std::move(executor)),
      key_(key),
      claim_token_(std::move(claim_token)),
      environment_(environment),
      surroundings_(surroundings),
      timer_(executor_) {}

NodeGroup::~NodeGroup() = default;

void NodeGroup::start() {
    net::spawn(executor_, [self = shared_from_this()] { return self->run(); });
}

void NodeGroup::stop() {
    stopped_ = true;
    end_rejoins();
    wake();
}

void NodeGroup::wake() {
    woken_ = true;
    timer_.cancel();
}

void NodeGroup::submit(MonitorTask task) {
    if (task.kind == MonitorTask::Kind::Settle) settle_since_[task.ticket] = Clock::now();
    tasks_.push_back(std::move(task));
    wake();
}

asio::awaitable<void> NodeGroup::wait_for_event(Millis limit) {
    if (!std::exchange(woken_, false)) {
        timer_.expires_after(limit);
        std::error_code cancelled;
        co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
        woken_ = false;
    }
}

asio::awaitable<void> NodeGroup::run() {
    while (!stopped_) {
        std::string trouble;
        try {
            co_await step();
        } catch (const std::exception& problem) {
            trouble = problem.what();
        }
        // What is thrown while it is told ends nothing either: a group that nobody looks after is never
        // failed over.
        try {
            if (!trouble.empty()) {
                log_warning(key_.to_string() + ": " + trouble);
                hold(trouble);
            }
            keep_evidence();
        } catch (const std::exception& problem) {
            log_warning(key_.to_string() + ": what it does can't be told: " + problem.what());
        }
        if (stopped_) break;
        co_await wait_for_event(std::exchange(look_after_, idle_interval));
    }
    sessions_.clear();
    for (const MonitorTask& task : tasks_)
        environment_.finish_task(
            task.ticket, Error{sqlstate::undefined_object, key_.to_string() + " is not registered any more"},
            {});
}

bool NodeGroup::too_soon() {
    const auto now = Clock::now();
    if (!retry_at_ || now >= *retry_at_) return false;
    look_after_ = std::chrono::ceil<Millis>(*retry_at_ - now);
    return true;
}

void NodeGroup::retry_later() {
    retry_at_ = Clock::now() + retry_interval;
    look_after_ = retry_interval;
}

void NodeGroup::hold(std::string why) {
    const bool changed = gate_ != Gate::Held;
    gate_ = Gate::Held;
    if (changed) {
        log_info(key_.to_string() + ": new transactions are held: " + why);
        surroundings_.view_changed();
    }
    set_why(std::move(why));
}

void NodeGroup::set_why(std::string why) {
    if (why == why_) return;
    const bool told = same_but_for_figures(why, why_);
    why_ = std::move(why);
    if (!why_.empty() && !told) log_info(key_.to_string() + ": " + why_);
    surroundings_.view_changed();
}

std::optional<MonitorTask> NodeGroup::take_promotion() {
    for (auto task = tasks_.begin(); task != tasks_.end();) {
        const bool promote = task->kind == MonitorTask::Kind::Promote;
        if (environment_.task_abandoned(task->ticket)) {
            settle_since_.erase(task->ticket);
            environment_.finish_task(task->ticket, {}, {});
            task = tasks_.erase(task);
        } else if (promote) {
            MonitorTask taken = *task;
            tasks_.erase(task);
            return taken;
        } else {
            ++task;
        }
    }
    return std::nullopt;
}

void NodeGroup::refuse_promotions(const std::string& why) {
    while (const auto task = take_promotion())
        environment_.finish_task(
            task->ticket,
            Error{sqlstate::object_not_in_prerequisite_state,
                  task->node.to_string() + " can't be promoted now: " + why, "See pgxc_node_status."},
            {});
}

asio::awaitable<void> NodeGroup::carry_out(MonitorTask task) {
    Status done;
    std::string trouble;
    try {
        done = co_await promote_by_hand(task);
    } catch (const std::exception& problem) {
        trouble = problem.what();
    }
    // Somebody waits for the answer, whatever went wrong.
    if (!trouble.empty())
        done = Error{sqlstate::internal_error,
                     "the promotion of " + task.node.to_string() + " was broken off: " + trouble,
                     "What was decided is finished by itself: see pgxc_node_status."};
    environment_.finish_task(task.ticket, done, done.ok() ? record_->master.to_string() : std::string{});
    if (!done.ok())
        note(decision_refused,
             "the promotion of " + task.node.to_string() + " by " + task.user + ": " + done.error().message);
    if (!done.ok()) log_warning(key_.to_string() + ": promotion refused or failed: " + done.error().message);
    // Whoever was held for it waits no longer than it takes to prove the master anew.
    wake();
}

asio::awaitable<void> NodeGroup::step() {
    const Node* node = surroundings_.topology().find(key_);
    if (node == nullptr || !node->is_master()) co_return;
    const HostPort catalog_address = node->address;

    if (!record_) {
        if (Status read = co_await read_record(); !read.ok()) {
            hold(read.error().message);
            refuse_promotions(why_);
            answer_tasks(read);
            co_return;
        }
    }
    if (!claimed_) {
        if (Status mine = co_await claim(); !mine.ok()) {
            hold("can't claim the group: " + mine.error().message);
            refuse_promotions(why_);
            answer_tasks(mine);
            co_return;
        }
    }
    co_await finish_restarts();
    if (!claimed_) co_return;
    if (record_->pending) {
        // Only FORCE goes past a decision that stands: the chosen may be lost for good.
        if (auto task = take_promotion()) {
            if (task->force && task->node.id != record_->pending->promoted_id) {
                co_await carry_out(*task);
                co_return;
            }
            environment_.finish_task(
                task->ticket,
                Error{sqlstate::object_not_in_prerequisite_state,
                      "a promotion of " + record_->pending->listens_at.to_string() +
                          " is recorded and being finished",
                      "Wait for it, or, if that server is lost, promote another one with FORCE."},
                {});
        }
        if (too_soon()) co_return;
        if (Status finished = co_await finish_promotion(); !finished.ok()) {
            if (!claimed_ || !record_->pending) {
                // By now it is another decider's record, who may have finished it.
                hold(finished.error().message);
                answer_tasks(finished);
                co_return;
            }
            const std::string why = "the recorded promotion of " + record_->pending->listens_at.to_string() +
                                    " isn't finished: " + finished.error().message;
            // A master that is proven stays open: only the catalog lags behind (rule 14).
            if (gate_ == Gate::Open && promoted_ == record_->epoch)
                set_why(why);
            else
                hold(why);
            answer_tasks(finished);
            if (Status degraded = co_await degrade_promotion(); !degraded.ok())
                set_why(degraded.error().message);
            co_await fail_over_pending();
            retry_later();
        }
        co_return;
    }
    if (catalog_address != record_->master) {
        hold("the catalog has " + catalog_address.to_string() + " as the master, the arbiter's record " +
             record_->master.to_string());
        refuse_promotions(why_);
        answer_tasks(Error{sqlstate::object_not_in_prerequisite_state, why_});
        // Dropped and registered anew, perhaps: then the record is another one, too.
        record_.reset();
        claimed_ = false;
        co_return;
    }
    if (auto task = take_promotion()) {
        co_await carry_out(*task);
        co_return;
    }

    const auto seen = surroundings_.observations(key_);
    // A node that was dropped is not ours to keep locked.
    std::erase_if(sessions_, [&](const auto& held) { return !seen.contains(held.first); });
    const auto now = Clock::now();
    const Judgement judgement = judge_master(*record_, seen, policy(), now, asynchronous_heirs());
    const auto master = seen.find(record_->master);
    note_positions(seen);
    note_judgement(judgement, seen);
    if (judgement.verdict != Verdict::Alive) miss_no_streams();
    switch (judgement.verdict) {
        case Verdict::Dead: {
            if (gate_ == Gate::Open) hold(judgement.reason);
            if (!policy().failover) {
                set_why(judgement.reason + "; pgxc.failover is off");
                answer_tasks(Error{sqlstate::object_not_in_prerequisite_state, why_});
                break;
            }
            if (too_soon()) break;
            const TimePoint since =
                master->second.silent_since.value_or(master->second.going_down_since.value_or(now));
            if (Status done = co_await fail_over(judgement.reason, since); !done.ok()) {
                set_why(judgement.reason + "; no failover: " + done.error().message);
                note(decision_no_failover, judgement.reason + "; " + done.error().message);
                answer_tasks(Error{sqlstate::object_not_in_prerequisite_state, why_});
                retry_later();
            }
            break;
        }
        case Verdict::Wait: {
            const bool slow = master != seen.end() && (master->second.silence == Silence::Timeout ||
                                                       master->second.silence == Silence::Other);
            // One slow answer is no reason to stop traffic that may well run; a closed port or connection is.
            if (slow && gate_ == Gate::Open)
                set_why(judgement.reason);
            else
                hold(judgement.reason);
            for (const HostPort& address : judgement.ask) surroundings_.kick(address);
            answer_tasks(Error{sqlstate::object_not_in_prerequisite_state, why_});
            if (!judgement.ask.empty()) look_after_ = ask_interval;
            break;
        }
        case Verdict::Alive: {
            const Observation& observation = master->second;
            if (observation.refuses_us) {
                hold(observation.error);
                answer_tasks(Error{sqlstate::object_not_in_prerequisite_state, why_});
                break;
            }
            if (const auto wrong = why_not_master(*observation.facts)) {
                hold(*wrong);
                answer_tasks(Error{sqlstate::object_not_in_prerequisite_state, why_});
                break;
            }
            if (gate_ == Gate::Open && proven_start_ != observation.facts->started_at)
                hold("the master has been restarted; it is proven anew");
            if (gate_ == Gate::Open && record_->configurations.size() == 1 &&
                observation.facts->standby_names != names_in_force(record_->wanted()))
                hold("the master's synchronous_standby_names was changed by somebody else: '" +
                     observation.facts->standby_names + "'");
            note_missing_streams(seen);
            Status settled = co_await keep_synchronous();
            if (settled.ok() && gate_ == Gate::Held) settled = co_await open_gate();
            if (settled.ok()) settled = co_await follow();
            if (settled.ok()) co_await give_back();
            if (settled.ok()) co_await tidy_slots();
            if (settled.ok()) co_await audit(*observation.facts);
            if (settled.ok() && gate_ == Gate::Open) set_why(calm_why());
            co_await take_back();
            answer_tasks(settled);
            break;
        }
    }
}

std::string NodeGroup::calm_why() const {
    for (const std::string* why :
         {&second_streams_why_, &sync_why_, &follow_why_, &settings_why_, &prepared_why_})
        if (!why->empty()) return *why;
    return {};
}

std::vector<HostPort> NodeGroup::asynchronous_heirs() {
    std::vector<HostPort> heirs;
    if (!asynchronous_failover_allowed(*record_, policy()).ok()) return heirs;
    for (const Node& slave : asynchronous_candidates(*record_, surroundings_.topology(), key_))
        heirs.push_back(slave.address);
    return heirs;
}

std::optional<std::string> NodeGroup::why_not_master(const ServerFacts& facts) const {
    const std::string at = record_->master.to_string();
    if (facts.in_recovery) return "the recorded master at " + at + " is in recovery";
    if (record_->system_identifier != 0 && facts.system_identifier != record_->system_identifier)
        return "the server at " + at + " belongs to another cluster";
    if (record_->timeline != 0 && facts.timeline.value() < record_->timeline)
        return "the server at " + at + " writes timeline " + std::to_string(facts.timeline.value()) +
               ": it is a former master, the recorded one writes " + std::to_string(record_->timeline);
    if (record_->timeline != 0 && facts.timeline.value() > record_->timeline)
        return "the server at " + at + " writes timeline " + std::to_string(facts.timeline.value()) +
               ": it was promoted without the arbiter's record";
    return std::nullopt;
}

// --- The record
// ---------------------------------------------------------------------------------------------------

asio::awaitable<Status> NodeGroup::read_record() {
    auto record = co_await environment_.arbiter().read(key_);
    if (!record.ok()) co_return record.error();
    record_ = std::move(*record);
    claimed_ = record_->claim_owner == claim_token_;
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::claim() {
    if (Status read = co_await read_record(); !read.ok()) co_return read;
    if (claimed_) co_return Status{};
    Record next = *record_;
    ++next.generation;
    ++next.claim;
    next.claim_owner = claim_token_;
    if (Status mine = co_await replace_record(std::move(next)); !mine.ok()) co_return mine;
    claimed_ = true;
    environment_.crash_point("claimed");
    if (gate_ == Gate::Open) hold("the group was claimed by another meanwhile; its master is proven anew");
    // Sessions from before the claim were taken for another ballot.
    sessions_.clear();
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::still_claimed() {
    if (Status read = co_await read_record(); !read.ok()) co_return read;
    co_return claim_as_read();
}

Status NodeGroup::claim_as_read() const {
    if (claimed_) return {};
    return Error{sqlstate::object_not_in_prerequisite_state,
                 key_.to_string() + ": another coordinator has claimed the group"};
}

asio::awaitable<Status> NodeGroup::replace_record(Record next) {
    // A look at the claim reads the record anew: what was begun under the old one may be holding another
    // decider's record by now, whose generation would fit (rule 1).
    if (next.claim_owner != claim_token_) {
        claimed_ = false;
        co_return claim_as_read();
    }
    auto replaced = co_await environment_.arbiter().compare_and_set(key_, next);
    if (!replaced.ok()) co_return replaced.error();
    if (!*replaced) {
        claimed_ = false;
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        key_.to_string() + ": the arbiter's record was changed by another coordinator"};
    }
    record_ = std::move(next);
    surroundings_.view_changed();
    co_return Status{};
}

asio::awaitable<Result<LockSession*>> NodeGroup::session(HostPort address) {
    const auto held = sessions_.find(address);
    if (held != sessions_.end()) {
        if (!co_await held->second->lost()) co_return held->second.get();
        sessions_.erase(address);
    }
    ConnectTarget target{address, environment_.settings().login, "pgxc_ha control"};
    std::function<asio::awaitable<Status>()> claim_is_newest = [this] { return still_claimed(); };
    auto opened = co_await LockSession::open(target, policy().probe_timeout, std::move(claim_is_newest));
    if (!opened.ok()) co_return opened.error();
    auto* session = opened->get();
    sessions_[address] = std::move(*opened);
    co_return session;
}

// --- Tasks
// --------------------------------------------------------------------------------------------------------

std::optional<std::string> NodeGroup::settle_blocker() const {
    if (gate_ != Gate::Open) return why_.empty() ? "the master is not proven yet" : why_;
    if (record_->configurations.size() != 1) return "a change of the synchronous slaves is under way";
    std::set<HostPort> registered;
    for (const Node* slave : surroundings_.topology().slaves_of(key_))
        if (slave->replication == Replication::Synchronous) registered.insert(slave->address);
    std::set<HostPort> counting;
    for (const Member& member : record_->wanted().slaves) counting.insert(member.address);
    if (registered != counting)
        return sync_why_.empty() ? "a change of the synchronous slaves is due" : sync_why_;
    return std::nullopt;
}

void NodeGroup::answer_tasks(const Status& settled) {
    const auto now = Clock::now();
    const auto blocker = record_ ? settle_blocker() : std::optional<std::string>("the record can't be read");
    for (auto task = tasks_.begin(); task != tasks_.end();) {
        const bool settle = task->kind == MonitorTask::Kind::Settle;
        const bool timed_out = settle && now - settle_since_[task->ticket] >= settle_limit;
        if (settle && (!blocker || timed_out)) {
            Status answer;
            if (blocker)
                answer = Error{
                    sqlstate::object_not_in_prerequisite_state,
                    "synchronous replication of " + key_.to_string() + " is not in force yet: " + *blocker,
                    "See pgxc_node_status; it comes into force by itself as soon as it can.",
                    settled.ok() ? "" : settled.error().message};
            environment_.finish_task(task->ticket, answer, {});
            settle_since_.erase(task->ticket);
            task = tasks_.erase(task);
        } else {
            ++task;
        }
    }
}

}  // namespace pgxc
