#include "base/log.h"
#include "net/loop.h"
#include "pg/boundary.h"
#include "pg/pooler_environment.h"
#include "pg/shared_state.h"
#include "pg/worker_host.h"
#include "pooler/pooler.h"

namespace pgxc {
namespace {

Status run_pooler(int worker) {
    clear_pooler_rows(worker);
    net::Loop loop;
    PoolerEnvironment environment(worker);
    auto started = pooler::Pooler::start(loop, environment);
    if (!started) return started.error();
    const std::unique_ptr<pooler::Pooler> pooler = std::move(started).value();
    WorkerHost host(loop, worker, pooler_wake_fd(worker));

    WorkerEvents events;
    events.woken = [&] {
        for (const auto& [node, database] : take_node_databases_to_leave(worker))
            pooler->close_database(node, database);
        pooler->view_changed();
    };
    events.reloaded = [&] {
        environment.reload();
        pooler->reload();
    };
    events.leave_database = [&](const std::string& database) { pooler->close_database(database); };
    events.ending = [&](Ending ending) {
        switch (ending) {
            case Ending::Smart:
                log_info(
                    "the server is stopping: the pooler takes no new clients and closes idle connections");
                pooler->begin_shutdown(pooler::ShutdownMode::Smart);
                return;
            case Ending::Now:
                pooler->begin_shutdown(pooler::ShutdownMode::Fast, [&host] { host.leave(); });
                if (pooler->drained()) host.leave();
                return;
        }
    };
    Status served = host.serve(std::move(events));
    clear_pooler_rows(worker);
    return served;
}

}  // namespace
}  // namespace pgxc

extern "C" PGDLLEXPORT void pgxc_pooler_main(Datum argument) {
    pgxc::WorkerHost::connect(nullptr);
    pgxc::run_worker("pooler", pgxc::run_pooler, DatumGetInt32(argument));
}
