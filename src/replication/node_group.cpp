#include "replication/node_group.h"

#include <algorithm>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/ip/address.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <set>
#include <utility>

#include "base/log.h"
#include "replication/conninfo.h"
#include "replication/promotion_rules.h"
#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

/// A group that nothing happens to looks around this often: lag and settings change without an event.
constexpr Millis idle_interval{200};
/// After an effect failed, the next attempt waits this long: the node's own state has to change first.
constexpr Millis retry_interval{500};
/// While a judgement waits for slaves that were asked, it is repeated at least this often.
constexpr Millis ask_interval{5};
/// How long a statement that asked for synchronous replication is kept waiting for it.
constexpr Millis settle_limit{12'000};
/// How often slots that nobody uses any more are looked for: they hold back WAL on the master's disk.
constexpr Millis tidy_interval{10'000};
/// How long a slave that was told to stream is watched before other work goes on.
constexpr Millis stream_patience{3'000};

/// Does a slave stream, or try to, from another server than the one it is registered under? A host may have
/// many names and a slave may know another one than we: only a different port, or two different numeric
/// addresses, are certain.
bool streams_from_elsewhere(const ServerFacts& facts, const HostPort& upstream) {
    if (facts.primary_conninfo.empty()) return false;
    const auto values = conninfo_values(facts.primary_conninfo);
    if (!values.ok()) return false;
    const auto port = values->find("port");
    if (port != values->end() && port->second != std::to_string(upstream.port)) return true;
    const auto host = values->find("host");
    const auto numeric = [](const std::string& name) {
        std::error_code not_numeric;
        (void)asio::ip::make_address(name, not_numeric);
        return !not_numeric;
    };
    return host != values->end() && numeric(host->second) && numeric(upstream.host) &&
           host->second != upstream.host;
}

}  // namespace

NodeGroup::NodeGroup(asio::any_io_executor executor, NodeKey key, std::string claim_token,
                     MonitorEnvironment& environment, Surroundings& surroundings)
    : executor_(executor),
      key_(key),
      claim_token_(std::move(claim_token)),
      environment_(environment),
      surroundings_(surroundings),
      timer_(executor) {}

NodeGroup::~NodeGroup() = default;

void NodeGroup::start() {
    asio::co_spawn(
        executor_, [self = shared_from_this()] { return self->run(); }, asio::detached);
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
        if (!trouble.empty()) {
            log_warning(key_.to_string() + ": " + trouble);
            hold(trouble);
        }
        keep_evidence();
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
    why_ = std::move(why);
    if (!why_.empty()) log_info(key_.to_string() + ": " + why_);
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
    Status done = co_await promote_by_hand(task);
    environment_.finish_task(task.ticket, done, done.ok() ? record_->master.to_string() : std::string{});
    if (!done.ok())
        note(decision_refused,
             "the promotion of " + task.node.to_string() + " by " + task.user + ": " + done.error().message);
    if (!done.ok()) log_warning(key_.to_string() + ": promotion refused or failed: " + done.error().message);
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
            retry_later();
        }
        co_return;
    }
    if (catalog_address != record_->master) {
        hold("the catalog has " + catalog_address.to_string() + " as the master, the arbiter's record " +
             record_->master.to_string());
        refuse_promotions(why_);
        // Dropped and registered anew, perhaps: then the record is another one, too.
        record_.reset();
        claimed_ = false;
        co_return;
    }
    if (auto task = take_promotion()) {
        co_await carry_out(*task);
        co_return;
    }

    const auto seen = surroundings_.observations();
    const auto now = Clock::now();
    const Judgement judgement = judge_master(*record_, seen, policy(), now);
    const auto master = seen.find(record_->master);
    note_judgement(judgement);
    // Streams are missed only while the master itself answers.
    if (judgement.verdict != Verdict::Alive) {
        missing_since_.clear();
        progress_.clear();
    }
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
            if (settled.ok()) co_await tidy_slots();
            if (settled.ok() && gate_ == Gate::Open) set_why(sync_why_.empty() ? follow_why_ : sync_why_);
            co_await take_back();
            answer_tasks(settled);
            break;
        }
    }
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
    // Sessions from before the claim were taken for another ballot.
    sessions_.clear();
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::still_claimed() {
    if (Status read = co_await read_record(); !read.ok()) co_return read;
    if (!claimed_)
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        key_.to_string() + ": another coordinator has claimed the group"};
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::replace_record(Record next) {
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

// --- Calm times
// ---------------------------------------------------------------------------------------------------

void NodeGroup::note_missing_streams(const std::map<HostPort, Observation>& seen) {
    const Observation& master = seen.at(record_->master);
    const auto now = Clock::now();
    // Between two answers nothing can be seen to move.
    const bool new_answer = master.answered_at != streams_read_at_;
    streams_read_at_ = master.answered_at;
    std::map<HostPort, std::string> names;
    for (const Node* slave : surroundings_.topology().slaves_of(key_))
        if (slave->replication == Replication::Synchronous)
            names[slave->address] = standby_name(slave->key, record_->epoch);
    for (const Member& member : record_->wanted().slaves) names[member.address] = member.name;
    for (const auto& [address, name] : names) {
        const StreamSeen* stream = master.facts->find_standby(name);
        const bool streams = stream != nullptr && stream->state == "streaming";
        StreamProgress& progress = progress_[address];
        if (!streams)
            progress = StreamProgress{};
        else if (new_answer && master.answered_at)
            progress.answered(stream->flush, master.facts->flushed, *master.answered_at);
        if (const auto stands = progress.stands_since())
            missing_since_.try_emplace(address, *stands);
        else if (!streams && record_->wanted().find(address) != nullptr)
            missing_since_.try_emplace(address, now);
        else
            missing_since_.erase(address);
    }
    const auto is_none_of_them = [&](const auto& entry) { return !names.contains(entry.first); };
    std::erase_if(missing_since_, is_none_of_them);
    std::erase_if(progress_, is_none_of_them);
}

asio::awaitable<Status> NodeGroup::open_gate() {
    const auto now = Clock::now();
    if (gate_tried_ && now - *gate_tried_ < retry_interval && !missing_since_.empty())
        co_return Error{sqlstate::object_not_in_prerequisite_state, why_};
    gate_tried_ = now;
    auto master = co_await session(record_->master);
    if (!master.ok()) {
        hold(master.error().message);
        co_return master.error();
    }
    const auto seen = surroundings_.observations();
    const auto observation = seen.find(record_->master);
    if (observation == seen.end() || !observation->second.facts) co_return Status{};
    const ServerFacts facts = *observation->second.facts;
    const GateExpectation expected = gate_expectation(record_->wanted());
    if (facts.standby_names != expected.names) {
        Status set =
            co_await set_standby_names(**master, expected.names, nobody_standby_names(record_->cluster_id));
        if (!set.ok()) {
            hold(set.error().message);
            co_return set;
        }
    }
    // Shorter than the detection time: if a slave is what is missing, degrading must not wait behind this.
    auto proven = co_await prove_gate(**master, expected, policy().probe_timeout);
    if (!proven.ok()) {
        hold(proven.error().message);
        co_return proven.error();
    }
    if (record_->system_identifier == 0 || record_->timeline == 0) {
        Record next = *record_;
        ++next.generation;
        next.system_identifier = facts.system_identifier;
        next.timeline = proven->value();
        if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return kept;
    }
    proven_start_ = facts.started_at;
    if (facts.standby_names != expected.names) co_await observe_anew(record_->master);
    co_await note_place();
    gate_ = Gate::Open;
    log_info(key_.to_string() + ": " + record_->master.to_string() + " is proven the master of epoch " +
             std::to_string(record_->epoch.value()) + "; open for transactions");
    set_why({});
    surroundings_.view_changed();
    co_return Status{};
}

GateExpectation NodeGroup::gate_expectation(const Configuration& configuration) const {
    GateExpectation expected;
    expected.slaves = configuration.names();
    expected.names = names_in_force(configuration);
    expected.k = configuration.k;
    expected.system_identifier = record_->system_identifier;
    expected.timeline = record_->timeline;
    return expected;
}

asio::awaitable<void> NodeGroup::tidy_slots() {
    const auto now = Clock::now();
    if (tidied_at_ && now - *tidied_at_ < tidy_interval) co_return;
    tidied_at_ = now;
    auto master = co_await session(record_->master);
    if (!master.ok()) co_return;
    std::vector<std::string> keep = record_->wanted().names();
    for (std::string& name : slots_of_formers()) keep.push_back(std::move(name));
    for (const Node& node : surroundings_.topology().nodes())
        if (!node.is_master()) keep.push_back(standby_name(node.key, record_->epoch));
    if (Status dropped = co_await drop_stale_slots(**master, keep); !dropped.ok())
        log_warning(key_.to_string() + ": stale slots are left: " + dropped.error().message);
}

asio::awaitable<Status> NodeGroup::keep_synchronous() {
    const auto judge = [this] {
        return wanted_sync(*record_, surroundings_.topology(), key_, surroundings_.observations(),
                           missing_since_, policy(), Clock::now());
    };
    const auto in_force = [this](const WantedSync& wanted) {
        return record_->configurations.size() == 1 && record_->wanted() == wanted.configuration;
    };
    WantedSync wanted = judge();
    // What failed a moment ago would fail again, and is still the reason: a node's state has to change first.
    const bool to_do = !in_force(wanted) || !wanted.to_prepare.empty();
    if (to_do && sync_tried_ && Clock::now() - *sync_tried_ < retry_interval) co_return Status{};
    sync_why_ = wanted.why;
    if (!wanted.to_prepare.empty()) {
        // One that can't be prepared holds up neither the others nor what is due because of them: degrading.
        std::string failed;
        for (const Node& slave : wanted.to_prepare) {
            Status prepared = co_await prepare(slave, record_->master);
            if (!prepared.ok())
                failed = slave.key.to_string() + " can't be made synchronous: " + prepared.error().message;
        }
        // What was wanted was judged before that.
        wanted = judge();
        sync_why_ = failed.empty() ? wanted.why : failed;
        if (!failed.empty()) {
            sync_tried_ = Clock::now();
            set_why(sync_why_);
        }
    }
    if (in_force(wanted)) co_return Status{};
    if (Status changed = co_await change_configuration(wanted.configuration); !changed.ok()) {
        sync_tried_ = Clock::now();
        sync_why_ = changed.error().message;
        co_return changed;
    }
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::prepare(Node slave, HostPort upstream) {
    const auto seen = surroundings_.observations();
    const auto observation = seen.find(slave.address);
    if (observation == seen.end() || !observation->second.facts)
        co_return Error{sqlstate::object_not_in_prerequisite_state, "it has not answered yet"};
    const ServerFacts facts = *observation->second.facts;
    auto stored = environment_.stored_conninfo(slave.address);
    if (!stored.ok()) co_return stored.error();
    std::string conninfo = facts.primary_conninfo;
    if (!stored->has_value() && !conninfo.empty()) {
        if (Status kept = environment_.store_conninfo(slave.address, conninfo); !kept.ok()) co_return kept;
    } else if (conninfo.empty()) {
        conninfo = stored->value_or("user=" + environment_.settings().login.user);
    }
    auto on_slave = co_await session(slave.address);
    if (!on_slave.ok()) co_return on_slave.error();
    auto on_master = co_await session(upstream);
    if (!on_master.ok()) co_return on_master.error();
    // Opening the second session may have ended the first one's object.
    on_slave = co_await session(slave.address);
    if (!on_slave.ok()) co_return on_slave.error();
    std::map<std::string, std::string> eased;
    if (upstream == record_->master && record_->line_of(slave.address) < record_->epoch.value()) {
        std::function<Status(const std::string&)> save = [this,
                                                          address = slave.address](const std::string& found) {
            return environment_.store_conninfo(address, found);
        };
        std::vector<std::string> any_name;
        auto cut =
            co_await fence(**on_slave, any_name, record_->system_identifier, save, policy().probe_timeout);
        if (!cut.ok()) co_return cut.error();
        Status prefix = co_await prove_prefix(**on_master, cut->end);
        if (!prefix.ok()) co_return prefix;
        eased = cut->changed;
    }
    StreamPlan plan{standby_name(slave.key, record_->epoch), conninfo, upstream,
                    nobody_standby_names(record_->cluster_id)};
    Status prepared = co_await prepare_slave(**on_slave, **on_master, plan, stream_patience);
    if (!prepared.ok()) co_return prepared;
    if (!eased.empty()) {
        SettingChanges restored(eased.begin(), eased.end());
        if (Status done = co_await alter_system(**on_slave, restored); !done.ok()) co_return done;
    }
    environment_.crash_point("slave streams");
    log_info(key_.to_string() + ": " + slave.key.to_string() + " at " + slave.address.to_string() +
             " streams from now on as " + plan.name);
    if (upstream == record_->master && record_->line_of(slave.address) < record_->epoch.value()) {
        Record next = *record_;
        ++next.generation;
        next.lines[slave.address.to_string()] = record_->epoch.value();
        if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return kept;
    }
    co_await observe_anew(slave.address);
    co_await observe_anew(upstream);
    co_return Status{};
}

asio::awaitable<void> NodeGroup::observe_anew(HostPort address) {
    const TimePoint asked = Clock::now();
    surroundings_.kick(address);
    while (!stopped_ && Clock::now() - asked < policy().probe_timeout) {
        const auto seen = surroundings_.observations();
        const auto observation = seen.find(address);
        if (observation == seen.end() || observation->second.silence != Silence::None) break;
        if (observation->second.previous_answer_at && *observation->second.previous_answer_at >= asked) break;
        if (observation->second.answered_at && *observation->second.answered_at > asked)
            surroundings_.kick(address);
        co_await wait_for_event(Millis(5));
    }
}

asio::awaitable<Status> NodeGroup::change_configuration(Configuration next_configuration) {
    if (record_->wanted() != next_configuration) {
        // Beside the old one first: rule 7.
        Record next = *record_;
        ++next.generation;
        next.configurations.push_back(next_configuration);
        // They stream under this epoch's names, so they were proven; a failover before this settles must
        // know.
        for (const Member& member : next_configuration.slaves)
            next.lines[member.address.to_string()] = record_->epoch.value();
        if (Status recorded = co_await replace_record(std::move(next)); !recorded.ok()) co_return recorded;
    }
    environment_.crash_point("configuration listed");
    const GateExpectation expected = gate_expectation(next_configuration);
    auto master = co_await session(record_->master);
    if (!master.ok()) co_return master.error();
    Status set =
        co_await set_standby_names(**master, expected.names, nobody_standby_names(record_->cluster_id));
    if (!set.ok()) co_return set;
    environment_.crash_point("names changed");
    auto proven = co_await prove_gate(**master, expected, policy().probe_timeout);
    if (!proven.ok()) co_return proven.error();
    environment_.crash_point("names proven");
    Record next = *record_;
    ++next.generation;
    next.configurations.assign(1, next_configuration);
    for (const Member& member : next_configuration.slaves)
        next.lines[member.address.to_string()] = record_->epoch.value();
    if (Status recorded = co_await replace_record(std::move(next)); !recorded.ok()) co_return recorded;
    log_info(key_.to_string() + ": synchronous_standby_names = '" + expected.names + "' is in force");
    note(decision_synchronous,
         "'" + expected.names + "' is in force" + (sync_why_.empty() ? "" : ": " + sync_why_));
    tidied_at_.reset();
    // What was seen of the master so far has the old names: nobody must judge by that.
    co_await observe_anew(record_->master);
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::follow() {
    if (follow_tried_ && Clock::now() - *follow_tried_ < retry_interval) co_return Status{};
    follow_tried_.reset();
    std::string failed;
    const auto seen = surroundings_.observations();
    const Topology topology = surroundings_.topology();
    for (const Node& slave : topology.nodes()) {
        const Node* top = topology.top_master_of(slave.key);
        if (slave.is_master() || top == nullptr || top->key != key_) continue;
        const auto observation = seen.find(slave.address);
        if (observation == seen.end() || observation->second.silence != Silence::None ||
            !observation->second.facts || !observation->second.facts->in_recovery)
            continue;
        const Node* upstream = topology.find({slave.key.type, slave.master_id});
        const bool direct = upstream->is_master();
        const bool old_line = direct && record_->line_of(slave.address) < record_->epoch.value();
        if (!old_line && !streams_from_elsewhere(*observation->second.facts, upstream->address)) continue;
        // One that can't doesn't hold up the others.
        if (Status followed = co_await prepare(slave, upstream->address); !followed.ok())
            failed = slave.key.to_string() + " can't follow " + upstream->key.to_string() + ": " +
                     followed.error().message;
    }
    if (!failed.empty()) follow_tried_ = Clock::now();
    follow_why_ = failed;
    co_return Status{};
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
