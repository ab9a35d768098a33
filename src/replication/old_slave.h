#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "replication/node_effects.h"
#include "replication/promotion_plan.h"

/// Slaves before PostgreSQL 13. Where they stream from they read when they start, and only then, before 12
/// from recovery.conf: cutting a stream and giving one is a restart there, which takes their files
/// (DESIGN 6.3, F10).
namespace pgxc {

/// What is done to such a slave outlives its sessions: a restart ends them, and the next step opens another.
struct SlaveHands {
    HostPort address;
    std::function<asio::awaitable<Result<LockSession*>>()> session;
    /// Restarts it with these settings; takes the session.
    std::function<asio::awaitable<Status>(std::vector<replication::StreamSetting>)> restart;
};

[[nodiscard]] inline bool reads_stream_at_start(const LockSession& slave) {
    return slave.server_version() < replication::first_with_reloadable_stream;
}

/// Does this release keep the setting in recovery.conf, where ALTER SYSTEM doesn't know it?
[[nodiscard]] bool is_in_recovery_conf(int server_version_num, const std::string& setting);

/// A connection string without what libpq of before 13 doesn't know and refuses (pg_basebackup -R of a later
/// release writes it).
[[nodiscard]] Result<std::string> conninfo_for_old_slave(const std::string& conninfo);

/// Why the stream of this slave could not be cut from here; success where it could.
[[nodiscard]] asio::awaitable<Status> can_cut_stream(LockSession& slave);

/// Cuts the stream as fence() does: takes primary_conninfo out of the files, durably, restarts the slave, and
/// proves that it has replayed all it has and waits.
[[nodiscard]] asio::awaitable<Result<FenceResult>> fence_by_restart(
    SlaveHands slave, std::vector<std::string> expected_names, std::uint64_t system_identifier,
    BeforeChange before_change, Millis timeout, std::function<void(const FenceResult&)> on_cut = {});

/// Undoes fence_by_restart().
[[nodiscard]] asio::awaitable<Status> unfence_by_restart(SlaveHands slave, std::string conninfo,
                                                         std::map<std::string, std::string> settings);

/// Makes the slave stream as planned, and gives it back what a fence has changed. The slot on the master must
/// be there. Restarts nothing where it streams so already.
[[nodiscard]] asio::awaitable<Status> stream_by_restart(SlaveHands slave, StreamPlan plan,
                                                        std::map<std::string, std::string> settings);

}  // namespace pgxc
