#pragma once

#include <string>
#include <utility>
#include <vector>

#include "replication/failover_policy.h"
#include "replication/sync_standbys.h"

/// Records, topologies and observations for the tests of failover_policy.h: node n listens at at(n), node 1
/// is the master.
namespace pgxc::test {

inline constexpr NodeKey group{NodeType::Datanode, NodeId{1}};
inline constexpr SqlState not_ready = sqlstate::object_not_in_prerequisite_state;

inline HostPort at(int n) {
    return {"10.0.0." + std::to_string(n), 5432};
}

inline NodeKey datanode(int id) {
    return {NodeType::Datanode, NodeId{id}};
}

/// Node n listens at at(n); the name is that of its stream.
inline Member member(int n, std::int64_t epoch = 0) {
    return {standby_name(datanode(n), Epoch{epoch}), at(n)};
}

inline Configuration configuration(const std::vector<int>& slaves, int k, std::int64_t epoch = 0) {
    Configuration made{Epoch{epoch}, {}, k};
    for (const int n : slaves) made.slaves.push_back(member(n, epoch));
    return made;
}

inline Record record_with(std::vector<Configuration> configurations) {
    Record record = initial_record(at(1), configurations.back().epoch, "0a1b2c3d", "local");
    record.configurations = std::move(configurations);
    return record;
}

inline Node slave_node(int n, Replication replication = Replication::Synchronous) {
    return {datanode(n), at(n), group.id, replication, Epoch{0}};
}

inline Topology topology_of(std::vector<Node> slaves) {
    slaves.push_back({group, at(1), NodeId{0}, Replication::None, Epoch{0}});
    return Topology(std::move(slaves));
}

inline const TimePoint start{std::chrono::hours(1)};

inline TimePoint after(int ms) {
    return start + Millis(ms);
}

inline Observation good_master() {
    Observation seen;
    seen.facts.emplace();
    seen.facts->timeline = TimelineId{1};
    seen.answered_at = start;
    return seen;
}

inline Observation good_slave(int n, std::int64_t epoch = 0) {
    Observation seen = good_master();
    seen.facts->in_recovery = true;
    seen.facts->receiver_status = "streaming";
    seen.facts->primary_slot = member(n, epoch).name;
    seen.facts->primary_conninfo = "host=10.0.0.1 application_name=" + member(n, epoch).name;
    return seen;
}

inline Observation silent(Silence silence, int since_ms, int attempts) {
    Observation seen = good_master();
    seen.silence = silence;
    seen.silent_since = after(since_ms);
    seen.failed_attempts = attempts;
    seen.error = "what libpq said";
    return seen;
}

}  // namespace pgxc::test
