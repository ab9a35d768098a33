#include <algorithm>

#include "base/limits.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"
#include "pg/shared_layout.h"

extern "C" {
#include "pgstat.h"
#include "storage/ipc.h"
}

namespace pgxc {
using namespace shm;
namespace {

/// A worker that is told reports what it really has.
constexpr std::uint32_t not_reported = ~std::uint32_t{0};

PausedGroup* find_paused(NodeKey group) {
    for (PausedGroup& paused : shared->paused)
        if (paused.on && paused.type == group.type && paused.id == group.id.value()) return &paused;
    return nullptr;
}

/// Is there a master of that name? The caller holds view_lock.
bool in_view(NodeKey group) {
    const SharedNode* const end = shared->view + shared->view_count;
    return std::any_of(static_cast<const SharedNode*>(shared->view), end, [group](const SharedNode& node) {
        return node.type == group.type && node.id == group.id.value() && node.master_id == 0;
    });
}

void next_view() {
    pg_atomic_fetch_add_u64(&shared->view_generation, 1);
}

/// Whoever asked for the pause goes away (an error, a cancel, the end of the session) before it has begun.
void take_pause_back(int /*code*/, Datum datanode) {
    (void)resume_group({NodeType::Datanode, NodeId{DatumGetInt32(datanode)}});
}

enum class Outcome { Unused, Resumed, Dropped };

/// Errors of the server pass: for pg_call().
Outcome wait_for_end_of_use(NodeKey group) {
    // A worker that is just being started takes the view when it is there; it is looked at again in time.
    constexpr long look_again_ms = 100;
    Outcome outcome = Outcome::Unused;
    ConditionVariablePrepareToSleep(&shared->paused_changed);
    for (;;) {
        LWLockAcquire(shared->view_lock, LW_SHARED);
        PausedGroup* const paused = find_paused(group);
        bool unused = true;
        if (paused == nullptr) {
            outcome = Outcome::Resumed;
        } else if (!in_view(group)) {
            outcome = Outcome::Dropped;
        } else {
            for (int worker = 0; worker < shared->pooler_workers; ++worker)
                unused = unused && pg_atomic_read_u32(&paused->in_use[worker]) == 0;
        }
        LWLockRelease(shared->view_lock);
        if (unused) break;
        ConditionVariableTimedSleep(&shared->paused_changed, look_again_ms, PG_WAIT_EXTENSION);
    }
    ConditionVariableCancelSleep();
    return outcome;
}

}  // namespace

Result<bool> pause_group(NodeKey group, const std::string& user) {
    if (Status there = require_shared_state(); !there) return std::move(there).error();
    {
        Locked lock(shared->view_lock, LW_EXCLUSIVE);
        if (find_paused(group) != nullptr) return false;
        PausedGroup* const end = shared->paused + limits::max_paused_groups;
        PausedGroup* const free =
            std::find_if(shared->paused, end, [](const PausedGroup& paused) { return !paused.on; });
        if (free == end)
            return Error{sqlstate::configuration_limit_exceeded,
                         "more than " + std::to_string(limits::max_paused_groups) + " groups are paused",
                         "Resume others first: CALL pgxc.resume(node)."};
        free->type = group.type;
        free->id = group.id.value();
        put(free->user, user);
        for (int worker = 0; worker < shared->pooler_workers; ++worker)
            pg_atomic_write_u32(&free->in_use[worker], not_reported);
        free->on = true;
        next_view();
    }
    wake_poolers();
    return true;
}

bool resume_group(NodeKey group) {
    if (shared == nullptr) return false;
    {
        Locked lock(shared->view_lock, LW_EXCLUSIVE);
        PausedGroup* const paused = find_paused(group);
        if (paused == nullptr) return false;
        paused->on = false;
        next_view();
    }
    wake_poolers();
    ConditionVariableBroadcast(&shared->paused_changed);
    return true;
}

Status wait_until_unused(NodeKey group, bool own_pause) {
    const auto waited = pg_call([group, own_pause]() -> Outcome {
        if (!own_pause) return wait_for_end_of_use(group);
        Outcome outcome = Outcome::Unused;
        const Datum id = Int32GetDatum(group.id.value());
        PG_ENSURE_ERROR_CLEANUP(take_pause_back, id);
        outcome = wait_for_end_of_use(group);
        PG_END_ENSURE_ERROR_CLEANUP(take_pause_back, id);
        return outcome;
    });
    if (!waited) return waited.error();
    switch (*waited) {
        case Outcome::Unused:
            return {};
        case Outcome::Resumed:
            return Error{sqlstate::object_not_in_prerequisite_state,
                         group.to_string() + " was resumed meanwhile"};
        case Outcome::Dropped:
            break;
    }
    // Else it would hold a group that is made under that number later.
    (void)resume_group(group);
    return Error{sqlstate::connection_exception, group.to_string() + " was dropped meanwhile"};
}

void report_group_in_use(int worker, NodeKey group, std::uint32_t transactions) {
    if (shared == nullptr || worker >= shared->pooler_workers) return;
    {
        Locked lock(shared->view_lock, LW_SHARED);
        PausedGroup* const paused = find_paused(group);
        if (paused == nullptr) return;
        pg_atomic_write_u32(&paused->in_use[worker], transactions);
    }
    if (transactions == 0) ConditionVariableBroadcast(&shared->paused_changed);
}

pooler::CausalRecord* shared_causal_record(NodeKey group) {
    if (shared == nullptr) return nullptr;
    Locked lock(shared->view_lock, LW_EXCLUSIVE);
    SharedCausal* const end = shared->causal + shared->causal_count;
    SharedCausal* const known = std::find_if(shared->causal, end, [group](const SharedCausal& entry) {
        return entry.type == group.type && entry.id == group.id.value();
    });
    if (known != end) return &known->record;
    // Groups that came and went use up the places: then each worker knows only of its own commits, which
    // CausalPosition takes for unknown.
    if (shared->causal_count == limits::max_nodes) return nullptr;
    ++shared->causal_count;
    end->type = group.type;
    end->id = group.id.value();
    return &end->record;
}

}  // namespace pgxc
