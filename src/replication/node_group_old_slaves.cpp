#include <asio/use_awaitable.hpp>
#include <utility>

#include "base/log.h"
#include "replication/node_group.h"
#include "replication/server_restart.h"

// Where a group's effects on its slaves differ before PostgreSQL 13 (old_slave.h), and nothing else.

namespace pgxc {
namespace {

/// A restart includes a shutdown checkpoint's end and the replay from the last restartpoint.
constexpr Millis restart_timeout{30'000};
/// A slave that was left stopped and can't be started now is tried again after this.
constexpr Millis restart_retry{5'000};

}  // namespace

SlaveHands NodeGroup::hands_on(const HostPort& address) {
    SlaveHands hands;
    hands.address = address;
    hands.session = [this, address] { return session(address); };
    hands.restart = [this, address](std::vector<replication::StreamSetting> settings) {
        return restart_with(address, std::move(settings));
    };
    return hands;
}

asio::awaitable<Status> NodeGroup::restart_with(HostPort slave,
                                                std::vector<replication::StreamSetting> settings) {
    auto on_slave = co_await session(slave);
    if (!on_slave.ok()) co_return on_slave.error();
    std::unique_ptr<LockSession> owned = std::move(sessions_[slave]);
    sessions_.erase(slave);
    std::function<asio::awaitable<Status>(ServerPlace)> intent = [this, slave](ServerPlace place) {
        Record next = *record_;
        ++next.generation;
        next.restarting[slave.to_string()] = std::move(place);
        return replace_record(std::move(next));
    };
    // Asked twice: before the stop, and before the start.
    std::function<asio::awaitable<Status>()> claim_is_newest = [this, asked = 0]() mutable {
        if (++asked == 2) environment_.crash_point("slave stopped");
        return still_claimed();
    };
    Status restarted = co_await restart_slave(std::move(owned), std::move(settings), restart_timeout,
                                              std::move(intent), std::move(claim_is_newest));
    // If it runs, with the new files or with the old ones, nobody has to start it.
    on_slave = co_await session(slave);
    if (on_slave.ok() && record_->restarting.contains(slave.to_string())) {
        Record next = *record_;
        ++next.generation;
        next.restarting.erase(slave.to_string());
        if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return kept;
    }
    co_return restarted;
}

asio::awaitable<void> NodeGroup::finish_restarts() {
    const auto now = Clock::now();
    if (record_->restarting.empty() || (restarts_tried_ && now - *restarts_tried_ < restart_retry)) co_return;
    restarts_tried_ = now;
    const std::map<std::string, ServerPlace> begun = record_->restarting;
    for (const auto& [text, place] : begun) {
        const auto address = HostPort::parse(text);
        if (address) {
            auto on_slave = co_await session(*address);
            if (!on_slave.ok()) {
                std::function<asio::awaitable<Status>()> claim_is_newest = [this] { return still_claimed(); };
                Status started = co_await start_stopped_slave(place, *address, record_->system_identifier,
                                                              restart_timeout, std::move(claim_is_newest));
                if (!started.ok())
                    log_warning(key_.to_string() + ": " + text +
                                " was left in the middle of a restart: " + started.error().message);
                on_slave = co_await session(*address);
                if (!on_slave.ok()) continue;
            }
        }
        Record next = *record_;
        ++next.generation;
        next.restarting.erase(text);
        if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return;
    }
}

asio::awaitable<Result<FenceResult>> NodeGroup::cut_stream(HostPort slave, std::vector<std::string> names,
                                                           Millis timeout,
                                                           std::function<void(const FenceResult&)> on_cut) {
    auto on_slave = co_await session(slave);
    if (!on_slave.ok()) co_return on_slave.error();
    // Not written into the call: GCC 12 destroys a temporary that a co_await's argument was made of twice.
    BeforeChange keep = [this, slave, on_cut](const FenceResult& found) {
        return keep_before_cut(slave, found, on_cut);
    };
    std::function<void(const FenceResult&)> cut = [this, on_cut](const FenceResult& so_far) {
        if (on_cut) on_cut(so_far);
        environment_.crash_point("stream cut");
    };
    if (!reads_stream_at_start(**on_slave))
        co_return co_await fence(**on_slave, std::move(names), record_->system_identifier, std::move(keep),
                                 timeout, std::move(cut));
    SlaveHands hands = hands_on(slave);
    co_return co_await fence_by_restart(std::move(hands), std::move(names), record_->system_identifier,
                                        std::move(keep), restart_timeout, std::move(cut));
}

asio::awaitable<Status> NodeGroup::undo_cut(HostPort slave, std::string conninfo,
                                            std::map<std::string, std::string> settings) {
    auto on_slave = co_await session(slave);
    if (!on_slave.ok()) co_return on_slave.error();
    if (!reads_stream_at_start(**on_slave))
        co_return co_await unfence(**on_slave, std::move(conninfo), std::move(settings));
    SlaveHands hands = hands_on(slave);
    co_return co_await unfence_by_restart(std::move(hands), std::move(conninfo), std::move(settings));
}

asio::awaitable<Status> NodeGroup::give_stream(HostPort slave, HostPort upstream, StreamPlan plan,
                                               std::map<std::string, std::string> settings, Millis patience) {
    auto on_slave = co_await session(slave);
    if (!on_slave.ok()) co_return on_slave.error();
    auto on_master = co_await session(upstream);
    if (!on_master.ok()) co_return on_master.error();
    // Opening the second session may have ended the first one's object.
    on_slave = co_await session(slave);
    if (!on_slave.ok()) co_return on_slave.error();
    if (!reads_stream_at_start(**on_slave)) {
        if (Status prepared = co_await prepare_slave(**on_slave, **on_master, plan, patience); !prepared.ok())
            co_return prepared;
        if (settings.empty()) co_return Status{};
        SettingChanges restored(settings.begin(), settings.end());
        co_return co_await alter_system(**on_slave, std::move(restored));
    }
    auto slot = co_await (*on_master)->run(create_slot_sql(plan.name), effect_timeout);
    if (!slot.ok()) co_return slot.error();
    SlaveHands hands = hands_on(slave);
    Status streams = co_await stream_by_restart(std::move(hands), plan, std::move(settings));
    if (!streams.ok()) co_return streams;
    on_slave = co_await session(slave);
    if (!on_slave.ok()) co_return on_slave.error();
    on_master = co_await session(upstream);
    if (!on_master.ok()) co_return on_master.error();
    co_return co_await wait_for_stream(**on_slave, **on_master, plan.name, patience);
}

asio::awaitable<Status> NodeGroup::promote_node(LockSession& slave, Millis timeout,
                                                std::function<asio::awaitable<void>()> meanwhile) {
    const TimePoint deadline = Clock::now() + timeout;
    if (slave.server_version() < replication::first_without_recovery_conf) {
        if (meanwhile) co_await meanwhile();
        co_return co_await promote_by_pg_ctl(slave, timeout);
    }
    if (Status asked = co_await ask_promotion(slave); !asked.ok()) co_return asked;
    if (meanwhile) co_await meanwhile();
    co_return co_await see_promoted(slave, deadline);
}

}  // namespace pgxc
