#include "pg/shared_state.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/limits.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/pg_compat.h"

extern "C" {
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/resowner.h"
}

// Layout version 1. One struct SharedState, then for each pooler worker one PoolerArea followed by its client
// rows. Each part has one lock, and no code here takes two of them:
//
//   view_lock      view_count, view[]; view_generation is written under it and may be read without
//   request_lock   requests[], next_order, monitor_pid, monitor_failures
//   traffic_lock   traffic_count, traffic[]
//   rows_lock      all PoolerAreas
//   leave_lock     leave_*
//   (none)         catalog_generation: atomic
//
// Nothing that can fail runs under a lock but memory allocation in C++, whose exception releases it.

namespace pgxc {
namespace {

constexpr std::uint32_t layout_version = 1;
constexpr std::size_t leave_ring = 16;

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

struct PoolerArea {
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

    std::uint32_t view_count;
    SharedNode view[limits::max_nodes];

    std::int32_t monitor_pid;
    std::int32_t monitor_failures;
    std::uint64_t next_order;
    RequestSlot requests[limits::max_monitor_requests];

    std::uint32_t traffic_count;
    TrafficEntry traffic[limits::max_nodes];

    std::uint64_t leave_number;
    char leave_database[leave_ring][NAMEDATALEN];
    LeaveSeat leave_seat[limits::max_pooler_workers + 1];  // the monitor's is the last
    ConditionVariable left;
};

constexpr const char* tranche = "pgxc_ha";
constexpr int lock_count = 5;

SharedState* shared = nullptr;
bool bump_at_end = false;  // of the current transaction
int monitor_eventfd = -1;
std::array<int, limits::max_pooler_workers> pooler_eventfds = [] {
    std::array<int, limits::max_pooler_workers> none{};
    none.fill(-1);
    return none;
}();

shmem_startup_hook_type previous_startup_hook = nullptr;
#if PGXC_HAS_SHMEM_REQUEST_HOOK
shmem_request_hook_type previous_request_hook = nullptr;
#endif

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

std::uint32_t client_rows_per_worker() {
    return static_cast<std::uint32_t>(std::min<std::size_t>(
        limits::max_client_rows, static_cast<std::size_t>(guc::max_client_connections())));
}

int worker_count() {
    return guc::pooler_port() == 0 || guc::role() != guc::Role::Coordinator ? 0 : guc::pooler_workers();
}

Size area_size(std::uint32_t client_rows) {
    return MAXALIGN(sizeof(PoolerArea) + sizeof(SharedClient) * client_rows);
}

Size shared_size() {
    return MAXALIGN(sizeof(SharedState)) +
           area_size(client_rows_per_worker()) * static_cast<Size>(worker_count());
}

PoolerArea* area_of(int worker) {
    return reinterpret_cast<PoolerArea*>(reinterpret_cast<char*>(shared) + MAXALIGN(sizeof(SharedState)) +
                                         area_size(shared->client_rows) * static_cast<Size>(worker));
}

SharedClient* clients_of(PoolerArea* area) {
    return reinterpret_cast<SharedClient*>(area + 1);
}

void ask_for_memory() {
    RequestAddinShmemSpace(shared_size());
    RequestNamedLWLockTranche(tranche, lock_count);
}

extern "C" void pgxc_shmem_request() {
#if PGXC_HAS_SHMEM_REQUEST_HOOK
    if (previous_request_hook != nullptr) previous_request_hook();
#endif
    ask_for_memory();
}

extern "C" void pgxc_shmem_startup() {
    if (previous_startup_hook != nullptr) previous_startup_hook();
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    bool found = false;
    shared = static_cast<SharedState*>(ShmemInitStruct("pgxc_ha", shared_size(), &found));
    if (!found) {
        std::memset(static_cast<void*>(shared), 0, shared_size());
        shared->version = layout_version;
        shared->pooler_workers = worker_count();
        shared->client_rows = client_rows_per_worker();
        LWLockPadded* locks = GetNamedLWLockTranche(tranche);
        shared->view_lock = &locks[0].lock;
        shared->request_lock = &locks[1].lock;
        shared->traffic_lock = &locks[2].lock;
        shared->rows_lock = &locks[3].lock;
        shared->leave_lock = &locks[4].lock;
        pg_atomic_init_u64(&shared->view_generation, 0);
        pg_atomic_init_u64(&shared->catalog_generation, 1);
        for (RequestSlot& slot : shared->requests) ConditionVariableInit(&slot.answered);
        ConditionVariableInit(&shared->left);
    }
    LWLockRelease(AddinShmemInitLock);
}

void wake(int fd) noexcept {
    if (fd < 0) return;
    const int saved = errno;
    const std::uint64_t one = 1;
    // EAGAIN: the counter is full, so the reader is awake already.
    (void)!::write(fd, &one, sizeof one);
    errno = saved;
}

void bump_now() {
    pg_atomic_fetch_add_u64(&shared->catalog_generation, 1);
    wake(monitor_eventfd);
}

/// A commit calls its callbacks before it sends the invalidations for what it changed: who looked then would
/// find its own stale caches, and not look again. This is the first thing after them.
void bump_after_locks(ResourceReleasePhase phase, bool committed, bool top_level, void* /*unused*/) {
    if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !top_level || !bump_at_end) return;
    bump_at_end = false;
    if (committed) bump_now();
}

int make_eventfd() {
    const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) ereport(FATAL, (errmsg("pgxc_ha: could not create an eventfd: %m")));
    ReserveExternalFD();
    return fd;
}

