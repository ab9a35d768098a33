#pragma once

#include <vector>

#include "catalog/node.h"

namespace pgxc {

/// An immutable set of nodes, ordered by key. Copies are how a change is proposed (topology_rules.h).
class Topology {
  public:
    Topology() = default;
    explicit Topology(std::vector<Node> nodes);

    [[nodiscard]] const std::vector<Node>& nodes() const { return nodes_; }
    /// The node of that key, or nullptr. Valid as long as this object.
    [[nodiscard]] const Node* find(NodeKey key) const;
    [[nodiscard]] const Node* find(const HostPort& address) const;
    /// Masters of a type, in ascending id.
    [[nodiscard]] std::vector<const Node*> masters(NodeType type) const;
    /// Direct slaves of a node, in ascending id.
    [[nodiscard]] std::vector<const Node*> slaves_of(NodeKey master) const;
    /// The master at the top of a node's chain (the node itself if it is one); nullptr if the chain is
    /// broken.
    [[nodiscard]] const Node* top_master_of(NodeKey key) const;

    friend bool operator==(const Topology&, const Topology&) = default;

  private:
    std::vector<Node> nodes_;
};

}  // namespace pgxc
