#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "catalog/cluster_view.h"
#include "pooler/environment.h"

/// What the coordinator's processes share: plain data in the server's main shared memory segment (see
/// shared_layout.h for the layout and its lock protocol), and eventfds made by the postmaster for wake-ups,
/// since a latch doesn't wake a process that waits in an event loop. A crash of any backend resets all of it:
/// nothing decisive lives only here.
namespace pgxc {

/// Asks for the memory and makes the eventfds: only from _PG_init while preloading.
void request_shared_state();

/// Is there shared memory? Not, if the library isn't in shared_preload_libraries, and not in single-user
/// mode.
[[nodiscard]] bool have_shared_state();

/// The error (55000, with the HINT) for functions that need it; OK if it is there.
[[nodiscard]] Status require_shared_state();

// --- The cluster view: the monitor writes, poolers and backends read -------------------------------------

/// Publishes a view under the next generation (the view's own generation is ignored) and wakes the poolers.
/// Nodes beyond limits::max_nodes are an error (53400). Only the monitor calls it.
[[nodiscard]] Status publish_cluster_view(const ClusterView& view);

/// A pooler says which view it goes by from now on; the monitor asks whether all of them go by the newest.
void note_view_taken(int worker, Generation generation) noexcept;
[[nodiscard]] bool newest_view_taken() noexcept;

/// Reads the view; keeps the last copy until the generation changes.
class SharedClusterView : public ClusterViewSource {
  public:
    SharedClusterView();
    [[nodiscard]] std::shared_ptr<const ClusterView> current() override;

