#include <algorithm>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "catalog/topology_rules.h"
#include "net/host_lookup.h"
#include "replication/conninfo.h"
#include "replication/node_group.h"
#include "replication/server_restart.h"
#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

using replication::PromotionMethod;

constexpr Millis promote_timeout{30'000};
/// How long a planned promotion waits for running transactions before it ends them.
constexpr Millis drain_timeout{5'000};

double ms_between(TimePoint from, TimePoint to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

Error with_reason(Error error, const std::string& reason) {
    if (!reason.empty()) error.message += " (" + reason + ")";
    return error;
}

std::int64_t wall_us(TimePoint then) {
    const auto ago = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - then);
    const auto now =
        std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
    return (now.time_since_epoch() - ago).count();
}

}  // namespace

asio::awaitable<std::vector<NodeGroup::Candidate>> NodeGroup::fence_members(
    const std::vector<Member>& members) {
    std::vector<Candidate> fenced;
    fence_trouble_.clear();
    for (const Member& member : members) {
        // Any name that is recorded for this address, and the catalog's: ALTER ... ID TO renames before it
        // records.
        std::vector<std::string> names;
        if (!member.name.empty()) {
            for (const Configuration& configuration : record_->configurations)
                if (const Member* known = configuration.find(member.address)) names.push_back(known->name);
            if (const Node* node = surroundings_.topology().find(member.address))
                names.push_back(standby_name(node->key, record_->epoch));
        }
        auto result = co_await cut_stream(member.address, std::move(names), fence_timeout);
        if (!result.ok()) {
            const std::string why =
                "can't fence " + member.address.to_string() + ": " + result.error().message;
            log_warning(key_.to_string() + ": " + why);
            fence_trouble_ += (fence_trouble_.empty() ? "" : "; ") + why;
            continue;
        }
        log_info(key_.to_string() + ": fenced " + member.address.to_string() + " at " +
                 result->end.position.to_string() + " of timeline " +
                 std::to_string(result->end.timeline.value()));
        fenced.push_back({member, *result});
        environment_.crash_point("one fenced");
    }
    co_return fenced;
}

asio::awaitable<void> NodeGroup::undo_fences(const std::vector<Candidate>& fenced, Epoch epoch) {
    // Under the same claim, and only towards the record's master (rule 10): if a decision was recorded
    // meanwhile, these fences may be what it stands on.
    if (Status mine = co_await still_claimed(); !mine.ok()) co_return;
    if (record_->pending || record_->epoch != epoch) co_return;
    for (const Candidate& candidate : fenced) {
        std::string conninfo = candidate.result.conninfo;
        if (conninfo.empty()) {
            auto stored = environment_.stored_conninfo(candidate.member.address);
            if (stored.ok() && stored->has_value()) conninfo = **stored;
        }
        // It may have pointed at an older master when it was fenced.
        auto target = conninfo_with(conninfo, conninfo_of(record_->master));
        if (!target.ok() || conninfo.empty()) continue;
        Status undone = co_await undo_cut(candidate.member.address, *target, candidate.result.changed);
        if (!undone.ok())
            log_warning(key_.to_string() + ": " + candidate.member.address.to_string() +
                        " stays fenced: " + undone.error().message);
    }
}

asio::awaitable<Status> NodeGroup::fail_over(std::string cause, TimePoint silent_since) {
    Timing timing{silent_since, Clock::now(), {}, {}};
    if (Status mine = co_await still_claimed(); !mine.ok()) co_return mine;
    if (record_->pending) co_return Status{};  // somebody's decision stands: finish that
    const Epoch epoch = record_->epoch;
    const std::vector<Member> members = record_->all_members();

    // Reach and candidate before the first cut: a failover that can't succeed must not stop a stream.
    std::string out_of_reach;
    const std::vector<HostPort> reachable = co_await members_within_reach(members, &out_of_reach);
    std::vector<FencedPosition> expected;
    for (const HostPort& address : reachable) expected.push_back({address, record_->line_of(address), Lsn{}});
    if (Status enough = enough_fenced(*record_, reachable); !enough.ok())
        co_return with_reason(enough.error(), out_of_reach);
    const FencedPosition* likely = choose(expected);
    auto after = configuration_after(*record_, likely->address, expected, surroundings_.topology(), policy());
    if (!after.ok()) co_return after.error();
    timing.claimed = Clock::now();
    environment_.crash_point("failover decided");

    const std::vector<Candidate> fenced = co_await fence_members(members);
    std::vector<HostPort> addresses;
    std::vector<FencedPosition> positions;
    for (const Candidate& candidate : fenced) {
        addresses.push_back(candidate.member.address);
        positions.push_back({candidate.member.address, record_->line_of(candidate.member.address),
                             candidate.result.end.position});
    }
    Status enough = enough_fenced(*record_, addresses);
    if (!enough.ok()) {
        const std::string trouble = fence_trouble_;
        co_await undo_fences(fenced, epoch);
        co_return with_reason(enough.error(), trouble);
    }
    timing.fenced = Clock::now();
    const FencedPosition* best = choose(positions);
    const Node* node = surroundings_.topology().find(best->address);
    if (node == nullptr) {
        co_await undo_fences(fenced, epoch);
        co_return Error{sqlstate::undefined_object,
                        "the slave at " + best->address.to_string() + " is not in the catalog any more"};
    }
    PendingPromotion pending;
    pending.promoted_id = node->key.id;
    pending.listens_at = best->address;
    pending.old_master = record_->master;
    pending.cause = cause;
    pending.decided_by = "coordinator " + std::to_string(environment_.settings().own_id.value());
    pending.started_at_us = wall_us(silent_since);
    pending.detect_ms = ms_between(silent_since, timing.judged);
    pending.decide_ms = ms_between(timing.judged, timing.claimed);
    pending.fence_ms = ms_between(timing.claimed, timing.fenced);
    HostPort new_address = best->address;
    if (policy().promotion == PromotionMethod::Restart) {
        auto slave = co_await session(best->address);
        if (slave.ok()) {
            // The classic way: on one host the new master takes the dead one's port.
            const bool same_host = best->address.host == record_->master.host;
            const std::uint16_t port = same_host ? record_->master.port : best->address.port;
            auto can = co_await can_restart(**slave, port);
            pending.by_restart = can.ok();
            if (can.ok()) {
                new_address.port = port;
                pending.data_directory = can->data_directory;
                pending.config_file = can->config_file;
            } else {
                log_warning(key_.to_string() + ": promoting without a restart: " + can.error().message);
            }
        }
    }
    timing_ = timing;
    co_return co_await record_and_promote(fenced, best->address, pending, new_address);
}

asio::awaitable<Status> NodeGroup::record_and_promote(const std::vector<Candidate>& fenced, HostPort chosen,
                                                      PendingPromotion pending, HostPort new_address) {
    environment_.crash_point("all fenced");
    const Epoch epoch = record_->epoch;
    std::vector<FencedPosition> positions;
    for (const Candidate& candidate : fenced) {
        positions.push_back({candidate.member.address, record_->line_of(candidate.member.address),
                             candidate.result.end.position});
        if (candidate.member.address == chosen) {
            pending.settings_to_restore = candidate.result.changed;
            pending.old_timeline = candidate.result.end.timeline.value();
        }
    }
    auto configuration = configuration_after(*record_, chosen, positions, surroundings_.topology(), policy());
    if (!configuration.ok()) {
        co_await undo_fences(fenced, epoch);
        co_return configuration.error();
    }
    const std::int64_t line = record_->epoch.value();
    Record next = record_promotion(*record_, new_address, *configuration, positions, pending);
    note_former(next, pending);
    // Whoever isn't fenced follows later, and must then be proven a prefix of what begins here.
    for (const Node* slave : surroundings_.topology().slaves_of(key_))
        next.lines.try_emplace(slave->address.to_string(), line);
    // The commit point: from here on there is no way back, only forward.
    if (Status recorded = co_await replace_record(std::move(next)); !recorded.ok()) {
        co_await undo_fences(fenced, epoch);
        co_return recorded;
    }
    log_info(key_.to_string() + ": epoch " + std::to_string(record_->epoch.value()) +
             " is recorded: the master is " + chosen.to_string());
    environment_.crash_point("promotion recorded");
    co_return co_await finish_promotion();
}

asio::awaitable<Status> NodeGroup::restart_as_new_master() {
    const PendingPromotion pending = *record_->pending;
    RestartRequest request;
    request.place = {pending.data_directory, pending.config_file};
    request.address = pending.listens_at;
    request.port = record_->master.port;
    request.timeout = promote_timeout;
    const auto archive = pending.settings_to_restore.find("restore_command");
    if (archive != pending.settings_to_restore.end()) request.restore_command = archive->second;
    auto slave = co_await session(pending.listens_at);
    std::unique_ptr<LockSession> owned;
    // Where it doesn't answer it was left stopped, between the two halves of a restart.
    if (slave.ok()) owned = std::move(sessions_[pending.listens_at]);
    sessions_.erase(pending.listens_at);
    std::function<asio::awaitable<Status>()> claim_is_newest = [this] { return still_claimed(); };
    co_return co_await restart_server(std::move(owned), std::move(request), std::move(claim_is_newest));
}

asio::awaitable<Status> NodeGroup::make_way() {
    const PendingPromotion pending = *record_->pending;
    if (!pending.former_alive || pending.old_master != record_->master ||
        pending.listens_at == record_->master)
        co_return Status{};
    auto old = co_await session(pending.old_master);
    if (!old.ok()) co_return Status{};
    auto recovery = co_await (*old)->run("SELECT pg_catalog.pg_is_in_recovery()", effect_timeout);
    // In recovery it is the chosen, restarted there already.
    if (!recovery.ok() || recovery->text() == "t") co_return Status{};
    std::unique_ptr<LockSession> owned = std::move(sessions_[pending.old_master]);
    sessions_.erase(pending.old_master);
    co_return co_await stop_server(std::move(owned), promote_timeout, false);
}

asio::awaitable<void> NodeGroup::view_in_force() {
    const TimePoint deadline = Clock::now() + drain_timeout;
    while (!stopped_ && !environment_.view_taken() && Clock::now() < deadline)
        co_await wait_for_event(Millis(1));
}

asio::awaitable<void> NodeGroup::point_followers(Configuration wanted) {
    for (const Member& member : wanted.slaves) {
        auto stored = environment_.stored_conninfo(member.address);
        std::string conninfo = "user=" + environment_.settings().login.user;
        if (stored.ok() && stored->has_value()) conninfo = **stored;
        StreamPlan plan{member.name, conninfo, record_->master, nobody_standby_names(record_->cluster_id)};
        std::map<std::string, std::string> as_they_are;
        Status follows = co_await give_stream(member.address, record_->master, plan, as_they_are, Millis(0));
        if (!follows.ok()) log_warning(key_.to_string() + ": " + follows.error().message);
    }
}

asio::awaitable<Status> NodeGroup::degrade_promotion() {
    if (!policy().sync_degrade) co_return Status{};
    const Configuration& wanted = record_->wanted();
    const auto seen = surroundings_.observations();
    const TimePoint now = Clock::now();
    Configuration left = wanted;
    std::erase_if(left.slaves, [&](const Member& member) {
        const auto observation = seen.find(member.address);
        return observation != seen.end() && observation->second.silence != Silence::None &&
               observation->second.silent_since &&
               now - *observation->second.silent_since >= policy().detection_time();
    });
    if (left.slaves.size() == wanted.slaves.size()) co_return Status{};
    left.k = std::min(left.k, static_cast<int>(left.slaves.size()));
    log_warning(key_.to_string() + ": " + std::to_string(wanted.slaves.size() - left.slaves.size()) +
                " of the slaves that the new master begins with have died: they do not count");
    Record next = *record_;
    ++next.generation;
    next.configurations.push_back(std::move(left));
    co_return co_await replace_record(std::move(next));
}

asio::awaitable<Status> NodeGroup::promote_recorded() {
    if (Status mine = co_await still_claimed(); !mine.ok()) co_return mine;
    if (Status way = co_await make_way(); !way.ok()) co_return way;
    const Configuration wanted = record_->wanted();
    const std::string nobody = nobody_standby_names(record_->cluster_id);
    HostPort at = record_->pending->listens_at;
    auto server = co_await session(at);
    if (!server.ok() && at != record_->master) {
        at = record_->master;
        server = co_await session(at);
    }
    if (!server.ok()) {
        if (!record_->pending->by_restart) co_return server.error();
        if (Status started = co_await restart_as_new_master(); !started.ok()) co_return started;
        restarted_ = true;
        at = record_->master;
        server = co_await session(at);
        if (!server.ok()) co_return server.error();
    }
    auto recovery = co_await (*server)->run(
        "SELECT pg_catalog.pg_is_in_recovery(), (SELECT system_identifier FROM "
        "pg_catalog.pg_control_system()), current_setting('synchronous_standby_names')",
        effect_timeout);
    if (!recovery.ok()) co_return recovery.error();
    if (recovery->text(1) != std::to_string(record_->system_identifier))
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        "the server at " + at.to_string() + " belongs to another cluster"};
    if (recovery->text(0) == "t") {
        // In force before it is promoted: rule 8.
        Status named = co_await set_standby_names(**server, names_in_force(wanted), nobody);
        if (!named.ok()) co_return named;
        environment_.crash_point("names in force");
        if (record_->pending->by_restart && at == record_->pending->listens_at && !restarted_) {
            Status restarted = co_await restart_as_new_master();
            restarted_ = restarted.ok();
            if (!restarted.ok()) {
                auto again = co_await session(at);
                if (!again.ok()) co_return restarted;
                // It runs again where it was: the promotion stands, the restart can't be had. Say so durably.
                log_warning(key_.to_string() + ": promoting without a restart: " + restarted.error().message);
                Record next = *record_;
                ++next.generation;
                next.master = at;
                next.pending->by_restart = false;
                next.pending->cause += "; restart failed: " + restarted.error().message;
                if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return kept;
                restart_error_ = restarted.error();
            }
        }
        co_await point_followers(wanted);
        environment_.crash_point("followers pointed");
        server = co_await session(record_->master);
        if (!server.ok()) co_return server.error();
        Status out = co_await promote_node(**server, promote_timeout);
        if (!out.ok()) co_return out;
        environment_.crash_point("server promoted");
    } else {
        // Promoted before this attempt: who was missed then, or has died since, would be missed for ever.
        if (recovery->text(2) != names_in_force(wanted)) {
            Status named = co_await set_standby_names(**server, names_in_force(wanted), nobody);
            if (!named.ok()) co_return named;
        }
        co_await point_followers(wanted);
    }
    server = co_await session(record_->master);
    if (!server.ok()) co_return server.error();
    GateExpectation expected = gate_expectation(wanted);
    expected.above_timeline = record_->pending->old_timeline;
    auto proven = co_await prove_gate(**server, expected, policy().probe_timeout);
    if (!proven.ok()) co_return proven.error();
    environment_.crash_point("gate proven");
    proven_timeline_ = *proven;
    promoted_ = record_->epoch;
    gate_ = Gate::Open;
    why_.clear();
    surroundings_.view_changed();
    log_info(key_.to_string() + ": " + record_->master.to_string() + " is the master of epoch " +
             std::to_string(record_->epoch.value()) + "; open for transactions");
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::finish_promotion() {
    const TimePoint began = Clock::now();
    const Timing timing = timing_.value_or(Timing{began, began, began, began});
    if (gate_ != Gate::Open || promoted_ != record_->epoch) {
        if (Status brought = co_await promote_recorded(); !brought.ok()) co_return brought;
        promoted_at_ = Clock::now();
    }
    const TimePoint promoted = promoted_at_;
    const Configuration wanted = record_->wanted();
    const PendingPromotion pending = *record_->pending;
    HistoryRow row;
    row.node = key_;
    row.epoch = record_->epoch;
    row.old_address = pending.old_master;
    row.listened_at = pending.listens_at;
    row.new_address = record_->master;
    row.promoted_from = pending.promoted_id;
    row.cause = pending.cause;
    row.decided_by = pending.decided_by;
    row.method = pending.by_restart ? "restart" : "promote";
    row.started_at_us = pending.started_at_us;
    row.detect_ms = pending.detect_ms;
    row.decide_ms = pending.decide_ms;
    row.fence_ms = pending.fence_ms;
    row.promote_ms = ms_between(timing_ ? timing.fenced : began, promoted);
    row.publish_ms = ms_between(promoted, Clock::now());
    row.outage_ms = timing_ ? ms_between(timing.silent_since, promoted)
                            : static_cast<double>(wall_us(promoted) - pending.started_at_us) / 1000.0;
    row.lost_wal_bytes = pending.lost_wal_bytes;
    if (Status published = environment_.publish_promotion(row); !published.ok()) co_return published;
    environment_.crash_point("promotion published");
    surroundings_.reload_topology();

    Record next = *record_;
    ++next.generation;
    next.pending.reset();
    next.timeline = proven_timeline_.value();
    next.configurations.assign(1, wanted);
    next.lines[next.master.to_string()] = next.epoch.value();
    for (const Member& member : wanted.slaves) next.lines[member.address.to_string()] = next.epoch.value();
    if (Status settled = co_await replace_record(std::move(next)); !settled.ok()) co_return settled;
    environment_.crash_point("promotion settled");
    note(decision_promoted, pending.cause + ": " + record_->master.to_string() +
                                " is the master in place of " + pending.old_master.to_string());
    timing_.reset();
    restarted_ = false;
    // At once: the less the old master writes before it is stopped, the sooner it is a slave.
    co_await take_back();
    co_await note_place();
    {
        auto server = co_await session(record_->master);
        if (server.ok()) {
            // Its slot was on the old master. A slave that is cloned from it would inherit the name and never
            // stream.
            SettingChanges changes;
            changes.emplace_back("primary_slot_name", std::nullopt);
            for (const auto& [name, value] : pending.settings_to_restore) changes.emplace_back(name, value);
            // Those went with recovery.conf.
            const int version = (*server)->server_version();
            std::erase_if(changes, [version](const auto& change) {
                return is_in_recovery_conf(version, change.first);
            });
            if (Status restored = co_await alter_system(**server, changes); !restored.ok())
                log_warning(key_.to_string() +
                            ": settings changed by the fence are left: " + restored.error().message);
        }
    }
    // What was seen of it so far was a slave; nobody must judge by that.
    co_await observe_anew(record_->master);
    const auto seen = surroundings_.observations();
    const auto master = seen.find(record_->master);
    if (master != seen.end() && master->second.facts) proven_start_ = master->second.facts->started_at;
    retry_at_.reset();
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::promote_by_hand(MonitorTask task) {
    const TimePoint asked = Clock::now();
    const Topology topology = surroundings_.topology();
    const Node* slave = topology.find(task.node);
    if (slave == nullptr || slave->is_master())
        co_return Error{sqlstate::undefined_object, task.node.to_string() + " is not a registered slave"};
    Result<HostPort> new_address = slave->address;
    if (!task.address.empty()) new_address = promotion_address(slave->address, task.address);
    if (!new_address.ok()) co_return new_address.error();
    if (new_address->host != slave->address.host) {
        const auto there = co_await net::resolve_host(new_address->host);
        const auto here = co_await net::resolve_host(slave->address.host);
        if (!there.ok() || !here.ok() || *there != *here)
            co_return Error{sqlstate::invalid_parameter_value,
                            "host \"" + new_address->host + "\" does not lead to " + task.node.to_string() +
                                " at " + slave->address.to_string(),
                            "Give a name of the slave's own host, or only the port: ':5432'."};
    }
    const Epoch epoch = record_->epoch;
    const Member* counts = record_->wanted().find(slave->address);
    if (counts == nullptr && !task.force)
        co_return Error{
            sqlstate::object_not_in_prerequisite_state,
            task.node.to_string() + " is not a synchronous slave in force: it may lack acknowledged commits",
            "Promote a synchronous slave, or add FORCE and accept the loss."};
    if (Status mine = co_await still_claimed(); !mine.ok()) co_return mine;

    const bool restart = task.with_restart || policy().promotion == PromotionMethod::Restart ||
                         new_address->port != slave->address.port;
    auto chosen = co_await session(slave->address);
    if (!chosen.ok()) co_return chosen.error();
    const bool takes_over = *new_address == record_->master;

    const auto seen = surroundings_.observations();
    const auto master = seen.find(record_->master);
    const auto lives = [this] {
        const auto now_seen = surroundings_.observations();
        const auto found = now_seen.find(record_->master);
        return found != now_seen.end() && found->second.silence == Silence::None;
    };
    bool master_alive = lives();
    ServerPlace place;
    if (restart) {
        const bool port_in_use_now = master_alive && takes_over;
        auto can = co_await can_restart(**chosen, port_in_use_now ? slave->address.port : new_address->port);
        if (!can.ok()) {
            Error refused = can.error();
            refused.detail += (refused.detail.empty() ? "" : " ") + std::string("Nothing was changed.");
            co_return refused;
        }
        place = *can;
    }
    std::vector<Member> members = record_->all_members();
    if (counts == nullptr) members.push_back({"", slave->address});

    if (!task.force) {
        // What would be refused after the master was silenced is refused before.
        std::string out_of_reach;
        const std::vector<HostPort> reachable = co_await members_within_reach(members, &out_of_reach);
        std::vector<FencedPosition> expected;
        for (const HostPort& address : reachable)
            expected.push_back({address, record_->line_of(address), Lsn{}});
        if (Status enough = enough_fenced(*record_, reachable); !enough.ok())
            co_return with_reason(enough.error(), out_of_reach);
        auto after = configuration_after(*record_, slave->address, expected, topology, policy());
        if (!after.ok()) co_return after.error();
    }
    hold("a promotion of " + task.node.to_string() + " was asked for by " + task.user);
    std::optional<Lsn> end_of_master;
    if (master_alive) {
        co_await view_in_force();
        auto old = co_await session(record_->master);
        if (old.ok()) {
            (void)co_await wait_for_transactions(**old, drain_timeout);
            old = co_await session(record_->master);
        }
        // Branches, not conditional expressions: GCC 12 miscompiles a co_await inside those.
        Status silent;
        if (!old.ok())
            silent = old.error();
        else
            silent = co_await silence_master(**old, nobody_standby_names(record_->cluster_id));
        if (silent.ok()) {
            auto end = co_await (*old)->run("SELECT pg_catalog.pg_current_wal_flush_lsn()", effect_timeout);
            if (end.ok()) end_of_master = Lsn::parse(end->text());
            chosen = co_await session(slave->address);
            Status caught_up;
            if (chosen.ok())
                caught_up = co_await wait_for_slave(**old, **chosen, drain_timeout);
            else
                caught_up = chosen.error();
            // With FORCE what it lacks is lost, and told.
            if (!caught_up.ok() && !task.force) silent = caught_up;
        }
        if (!silent.ok()) {
            // It may have died since it was last seen: then there is nothing to silence.
            co_await observe_anew(record_->master);
            master_alive = lives();
        }
        if (!silent.ok() && master_alive) {
            // Nothing is recorded yet: the master goes on as it was, proven anew by the gate.
            co_return Error{
                silent.error().sqlstate,
                "the master of " + key_.to_string() +
                    " lives, but could not be stopped from acknowledging: " + silent.error().message,
                "Stop it for certain, then promote again."};
        }
    }
    const TimePoint claimed = Clock::now();
    const std::vector<Candidate> fenced = co_await fence_members(members);
    std::vector<HostPort> addresses;
    const Candidate* candidate = nullptr;
    std::vector<FencedPosition> positions;
    for (const Candidate& each : fenced) {
        addresses.push_back(each.member.address);
        positions.push_back(
            {each.member.address, record_->line_of(each.member.address), each.result.end.position});
        if (each.member.address == slave->address) candidate = &each;
    }
    Status refused;
    if (candidate == nullptr) {
        refused =
            Error{sqlstate::object_not_in_prerequisite_state, task.node.to_string() + " could not be fenced",
                  "The old master goes on as it was, if it is alive.", fence_trouble_};
    } else if (!task.force) {
        refused = enough_fenced(*record_, addresses);
        const FencedPosition* best = choose(positions);
        if (refused.ok() && best->address != slave->address &&
            (best->line != record_->line_of(slave->address) ||
             best->position != candidate->result.end.position))
            refused = Error{
                sqlstate::object_not_in_prerequisite_state,
                task.node.to_string() + " is not caught up: " + best->address.to_string() + " is further",
                "Promote that one, or add FORCE and accept the loss."};
    }
    if (!refused.ok()) {
        co_await undo_fences(fenced, epoch);
        co_return refused;
    }
    PendingPromotion pending;
    pending.promoted_id = task.node.id;
    pending.listens_at = slave->address;
    pending.old_master = record_->master;
    pending.by_restart = restart;
    pending.data_directory = place.data_directory;
    pending.config_file = place.config_file;
    pending.former_alive = master_alive;
    pending.cause = std::string(task.force ? "promotion by hand with FORCE" : "promotion by hand");
    pending.decided_by = task.user;
    pending.started_at_us = wall_us(asked);
    pending.decide_ms = ms_between(asked, claimed);
    const TimePoint fences_done = Clock::now();
    pending.fence_ms = ms_between(claimed, fences_done);
    if (counts == nullptr) {
        // Without the slave's acknowledgements only the master's last known end of WAL bounds the loss.
        if (!end_of_master && master != seen.end() && master->second.facts)
            end_of_master = master->second.facts->flushed;
        pending.lost_wal_bytes = -1;
        if (end_of_master && (master_alive || *end_of_master > candidate->result.end.position))
            pending.lost_wal_bytes = *end_of_master > candidate->result.end.position
                                         ? static_cast<std::int64_t>(end_of_master->bytes() -
                                                                     candidate->result.end.position.bytes())
                                         : 0;
    }
    timing_ = Timing{asked, asked, claimed, fences_done};
    restart_error_.reset();
    Status done = co_await record_and_promote(fenced, slave->address, pending, *new_address);
    if (done.ok() && restart_error_) {
        Error told = *restart_error_;
        told.message =
            key_.to_string() +
            " is promoted, but without the restart and the address that were asked for: " + told.message;
        co_return told;
    }
    if (!done.ok() && record_->pending) {
        Error told = done.error();
        told.message = "the promotion of " + task.node.to_string() +
                       " is decided and will be finished, but not yet: " + told.message;
        told.hint = "It goes on by itself: see pgxc_node_status.";
        co_return told;
    }
    co_return done;
}

}  // namespace pgxc