Error monitor_is_gone() {
    return {sqlstate::object_not_in_prerequisite_state, "the monitor of pgxc_ha is not running",
            "It runs on a coordinator where pgxc.database exists, and starts again by itself; see the server "
            "log."};
}

/// Writes an answer into a slot. The caller holds request_lock.
void answer(RequestSlot& slot, const Status& status, std::string_view text) {
    slot.succeeded = status.ok();
    put(slot.text, text);
    put(slot.sqlstate, status ? std::string_view{} : status.error().sqlstate);
    put(slot.message, status ? std::string_view{} : status.error().message);
    put(slot.detail, status ? std::string_view{} : status.error().detail);
    put(slot.hint, status ? std::string_view{} : status.error().hint);
    slot.state = slot.state == SlotState::Abandoned ? SlotState::Free : SlotState::Done;
    ConditionVariableBroadcast(&slot.answered);
}

/// The backend goes away (an error, a cancel, the end of the session) before it has read an answer.
void abandon_request(int /*code*/, Datum slot_number) {
    Locked lock(shared->request_lock, LW_EXCLUSIVE);
    RequestSlot& slot = shared->requests[DatumGetInt32(slot_number)];
    slot.state = slot.state == SlotState::Running ? SlotState::Abandoned : SlotState::Free;
}

/// False: the deadline has passed, and the request is withdrawn. A `timeout` of 0 is for ever.
bool wait_for_answer(int slot_number, Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    bool done = false;
    RequestSlot& slot = shared->requests[slot_number];
    PG_ENSURE_ERROR_CLEANUP(abandon_request, Int32GetDatum(slot_number));
    {
        ConditionVariablePrepareToSleep(&slot.answered);
        for (;;) {
            LWLockAcquire(shared->request_lock, LW_SHARED);
            done = slot.state == SlotState::Done;
            LWLockRelease(shared->request_lock);
            if (done) break;
            if (timeout.count() == 0) {
                ConditionVariableSleep(&slot.answered, PG_WAIT_EXTENSION);
                continue;
            }
            const auto left = std::chrono::duration_cast<Millis>(deadline - Clock::now()).count();
            if (left <= 0) break;
            (void)ConditionVariableTimedSleep(&slot.answered, static_cast<long>(left), PG_WAIT_EXTENSION);
        }
        ConditionVariableCancelSleep();
    }
    PG_END_ENSURE_ERROR_CLEANUP(abandon_request, Int32GetDatum(slot_number));
    if (!done) abandon_request(0, Int32GetDatum(slot_number));
    return done;
}

/// Fails what waits for a monitor that is no more. The caller holds request_lock.
void fail_open_requests() {
    for (RequestSlot& slot : shared->requests) {
        switch (slot.state) {
            case SlotState::Submitted:
                answer(slot, monitor_is_gone(), {});
                break;
            case SlotState::Running:
            case SlotState::Abandoned:
                answer(slot,
                       Error{sqlstate::object_not_in_prerequisite_state,
                             "the monitor of pgxc_ha stopped while it was working on this",
                             "It finishes what it has begun when it is back: see pgxc_node_status and "
                             "pgxc.failover_history."},
                       {});
                break;
            case SlotState::Free:
            case SlotState::Done:
                break;
        }
    }
}

