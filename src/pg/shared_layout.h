#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "base/limits.h"
#include "catalog/cluster_view.h"
#include "pg/boundary.h"
#include "pg/shared_state.h"
#include "pooler/causal_bound.h"
#include "pooler/statistics.h"

extern "C" {
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
}

/// What lies in the shared memory, for the shared_*.cpp files only.
///
/// Layout version 4. One struct SharedState, then for each pooler worker one PoolerArea followed by its
/// client rows. Each part has one lock, and no code here takes two of them:
///
///   view_lock      view_count, view[], paused[] but its in_use; view_generation is written under it and may
///                  be read without; causal_count and the keys of causal[], which are only ever added
///   request_lock   requests[], next_order, monitor_pid, monitor_failures
///   traffic_lock   traffic_count, traffic[]
///   rows_lock      all PoolerAreas (the counters in them are pooler::PoolCounters)
///   leave_lock     leave_*, node_leave_*
///   (none)         catalog_generation, view_taken, causal[].record, paused[].in_use, stats_resets: atomic
///
/// Nothing that can fail runs under a lock but memory allocation in C++, whose exception releases it.
namespace pgxc::shm {

inline constexpr std::uint32_t layout_version = 4;
/// How many databases to leave are remembered: a worker that missed more of them leaves all.
inline constexpr std::size_t leave_ring = 16;
/// The same of nodes: of more the oldest are forgotten, since any client may ask for them.
inline constexpr std::size_t node_leave_ring = 32;

struct SharedNode {
    NodeType type;
    std::int32_t id;
    char host[limits::max_host_bytes];
    std::uint16_t port;
    std::int32_t master_id;
    Replication replication;
    std::int64_t epoch;
    NodeState state;
    RoleSeen role_seen;
    Gate gate;
    std::uint32_t registration;
    bool may_read;
    bool has_lag;
    bool has_last_seen;
    std::uint32_t timeline;
    std::uint64_t position;
    std::uint64_t lag_bytes;
    std::int64_t last_seen_us;
    char why[limits::max_reason_bytes];
};

/// Where a request is, and so who may touch the slot.
enum class SlotState : std::uint8_t {
    Free,       // nobody
    Submitted,  // a backend waits, the monitor hasn't taken it: the backend may withdraw it
    Running,    // a backend waits, the monitor works on it
    Abandoned,  // the monitor works on it, nobody waits: the monitor frees it
    Done,       // the answer is there: the backend frees it
};

struct RequestSlot {
    SlotState state;
    MonitorRequestKind kind;
    NodeType type;
    std::int32_t id;
    char address[limits::max_host_bytes + 16];
    bool with_restart;
    bool force;
    std::int32_t requester_pid;
    char user[NAMEDATALEN];
    std::uint64_t order;
    bool succeeded;
    char sqlstate[6];
    char message[1024];
    char detail[1024];
    char hint[512];
    char text[1024];
    ConditionVariable answered;
};

struct TrafficEntry {
    NodeType type;
    std::int32_t id;
    std::int64_t epoch;
    TrafficFailure last_failure;
    std::int64_t last_at_ns;  // the steady clock is the same for all processes of a host
    std::uint32_t failures;
};

struct SharedPool {
    NodeType type;
    std::int32_t id;
    char database[NAMEDATALEN];
    char user[NAMEDATALEN];
    std::uint32_t clients_active;
    std::uint32_t clients_waiting;
    std::uint32_t servers_active;
    std::uint32_t servers_idle;
    std::uint32_t servers_connecting;
    std::uint64_t longest_wait_us;
    std::uint32_t concurrency_limit;
};

struct SharedClient {
    std::uint64_t id;
    char address[64];
    char database[NAMEDATALEN];
    char user[NAMEDATALEN];
    char application_name[NAMEDATALEN];
    char state[16];
    char why[128];
    NodeType type;
    std::int32_t node_id;
    std::int64_t connected_at_us;
    std::uint64_t transactions;
};

struct SharedServer {
    NodeType type;
    std::int32_t node_id;
    char address[limits::max_host_bytes + 16];
    char database[NAMEDATALEN];
    char user[NAMEDATALEN];
    std::uint32_t pid;
    char state[16];
    bool has_connected_at;
    bool has_idle_since;
    bool has_client;
    bool tls;
    std::int64_t connected_at_us;
    std::int64_t idle_since_us;
    std::uint64_t client;
    std::uint64_t transactions;
    std::uint32_t prepared_statements;
};

struct SharedPoolStats {
    NodeType type;
    std::int32_t node_id;
    char database[NAMEDATALEN];
    char user[NAMEDATALEN];
    pooler::PoolCounters counters;
};
static_assert(std::is_trivially_copyable_v<pooler::PoolCounters>);

struct PoolerArea {
    std::uint32_t servers;
    std::uint32_t servers_left_out;
    std::uint32_t stats;
    std::uint64_t stats_resets;  // the last one that its counters have begun anew after
    SharedServer server[limits::max_server_rows];
    SharedPoolStats stat[limits::max_stats_rows];
    std::uint32_t pools;
    std::uint32_t clients;
    std::uint32_t pools_left_out;
    std::uint32_t clients_left_out;
    SharedPool pool[limits::max_pool_rows];
};

struct LeaveSeat {
    std::int32_t pid;  // 0 = nobody answers here
    std::uint64_t confirmed;
    std::uint64_t taken;
    std::uint64_t nodes_taken;
};

/// A node's database that a pooler worker wants the others to leave.
struct SharedNodeDatabase {
    std::int32_t worker;
    NodeType type;
    std::int32_t id;
    char name[NAMEDATALEN];
};

/// What the pooler workers know together of the commits of one group.
struct SharedCausal {
    NodeType type;
    std::int32_t id;
    pooler::CausalRecord record;
};

/// A group whose transactions are held because somebody asked for it.
struct PausedGroup {
    bool on;
    NodeType type;
    std::int32_t id;
    char user[NAMEDATALEN];
    pg_atomic_uint32 in_use[limits::max_pooler_workers];  // transactions that still run, by worker
};

struct SharedState {
    std::uint32_t version;
    std::int32_t pooler_workers;
    std::uint32_t client_rows;  // of each worker