  private:
    std::shared_ptr<const ClusterView> cached_;
};

// --- Groups that are paused: backends write, the poolers obey ---------------------------------------------

/// Holds the transactions of a datanode group from the next view on, whatever the monitor does meanwhile.
/// False: it was paused already. Error 53400 beyond limits::max_paused_groups.
[[nodiscard]] Result<bool> pause_group(NodeKey group, const std::string& user);
/// False: it wasn't paused.
[[nodiscard]] bool resume_group(NodeKey group);
/// Waits until no pooler runs a transaction of that group any more, or somebody has resumed it (55000), or it
/// is gone (08000; nothing is paused then). `own_pause`: an error, a cancel or the end of the session before
/// that takes the pause back.
[[nodiscard]] Status wait_until_unused(NodeKey group, bool own_pause);
void report_group_in_use(int worker, NodeKey group, std::uint32_t transactions);

// --- What the poolers know of commits ---------------------------------------------------------------------

/// The record of a group, made at the first call; nullptr without shared memory.
[[nodiscard]] pooler::CausalRecord* shared_causal_record(NodeKey group);

// --- The catalog generation: backends write, the monitor reads -------------------------------------------

/// Says that pgxc_nodes has changed, and wakes the monitor: in a commit callback, at the very end of the
/// transaction, when others can see the change; outside of a transaction, at once. No allocation, no error.
/// Does nothing without shared memory.
void bump_catalog_generation() noexcept;
[[nodiscard]] std::uint64_t catalog_generation() noexcept;

// --- Wake-ups --------------------------------------------------------------------------------------------

void wake_monitor() noexcept;
void wake_poolers() noexcept;
/// The eventfds, non-blocking, for the process that waits on them. -1 without shared memory.
[[nodiscard]] int monitor_wake_fd() noexcept;
[[nodiscard]] int pooler_wake_fd(int worker) noexcept;  // worker: 0 .. pooler_workers - 1

// --- Requests to the monitor -----------------------------------------------------------------------------

enum class MonitorRequestKind : std::uint8_t {
    Promote,  // make this slave the master of its group
    Settle,   // wait until the replication of this node's group is in force as the catalog says
};

struct MonitorRequest {
    MonitorRequestKind kind = MonitorRequestKind::Settle;
    NodeKey node;
    std::string address;        // Promote: WITH CONNECTION as it was written; '' = none
    bool with_restart = false;  // Promote: WITH RESTART
    bool force = false;         // Promote: FORCE
    int requester_pid = 0;      // filled in by submit_monitor_request()
    std::string user;           // who asks, for the log and the history
};

/// Hands a request to the monitor and waits for its answer; *result_text (may be null) gets the text of a
/// success. Can be cancelled: then the request is withdrawn, or, if the monitor is already working on it, its
/// outcome is nobody's (the monitor finishes what it began). Errors: 55000 if the monitor isn't running,
/// 53400 if too many requests wait, and whatever the monitor answers. Call it without locks that the monitor
/// may want. With a `timeout` it gives up after that time (55000), as when it is cancelled.
[[nodiscard]] Status submit_monitor_request(const MonitorRequest& request, std::string* result_text,
                                            std::optional<Millis> timeout = std::nullopt);

struct TakenRequest {
    int slot = 0;
    MonitorRequest request;
};

/// Takes the oldest request that waits. Monitor only.
[[nodiscard]] std::optional<TakenRequest> take_monitor_request();
/// Nobody waits for the answer any more (cancelled, or the session ended).
[[nodiscard]] bool monitor_request_abandoned(int slot);
/// Answers. Texts longer than the slot holds are cut.
void finish_monitor_request(int slot, const Status& status, const std::string& text);

/// The monitor says that it runs (and, by itself, at its exit, that it doesn't: whoever waits gets an error).
void attach_monitor();
/// The pid of the running monitor; 0 = none.
[[nodiscard]] int monitor_pid() noexcept;

// --- What traffic met: poolers write, the monitor drains -------------------------------------------------

/// What happened at one node since the last drain.
struct TrafficReport {
    NodeKey node;
    Epoch epoch;  // of the last failure
    TrafficFailure last_failure = TrafficFailure::ConnectRefused;
    TimePoint last_at;
    std::uint32_t failures = 0;
};

/// Counts, and wakes the monitor. Never blocks for longer than a copy.
void report_traffic_failure(NodeKey node, Epoch epoch, TrafficFailure failure);
[[nodiscard]] std::vector<TrafficReport> drain_traffic_failures();

// --- Rows of the pooler's views --------------------------------------------------------------------------

/// Replaces this worker's rows. Rows beyond limits::max_pool_rows and limits::max_client_rows are counted
/// only.
void publish_pooler_rows(int worker, const std::vector<pooler::PoolRow>& pools,
                         const std::vector<pooler::ClientRow>& clients);
/// Forgets a worker's rows (it starts or ends).
void clear_pooler_rows(int worker) noexcept;

struct PoolerRows {
    int worker = 0;
    std::vector<pooler::PoolRow> pools;
    std::vector<pooler::ClientRow> clients;
    std::uint32_t pools_left_out = 0;
    std::uint32_t clients_left_out = 0;
};
/// Everything that the workers have published, by worker.
[[nodiscard]] std::vector<PoolerRows> read_pooler_rows();

/// The same for what is counted. `resets`: the pooler_statistics_resets() that it has begun anew after.
void publish_pooler_statistics(int worker, const std::vector<pooler::ServerRow>& servers,
                               const std::vector<pooler::PoolStatsRow>& pools, std::uint64_t resets);
struct PoolerStatistics {
    int worker = 0;
    std::vector<pooler::ServerRow> servers;
    std::vector<pooler::PoolStatsRow> pools;
    std::uint32_t servers_left_out = 0;
};
/// By worker. What was counted before the last reset is not there.
[[nodiscard]] std::vector<PoolerStatistics> read_pooler_statistics();
/// Lets all workers begin to count anew.
void reset_pooler_statistics();
[[nodiscard]] std::uint64_t pooler_statistics_resets() noexcept;

// --- Databases that must be free -------------------------------------------------------------------------

/// DROP DATABASE and the like ask the workers to give up their idle connections to a database. Waits until
/// each running worker has said that it did, for a second at most: whoever is still there then makes the
/// command fail with the server's own message.
[[nodiscard]] Status ask_workers_to_leave_database(const std::string& database);

/// Who answers: pooler workers 0, 1, ..., and the monitor.
inline constexpr int monitor_index = -1;
/// Says that this worker runs and will answer; at its exit it is taken off again.
void attach_to_leave_requests(int worker);
/// The databases to leave since the worker last asked, an empty name for all databases (it has slept through
/// too many requests). Leave them, then confirm the number.
struct LeaveRequests {
    std::uint64_t number = 0;
    std::vector<std::string> databases;
};
[[nodiscard]] LeaveRequests take_leave_requests(int worker);
void confirm_left(int worker, std::uint64_t number);

/// Asks the other pooler workers to close their idle connections to a node's database. Doesn't wait, and
/// nobody confirms.
void ask_poolers_to_leave_database(int worker, NodeKey node, const std::string& database) noexcept;
struct NodeDatabase {
    NodeKey node;
    std::string database;
};
/// What others have asked for since this worker last looked.
[[nodiscard]] std::vector<NodeDatabase> take_node_databases_to_leave(int worker);

// --- Starts of the monitor that failed -------------------------------------------------------------------

/// Counts attempts to connect to pgxc.database that did not succeed, so that the next one can wait a little.
/// Returns how many there were before this one.
int monitor_connecting();
void monitor_connected();

}  // namespace pgxc