void detach_monitor(int /*code*/, Datum /*unused*/) {
    Locked lock(shared->request_lock, LW_EXCLUSIVE);
    if (shared->monitor_pid != MyProcPid) return;
    shared->monitor_pid = 0;
    fail_open_requests();
}

LeaveSeat& seat_of(int worker) {
    return shared->leave_seat[worker == monitor_index ? limits::max_pooler_workers : worker];
}

void detach_seat(int /*code*/, Datum worker) {
    Locked lock(shared->leave_lock, LW_EXCLUSIVE);
    seat_of(DatumGetInt32(worker)).pid = 0;
    ConditionVariableBroadcast(&shared->left);
}

std::int64_t to_us(WallTime time) {
    return time.time_since_epoch().count();
}

WallTime from_us(std::int64_t us) {
    return WallTime{std::chrono::microseconds{us}};
}

SharedNode to_shared(const NodeView& view) {
    SharedNode node{};
    node.type = view.node.key.type;
    node.id = view.node.key.id.value();
    put(node.host, view.node.address.host);
    node.port = view.node.address.port;
    node.master_id = view.node.master_id.value();
    node.replication = view.node.replication;
    node.epoch = view.node.epoch.value();
    node.state = view.state;
    node.role_seen = view.role_seen;
    node.gate = view.gate;
    node.may_read = view.may_read;
    node.timeline = view.timeline.value();
    node.position = view.position.bytes();
    node.has_lag = view.lag_bytes.has_value();
    node.lag_bytes = view.lag_bytes.value_or(0);
    node.has_last_seen = view.last_seen.has_value();
    node.last_seen_us = view.last_seen ? to_us(*view.last_seen) : 0;
    put(node.why, view.why);
    return node;
}

NodeView from_shared(const SharedNode& node) {
    NodeView view;
    view.node = Node{{node.type, NodeId{node.id}},
                     {node.host, node.port},
                     NodeId{node.master_id},
                     node.replication,
                     Epoch{node.epoch}};
    view.state = node.state;
    view.role_seen = node.role_seen;
    view.gate = node.gate;
    view.may_read = node.may_read;
    view.timeline = TimelineId{node.timeline};
    view.position = Lsn{node.position};
    if (node.has_lag) view.lag_bytes = node.lag_bytes;
    if (node.has_last_seen) view.last_seen = from_us(node.last_seen_us);
    view.why = node.why;
    return view;
}

}  // namespace

void request_shared_state() {
    RegisterResourceReleaseCallback(bump_after_locks, nullptr);
    monitor_eventfd = make_eventfd();
    for (int worker = 0; worker < worker_count(); ++worker) pooler_eventfds[worker] = make_eventfd();
#if PGXC_HAS_SHMEM_REQUEST_HOOK
    previous_request_hook = shmem_request_hook;
    shmem_request_hook = pgxc_shmem_request;
#else
    ask_for_memory();
#endif
    previous_startup_hook = shmem_startup_hook;
    shmem_startup_hook = pgxc_shmem_startup;
}

bool have_shared_state() {
    return shared != nullptr;
}

Status require_shared_state() {
    if (have_shared_state()) return {};
    return Error{sqlstate::object_not_in_prerequisite_state, "pgxc_ha is not loaded into the server",
                 "Add pgxc_ha to shared_preload_libraries and restart the server."};
}

Status publish_cluster_view(const ClusterView& view) {
    if (Status there = require_shared_state(); !there) return there;
    if (view.nodes.size() > limits::max_nodes)
        return Error{sqlstate::configuration_limit_exceeded,
                     "more than " + std::to_string(limits::max_nodes) + " nodes"};
    {
        Locked lock(shared->view_lock, LW_EXCLUSIVE);
        for (std::size_t i = 0; i < view.nodes.size(); ++i) shared->view[i] = to_shared(view.nodes[i]);
        shared->view_count = static_cast<std::uint32_t>(view.nodes.size());
        pg_atomic_fetch_add_u64(&shared->view_generation, 1);
    }
    wake_poolers();
    return {};
}

SharedClusterView::SharedClusterView() : cached_(std::make_shared<const ClusterView>()) {}

