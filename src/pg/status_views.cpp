#include <string>

#include "pg/boundary.h"
#include "pg/shared_state.h"
#include "pg/view_cells.h"

// The functions behind pgxc_pools, pgxc_pooler_clients and pgxc_node_status: what shared memory holds, as
// rows.

namespace pgxc {
namespace {

const char* gate_word(const NodeView& master) {
    switch (master.gate) {
        case Gate::Held:
            return "held";
        case Gate::Open:
            return master.paused ? "paused" : "open";
    }
    return "held";
}

}  // namespace
}  // namespace pgxc

using pgxc::SpiRow;

PGXC_FUNCTION(pgxc_pools) {
    if (pgxc::Status there = pgxc::require_shared_state(); !there) return there.error();
    std::vector<SpiRow> rows;
    std::uint64_t left_out = 0;
    for (const pgxc::PoolerRows& worker : pgxc::read_pooler_rows()) {
        left_out += worker.pools_left_out;
        for (const auto& pool : worker.pools)
            rows.push_back(
                {pgxc::number(worker.worker), pgxc::one_char(static_cast<char>(pool.node.type)),
                 pgxc::number(pool.node.id.value()), pool.database, pool.user,
                 pgxc::number(pool.clients_active), pgxc::number(pool.clients_waiting),
                 pgxc::number(pool.servers_active), pgxc::number(pool.servers_idle),
                 pgxc::number(pool.servers_connecting),
                 pgxc::number(static_cast<double>(pool.longest_wait_us) / 1000.0),
                 pool.concurrency_limit != 0 ? pgxc::number(pool.concurrency_limit) : std::nullopt});
    }
    pgxc::tell_left_out(left_out, "pools");
    return pgxc::return_rows(fcinfo, rows);
}

PGXC_FUNCTION(pgxc_pooler_clients) {
    if (pgxc::Status there = pgxc::require_shared_state(); !there) return there.error();
    std::vector<SpiRow> rows;
    std::uint64_t left_out = 0;
    std::string judged_user;
    bool judged = false;
    bool visible = false;
    for (const pgxc::PoolerRows& worker : pgxc::read_pooler_rows()) {
        left_out += worker.clients_left_out;
        for (const auto& client : worker.clients) {
            if (!judged || judged_user != client.user) {
                const auto may = pgxc::may_see(client.user);
                if (!may) return may.error();
                judged = true;
                judged_user = client.user;
                visible = *may;
            }
            const std::string hidden = "<insufficient privilege>";
            rows.push_back({pgxc::number(client.id.value()), pgxc::number(worker.worker), client.user,
                            client.database, visible ? pgxc::Cell{client.address} : pgxc::Cell{},
                            visible ? client.application_name : hidden,
                            visible ? pgxc::Cell{client.state} : pgxc::Cell{},
                            visible ? pgxc::Cell{client.why} : pgxc::Cell{},
                            pgxc::one_char(static_cast<char>(client.node.type)),
                            pgxc::number(client.node.id.value()),
                            visible ? pgxc::timestamp(client.connected_at) : pgxc::Cell{},
                            visible ? pgxc::number(client.transactions) : pgxc::Cell{}});
        }
    }
    pgxc::tell_left_out(left_out, "clients");
    return pgxc::return_rows(fcinfo, rows);
}

PGXC_FUNCTION(pgxc_node_status) {
    if (pgxc::Status there = pgxc::require_shared_state(); !there) return there.error();
    pgxc::SharedClusterView source;
    const auto view = source.current();
    std::vector<SpiRow> rows;
    for (const pgxc::NodeView& node : view->nodes) {
        const bool master = node.node.is_master();
        rows.push_back({pgxc::one_char(static_cast<char>(node.node.key.type)),
                        pgxc::number(node.node.key.id.value()), node.node.address.host,
                        pgxc::number(node.node.address.port), pgxc::number(node.node.master_id.value()),
                        std::string(pgxc::to_word(node.state)), std::string(pgxc::to_word(node.role_seen)),
                        master ? pgxc::Cell{pgxc::gate_word(node)} : pgxc::Cell{},
                        node.timeline.value() != 0 ? pgxc::number(node.timeline.value()) : pgxc::Cell{},
                        node.position.known() ? pgxc::Cell{node.position.to_string()} : pgxc::Cell{},
                        node.lag_bytes ? pgxc::number(*node.lag_bytes) : pgxc::Cell{},
                        node.last_seen ? pgxc::timestamp(*node.last_seen) : pgxc::Cell{}, node.why});
    }
    return pgxc::return_rows(fcinfo, rows);
}
