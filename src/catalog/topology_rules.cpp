#include "catalog/topology_rules.h"

#include <algorithm>
#include <cctype>
#include <limits>

#include "base/limits.h"

namespace pgxc {
namespace {

constexpr const char* see_the_nodes = "SELECT * FROM pgxc_nodes shows the nodes there are.";

std::string upper(std::string_view word) {
    std::string text(word);
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
    return text;
}

std::string other_type_detail(const Topology& topology, NodeKey key) {
    const NodeType other = key.type == NodeType::Datanode ? NodeType::Coordinator : NodeType::Datanode;
    if (topology.find({other, key.id}) == nullptr) return {};
    return "There is a " + NodeKey{other, key.id}.to_string() + ", which is another node.";
}

Error no_such_node(const Topology& topology, NodeKey key) {
    return {sqlstate::undefined_object, key.to_string() + " does not exist", see_the_nodes,
            other_type_detail(topology, key)};
}

Result<Node> find_slave(const Topology& topology, NodeKey key) {
    const Node* node = topology.find(key);
    if (node == nullptr) return no_such_node(topology, key);
    if (node->is_master())
        return Error{sqlstate::object_not_in_prerequisite_state,
                     key.to_string() + " is a master, not a slave", see_the_nodes};
    return *node;
}

/// The master of a slave to be: exists and has the same type.
Result<Node> find_upstream(const Topology& topology, NodeKey slave, NodeId master) {
    const NodeKey key{slave.type, master};
    const Node* node = topology.find(key);
    if (node != nullptr) return *node;
    std::string detail = other_type_detail(topology, key);
    if (!detail.empty()) detail += " A slave has its master's type.";
    return Error{
        sqlstate::undefined_object,
        key.to_string() + ", named as the master of " + slave.to_string() + ", does not exist",
        "Register the master first, or name another one: SELECT * FROM pgxc_nodes shows the nodes there are.",
        detail};
}

Status check_id_is_free(const Topology& topology, NodeKey key) {
    const Node* holder = topology.find(key);
    if (holder == nullptr) return {};
    return Error{sqlstate::duplicate_object, key.to_string() + " already exists",
                 "Choose another id, or drop that node first.",
                 key.to_string() + " is a " + (holder->is_master() ? "master" : "slave") + " at " +
                     holder->address.to_string() + "."};
}

Status check_address_is_free(const Topology& topology, NodeKey key, const HostPort& address) {
    const Node* holder = topology.find(address);
    if (holder == nullptr || holder->key == key) return {};
    return Error{
        sqlstate::unique_violation,
        "address " + address.to_string() + " already belongs to " + holder->key.to_string(),
        "Two nodes never share an address: name another one, or drop " + holder->key.to_string() + " first."};
}

Status check_room(const Topology& topology) {
    if (topology.nodes().size() < limits::max_nodes) return {};
    return Error{sqlstate::configuration_limit_exceeded,
                 "cannot register more than " + std::to_string(limits::max_nodes) + " nodes",
                 "Drop nodes that are no longer used."};
}

/// May `slave` be synchronous below `upstream`?
Status check_synchronous(const Topology& topology, NodeKey slave, const Node& upstream) {
    if (!upstream.is_master())
        return Error{sqlstate::feature_not_supported,
                     "cascading slave " + slave.to_string() + " cannot be synchronous",
                     "Let it stream from the master itself, or choose REPLICATION TO ASYNCHRONOUS.",
                     "Its master, " + upstream.key.to_string() +
                         ", is a slave, and a slave does not wait for acknowledgements of its own slaves."};
    const auto slaves = topology.slaves_of(upstream.key);
    const auto synchronous = std::count_if(slaves.begin(), slaves.end(), [&](const Node* other) {
        return other->key != slave && other->replication == Replication::Synchronous;
    });
    if (static_cast<std::size_t>(synchronous) >= limits::max_sync_slaves)
        return Error{sqlstate::configuration_limit_exceeded,
                     upstream.key.to_string() + " cannot have more than " +
                         std::to_string(limits::max_sync_slaves) + " synchronous slaves",
                     "Choose REPLICATION TO ASYNCHRONOUS."};
    return {};
}

Status check_has_no_slaves(const Topology& topology, NodeKey key, const char* way_out) {
    const auto slaves = topology.slaves_of(key);
    if (slaves.empty()) return {};
    std::string names;
    for (const Node* slave : slaves) names += (names.empty() ? "" : ", ") + slave->key.to_string();
    return Error{sqlstate::dependent_objects_still_exist,
                 "cannot drop " + key.to_string() + " because other nodes are its slaves", way_out,
                 "Slaves of " + key.to_string() + ": " + names + "."};
}

/// A copy of the nodes without `key`.
std::vector<Node> without(const Topology& topology, NodeKey key) {
    std::vector<Node> nodes = topology.nodes();
    std::erase_if(nodes, [&](const Node& node) { return node.key == key; });
    return nodes;
}

Topology with(const Topology& topology, const Node& changed) {
    std::vector<Node> nodes = without(topology, changed.key);
    nodes.push_back(changed);
    return Topology(std::move(nodes));
}

void re_point(std::vector<Node>& nodes, NodeType type, NodeId from, NodeId to) {
    for (Node& node : nodes)
        if (node.key.type == type && !node.is_master() && node.master_id == from) node.master_id = to;
}

/// Is `node` below `ancestor`, or the same?
bool is_below(const Topology& topology, const Node& node, NodeKey ancestor) {
    const Node* at = &node;
    for (std::size_t step = 0; at != nullptr && step <= topology.nodes().size(); ++step) {
        if (at->key == ancestor) return true;
        if (at->is_master()) return false;
        at = topology.find({at->key.type, at->master_id});
    }
    return false;
}

Error restored(std::string message) {
    return {sqlstate::check_violation, std::move(message),
            "Restore a dump whose rows of pgxc_nodes are complete and unchanged."};
}

}  // namespace

Result<Replication> parse_replication(std::string_view text) {
    const std::string word = upper(text);
    if (word == "S" || word == "SYNCHRONOUS") return Replication::Synchronous;
    if (word == "A" || word == "ASYNCHRONOUS") return Replication::Asynchronous;
    return Error{sqlstate::invalid_parameter_value, "invalid replication \"" + std::string(text) + "\"",
                 "Replication is 'synchronous' ('s') or 'asynchronous' ('a')."};
}

Result<NodeId> check_node_id(NodeType type, std::int64_t id) {
    if (id >= 1 && id <= std::numeric_limits<NodeId::rep>::max()) return NodeId{static_cast<NodeId::rep>(id)};
    return Error{
        sqlstate::invalid_parameter_value,
        "invalid " + std::string(to_word(type)) + " id " + std::to_string(id),
        "An id is a number from 1 to " + std::to_string(std::numeric_limits<NodeId::rep>::max()) + "."};
}

Result<HostPort> address_for_coordinator(const Topology& topology, NodeId own_id,
                                         const std::vector<std::string>& addresses) {
    const auto coordinators = topology.masters(NodeType::Coordinator);
    if (addresses.empty() || (addresses.size() != 1 && addresses.size() != coordinators.size()))
        return Error{
            sqlstate::invalid_parameter_value,
            "WITH CONNECTION names " + std::to_string(addresses.size()) + " addresses for " +
                std::to_string(coordinators.size()) +
                (coordinators.size() == 1 ? " coordinator" : " coordinators"),
            "Name one address that is right for all coordinators, or one for each coordinator in the "
            "order of their ids."};
    std::vector<HostPort> parsed;
    for (const std::string& text : addresses) {
        auto address = HostPort::parse(text);
        if (!address) return std::move(address).error();
        parsed.push_back(*address);
    }
    if (parsed.size() == 1) return parsed.front();
    for (std::size_t i = 0; i < coordinators.size(); ++i)
        if (coordinators[i]->key.id == own_id) return parsed[i];
    return Error{sqlstate::object_not_in_prerequisite_state,
                 "this coordinator, " + NodeKey{NodeType::Coordinator, own_id}.to_string() +
                     ", is not a master in pgxc_nodes, so none of the addresses is meant for it",
                 "Correct pgxc.node_id, register this coordinator, or name one address for all."};
}

Result<HostPort> promotion_address(const HostPort& current, std::string_view text) {
    std::string whole(text);
    if (text.starts_with(':')) {
        whole = HostPort{current.host, 1}.to_string();
        whole.replace(whole.rfind(':'), std::string::npos, text);
    } else if (text.size() > 1 && text.ends_with(':') &&
               (text.starts_with('[') || text.find(':') == text.size() - 1)) {
        whole += std::to_string(current.port);
    }
    auto address = HostPort::parse(whole);
    if (address) return address;
    return Error{sqlstate::invalid_parameter_value,
                 "invalid connection \"" + std::string(text) + "\" for a promotion",
                 "Write it as 'host:port', as ':port' to keep the host, or as 'host:' to keep the port.",
                 address.error().message};
}

Result<Topology> register_master(const Topology& topology, NodeKey key, const HostPort& address) {
    if (auto id = check_node_id(key.type, key.id.value()); !id) return std::move(id).error();
    if (auto status = check_id_is_free(topology, key); !status) return std::move(status).error();
    if (auto status = check_address_is_free(topology, key, address); !status)
        return std::move(status).error();
    if (auto status = check_room(topology); !status) return std::move(status).error();
    return with(topology, Node{key, address, NodeId{0}, Replication::None, Epoch{0}});
}

Result<Topology> register_slave(const Topology& topology, const NewSlave& slave) {
    if (auto id = check_node_id(slave.key.type, slave.key.id.value()); !id) return std::move(id).error();
    if (auto status = check_id_is_free(topology, slave.key); !status) return std::move(status).error();
    auto upstream = find_upstream(topology, slave.key, slave.master);
    if (!upstream) return std::move(upstream).error();
    if (auto status = check_address_is_free(topology, slave.key, slave.address); !status)
        return std::move(status).error();
    if (slave.replication == Replication::None)
        return Error{sqlstate::invalid_parameter_value,
                     "the replication of " + slave.key.to_string() + " is missing",
                     "Name REPLICATION TO SYNCHRONOUS or ASYNCHRONOUS."};
    if (slave.replication == Replication::Synchronous)
        if (auto status = check_synchronous(topology, slave.key, *upstream); !status)
            return std::move(status).error();
    if (auto status = check_room(topology); !status) return std::move(status).error();
    return with(topology, Node{slave.key, slave.address, slave.master, slave.replication, Epoch{0}});
}

Result<Topology> drop_slave(const Topology& topology, NodeKey key) {
    auto slave = find_slave(topology, key);
    if (!slave) {
        Error error = std::move(slave).error();
        if (error.sqlstate == sqlstate::object_not_in_prerequisite_state)
            error.hint = "Use DROP " + upper(to_word(key.type)) + " MASTER.";
        return error;
    }
    if (auto status =
            check_has_no_slaves(topology, key,
                                "Drop them first, or let them stream from another node: ALTER ... SLAVE "
                                "... ON MASTER.");
        !status)
        return std::move(status).error();
    return Topology(without(topology, key));
}

Result<Topology> drop_master(const Topology& topology, NodeKey key) {
    const Node* node = topology.find(key);
    if (node == nullptr) return no_such_node(topology, key);
    if (!node->is_master())
        return Error{sqlstate::object_not_in_prerequisite_state,
                     key.to_string() + " is a slave, not a master",
                     "Use DROP " + upper(to_word(key.type)) + " SLAVE."};
    if (auto status = check_has_no_slaves(topology, key, "Drop them first, or promote one of them."); !status)
        return std::move(status).error();
    return Topology(without(topology, key));
}

Result<Topology> set_replication(const Topology& topology, NodeKey key, Replication replication) {
    auto slave = find_slave(topology, key);
    if (!slave) return std::move(slave).error();
    auto upstream = find_upstream(topology, key, slave->master_id);
    if (!upstream) return std::move(upstream).error();
    if (replication == Replication::None)
        return Error{sqlstate::invalid_parameter_value,
                     "the replication of " + key.to_string() + " is missing",
                     "Name REPLICATION TO SYNCHRONOUS or ASYNCHRONOUS."};
    if (replication == Replication::Synchronous)
        if (auto status = check_synchronous(topology, key, *upstream); !status)
            return std::move(status).error();
    Node changed = *slave;
    changed.replication = replication;
    return with(topology, changed);
}

Result<Topology> set_id(const Topology& topology, NodeKey key, NodeId new_id) {
    auto slave = find_slave(topology, key);
    if (!slave) return std::move(slave).error();
    if (auto id = check_node_id(key.type, new_id.value()); !id) return std::move(id).error();
    if (new_id == key.id) return topology;
    if (auto status = check_id_is_free(topology, {key.type, new_id}); !status)
        return std::move(status).error();
    std::vector<Node> nodes = without(topology, key);
    re_point(nodes, key.type, key.id, new_id);
    Node changed = *slave;
    changed.key.id = new_id;
    nodes.push_back(changed);
    return Topology(std::move(nodes));
}

Result<Topology> set_master(const Topology& topology, NodeKey key, NodeId master) {
    auto slave = find_slave(topology, key);
    if (!slave) return std::move(slave).error();
    auto upstream = find_upstream(topology, key, master);
    if (!upstream) return std::move(upstream).error();
    if (is_below(topology, *upstream, key))
        return Error{sqlstate::invalid_parameter_value,
                     key.to_string() + " cannot be a slave of " + upstream->key.to_string() +
                         ", which streams from it",
                     "Give " + upstream->key.to_string() + " another master first."};
    if (topology.top_master_of(upstream->key) == nullptr)
        return Error{sqlstate::foreign_key_violation, upstream->key.to_string() + " leads to no master",
                     "Give " + upstream->key.to_string() + " a master first."};
    if (slave->replication == Replication::Synchronous)
        if (auto status = check_synchronous(topology, key, *upstream); !status)
            return std::move(status).error();
    Node changed = *slave;
    changed.master_id = master;
    return with(topology, changed);
}

Status may_promote(const Topology& topology, NodeKey slave, bool force) {
    auto node = find_slave(topology, slave);
    if (!node) return std::move(node).error();
    if (force || node->replication == Replication::Synchronous) return {};
    return Error{
        sqlstate::object_not_in_prerequisite_state,
        "asynchronous slave " + slave.to_string() + " may lack commits that its master has acknowledged",
        "Promote a synchronous slave, make this one synchronous first, or add FORCE and lose what it lacks."};
}

Result<Topology> promote(const Topology& topology, NodeKey slave,
                         const std::optional<HostPort>& new_address) {
    auto node = find_slave(topology, slave);
    if (!node) return std::move(node).error();
    const Node* former = topology.top_master_of(slave);
    if (former == nullptr)
        return Error{sqlstate::foreign_key_violation, slave.to_string() + " leads to no master",
                     see_the_nodes};
    const HostPort address = new_address.value_or(node->address);
    // The former master's address is free again: taking over its port is the classic way.
    const Node* holder = topology.find(address);
    if (holder != nullptr && holder->key != former->key)
        if (auto status = check_address_is_free(topology, slave, address); !status)
            return std::move(status).error();
    std::vector<Node> nodes = without(topology, slave);
    std::erase_if(nodes, [&](const Node& other) { return other.key == former->key; });
    re_point(nodes, slave.type, slave.id, former->key.id);
    nodes.push_back(
        Node{former->key, address, NodeId{0}, Replication::None, Epoch{former->epoch.value() + 1}});
    return Topology(std::move(nodes));
}

Status check_topology(const Topology& topology) {
    const auto& nodes = topology.nodes();
    if (nodes.size() > limits::max_nodes)
        return restored(std::to_string(nodes.size()) + " nodes are more than " +
                        std::to_string(limits::max_nodes));
    for (const Node& node : nodes) {
        const std::string name = node.key.to_string();
        if (std::count_if(nodes.begin(), nodes.end(),
                          [&](const Node& other) { return other.key == node.key; }) > 1)
            return restored(name + " is there twice");
        if (node.key.id.value() < 1) return restored(name + " has no valid id");
        if (auto parsed = HostPort::parse(node.address.to_string()); !parsed)
            return restored(name + ": " + parsed.error().message);
        if (node.epoch.value() < 0) return restored(name + " has a negative epoch");
        if (node.is_master() != (node.replication == Replication::None))
            return restored(name + (node.is_master() ? " is a master with a replication"
                                                     : " is a slave without a replication"));
        if (const Node* holder = topology.find(node.address); holder != nullptr && holder->key != node.key)
            return restored(holder->key.to_string() + " and " + name + " share the address " +
                            node.address.to_string());
        if (node.is_master()) continue;
        const Node* upstream = topology.find({node.key.type, node.master_id});
        if (upstream == nullptr)
            return restored("the master of " + name + ", " +
                            NodeKey{node.key.type, node.master_id}.to_string() + ", is missing");
        if (topology.top_master_of(node.key) == nullptr)
            return restored(name + " leads to no master: the slaves above it form a circle");
        if (node.replication == Replication::Synchronous)
            if (auto status = check_synchronous(topology, node.key, *upstream); !status)
                return restored(status.error().message);
    }
    return {};
}

}  // namespace pgxc
