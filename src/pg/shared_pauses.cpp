#include <algorithm>

#include "base/limits.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"
#include "pg/shared_layout.h"

extern "C" {
#include "pgstat.h"
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

void next_view() {
    pg_atomic_fetch_add_u64(&shared->view_generation, 1);
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

Status wait_until_unused(NodeKey group) {
    enum class Outcome { Unused, Resumed };
    // A worker that is just being started takes the view when it is there; it is looked at again in time.
    constexpr long look_again_ms = 100;
    const auto waited = pg_call([group]() -> Outcome {
        Outcome outcome = Outcome::Unused;
        ConditionVariablePrepareToSleep(&shared->paused_changed);
        for (;;) {
            LWLockAcquire(shared->view_lock, LW_SHARED);
            PausedGroup* const paused = find_paused(group);
            bool unused = true;
            if (paused != nullptr)
                for (int worker = 0; worker < shared->pooler_workers; ++worker)
                    unused = unused && pg_atomic_read_u32(&paused->in_use[worker]) == 0;
            LWLockRelease(shared->view_lock);
            if (paused == nullptr) outcome = Outcome::Resumed;
            if (paused == nullptr || unused) break;
            ConditionVariableTimedSleep(&shared->paused_changed, look_again_ms, PG_WAIT_EXTENSION);
        }
        ConditionVariableCancelSleep();
        return outcome;
    });
    if (!waited) return waited.error();
    switch (*waited) {
        case Outcome::Unused:
            return {};
        case Outcome::Resumed:
            break;
    }
    return Error{sqlstate::object_not_in_prerequisite_state, group.to_string() + " was resumed meanwhile"};
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
