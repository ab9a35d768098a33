#include "pg/monitor_host.h"

#include <charconv>

#include "base/log.h"
#include "catalog/topology.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/shared_state.h"

namespace pgxc {
namespace {

std::int64_t number(const std::optional<std::string>& cell) {
    std::int64_t value = 0;
    if (cell) std::from_chars(cell->data(), cell->data() + cell->size(), value);
    return value;
}

/// The rows of pgxc_nodes; none while the extension isn't created.
Result<Topology> read_catalog() {
    std::vector<Node> nodes;
    const Status read = in_transaction([&]() -> Status {
        const auto there = spi_execute("SELECT to_regclass('pg_catalog.pgxc_nodes') IS NOT NULL", {}, true);
        if (!there) return there.error();
        if (there->rows.empty() || there->rows[0][0] != "t") return {};
        const auto rows = spi_execute(
            "SELECT node_type, node_id, node_host, node_port, node_master_id, node_replication, node_epoch "
            "FROM pg_catalog.pgxc_nodes",
            {}, true);
        if (!rows) return rows.error();
        for (const SpiRow& row : rows->rows) {
            Node node;
            node.key = {static_cast<NodeType>(row[0]->front()),
                        NodeId{static_cast<std::int32_t>(number(row[1]))}};
            node.address = {*row[2], static_cast<std::uint16_t>(number(row[3]))};
            node.master_id = NodeId{static_cast<std::int32_t>(number(row[4]))};
            node.replication = row[5] ? static_cast<Replication>(row[5]->front()) : Replication::None;
            node.epoch = Epoch{number(row[6])};
            nodes.push_back(std::move(node));
        }
        return {};
    });
    if (!read) return read.error();
    return Topology{std::move(nodes)};
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
