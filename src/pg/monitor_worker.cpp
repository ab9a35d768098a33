#include <algorithm>
#include <string>

#include "base/log.h"
#include "net/loop.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/monitor_host.h"
#include "pg/shared_state.h"
#include "pg/worker_host.h"

extern "C" {
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
}

namespace pgxc {
namespace {

Status monitor_body(int /*argument*/) {
    attach_monitor();
    net::Loop loop;
    WorkerHost host(loop, monitor_index, monitor_wake_fd());
    return run_monitor(host);
}

/// Connects to pgxc.database. Where that doesn't exist the server ends the process (FATAL) and starts it
/// again after a second: each time it waits a little longer, so as not to fill the log.
void connect_monitor() {
    const long before = monitor_connecting();
    if (before > 0) {
        BackgroundWorkerUnblockSignals();
        constexpr long most_seconds = 10;
        (void)WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1000 * std::min(before, most_seconds),
                        PG_WAIT_EXTENSION);
    }
    char name[NAMEDATALEN];
    strlcpy(name, guc::database().c_str(), sizeof name);
    WorkerHost::connect(name);
    monitor_connected();
}

}  // namespace
}  // namespace pgxc

extern "C" PGDLLEXPORT void pgxc_monitor_main(Datum argument) {
    pgxc::connect_monitor();
    pgxc::run_worker("monitor", pgxc::monitor_body, DatumGetInt32(argument));
}