std::shared_ptr<const ClusterView> SharedClusterView::current() {
    if (shared == nullptr || pg_atomic_read_u64(&shared->view_generation) == cached_->generation.value())
        return cached_;
    auto fresh = std::make_shared<ClusterView>();
    fresh->nodes.reserve(limits::max_nodes);
    {
        Locked lock(shared->view_lock, LW_SHARED);
        fresh->generation = Generation{pg_atomic_read_u64(&shared->view_generation)};
        for (std::uint32_t i = 0; i < shared->view_count; ++i)
            fresh->nodes.push_back(from_shared(shared->view[i]));
    }
    cached_ = std::move(fresh);
    return cached_;
}

void bump_catalog_generation() noexcept {
    if (shared == nullptr) return;
    if (GetCurrentTransactionNestLevel() > 0)
        bump_at_end = true;
    else
        bump_now();
}

std::uint64_t catalog_generation() noexcept {
    return shared != nullptr ? pg_atomic_read_u64(&shared->catalog_generation) : 0;
}

void wake_monitor() noexcept {
    wake(monitor_eventfd);
}

void wake_poolers() noexcept {
    for (const int fd : pooler_eventfds) wake(fd);
}

int monitor_wake_fd() noexcept {
    return monitor_eventfd;
}

int pooler_wake_fd(int worker) noexcept {
    return pooler_eventfds[worker];
}

Status submit_monitor_request(const MonitorRequest& request, std::string* result_text,
                              std::optional<Millis> timeout) {
    if (Status there = require_shared_state(); !there) return there;
    int number = -1;
    {
        Locked lock(shared->request_lock, LW_EXCLUSIVE);
        if (shared->monitor_pid == 0) return monitor_is_gone();
        for (std::size_t i = 0; i < limits::max_monitor_requests && number < 0; ++i)
            if (shared->requests[i].state == SlotState::Free) number = static_cast<int>(i);
        if (number < 0)
            return Error{
                sqlstate::configuration_limit_exceeded,
                std::to_string(limits::max_monitor_requests) + " requests already wait for the monitor",
                "Try again when one of them has finished."};
        RequestSlot& slot = shared->requests[number];
        slot.state = SlotState::Submitted;
        slot.kind = request.kind;
        slot.type = request.node.type;
        slot.id = request.node.id.value();
        put(slot.address, request.address);
        slot.with_restart = request.with_restart;
        slot.force = request.force;
        slot.requester_pid = MyProcPid;
        put(slot.user, request.user);
        slot.order = ++shared->next_order;
    }
    wake_monitor();
    const Millis patience = timeout.value_or(Millis{0});
    const auto answered = pg_call([=] { return wait_for_answer(number, patience); });
    if (!answered) return answered.error();
    if (!*answered)
        return Error{sqlstate::object_not_in_prerequisite_state,
                     "the monitor did not finish within " + std::to_string(patience.count()) + " ms",
                     "It goes on by itself: see pgxc_node_status."};

    // The slot is ours alone now (Done): copy it out, then give it back.
    const RequestSlot& slot = shared->requests[number];
    Status status;
    if (!slot.succeeded) status = Error{slot.sqlstate, slot.message, slot.hint, slot.detail};
    if (result_text != nullptr) *result_text = slot.text;
    Locked lock(shared->request_lock, LW_EXCLUSIVE);
    shared->requests[number].state = SlotState::Free;
    return status;
}

std::optional<TakenRequest> take_monitor_request() {
    if (shared == nullptr) return std::nullopt;
    std::optional<TakenRequest> taken;
    Locked lock(shared->request_lock, LW_EXCLUSIVE);
    RequestSlot* oldest = nullptr;
    for (RequestSlot& slot : shared->requests)
        if (slot.state == SlotState::Submitted && (oldest == nullptr || slot.order < oldest->order))
            oldest = &slot;
    if (oldest == nullptr) return taken;
    taken = TakenRequest{static_cast<int>(oldest - shared->requests),
                         {oldest->kind,
                          {oldest->type, NodeId{oldest->id}},
                          oldest->address,
                          oldest->with_restart,
                          oldest->force,
                          oldest->requester_pid,
                          oldest->user}};
    oldest->state = SlotState::Running;
    return taken;
}

bool monitor_request_abandoned(int slot) {
    Locked lock(shared->request_lock, LW_SHARED);
    return shared->requests[slot].state == SlotState::Abandoned;
}

