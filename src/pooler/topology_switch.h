#pragma once

#include <string>

#include "catalog/cluster_view.h"

/// What a new ClusterView means for a pool. Pure.
namespace pgxc::pooler {

/// Where a pool's node is, as of a view.
struct Target {
    bool exists = false;  // the node is in the catalog
    bool is_master = false;
    HostPort address;
    Epoch epoch;          // of the node's group
    NodeKey group;        // by its master's name
    bool held = false;    // no new transactions now
    bool paused = false;  // held because somebody asked for it (pgxc.pause()), for as long as that lasts
    std::string why;      // it is held or unreachable; may be empty
    friend bool operator==(const Target&, const Target&) = default;
};

/// Finds a node. `own` is this coordinator: it is reached at `own_server`, and is there even when the view
/// doesn't list it (no monitor yet); it lives in this very server, so nothing is held.
[[nodiscard]] Target find_target(const ClusterView& view, NodeKey node, NodeKey own,
                                 const HostPort& own_server);

/// What the pool must do, the new target being taken over.
enum class Switch : std::uint8_t {
    Nothing,
    Hold,     // stop lending; what is lent may finish
    Release,  // lend again
    Move,  // every connection leads to a server that isn't the node any more: close all, then lend (or hold)
    Retire,  // a slave is no slave any more, or gone: close what is idle, let what is lent finish, lend
             // nothing
};
[[nodiscard]] Switch compare(const Target& before, const Target& now);

}  // namespace pgxc::pooler
