#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

namespace pgxc {

/// pgxc_nodes.node_type; the value is the character in the catalog.
enum class NodeType : char { Coordinator = 'C', Datanode = 'D' };

/// pgxc_nodes.node_replication; `None` (SQL NULL) is a master.
enum class Replication : char { None = 0, Synchronous = 's', Asynchronous = 'a' };

[[nodiscard]] std::string_view to_word(NodeType type);            // "coordinator", "datanode"
[[nodiscard]] std::string_view to_word(Replication replication);  // "", "synchronous", "asynchronous"

/// What names a node: its type and its id.
struct NodeKey {
    NodeType type = NodeType::Datanode;
    NodeId id;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the 0 that it compares with for a pointer.
    friend constexpr auto operator<=>(const NodeKey&, const NodeKey&) = default;
    [[nodiscard]] std::string to_string() const;  // "datanode 3"
};

/// Where a node listens, as this coordinator reaches it.
struct HostPort {
    std::string host;
    std::uint16_t port = 0;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the 0 that it compares with for a pointer.
    friend auto operator<=>(const HostPort&, const HostPort&) = default;
    /// 'host:port', an IPv6 address in brackets: "[::1]:5433".
    [[nodiscard]] std::string to_string() const;
    /// Reads 'host:port' or '[v6]:port'; port 1..65535, host without white space, not empty, and shorter than
    /// limits::max_host_bytes. The error (22023) says what is wrong and shows the expected form.
    [[nodiscard]] static Result<HostPort> parse(std::string_view text);
};

/// One row of pgxc_nodes.
struct Node {
    NodeKey key;
    HostPort address;
    NodeId master_id;  // 0 for a master
    Replication replication = Replication::None;
    Epoch epoch;  // of a master; 0 otherwise
    [[nodiscard]] bool is_master() const { return master_id.value() == 0; }
    friend bool operator==(const Node&, const Node&) = default;
};

}  // namespace pgxc
