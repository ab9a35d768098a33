#include "pg/workers.h"

#include <dlfcn.h>

#include <cstring>

#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/pg_compat.h"

extern "C" {
#include "miscadmin.h"
#include "postmaster/bgworker.h"
}

namespace pgxc {
namespace {

/// The name by which the postmaster's children find this module: the file it was loaded from, wherever that
/// is.
void put_library_name(char* to, std::size_t size) {
    Dl_info info{};
    const auto address = reinterpret_cast<void*>(&register_workers);
    const bool known = ::dladdr(address, &info) != 0 && info.dli_fname != nullptr;
    if (known && std::strlen(info.dli_fname) < size)
        strlcpy(to, info.dli_fname, size);
    else
        strlcpy(to, "pgxc_ha", size);
}

/// RegisterBackgroundWorker() only logs when there is no room: is the worker really on the list?
bool is_registered(const char* name) {
    bool found = false;
    compat::each_registered_worker([&](const BackgroundWorker& worker) {
        if (strcmp(worker.bgw_name, name) == 0) found = true;
    });
    return found;
}

void register_worker(const char* type, const char* name, const char* function, int argument, int needed) {
    BackgroundWorker worker;
    std::memset(&worker, 0, sizeof worker);
    strlcpy(worker.bgw_name, name, sizeof worker.bgw_name);
    strlcpy(worker.bgw_type, type, sizeof worker.bgw_type);
    put_library_name(worker.bgw_library_name, sizeof worker.bgw_library_name);
    strlcpy(worker.bgw_function_name, function, sizeof worker.bgw_function_name);
    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = 1;
    worker.bgw_main_arg = Int32GetDatum(argument);
    RegisterBackgroundWorker(&worker);
    if (!is_registered(name))
        ereport(FATAL, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("pgxc_ha: no room for background worker \"%s\"", name),
                        errdetail("The coordinator needs %d background workers of its own (the monitor and "
                                  "pgxc.pooler_workers); "
                                  "max_worker_processes is %d, for all extensions together.",
                                  needed, max_worker_processes),
                        errhint("Raise max_worker_processes to at least %d more than other extensions and "
                                "parallel queries use.",
                                needed)));
}

}  // namespace

void register_workers() {
    const int poolers = guc::pooler_port() == 0 ? 0 : guc::pooler_workers();
    register_worker("pgxc_ha monitor", "pgxc_ha monitor", "pgxc_monitor_main", 0, poolers + 1);
    for (int worker = 0; worker < poolers; ++worker) {
        char name[BGW_MAXLEN];
        snprintf(name, sizeof name, "pgxc_ha pooler %d", worker);
        register_worker("pgxc_ha pooler", name, "pgxc_pooler_main", worker, poolers + 1);
    }
}

}  // namespace pgxc
