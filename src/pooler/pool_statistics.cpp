// What pools and server connections show of themselves.
#include <algorithm>

#include "base/limits.h"
#include "pooler/node_pool.h"
#include "pooler/session.h"

namespace pgxc::pooler {
namespace {

WallTime wall_now() {
    return std::chrono::time_point_cast<WallTime::duration>(std::chrono::system_clock::now());
}

/// The wall clock's time of something that was at `then`.
WallTime wall_time(TimePoint then, TimePoint now, WallTime wall) {
    return wall - std::chrono::duration_cast<WallTime::duration>(now - then);
}

}  // namespace

ServerRow Backend::row(TimePoint now, WallTime wall) const {
    ServerRow row;
    row.node = pool_.key().node;
    row.address = address_.to_string();
    row.database = pool_.key().database;
    row.user = pool_.key().user;
    row.pid = key_.pid;
    const Pool& core = pool_.core();
    if (list() == &core.idle()) {
        row.state = "idle";
        row.idle_since = wall_time(idle_since(), now, wall);
    } else if (list() == &core.lent()) {
        row.state = "active";
    } else {
        row.state = phase_ == Phase::Ready ? "closing" : "connecting";
    }
    if (phase_ == Phase::Ready) row.connected_at = wall_time(connected_at(), now, wall);
    if (session_ != nullptr) row.client = session_->id();
    row.transactions = meter.transactions();
    row.prepared_statements = static_cast<std::uint32_t>(statements.size());
    row.tls = connection_.open() && connection_.stream().secured();
    return row;
}

void NodePool::add_rows(std::vector<ServerRow>& servers, TimePoint now, WallTime wall) const {
    for (const auto& backend : backends_) servers.push_back(backend->row(now, wall));
}

void NodePool::count_bytes() {
    counters_->is_master = target_.is_master;
    for (const auto& backend : backends_) backend->meter.bytes_sent(backend->connection().bytes_sent());
}

std::shared_ptr<PoolCounters> PoolSet::counters_of(const PoolKey& key) {
    if (const auto known = counters_.find(key); known != counters_.end()) return known->second;
    if (counters_.size() >= limits::max_stats_rows) {
        // Somebody who comes again begins anew then; who is here doesn't.
        const auto unused = std::find_if(counters_.begin(), counters_.end(),
                                         [](const auto& entry) { return entry.second.use_count() == 1; });
        if (unused == counters_.end()) {
            if (!others_) others_ = std::make_shared<PoolCounters>();
            return others_;
        }
        counters_.erase(unused);
    }
    auto made = std::make_shared<PoolCounters>();
    made->restart(wall_now());
    counters_.emplace(key, made);
    return made;
}

std::vector<ServerRow> PoolSet::server_rows(TimePoint now) const {
    std::vector<ServerRow> rows;
    const WallTime wall = wall_now();
    for (const auto& [key, pool] : pools_) pool->add_rows(rows, now, wall);
    return rows;
}

std::vector<PoolStatsRow> PoolSet::statistics() {
    for (const auto& [key, pool] : pools_) pool->count_bytes();
    std::vector<PoolStatsRow> rows;
    rows.reserve(counters_.size());
    for (const auto& [key, counters] : counters_)
        rows.push_back({key.node, key.database, key.user, counters});
    return rows;
}

void PoolSet::restart_statistics() {
    for (const auto& [key, pool] : pools_) pool->count_bytes();  // what was before
    for (const auto& [key, counters] : counters_) counters->restart(wall_now());
}

}  // namespace pgxc::pooler