void finish_monitor_request(int slot, const Status& status, const std::string& text) {
    Locked lock(shared->request_lock, LW_EXCLUSIVE);
    RequestSlot& request = shared->requests[slot];
    Assert(request.state == SlotState::Running || request.state == SlotState::Abandoned);
    answer(request, status, text);
}

void attach_monitor() {
    {
        Locked lock(shared->request_lock, LW_EXCLUSIVE);
        fail_open_requests();
        shared->monitor_pid = MyProcPid;
    }
    before_shmem_exit(detach_monitor, 0);
}

int monitor_pid() noexcept {
    if (shared == nullptr) return 0;
    Locked lock(shared->request_lock, LW_SHARED);
    return shared->monitor_pid;
}

void report_traffic_failure(NodeKey node, Epoch epoch, TrafficFailure failure) {
    if (shared == nullptr) return;
    {
        Locked lock(shared->traffic_lock, LW_EXCLUSIVE);
        TrafficEntry* const end = shared->traffic + shared->traffic_count;
        TrafficEntry* entry = std::find_if(shared->traffic, end, [&](const TrafficEntry& known) {
            return known.type == node.type && known.id == node.id.value();
        });
        if (entry == end) {
            // More nodes than the catalog can hold have failed since the last drain: the monitor sees enough.
            if (shared->traffic_count == limits::max_nodes) return;
            ++shared->traffic_count;
            *entry = TrafficEntry{};
            entry->type = node.type;
            entry->id = node.id.value();
        }
        entry->epoch = epoch.value();
        entry->last_failure = failure;
        entry->last_at_ns = Clock::now().time_since_epoch().count();
        ++entry->failures;
    }
    wake_monitor();
}

std::vector<TrafficReport> drain_traffic_failures() {
    std::vector<TrafficReport> reports;
    if (shared == nullptr) return reports;
    Locked lock(shared->traffic_lock, LW_EXCLUSIVE);
    reports.reserve(shared->traffic_count);
    for (std::uint32_t i = 0; i < shared->traffic_count; ++i) {
        const TrafficEntry& entry = shared->traffic[i];
        reports.push_back({{entry.type, NodeId{entry.id}},
                           Epoch{entry.epoch},
                           entry.last_failure,
                           TimePoint{Clock::duration{entry.last_at_ns}},
                           entry.failures});
    }
    shared->traffic_count = 0;
    return reports;
}

void publish_pooler_rows(int worker, const std::vector<pooler::PoolRow>& pools,
                         const std::vector<pooler::ClientRow>& clients) {
    if (shared == nullptr || worker >= shared->pooler_workers) return;
    Locked lock(shared->rows_lock, LW_EXCLUSIVE);
    PoolerArea* const area = area_of(worker);
    area->pools = static_cast<std::uint32_t>(std::min(pools.size(), limits::max_pool_rows));
    area->clients = static_cast<std::uint32_t>(std::min<std::size_t>(clients.size(), shared->client_rows));
    area->pools_left_out = static_cast<std::uint32_t>(pools.size()) - area->pools;
    area->clients_left_out = static_cast<std::uint32_t>(clients.size()) - area->clients;
    for (std::uint32_t i = 0; i < area->pools; ++i) {
        const pooler::PoolRow& from = pools[i];
        SharedPool& to = area->pool[i];
        to.type = from.node.type;
        to.id = from.node.id.value();
        put(to.database, from.database);
        put(to.user, from.user);
        to.clients_active = from.clients_active;
        to.clients_waiting = from.clients_waiting;
        to.servers_active = from.servers_active;
        to.servers_idle = from.servers_idle;
        to.servers_connecting = from.servers_connecting;
        to.longest_wait_us = from.longest_wait_us;
    }
    SharedClient* const to_clients = clients_of(area);
    for (std::uint32_t i = 0; i < area->clients; ++i) {
        const pooler::ClientRow& from = clients[i];
        SharedClient& to = to_clients[i];
        to.id = from.id.value();
        put(to.address, from.address);
        put(to.database, from.database);
        put(to.user, from.user);
        put(to.application_name, from.application_name);
        put(to.state, from.state);
        put(to.why, from.why);
        to.type = from.node.type;
        to.node_id = from.node.id.value();
        to.connected_at_us = to_us(from.connected_at);
        to.transactions = from.transactions;
    }
}

void clear_pooler_rows(int worker) noexcept {
    if (shared == nullptr || worker >= shared->pooler_workers) return;
    Locked lock(shared->rows_lock, LW_EXCLUSIVE);
    PoolerArea* const area = area_of(worker);
    area->pools = area->clients = area->pools_left_out = area->clients_left_out = 0;
}

