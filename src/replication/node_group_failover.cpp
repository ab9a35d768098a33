#include <algorithm>
#include <asio/use_awaitable.hpp>
#include <exception>
#include <utility>

#include "base/log.h"
#include "catalog/topology_rules.h"
#include "net/host_lookup.h"
#include "net/side_by_side.h"
#include "net/spawn.h"
#include "replication/conninfo.h"
#include "replication/node_group.h"
#include "replication/phases.h"
#include "replication/server_restart.h"
#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

using replication::PromotionMethod;

constexpr Millis promote_timeout{30'000};

}  // namespace

asio::awaitable<Status> NodeGroup::fail_over(std::string cause, TimePoint silent_since,
                                             std::optional<Epoch> unfinished) {
    Timing timing{silent_since, Clock::now(), {}, {}};
    if (Status mine = co_await still_claimed(); !mine.ok()) co_return mine;
    // Somebody's decision stands: finish that.
    if (record_->pending && unfinished != record_->epoch) co_return Status{};
    if (asynchronous_failover_allowed(*record_, policy()).ok())
        co_return co_await fail_over_asynchronous(std::move(cause), timing);
    const Epoch epoch = record_->epoch;
    // Reach and candidate before the first cut: a failover that can't succeed must not stop a stream.
    std::string out_of_reach;
    const Patience patience = patience_for(std::nullopt);
    const std::vector<Member> listed = record_->all_members();
    const std::vector<Member> members = co_await members_within_reach(listed, patience, &out_of_reach);
    const std::vector<FencedPosition> expected = positions_expected_of(members);
    if (Status enough = enough_fenced(*record_, addresses_of(expected)); !enough.ok())
        co_return with_reason(enough.error(), out_of_reach);
    const FencedPosition* likely = choose(expected);
    auto after = configuration_after(*record_, likely->address, expected, surroundings_.topology(), policy());
    if (!after.ok()) co_return after.error();
    timing.claimed = Clock::now();
    environment_.crash_point("failover decided");

    const Fences fences = co_await fence_members(members, patience);
    const std::vector<FencedPosition> positions = positions_of(fences.proven);
    Status enough = enough_fenced(*record_, addresses_of(positions));
    if (!enough.ok()) {
        co_await undo_fences(fences, epoch);
        co_return with_reason(enough.error(), fences.trouble);
    }
    timing.fenced = Clock::now();
    const HostPort best = choose(positions)->address;
    co_return co_await promote_chosen(fences, best, std::move(cause), timing, 0);
}

