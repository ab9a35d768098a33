#pragma once

extern "C" {
#include "postgres.h"

#include "nodes/nodes.h"
}

namespace pgxc {

/// The server's IsA(), whose macro would take its type Node for ours in this namespace.
inline bool has_tag(const void* node, NodeTag tag) {
    return node != nullptr && *static_cast<const NodeTag*>(node) == tag;
}

}  // namespace pgxc
