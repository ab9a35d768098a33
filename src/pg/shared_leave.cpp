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

LeaveSeat& seat_of(int worker) {
    return shared->leave_seat[worker == monitor_index ? limits::max_pooler_workers : worker];
}

void detach_seat(int /*code*/, Datum worker) {
    Locked lock(shared->leave_lock, LW_EXCLUSIVE);
    seat_of(DatumGetInt32(worker)).pid = 0;
    ConditionVariableBroadcast(&shared->left);
}

}  // namespace

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
        seat_of(worker) = {MyProcPid, shared->leave_number, shared->leave_number, shared->node_leave_number};
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

void ask_poolers_to_leave_database(int worker, NodeKey node, const std::string& database) noexcept {
    if (shared == nullptr || shared->pooler_workers < 2) return;
    {
        Locked lock(shared->leave_lock, LW_EXCLUSIVE);
        const std::uint64_t number = ++shared->node_leave_number;
        SharedNodeDatabase& to = shared->node_leave_database[number % node_leave_ring];
        to.worker = worker;
        to.type = node.type;
        to.id = node.id.value();
        put(to.name, database);
    }
    wake_poolers();
}

std::vector<NodeDatabase> take_node_databases_to_leave(int worker) {
    std::vector<NodeDatabase> databases;
    if (shared == nullptr) return databases;
    Locked lock(shared->leave_lock, LW_EXCLUSIVE);
    LeaveSeat& seat = seat_of(worker);
    std::uint64_t number = seat.nodes_taken;
    if (shared->node_leave_number - number > node_leave_ring)
        number = shared->node_leave_number - node_leave_ring;
    while (number < shared->node_leave_number) {
        const SharedNodeDatabase& from = shared->node_leave_database[++number % node_leave_ring];
        if (from.worker != worker) databases.push_back({{from.type, NodeId{from.id}}, from.name});
    }
    seat.nodes_taken = number;
    return databases;
}

}  // namespace pgxc