std::vector<PoolerRows> read_pooler_rows() {
    std::vector<PoolerRows> all;
    if (shared == nullptr) return all;
    for (int worker = 0; worker < shared->pooler_workers; ++worker) {
        PoolerRows& rows = all.emplace_back();
        rows.worker = worker;
        Locked lock(shared->rows_lock, LW_SHARED);
        PoolerArea* const area = area_of(worker);
        rows.pools_left_out = area->pools_left_out;
        rows.clients_left_out = area->clients_left_out;
        for (std::uint32_t i = 0; i < area->pools; ++i) {
            const SharedPool& pool = area->pool[i];
            rows.pools.push_back({{pool.type, NodeId{pool.id}},
                                  pool.database,
                                  pool.user,
                                  pool.clients_active,
                                  pool.clients_waiting,
                                  pool.servers_active,
                                  pool.servers_idle,
                                  pool.servers_connecting,
                                  pool.longest_wait_us});
        }
        const SharedClient* const clients = clients_of(area);
        for (std::uint32_t i = 0; i < area->clients; ++i) {
            const SharedClient& client = clients[i];
            rows.clients.push_back({ClientId{client.id},
                                    client.address,
                                    client.database,
                                    client.user,
                                    client.application_name,
                                    client.state,
                                    client.why,
                                    {client.type, NodeId{client.node_id}},
                                    from_us(client.connected_at_us),
                                    client.transactions});
        }
    }
    return all;
}

Status ask_workers_to_leave_database(const std::string& database) {
    if (shared == nullptr || database.empty()) return {};
    std::uint64_t number = 0;
    {
        Locked lock(shared->leave_lock, LW_EXCLUSIVE);
        number = ++shared->leave_number;
        put(shared->leave_database[number % leave_ring], database);
    }
    wake_monitor();
    wake_poolers();
    constexpr long patience_ms = 1000;
    const TimePoint deadline = Clock::now() + Millis{patience_ms};
    return pg_call([number, deadline] {
        ConditionVariablePrepareToSleep(&shared->left);
        for (;;) {
            LWLockAcquire(shared->leave_lock, LW_SHARED);
            bool all = true;
            for (const LeaveSeat& seat : shared->leave_seat)
                all = all && (seat.pid == 0 || seat.confirmed >= number);
            LWLockRelease(shared->leave_lock);
            const auto left_ms = std::chrono::duration_cast<Millis>(deadline - Clock::now()).count();
            if (all || left_ms <= 0) break;
            ConditionVariableTimedSleep(&shared->left, left_ms, PG_WAIT_EXTENSION);
        }
        ConditionVariableCancelSleep();
    });
}

void attach_to_leave_requests(int worker) {
    {
        Locked lock(shared->leave_lock, LW_EXCLUSIVE);
        // What was asked before this process was there doesn't concern it: it has no connections yet.
        seat_of(worker) = {MyProcPid, shared->leave_number, shared->leave_number};
    }
    before_shmem_exit(detach_seat, Int32GetDatum(worker));
}

LeaveRequests take_leave_requests(int worker) {
    LeaveRequests requests;
    Locked lock(shared->leave_lock, LW_EXCLUSIVE);
    LeaveSeat& seat = seat_of(worker);
    requests.number = shared->leave_number;
    if (shared->leave_number - seat.taken > leave_ring)
        requests.databases.emplace_back();
    else
        for (std::uint64_t number = seat.taken + 1; number <= shared->leave_number; ++number)
            requests.databases.emplace_back(shared->leave_database[number % leave_ring]);
    seat.taken = shared->leave_number;
    return requests;
}

void confirm_left(int worker, std::uint64_t number) {
    Locked lock(shared->leave_lock, LW_EXCLUSIVE);
    seat_of(worker).confirmed = number;
    ConditionVariableBroadcast(&shared->left);
}

int monitor_connecting() {
    if (shared == nullptr) return 0;
    Locked lock(shared->request_lock, LW_EXCLUSIVE);
    return shared->monitor_failures++;
}

void monitor_connected() {
    if (shared == nullptr) return;
    Locked lock(shared->request_lock, LW_EXCLUSIVE);
    shared->monitor_failures = 0;
}

}  // namespace pgxc
