#pragma once

#include <optional>
#include <string>
#include <vector>

#include "catalog/cluster_view.h"
#include "catalog/topology.h"
#include "catalog/topology_rules.h"
#include "replication/arbiter.h"
#include "replication/evidence.h"
#include "replication/failover_policy.h"
#include "replication/node_login.h"

namespace pgxc {

struct MonitorSettings {
    NodeId own_id{1};  // pgxc.node_id
    NodeLogin login;
    PolicySettings policy;
};

/// A row of pgxc.failover_history, complete.
struct HistoryRow {
    NodeKey node;
    Epoch epoch;
    HostPort old_address;
    HostPort listened_at;  // where the promoted slave listened: what finds its row
    HostPort new_address;
    NodeId promoted_from;
    std::string cause;
    std::string decided_by;
    std::string method;  // "promote" or "restart"
    std::int64_t started_at_us = 0;
    double detect_ms = 0;
    double decide_ms = 0;
    double fence_ms = 0;
    double promote_ms = 0;
    double publish_ms = 0;
    double outage_ms = 0;
    std::int64_t lost_wal_bytes = 0;  // -1 = not known
};

/// What somebody asks of the monitor through SQL.
struct MonitorTask {
    enum class Kind : std::uint8_t { Promote, Settle };
    int ticket = 0;
    Kind kind = Kind::Settle;
    NodeKey node;
    std::string address;  // WITH CONNECTION, as written; '' = none
    bool with_restart = false;
    bool force = false;
    std::string user;
};

/// All that the monitor needs of the coordinator it lives in. src/pg implements it. Calls may take a local
/// transaction, but never wait for another server.
class MonitorEnvironment {
  public:
    virtual ~MonitorEnvironment() = default;
    [[nodiscard]] virtual const MonitorSettings& settings() = 0;
    /// The catalog's copy. 42704 where the extension isn't created yet.
    [[nodiscard]] virtual Result<Topology> topology() = 0;
    [[nodiscard]] virtual Arbiter& arbiter() = 0;
    /// Tells the poolers and the views.
    virtual void publish_view(const ClusterView& view) = 0;
    /// Do all poolers go by what was published last?
    [[nodiscard]] virtual bool view_taken() = 0;
    /// Brings a promotion into the catalog: the topology, the history row, the notification, in one
    /// transaction. Does nothing where the catalog has this epoch already.
    [[nodiscard]] virtual Status publish_promotion(const HistoryRow& row) = 0;
    /// Registers a replaced master as a slave, in one transaction.
    [[nodiscard]] virtual Status publish_rejoin(const NewSlave& slave) = 0;
    /// The primary_conninfo that a slave had before it was fenced; for its return. May hold a password.
    [[nodiscard]] virtual Result<std::optional<std::string>> stored_conninfo(const HostPort& slave) = 0;
    [[nodiscard]] virtual Status store_conninfo(const HostPort& slave, const std::string& conninfo) = 0;
    /// Writes down why the monitor acted or did not. What can't be written is lost: no failover waits for it.
    virtual void keep_evidence(const std::vector<Evidence>& evidence) = 0;
    /// A place between two steps at which a test may have this process killed.
    virtual void crash_point(const char* name) = 0;
    /// Whoever asked does not wait for the answer any more.
    [[nodiscard]] virtual bool task_abandoned(int ticket) = 0;
    virtual void finish_task(int ticket, const Status& status, const std::string& text) = 0;
};

}  // namespace pgxc
