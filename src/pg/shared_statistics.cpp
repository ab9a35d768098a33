#include <algorithm>

#include "base/limits.h"
#include "pg/shared_layout.h"

namespace pgxc {
using namespace shm;

void publish_pooler_statistics(int worker, const std::vector<pooler::ServerRow>& servers,
                               const std::vector<pooler::PoolStatsRow>& pools, std::uint64_t resets) {
    if (shared == nullptr || worker >= shared->pooler_workers) return;
    Locked lock(shared->rows_lock, LW_EXCLUSIVE);
    PoolerArea* const area = area_of(worker);
    area->servers = static_cast<std::uint32_t>(std::min(servers.size(), limits::max_server_rows));
    area->servers_left_out = static_cast<std::uint32_t>(servers.size()) - area->servers;
    for (std::uint32_t i = 0; i < area->servers; ++i) {
        const pooler::ServerRow& from = servers[i];
        SharedServer& to = area->server[i];
        to.type = from.node.type;
        to.node_id = from.node.id.value();
        put(to.address, from.address);
        put(to.database, from.database);
        put(to.user, from.user);
        to.pid = from.pid;
        put(to.state, from.state);
        to.has_connected_at = from.connected_at.has_value();
        to.connected_at_us = from.connected_at ? to_us(*from.connected_at) : 0;
        to.has_idle_since = from.idle_since.has_value();
        to.idle_since_us = from.idle_since ? to_us(*from.idle_since) : 0;
        to.has_client = from.client.has_value();
        to.client = from.client ? from.client->value() : 0;
        to.transactions = from.transactions;
        to.prepared_statements = from.prepared_statements;
        to.tls = from.tls;
    }
    area->stats = static_cast<std::uint32_t>(std::min(pools.size(), limits::max_stats_rows));
    area->stats_resets = resets;
    for (std::uint32_t i = 0; i < area->stats; ++i) {
        const pooler::PoolStatsRow& from = pools[i];
        SharedPoolStats& to = area->stat[i];
        to.type = from.node.type;
        to.node_id = from.node.id.value();
        put(to.database, from.database);
        put(to.user, from.user);
        to.counters = *from.counters;
    }
}

std::vector<PoolerStatistics> read_pooler_statistics() {
    std::vector<PoolerStatistics> all;
    if (shared == nullptr) return all;
    const std::uint64_t resets = pooler_statistics_resets();
    for (int worker = 0; worker < shared->pooler_workers; ++worker) {
        PoolerStatistics& rows = all.emplace_back();
        rows.worker = worker;
        Locked lock(shared->rows_lock, LW_SHARED);
        const PoolerArea* const area = area_of(worker);
        rows.servers_left_out = area->servers_left_out;
        for (std::uint32_t i = 0; i < area->servers; ++i) {
            const SharedServer& from = area->server[i];
            pooler::ServerRow& to = rows.servers.emplace_back();
            to.node = {from.type, NodeId{from.node_id}};
            to.address = from.address;
            to.database = from.database;
            to.user = from.user;
            to.pid = from.pid;
            to.state = from.state;
            if (from.has_connected_at) to.connected_at = from_us(from.connected_at_us);
            if (from.has_idle_since) to.idle_since = from_us(from.idle_since_us);
            if (from.has_client) to.client = ClientId{from.client};
            to.transactions = from.transactions;
            to.prepared_statements = from.prepared_statements;
            to.tls = from.tls;
        }
        if (area->stats_resets != resets) continue;
        for (std::uint32_t i = 0; i < area->stats; ++i) {
            const SharedPoolStats& from = area->stat[i];
            rows.pools.push_back({{from.type, NodeId{from.node_id}},
                                  from.database,
                                  from.user,
                                  std::make_shared<const pooler::PoolCounters>(from.counters)});
        }
    }
    return all;
}

void reset_pooler_statistics() {
    if (shared == nullptr) return;
    pg_atomic_fetch_add_u64(&shared->stats_resets, 1);
    wake_poolers();
}

std::uint64_t pooler_statistics_resets() noexcept {
    return shared != nullptr ? pg_atomic_read_u64(&shared->stats_resets) : 0;
}

}  // namespace pgxc
