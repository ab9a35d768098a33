#include <string_view>

#include "base/limits.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"
#include "pg/shared_layout.h"

extern "C" {
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
}

namespace pgxc {
using namespace shm;
namespace {

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

}  // namespace

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
