#include <asio/use_awaitable.hpp>

#include "catalog/topology_rules.h"
#include "net/host_lookup.h"
#include "replication/node_group.h"
#include "replication/phases.h"
#include "replication/server_restart.h"
#include "replication/sync_standbys.h"

// A promotion that somebody asks for: the same claim, fence and record as a failover, and before that the
// master, which may live, is made to acknowledge nothing more.

namespace pgxc {
namespace {

using replication::PromotionMethod;

/// How long a planned promotion waits for running transactions before it ends them.
constexpr Millis drain_timeout{5'000};

}  // namespace

asio::awaitable<void> NodeGroup::view_in_force() {
    const TimePoint deadline = Clock::now() + drain_timeout;
    while (!stopped_ && !environment_.view_taken() && Clock::now() < deadline)
        co_await wait_for_event(Millis(1));
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
        const TimePoint deadline = Clock::now() + policy().probe_timeout;
        const auto there = co_await net::resolve_host(new_address->host, deadline);
        const auto here = co_await net::resolve_host(slave->address.host, deadline);
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

    const auto seen = surroundings_.observations(key_);
    const auto master = seen.find(record_->master);
    const auto lives = [this] {
        const auto now_seen = surroundings_.observations(key_);
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
        if (port_in_use_now) {
            // It will have to go after the record has been written, when nothing can be refused any more.
            auto old = co_await session(record_->master);
            Status stops;
            if (!old.ok())
                stops = old.error();
            else
                stops = co_await can_stop(**old);
            if (!stops.ok()) {
                Error refused = stops.error();
                refused.detail += (refused.detail.empty() ? "" : " ") + std::string("Nothing was changed.");
                co_return refused;
            }
        }
    }
    std::vector<Member> members = record_->all_members();
    if (counts == nullptr) {
        // It need not be any of those that were promised anything.
        std::erase_if(members, [&](const Member& member) { return member.address == slave->address; });
        members.push_back({"", slave->address});
    }
    const Patience patience = patience_for(slave->address);

    if (!task.force) {
        // What would be refused after the master was silenced is refused before.
        std::string out_of_reach;
        members = co_await members_within_reach(members, patience, &out_of_reach);
        const std::vector<FencedPosition> expected = positions_expected_of(members);
        if (Status enough = enough_fenced(*record_, addresses_of(expected)); !enough.ok())
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
        environment_.crash_point("master silenced");
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
    const Fences fences = co_await fence_members(members, patience);
    const Candidate* candidate = nullptr;
    const std::vector<FencedPosition> positions = positions_of(fences.proven);
    for (const Candidate& each : fences.proven)
        if (each.member.address == slave->address) candidate = &each;
    Status refused;
    if (candidate == nullptr) {
        refused =
            Error{sqlstate::object_not_in_prerequisite_state, task.node.to_string() + " could not be fenced",
                  "The old master goes on as it was, if it is alive.", fences.trouble};
    } else if (!task.force) {
        refused = enough_fenced(*record_, addresses_of(positions));
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
        co_await undo_fences(fences, epoch);
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
    Status done = co_await record_and_promote(fences, slave->address, pending, *new_address);
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
