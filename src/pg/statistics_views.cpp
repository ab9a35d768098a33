#include <map>
#include <string>
#include <tuple>

#include "pg/boundary.h"
#include "pg/shared_state.h"
#include "pg/view_cells.h"

// The functions behind pgxc_pooler_servers and pgxc_pooler_stats.

namespace pgxc {
namespace {

Cell optional_time(const std::optional<WallTime>& time) {
    return time ? timestamp(*time) : Cell{};
}

Cell milliseconds(std::uint64_t us) {
    return number(static_cast<double>(us) / 1000.0);
}

/// NULL where nothing was counted.
Cell percentile(const pooler::Histogram& histogram, double share) {
    return histogram.count() == 0 ? Cell{} : number(histogram.percentile_us(share) / 1000.0);
}

}  // namespace
}  // namespace pgxc

using pgxc::Cell;
using pgxc::SpiRow;

PGXC_FUNCTION(pgxc_pooler_servers) {
    if (pgxc::Status there = pgxc::require_shared_state(); !there) return there.error();
    std::vector<SpiRow> rows;
    std::uint64_t left_out = 0;
    std::map<std::string, bool> judged;
    for (const pgxc::PoolerStatistics& worker : pgxc::read_pooler_statistics()) {
        left_out += worker.servers_left_out;
        for (const auto& server : worker.servers) {
            auto known = judged.find(server.user);
            if (known == judged.end()) {
                const auto may = pgxc::may_see(server.user);
                if (!may) return may.error();
                known = judged.emplace(server.user, *may).first;
            }
            const bool visible = known->second;
            const auto if_visible = [visible](Cell cell) { return visible ? std::move(cell) : Cell{}; };
            rows.push_back({pgxc::number(worker.worker), pgxc::one_char(static_cast<char>(server.node.type)),
                            pgxc::number(server.node.id.value()), server.address, server.database,
                            server.user, server.pid != 0 ? pgxc::number(server.pid) : Cell{},
                            if_visible(server.state), if_visible(pgxc::optional_time(server.connected_at)),
                            if_visible(pgxc::optional_time(server.idle_since)),
                            if_visible(server.client ? pgxc::number(server.client->value()) : Cell{}),
                            if_visible(pgxc::number(server.transactions)),
                            if_visible(pgxc::number(server.prepared_statements)),
                            if_visible(server.tls ? "true" : "false")});
        }
    }
    pgxc::tell_left_out(left_out, "server connections");
    return pgxc::return_rows(fcinfo, rows);
}

PGXC_FUNCTION(pgxc_pooler_stats) {
    if (pgxc::Status there = pgxc::require_shared_state(); !there) return there.error();
    using Key = std::tuple<pgxc::NodeKey, std::string, std::string>;
    std::map<Key, pgxc::pooler::PoolCounters> pools;
    for (const pgxc::PoolerStatistics& worker : pgxc::read_pooler_statistics()) {
        for (const auto& pool : worker.pools)
            pools[{pool.node, pool.database, pool.user}].add(*pool.counters);
    }
    std::vector<SpiRow> rows;
    for (const auto& [key, sum] : pools) {
        const auto& [node, database, user] = key;
        const pgxc::WallTime since{std::chrono::microseconds{sum.since_us}};
        rows.push_back({pgxc::one_char(static_cast<char>(node.type)), pgxc::number(node.id.value()),
                        sum.is_master ? "master" : "slave", database, user, pgxc::number(sum.transactions),
                        pgxc::number(sum.queries), pgxc::number(sum.errors), pgxc::number(sum.bytes_in),
                        pgxc::number(sum.bytes_out), pgxc::milliseconds(sum.query_us),
                        pgxc::percentile(sum.query_time, 0.50), pgxc::percentile(sum.query_time, 0.95),
                        pgxc::percentile(sum.query_time, 0.99), pgxc::milliseconds(sum.wait_us),
                        pgxc::percentile(sum.wait_time, 0.50), pgxc::percentile(sum.wait_time, 0.95),
                        pgxc::percentile(sum.wait_time, 0.99), pgxc::timestamp(since)});
    }
    return pgxc::return_rows(fcinfo, rows);
}

PGXC_FUNCTION(pgxc_reset_pooler_stats) {
    if (pgxc::Status there = pgxc::require_shared_state(); !there) return there.error();
    pgxc::reset_pooler_statistics();
    return Datum{0};
}