asio::awaitable<Status> NodeGroup::fail_over_asynchronous(std::string cause, Timing timing) {
    const Epoch epoch = record_->epoch;
    auto end = last_known_end(*record_, surroundings_.observations(key_), policy(), timing.silent_since);
    if (!end.ok()) co_return end.error();
    // Before the first cut: somebody must be there, and near enough by what is known of it.
    const Topology topology = surroundings_.topology();
    const auto seen = surroundings_.observations(key_);
    std::vector<Member> members;
    std::vector<FencedPosition> expected;
    std::vector<Member> candidates;
    for (const Node& slave : asynchronous_candidates(*record_, topology, key_))
        candidates.push_back({"", slave.address});
    std::string out_of_reach;
    // Whoever isn't there may be further than all others: each is given the time that a probe may take.
    const Patience patience = [this](const std::vector<FencedPosition>& those) {
        return those.empty() ? std::nullopt : std::optional(policy().probe_timeout);
    };
    const std::vector<Member> reachable = co_await members_within_reach(candidates, patience, &out_of_reach);
    for (const Member& member : reachable) {
        const auto known = seen.find(member.address);
        if (known == seen.end() || !known->second.facts) continue;
        members.push_back(member);
        expected.push_back(
            {member.address, record_->line_of(member.address), known->second.facts->end_of_wal()});
    }
    auto likely = choose_asynchronous(*record_, expected, *end, policy());
    if (!likely.ok()) co_return with_reason(likely.error(), out_of_reach);
    auto after =
        configuration_after(*record_, likely->chosen.address, expected, surroundings_.topology(), policy());
    if (!after.ok()) co_return after.error();
    timing.claimed = Clock::now();
    environment_.crash_point("failover decided");

    const Fences fences = co_await fence_members(members, patience);
    std::vector<Candidate> on_timeline;
    for (const Candidate& candidate : fences.proven) {
        // It may have come along a timeline that the master has never written.
        if (candidate.result.end.timeline.value() == record_->timeline) on_timeline.push_back(candidate);
    }
    const std::vector<FencedPosition> positions = positions_of(on_timeline);
    timing.fenced = Clock::now();
    auto choice = choose_asynchronous(*record_, positions, *end, policy());
    if (!choice.ok()) {
        co_await undo_fences(fences, epoch);
        co_return with_reason(choice.error(), fences.trouble);
    }
    const std::string missing = std::to_string(choice->missing_bytes);
    cause += "; nobody counts, and pgxc.max_lost_wal allows the asynchronous slave at " +
             choice->chosen.address.to_string() + ", which lacks " + missing +
             " bytes up to the last known position " + end->to_string() + " of the master";
    note(decision_fail_over, cause);
    // Where nothing is known to be missing, what the master wrote unseen may be: not known, rather than 0.
    const auto lost =
        choice->missing_bytes > 0 ? static_cast<std::int64_t>(choice->missing_bytes) : std::int64_t{-1};
    co_return co_await promote_chosen(fences, choice->chosen.address, std::move(cause), timing, lost);
}

