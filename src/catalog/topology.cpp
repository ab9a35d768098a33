#include "catalog/topology.h"

#include <algorithm>

namespace pgxc {

Topology::Topology(std::vector<Node> nodes) : nodes_(std::move(nodes)) {
    std::sort(nodes_.begin(), nodes_.end(), [](const Node& a, const Node& b) { return a.key < b.key; });
}

const Node* Topology::find(NodeKey key) const {
    const auto at = std::lower_bound(nodes_.begin(), nodes_.end(), key,
                                     [](const Node& node, NodeKey wanted) { return node.key < wanted; });
    return at != nodes_.end() && at->key == key ? &*at : nullptr;
}

const Node* Topology::find(const HostPort& address) const {
    const auto at =
        std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& node) { return node.address == address; });
    return at != nodes_.end() ? &*at : nullptr;
}

std::vector<const Node*> Topology::masters(NodeType type) const {
    std::vector<const Node*> found;
    for (const Node& node : nodes_)
        if (node.key.type == type && node.is_master()) found.push_back(&node);
    return found;
}

std::vector<const Node*> Topology::slaves_of(NodeKey master) const {
    std::vector<const Node*> found;
    for (const Node& node : nodes_)
        if (node.key.type == master.type && !node.is_master() && node.master_id == master.id)
            found.push_back(&node);
    return found;
}

const Node* Topology::top_master_of(NodeKey key) const {
    const Node* node = find(key);
    // As many steps as there are nodes: a cycle (which the rules forbid) must not hang a reader.
    for (std::size_t step = 0; node != nullptr && step <= nodes_.size(); ++step) {
        if (node->is_master()) return node;
        node = find({key.type, node->master_id});
    }
    return nullptr;
}

}  // namespace pgxc
