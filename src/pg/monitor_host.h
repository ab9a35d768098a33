#pragma once

#include "base/result.h"
#include "pg/worker_host.h"

namespace pgxc {

/// Runs the monitor until the server wants it to end: host.serve() with what it does on each wake
/// (catalog_generation(), take_monitor_request(), drain_traffic_failures() tell why), on reload and at the
/// end. It is attached as the monitor, and connected to pgxc.database, whose extension may not be created
/// yet.
[[nodiscard]] Status run_monitor(WorkerHost& host);

}  // namespace pgxc
