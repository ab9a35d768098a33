#include "catalog/cluster_view.h"

#include <algorithm>

namespace pgxc {

std::string_view to_word(NodeState state) {
    switch (state) {
        case NodeState::Unknown:
            return "unknown";
        case NodeState::Up:
            return "up";
        case NodeState::Wrong:
            return "wrong";
        case NodeState::Starting:
            return "starting";
        case NodeState::Suspect:
            return "suspect";
        case NodeState::Down:
            return "down";
        case NodeState::Promoting:
            return "promoting";
        case NodeState::Rejoining:
            return "rejoining";
    }
    return "unknown";
}

std::string_view to_word(RoleSeen role) {
    switch (role) {
        case RoleSeen::Unknown:
            return "unknown";
        case RoleSeen::Master:
            return "master";
        case RoleSeen::Slave:
            return "slave";
    }
    return "unknown";
}

const NodeView* ClusterView::find(NodeKey key) const {
    const auto at =
        std::lower_bound(nodes.begin(), nodes.end(), key,
                         [](const NodeView& view, NodeKey wanted) { return view.node.key < wanted; });
    return at != nodes.end() && at->node.key == key ? &*at : nullptr;
}

}  // namespace pgxc
