#include "pooler/topology_switch.h"

namespace pgxc::pooler {
namespace {

/// The master at the top of a slave's chain; bounded, since a view may be caught in a change.
const NodeView* top_master(const ClusterView& view, const NodeView& node) {
    const NodeView* at = &node;
    for (std::size_t steps = 0; at != nullptr && steps <= view.nodes.size(); ++steps) {
        if (at->node.is_master()) return at;
        at = view.find({at->node.key.type, at->node.master_id});
    }
    return nullptr;
}

}  // namespace

Target find_target(const ClusterView& view, NodeKey node, NodeKey own, const HostPort& own_server) {
    const NodeView* found = view.find(node);
    Target target;
    if (node == own) {
        target.exists = true;
        target.is_master = true;
        target.address = own_server;
        target.group = own;
        if (found != nullptr) target.epoch = found->node.epoch;
        return target;
    }
    if (found == nullptr) return target;
    target.exists = true;
    target.is_master = found->node.is_master();
    target.address = found->node.address;
    const NodeView* master = top_master(view, *found);
    target.epoch = master != nullptr ? master->node.epoch : Epoch{};
    target.group = master != nullptr ? master->node.key : node;
    target.paused = master != nullptr && master->paused;
    target.held = target.paused || (target.is_master && found->gate != Gate::Open);
    target.why = target.paused ? master->why : found->why;
    return target;
}

Switch compare(const Target& before, const Target& now) {
    if (!now.exists) return before.exists ? Switch::Retire : Switch::Nothing;
    if (!before.exists) return Switch::Move;
    if (before.is_master && !now.is_master) return Switch::Move;
    if (before.address != now.address) return Switch::Move;
    // A slave's server stays the same one when its group gets another master.
    if (now.is_master && before.epoch != now.epoch) return Switch::Move;
    if (before.held != now.held) return now.held ? Switch::Hold : Switch::Release;
    return Switch::Nothing;
}

}  // namespace pgxc::pooler
