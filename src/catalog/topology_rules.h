#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "catalog/topology.h"

/// What may be changed in pgxc_nodes, and why not. Each change takes the present topology and gives the
/// changed copy, or the Error that names the nodes and says what to do instead; it never looks at a server.
/// The numbers that follow from each other (a slave's epoch is 0, a master has no replication) are kept here,
/// so that the table's constraints can only be met by someone who goes round the statements.
namespace pgxc {

/// Reads one of the two words, or its first letter, in any letter case. 22023 for anything else.
[[nodiscard]] Result<Replication> parse_replication(std::string_view text);

/// Reads the id of a node: 1 or more. 22023 otherwise.
[[nodiscard]] Result<NodeId> check_node_id(NodeType type, std::int64_t id);

/// WITH CONNECTION: one address for all coordinators, or as many as `topology` has coordinator masters, in
/// ascending coordinator id; gives the one for coordinator `own_id`. Every address is checked, also those of
/// the others.
[[nodiscard]] Result<HostPort> address_for_coordinator(const Topology& topology, NodeId own_id,
                                                       const std::vector<std::string>& addresses);

/// WITH CONNECTION of a promotion: 'host:port', ':port' (the host stays) or 'host:' (the port stays).
[[nodiscard]] Result<HostPort> promotion_address(const HostPort& current, std::string_view text);

[[nodiscard]] Result<Topology> register_master(const Topology& topology, NodeKey key,
                                               const HostPort& address);

struct NewSlave {
    NodeKey key;
    HostPort address;
    NodeId master;
    Replication replication = Replication::Asynchronous;
};
[[nodiscard]] Result<Topology> register_slave(const Topology& topology, const NewSlave& slave);

[[nodiscard]] Result<Topology> drop_slave(const Topology& topology, NodeKey key);
[[nodiscard]] Result<Topology> drop_master(const Topology& topology, NodeKey key);
[[nodiscard]] Result<Topology> set_replication(const Topology& topology, NodeKey key,
                                               Replication replication);
/// Gives a slave another id; its own slaves follow.
[[nodiscard]] Result<Topology> set_id(const Topology& topology, NodeKey key, NodeId new_id);
[[nodiscard]] Result<Topology> set_master(const Topology& topology, NodeKey key, NodeId master);

/// May this slave become the master of its group? Without `force` only a synchronous one may: an asynchronous
/// one may lack commits that were acknowledged. (Whether it has caught up is for the monitor to say.)
[[nodiscard]] Status may_promote(const Topology& topology, NodeKey slave, bool force);

/// The slave takes the id of the master at the top of its chain and that master's epoch + 1; the former
/// master's row is gone; the former master's other slaves, and the promoted one's own, are slaves of that id.
/// `new_address` where the promotion moves it to another port or host. Never refuses a promotion that has
/// happened: ask may_promote first.
[[nodiscard]] Result<Topology> promote(const Topology& topology, NodeKey slave,
                                       const std::optional<HostPort>& new_address = std::nullopt);

/// Checks everything that the functions above keep true. For rows that came another way (a restored dump).
[[nodiscard]] Status check_topology(const Topology& topology);

}  // namespace pgxc
