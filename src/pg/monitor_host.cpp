#include "pg/monitor_host.h"

#include "base/log.h"
#include "catalog/topology.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/node_store_pg.h"
#include "pg/shared_state.h"

namespace pgxc {
namespace {

/// The rows of pgxc_nodes; none while the extension isn't created.
Result<Topology> read_catalog() {
    Topology topology;
    const Status read = in_transaction([&]() -> Status {
        const auto there = catalog_exists();
        if (!there) return there.error();
        if (!*there) return {};
        auto loaded = load_topology();
        if (!loaded) return std::move(loaded).error();
        topology = std::move(loaded).value();
        return {};
    });
    if (!read) return read.error();
    return topology;
}

}  // namespace

Status run_monitor(WorkerHost& host) {
    std::uint64_t seen = 0;
    const auto look = [&seen] {
        while (const auto taken = take_monitor_request())
            finish_monitor_request(
                taken->slot, Error{sqlstate::feature_not_supported, "this monitor takes no requests"}, {});
        const std::uint64_t generation = catalog_generation();
        if (generation == seen) return;
        const auto topology = read_catalog();
        if (!topology) {
            log_warning("the monitor can't read pgxc_nodes: " + topology.error().message);
            return;
        }
        ClusterView view;
        for (const Node& node : topology->nodes()) {
            NodeView& entry = view.nodes.emplace_back();
            entry.node = node;
            entry.why = "not probed yet";
        }
        if (const Status published = publish_cluster_view(view); !published) {
            log_warning("the monitor can't publish what it sees: " + published.error().message);
            return;
        }
        seen = generation;
    };
    WorkerEvents events;
    events.woken = look;
    events.leave_database = [&host](const std::string& database) {
        // A process can't change its database: the next monitor waits in its connect until the command is
        // through.
        if (database.empty() || database == guc::database()) host.leave();
    };
    return host.serve(std::move(events));
}

}  // namespace pgxc