    LWLock* view_lock;  // locks live in the main segment too, at the same address in every process (fork)
    LWLock* request_lock;
    LWLock* traffic_lock;
    LWLock* rows_lock;
    LWLock* leave_lock;

    pg_atomic_uint64 view_generation;
    pg_atomic_uint64 catalog_generation;
    pg_atomic_uint64 stats_resets;
    pg_atomic_uint64 view_taken[limits::max_pooler_workers];  // the view_generation that each pooler goes by

    std::uint32_t view_count;
    SharedNode view[limits::max_nodes];
    PausedGroup paused[limits::max_paused_groups];
    ConditionVariable paused_changed;

    std::uint32_t causal_count;
    SharedCausal causal[limits::max_nodes];

    std::int32_t monitor_pid;
    std::int32_t monitor_failures;
    std::uint64_t next_order;
    RequestSlot requests[limits::max_monitor_requests];

    std::uint32_t traffic_count;
    TrafficEntry traffic[limits::max_nodes];

    std::uint64_t leave_number;
    char leave_database[leave_ring][NAMEDATALEN];
    std::uint64_t node_leave_number;
    SharedNodeDatabase node_leave_database[node_leave_ring];
    LeaveSeat leave_seat[limits::max_pooler_workers + 1];  // the monitor's is the last
    ConditionVariable left;
};

/// nullptr where there is no shared memory.
extern SharedState* shared;

class Locked {
  public:
    Locked(LWLock* lock, LWLockMode mode) : lock_(lock) { LWLockAcquire(lock_, mode); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;
    ~Locked() { LWLockRelease(lock_); }

  private:
    LWLock* lock_;
};

/// Copies as much as fits, never half a UTF-8 character.
template <std::size_t N>
void put(char (&to)[N], std::string_view from) {
    std::size_t size = std::min(from.size(), N - 1);
    if (size < from.size())
        while (size > 0 && (static_cast<unsigned char>(from[size]) & 0xC0) == 0x80) --size;
    if (size > 0) std::memcpy(to, from.data(), size);
    to[size] = '\0';
}

/// The rows of a pooler worker.
[[nodiscard]] PoolerArea* area_of(int worker);
[[nodiscard]] SharedClient* clients_of(PoolerArea* area);

inline std::int64_t to_us(WallTime time) {
    return time.time_since_epoch().count();
}

inline WallTime from_us(std::int64_t us) {
    return WallTime{std::chrono::microseconds{us}};
}

}  // namespace pgxc::shm