asio::awaitable<Status> NodeGroup::promote_chosen(const Fences& fences, HostPort best, std::string cause,
                                                  Timing timing, std::int64_t lost_wal_bytes) {
    const Epoch epoch = record_->epoch;
    if (record_->pending) {
        if (Status told = publish_unfinished(); !told.ok()) {
            co_await undo_fences(fences, epoch);
            co_return told;
        }
    }
    const Node* node = surroundings_.topology().find(best);
    if (node == nullptr) {
        co_await undo_fences(fences, epoch);
        co_return Error{sqlstate::undefined_object,
                        "the slave at " + best.to_string() + " is not in the catalog any more"};
    }
    PendingPromotion pending;
    pending.promoted_id = node->key.id;
    pending.listens_at = best;
    pending.old_master = record_->master;
    pending.cause = std::move(cause);
    pending.decided_by = "coordinator " + std::to_string(environment_.settings().own_id.value());
    pending.started_at_us = wall_us(timing.silent_since);
    pending.detect_ms = ms_between(timing.silent_since, timing.judged);
    pending.decide_ms = ms_between(timing.judged, timing.claimed);
    pending.fence_ms = ms_between(timing.claimed, timing.fenced);
    pending.lost_wal_bytes = lost_wal_bytes;
    HostPort new_address = best;
    if (policy().promotion == PromotionMethod::Restart) {
        auto slave = co_await session(best);
        if (slave.ok()) {
            // The classic way: on one host the new master takes the dead one's port.
            const bool same_host = best.host == record_->master.host;
            const std::uint16_t port = same_host ? record_->master.port : best.port;
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
    co_return co_await record_and_promote(fences, best, pending, new_address);
}

asio::awaitable<Status> NodeGroup::record_and_promote(const Fences& fences, HostPort chosen,
                                                      PendingPromotion pending, HostPort new_address) {
    environment_.crash_point("all fenced");
    const Epoch epoch = record_->epoch;
    const std::vector<FencedPosition> positions = positions_of(fences.proven);
    for (const Candidate& candidate : fences.proven) {
        if (candidate.member.address != chosen) continue;
        pending.settings_to_restore = changed_on(chosen);
        pending.old_timeline = candidate.result.end.timeline.value();
    }
    auto configuration = configuration_after(*record_, chosen, positions, surroundings_.topology(), policy());
    if (!configuration.ok()) {
        co_await undo_fences(fences, epoch);
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
        co_await undo_fences(fences, epoch);
        co_return recorded;
    }
    log_info(key_.to_string() + ": epoch " + std::to_string(record_->epoch.value()) +
             " is recorded: the master is " + chosen.to_string());
    environment_.crash_point("promotion recorded");
    co_return co_await finish_promotion();
}

HistoryRow NodeGroup::history_row() const {
    const PendingPromotion& pending = *record_->pending;
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
    row.lost_wal_bytes = pending.lost_wal_bytes;
    return row;
}

Status NodeGroup::publish_unfinished() {
    // The catalog follows the record: it must have seen this epoch, or the next one's publishing would take
    // the wrong row for the master that is replaced.
    HistoryRow row = history_row();
    row.cause += "; the chosen was lost before its promotion was finished";
    row.outage_ms = static_cast<double>(wall_us(Clock::now()) - row.started_at_us) / 1000.0;
    if (Status published = environment_.publish_promotion(row); !published.ok()) return published;
    environment_.crash_point("unfinished published");
    surroundings_.reload_topology();
    return {};
}

asio::awaitable<void> NodeGroup::fail_over_pending() {
    // Where files were to be rewritten it may be down because of that, and is started from its files.
    if (!policy().failover || !claimed_ || !record_->pending || record_->pending->by_restart) co_return;
    const auto seen = surroundings_.observations(key_);
    const TimePoint now = Clock::now();
    const Judgement judgement = judge_master(*record_, seen, policy(), now);
    for (const HostPort& address : judgement.ask) surroundings_.kick(address);
    if (judgement.verdict != Verdict::Dead) co_return;
    const auto chosen = seen.find(record_->master);
    const TimePoint since =
        chosen->second.silent_since.value_or(chosen->second.going_down_since.value_or(now));
    const std::string lost = record_->master.to_string() + " was lost while it was being promoted: ";
    note(decision_fail_over, lost + judgement.reason);
    if (gate_ == Gate::Open) hold(lost + judgement.reason);
    const Epoch unfinished = record_->epoch;
    Status done = co_await fail_over(lost + judgement.reason, since, unfinished);
    if (done.ok()) co_return;
    set_why("the recorded promotion of " + record_->master.to_string() + " isn't finished: " + lost +
            judgement.reason + "; no failover past it: " + done.error().message);
    note(decision_no_failover, why_);
}

asio::awaitable<Status> NodeGroup::restart_as_new_master() {
    const PendingPromotion pending = *record_->pending;
    RestartRequest request;
    request.place = {pending.data_directory, pending.config_file};
    request.address = pending.listens_at;
    request.port = record_->master.port;
    request.timeout = promote_timeout;
    request.library = node_request(NodeRequestKind::Restart, key_, *record_);
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
    co_return co_await stop_server(std::move(owned), promote_timeout, false,
                                   node_request(NodeRequestKind::Stop, key_, *record_));
}

asio::awaitable<Status> NodeGroup::degrade_promotion() {
    if (!policy().sync_degrade) co_return Status{};
    const Configuration& wanted = record_->wanted();
    const auto seen = surroundings_.observations(key_);
    const TimePoint now = Clock::now();
    const auto detected = [&](TimePoint since) { return now - since >= policy().detection_time(); };
    // One may answer and never stream: the WAL that it lacks is on no other server any more.
    const auto chosen = seen.find(record_->master);
    const bool streams_are_seen = chosen != seen.end() && chosen->second.silence == Silence::None &&
                                  chosen->second.facts && !chosen->second.facts->in_recovery;
    if (streams_are_seen) {
        note_missing_streams(seen);
    } else {
        miss_no_streams();
    }
    Configuration left = wanted;
    std::erase_if(left.slaves, [&](const Member& member) {
        const auto observation = seen.find(member.address);
        const bool silent = observation != seen.end() && observation->second.silence != Silence::None &&
                            observation->second.silent_since && detected(*observation->second.silent_since);
        const auto missing = missing_since_.find(member.address);
        return silent || (missing != missing_since_.end() && detected(missing->second));
    });
    if (left.slaves.size() == wanted.slaves.size()) co_return Status{};
    left.k = std::min(left.k, static_cast<int>(left.slaves.size()));
    log_warning(key_.to_string() + ": " + std::to_string(wanted.slaves.size() - left.slaves.size()) +
                " of the slaves that the new master begins with have died or do not stream from it: they do "
                "not count");
    Record next = *record_;
    ++next.generation;
    next.configurations.push_back(std::move(left));
    if (Status listed = co_await replace_record(std::move(next)); !listed.ok()) co_return listed;
    // A master that is open already, and only not published, has the older one's names: it is proven anew
    // before that leaves the record (rule 7).
    promoted_.reset();
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::put_names_in_force(LockSession& chosen, Configuration wanted) {
    const std::string nobody = nobody_standby_names(record_->cluster_id);
    co_return co_await set_standby_names(chosen, names_in_force(wanted), nobody);
}

std::shared_ptr<NodeGroup::Promoting> NodeGroup::promoting(Configuration wanted, bool with_names) {
    auto promoting = std::make_shared<Promoting>(executor_);
    for (std::size_t slave = 0; slave < wanted.slaves.size(); ++slave)
        promoting->slots_made.emplace_back(executor_);
    promoting->wanted = std::move(wanted);
    promoting->with_names = with_names;
    return promoting;
}

asio::awaitable<void> NodeGroup::make_slots(std::shared_ptr<Promoting> promoting, LockSession& master) {
    const auto& slaves = promoting->wanted.slaves;
    // One by one: each takes as long as the rest of a promotion, and the first k are enough to go on.
    for (std::size_t slave = 0; slave < slaves.size(); ++slave) {
        auto made = co_await master.run(create_slot_sql(slaves[slave].name), effect_timeout);
        // Who finds no slot tries again and again; calm times make it.
        if (!made.ok()) log_warning(key_.to_string() + ": " + made.error().message);
        promoting->slots_made[slave].happen();
    }
    environment_.crash_point("slots made");
}

asio::awaitable<void> NodeGroup::open_committer(std::shared_ptr<Promoting> promoting, LockSession& master) {
    auto opened = co_await master.second_session(policy().probe_timeout);
    if (opened.ok()) promoting->committer = std::move(*opened);
}

asio::awaitable<void> NodeGroup::prepare_for_followers(std::shared_ptr<Promoting> promoting,
                                                       LockSession& master) {
    std::vector<net::Task> tasks;
    tasks.emplace_back(
        [self = shared_from_this(), promoting, &master] { return self->make_slots(promoting, master); });
    tasks.emplace_back(
        [self = shared_from_this(), promoting, &master] { return self->open_committer(promoting, master); });
    co_await net::side_by_side(std::move(tasks));
}

asio::awaitable<Status> NodeGroup::name_and_promote(std::shared_ptr<Promoting> promoting) {
    auto chosen = co_await session(record_->master);
    if (!chosen.ok()) co_return chosen.error();
    LockSession& server = **chosen;
    if (promoting->with_names) {
        // Before it is promoted: rule 8.
        Status named = co_await put_names_in_force(server, promoting->wanted);
        if (!named.ok()) co_return named;
        environment_.crash_point("names in force");
    }
    // What waits for the disk, or for a new process, waits at the same time as the promotion.
    std::function<asio::awaitable<void>()> meanwhile = [this, promoting, &server] {
        return prepare_for_followers(promoting, server);
    };
    Status promoted = co_await promote_node(server, promote_timeout, std::move(meanwhile));
    if (promoted.ok()) environment_.crash_point("server promoted");
    co_return promoted;
}

asio::awaitable<Status> NodeGroup::open_promoted(std::shared_ptr<Promoting> promoting) {
    auto server = co_await session(record_->master);
    if (!server.ok()) co_return server.error();
    // Who points a follower at the same time may have read that it is over: then this is another's record.
    if (Status mine = claim_as_read(); !mine.ok()) co_return mine;
    GateExpectation expected = gate_expectation(promoting->wanted);
    expected.above_timeline = record_->pending->old_timeline;
    auto proven =
        co_await prove_gate(**server, expected, policy().probe_timeout, std::move(promoting->committer));
    if (!proven.ok()) co_return proven.error();
    environment_.crash_point("gate proven");
    if (Status mine = claim_as_read(); !mine.ok()) co_return mine;
    proven_timeline_ = *proven;
    promoted_ = record_->epoch;
    promoted_at_ = Clock::now();
    gate_ = Gate::Open;
    why_.clear();
    surroundings_.view_changed();
    log_info(key_.to_string() + ": " + record_->master.to_string() + " is the master of epoch " +
             std::to_string(record_->epoch.value()) + "; open for transactions");
    co_return Status{};
}

asio::awaitable<void> NodeGroup::promote_and_open(std::shared_ptr<Promoting> promoting) {
    std::exception_ptr thrown;
    try {
        promoting->outcome = co_await name_and_promote(promoting);
        if (promoting->outcome.ok()) {
            co_await promoting->enough_pointed.wait();
            promoting->outcome = co_await open_promoted(promoting);
        }
    } catch (...) {
        thrown = std::current_exception();
    }
    // Where it failed before that, nobody waits any longer.
    for (net::Event& made : promoting->slots_made) made.happen();
    promoting->spares_wanted.happen();
    if (thrown) std::rethrow_exception(thrown);
}

asio::awaitable<void> NodeGroup::point_and_tell(std::shared_ptr<Promoting> promoting) {
    std::exception_ptr thrown;
    try {
        co_await point_followers(promoting);
        environment_.crash_point("followers pointed");
    } catch (...) {
        thrown = std::current_exception();
    }
    promoting->enough_pointed.happen();
    if (thrown) std::rethrow_exception(thrown);
}

asio::awaitable<Status> NodeGroup::promote_and_point(std::shared_ptr<Promoting> promoting) {
    auto chosen = co_await session(record_->master);
    if (!chosen.ok()) co_return chosen.error();
    if (reads_stream_at_start(**chosen)) {
        // A restart of each, told in the record and by the chosen's session: not while that is promoted.
        promoting->spares_wanted.happen();
        co_await make_slots(promoting, **chosen);
        co_await point_and_tell(promoting);
        Status promoted = co_await name_and_promote(promoting);
        if (!promoted.ok()) co_return promoted;
        co_return co_await open_promoted(promoting);
    }
    net::spawn(executor_, [promoting] { return want_spares_later(promoting); });
    std::vector<net::Task> tasks;
    tasks.emplace_back([self = shared_from_this(), promoting] { return self->promote_and_open(promoting); });
    tasks.emplace_back([self = shared_from_this(), promoting] { return self->point_and_tell(promoting); });
    co_await net::side_by_side(std::move(tasks));
    co_return promoting->outcome;
}

asio::awaitable<Status> NodeGroup::promote_recorded() {
    if (Status mine = co_await still_claimed(); !mine.ok()) co_return mine;
    if (Status way = co_await make_way(); !way.ok()) co_return way;
    if (Status mine = claim_as_read(); !mine.ok()) co_return mine;
    const Configuration wanted = record_->wanted();
    HostPort at = record_->pending->listens_at;
    auto server = co_await session(at);
    if (!server.ok() && at != record_->master) {
        at = record_->master;
        server = co_await session(at);
    }
    if (!server.ok()) {
        if (!claimed_ || !record_->pending->by_restart) co_return server.error();
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
        const bool restart =
            record_->pending->by_restart && at == record_->pending->listens_at && !restarted_;
        if (restart) {
            // Before it is promoted: rule 8.
            Status named = co_await put_names_in_force(**server, wanted);
            if (!named.ok()) co_return named;
            environment_.crash_point("names in force");
            Status restarted = co_await restart_as_new_master();
            restarted_ = restarted.ok();
            environment_.crash_point("server restarted");
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
                // The former master was to get the port that the chosen keeps.
                for (FormerMaster& former : next.formers)
                    if (former.address == at) former.address = next.pending->old_master;
                if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return kept;
                restart_error_ = restarted.error();
            }
        }
        Status out = co_await promote_and_point(promoting(wanted, !restart));
        if (!out.ok()) co_return out;
        // Who points the last follower may have read that it is over after the gate was opened.
        co_return claim_as_read();
    }
    // Promoted before this attempt: who was missed then, or has died since, would be missed for ever.
    if (recovery->text(2) != names_in_force(wanted)) {
        Status named = co_await put_names_in_force(**server, wanted);
        if (!named.ok()) co_return named;
    }
    const auto promoted = promoting(wanted, false);
    promoted->spares_wanted.happen();
    co_await make_slots(promoted, **server);
    co_await point_followers(promoted);
    co_return co_await open_promoted(promoted);
}

asio::awaitable<Status> NodeGroup::finish_promotion() {
    const TimePoint began = Clock::now();
    const Timing timing = timing_.value_or(Timing{began, began, began, began});
    if (gate_ != Gate::Open || promoted_ != record_->epoch) {
        if (Status brought = co_await promote_recorded(); !brought.ok()) co_return brought;
    }
    const TimePoint promoted = promoted_at_;
    const Configuration wanted = record_->wanted();
    const PendingPromotion pending = *record_->pending;
    HistoryRow row = history_row();
    row.promote_ms = ms_between(timing_ ? timing.fenced : began, promoted);
    row.publish_ms = ms_between(promoted, Clock::now());
    row.outage_ms = timing_ ? ms_between(timing.silent_since, promoted)
                            : static_cast<double>(wall_us(promoted) - pending.started_at_us) / 1000.0;
    if (Status published = environment_.publish_promotion(row); !published.ok()) co_return published;
    environment_.crash_point("promotion published");
    surroundings_.reload_topology();

    Record next = *record_;
    ++next.generation;
    next.pending.reset();
    next.timeline = proven_timeline_.value();
    next.configurations.assign(1, wanted);
    next.lines[next.master.to_string()] = next.epoch.value();
    // Its slot was on the old master. A slave that is cloned from it would inherit the name and never stream.
    auto changed = std::exchange(next.to_give_back[pending.listens_at.to_string()], {});
    next.to_give_back.erase(pending.listens_at.to_string());
    changed.insert(pending.settings_to_restore.begin(), pending.settings_to_restore.end());
    changed["primary_slot_name"] = std::nullopt;
    next.to_give_back[next.master.to_string()] = std::move(changed);
    for (const Member& member : wanted.slaves) next.lines[member.address.to_string()] = next.epoch.value();
    if (Status settled = co_await replace_record(std::move(next)); !settled.ok()) co_return settled;
    environment_.crash_point("promotion settled");
    note(decision_promoted, pending.cause + ": " + record_->master.to_string() +
                                " is the master in place of " + pending.old_master.to_string());
    timing_.reset();
    restarted_ = false;
    co_await note_prepared();
    // At once: the less the old master writes before it is stopped, the sooner it is a slave.
    co_await take_back();
    co_await note_place();
    given_back_at_.reset();
    co_await give_back();
    // What was seen of it so far was a slave; nobody must judge by that.
    co_await observe_anew(record_->master);
    const auto seen = surroundings_.observations(key_);
    const auto master = seen.find(record_->master);
    if (master != seen.end() && master->second.facts) proven_start_ = master->second.facts->started_at;
    retry_at_.reset();
    co_return Status{};
}

}  // namespace pgxc
