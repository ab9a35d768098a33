#include <algorithm>

#include "base/limits.h"
#include "pg/shared_layout.h"

namespace pgxc {
using namespace shm;

void report_traffic_failure(NodeKey node, Epoch epoch, TrafficFailure failure) {
    if (shared == nullptr) return;
    {
        Locked lock(shared->traffic_lock, LW_EXCLUSIVE);
        TrafficEntry* const end = shared->traffic + shared->traffic_count;
        TrafficEntry* entry = std::find_if(shared->traffic, end, [&](const TrafficEntry& known) {
            return known.type == node.type && known.id == node.id.value();
        });
        if (entry == end) {
            // More nodes than the catalog can hold have failed since the last drain: the monitor sees enough.
            if (shared->traffic_count == limits::max_nodes) return;
            ++shared->traffic_count;
            *entry = TrafficEntry{};
            entry->type = node.type;
            entry->id = node.id.value();
        }
        entry->epoch = epoch.value();
        entry->last_failure = failure;
        entry->last_at_ns = Clock::now().time_since_epoch().count();
        ++entry->failures;
    }
    wake_monitor();
}

std::vector<TrafficReport> drain_traffic_failures() {
    std::vector<TrafficReport> reports;
    if (shared == nullptr) return reports;
    Locked lock(shared->traffic_lock, LW_EXCLUSIVE);
    reports.reserve(shared->traffic_count);
    for (std::uint32_t i = 0; i < shared->traffic_count; ++i) {
        const TrafficEntry& entry = shared->traffic[i];
        reports.push_back({{entry.type, NodeId{entry.id}},
                           Epoch{entry.epoch},
                           entry.last_failure,
                           TimePoint{Clock::duration{entry.last_at_ns}},
                           entry.failures});
    }
    shared->traffic_count = 0;
    return reports;
}

void publish_pooler_rows(int worker, const std::vector<pooler::PoolRow>& pools,
                         const std::vector<pooler::ClientRow>& clients) {
    if (shared == nullptr || worker >= shared->pooler_workers) return;
    Locked lock(shared->rows_lock, LW_EXCLUSIVE);
    PoolerArea* const area = area_of(worker);
    area->pools = static_cast<std::uint32_t>(std::min(pools.size(), limits::max_pool_rows));
    area->clients = static_cast<std::uint32_t>(std::min<std::size_t>(clients.size(), shared->client_rows));
    area->pools_left_out = static_cast<std::uint32_t>(pools.size()) - area->pools;
    area->clients_left_out = static_cast<std::uint32_t>(clients.size()) - area->clients;
    for (std::uint32_t i = 0; i < area->pools; ++i) {
        const pooler::PoolRow& from = pools[i];
        SharedPool& to = area->pool[i];
        to.type = from.node.type;
        to.id = from.node.id.value();
        put(to.database, from.database);
        put(to.user, from.user);
        to.clients_active = from.clients_active;
        to.clients_waiting = from.clients_waiting;
        to.servers_active = from.servers_active;
        to.servers_idle = from.servers_idle;
        to.servers_connecting = from.servers_connecting;
        to.longest_wait_us = from.longest_wait_us;
        to.concurrency_limit = from.concurrency_limit;
    }
    SharedClient* const to_clients = clients_of(area);
    for (std::uint32_t i = 0; i < area->clients; ++i) {
        const pooler::ClientRow& from = clients[i];
        SharedClient& to = to_clients[i];
        to.id = from.id.value();
        put(to.address, from.address);
        put(to.database, from.database);
        put(to.user, from.user);
        put(to.application_name, from.application_name);
        put(to.state, from.state);
        put(to.why, from.why);
        to.type = from.node.type;
        to.node_id = from.node.id.value();
        to.connected_at_us = to_us(from.connected_at);
        to.transactions = from.transactions;
    }
}

void clear_pooler_rows(int worker) noexcept {
    if (shared == nullptr || worker >= shared->pooler_workers) return;
    Locked lock(shared->rows_lock, LW_EXCLUSIVE);
    PoolerArea* const area = area_of(worker);
    area->pools = area->clients = area->pools_left_out = area->clients_left_out = 0;
    area->servers = area->servers_left_out = area->stats = 0;
}

std::vector<PoolerRows> read_pooler_rows() {
    std::vector<PoolerRows> all;
    if (shared == nullptr) return all;
    for (int worker = 0; worker < shared->pooler_workers; ++worker) {
        PoolerRows& rows = all.emplace_back();
        rows.worker = worker;
        Locked lock(shared->rows_lock, LW_SHARED);
        PoolerArea* const area = area_of(worker);
        rows.pools_left_out = area->pools_left_out;
        rows.clients_left_out = area->clients_left_out;
        for (std::uint32_t i = 0; i < area->pools; ++i) {
            const SharedPool& pool = area->pool[i];
            rows.pools.push_back({{pool.type, NodeId{pool.id}},
                                  pool.database,
                                  pool.user,
                                  pool.clients_active,
                                  pool.clients_waiting,
                                  pool.servers_active,
                                  pool.servers_idle,
                                  pool.servers_connecting,
                                  pool.longest_wait_us,
                                  pool.concurrency_limit});
        }
        const SharedClient* const clients = clients_of(area);
        for (std::uint32_t i = 0; i < area->clients; ++i) {
            const SharedClient& client = clients[i];
            rows.clients.push_back({ClientId{client.id},
                                    client.address,
                                    client.database,
                                    client.user,
                                    client.application_name,
                                    client.state,
                                    client.why,
                                    {client.type, NodeId{client.node_id}},
                                    from_us(client.connected_at_us),
                                    client.transactions});
        }
    }
    return all;
}

}  // namespace pgxc
