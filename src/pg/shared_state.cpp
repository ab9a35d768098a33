#include "pg/shared_state.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/limits.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/pg_compat.h"
#include "pg/shared_layout.h"

extern "C" {
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/resowner.h"
}

namespace pgxc {
using namespace shm;
namespace {

constexpr const char* tranche = "pgxc_ha";
constexpr int lock_count = 5;

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
        for (auto& taken : shared->view_taken) pg_atomic_init_u64(&taken, 0);
        pg_atomic_init_u64(&shared->catalog_generation, 1);
        pg_atomic_init_u64(&shared->stats_resets, 0);
        for (RequestSlot& slot : shared->requests) ConditionVariableInit(&slot.answered);
        ConditionVariableInit(&shared->left);
        ConditionVariableInit(&shared->paused_changed);
        for (PausedGroup& group : shared->paused)
            for (auto& in_use : group.in_use) pg_atomic_init_u32(&in_use, 0);
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
    node.registration = view.registration.value();
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
    view.registration = Registration{node.registration};
    view.may_read = node.may_read;
    view.timeline = TimelineId{node.timeline};
    view.position = Lsn{node.position};
    if (node.has_lag) view.lag_bytes = node.lag_bytes;
    if (node.has_last_seen) view.last_seen = from_us(node.last_seen_us);
    view.why = node.why;
    return view;
}

}  // namespace

namespace shm {

SharedState* shared = nullptr;

PoolerArea* area_of(int worker) {
    return reinterpret_cast<PoolerArea*>(reinterpret_cast<char*>(shared) + MAXALIGN(sizeof(SharedState)) +
                                         area_size(shared->client_rows) * static_cast<Size>(worker));
}

SharedClient* clients_of(PoolerArea* area) {
    return reinterpret_cast<SharedClient*>(area + 1);
}

}  // namespace shm

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

void note_view_taken(int worker, Generation generation) noexcept {
    if (shared != nullptr) pg_atomic_write_u64(&shared->view_taken[worker], generation.value());
}

bool newest_view_taken() noexcept {
    if (shared == nullptr) return true;
    const std::uint64_t newest = pg_atomic_read_u64(&shared->view_generation);
    for (int worker = 0; worker < shared->pooler_workers; ++worker)
        if (pg_atomic_read_u64(&shared->view_taken[worker]) < newest) return false;
    return true;
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
        for (const PausedGroup& group : shared->paused) {
            if (!group.on) continue;
            for (NodeView& node : fresh->nodes) {
                if (node.node.key != NodeKey{group.type, NodeId{group.id}} || !node.node.is_master())
                    continue;
                node.paused = true;
                node.why = "paused by " + std::string(group.user) + ": CALL pgxc.resume('" +
                           std::to_string(group.id) + "') lets transactions begin again" +
                           (node.why.empty() ? "" : "; " + node.why);
            }
        }
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

}  // namespace pgxc
