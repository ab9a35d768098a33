#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "catalog/node.h"

namespace pgxc {

/// One entry of the settings pgxc.coordinators and pgxc.datanodes.
struct ListedNode {
    NodeId id;
    HostPort address;
    friend bool operator==(const ListedNode&, const ListedNode&) = default;
};

/// Reads 'id=host:port, ...' (white space around entries, ids and addresses is ignored; '' is no node). Ids
/// are 1..2^31-1; an id or an address that comes twice, an empty entry, or more than limits::max_nodes
/// entries is an error (22023) that names the entry. The order is that of the text.
[[nodiscard]] Result<std::vector<ListedNode>> parse_node_list(std::string_view text);

}  // namespace pgxc
