#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "catalog/cluster_view.h"
#include "pooler/environment.h"
#include "pooler/statement_class.h"

/// Where a transaction goes. Pure: facts in, decision out, with its reason.
namespace pgxc::pooler {

/// Chooses the node group that a connection means (DESIGN 5.1), by the name of its master: `choice` is the
/// client's pgxc.node, "N" for datanode group N or "C" for this coordinator; nullopt or "": the only datanode
/// group if there is exactly one, else this coordinator. Errors with a HINT: 22023 not a node name, 08000 no
/// such group.
[[nodiscard]] Result<NodeKey> choose_group(std::optional<std::string_view> choice, const ClusterView& view,
                                           NodeId own_coordinator);
/// The datanode group of that number, whether or not there is one; nullopt: not a number from 1 on.
[[nodiscard]] std::optional<NodeKey> named_group(std::string_view choice);
/// Is it "C", whatever nodes there are?
[[nodiscard]] bool chooses_own_coordinator(std::optional<std::string_view> choice);

/// Reads a pgxc.read_routing value as a client writes it in its options; error 22023.
[[nodiscard]] Result<ReadRouting> parse_read_routing(std::string_view text);

/// How far a server is: what it has written or replayed, and which transactions it may show. A standby shows
/// none from its snapshots' xmax on, replayed or not: one that was made from a base backup, or started, while
/// commits waited for their standbys doesn't show those before a later transaction ends
/// (ProcArrayApplyRecoveryInfo(), GetSnapshotData()).
struct Progress {
    Lsn position;
    std::uint64_t xmax = 0;  // txid_snapshot_xmax(), with its epoch

    /// Shows everything that a server had shown that was that far.
    [[nodiscard]] bool covers(const Progress& other) const {
        return position >= other.position && xmax >= other.xmax;
    }
    /// Of answers in any order the most of both.
    void raise_to(const Progress& other) {
        position = std::max(position, other.position);
        xmax = std::max(xmax, other.xmax);
    }
};

/// What is known of the commits that a client must see (pgxc.causal_reads).
struct CausalBound {
    enum class State : std::uint8_t {
        None,     // nothing was committed through this pooler, or causal reads are off
        Known,    // progress is the bound
        Unknown,  // a commit is running or its position isn't known yet: only the master will do
    } state = State::None;
    Progress progress;
    Epoch epoch;  // the master's when that was read: positions of another epoch can't be compared (rule 13)
};

/// A slave, as this pooler worker knows it.
struct NodeLoad {
    NodeKey node;
    std::uint32_t outstanding = 0;  // transactions under way there
    Progress progress;              // as it said itself over a connection that is still there; 0 = not known
    bool troubled = false;          // it can't be reached now
};

/// What is known when a transaction begins.
struct RouteFacts {
    const ClusterView* view = nullptr;  // never null
    NodeKey group;                      // as choose_group() gave it: the group's master by name
    NodeId own_coordinator;
    ReadRouting routing = ReadRouting::Explicit;
    /// The first statement's text (Query, or the statement behind the first Parse/Bind); nullopt = unknown.
    std::optional<std::string_view> first_statement;
    /// The session's defaults: what its login, or a SET since, has asked for.
    bool default_read_only = false;
    bool default_serializable = false;
    std::uint64_t max_read_lag_bytes = 0;
    CausalBound bound;
    std::span<const NodeLoad> load;
    std::uint32_t turn = 0;  // grows with every decision: of equals another one each time

    /// What the first statement is, or all statements of the first pipeline together: for Auto.
    std::optional<Classification> statement;
    /// It is in a block that may move to the master.
    bool in_block = false;
};

struct Decision {
    NodeKey target;     // the node to use, or to wait for
    bool hold = false;  // its gate isn't open: wait, and decide again at the next view
    bool to_slave = false;
    std::string_view
        reason;  // one sentence for logs and pgxc_pooler_clients.why; a literal, or a text of the view
};

/// Decides for a transaction that begins. The target's group is there in the view or the decision is to hold
/// (a group that was dropped is for choose_group() to tell).
[[nodiscard]] Decision decide_route(const RouteFacts& facts);

/// Could a slave do it, were there one that may serve? (Else nothing need be known of the slaves.)
[[nodiscard]] bool could_go_to_slave(const RouteFacts& facts);

/// May that slave serve a read that begins now? (decide_route() asks no more of the one it chooses.)
[[nodiscard]] bool may_read_at(const RouteFacts& facts, NodeKey slave);

/// Is the node below that master, directly or through other slaves? A broken or circular chain is no.
[[nodiscard]] bool is_slave_of(const ClusterView& view, const NodeView& slave, NodeKey master);

/// Does the group have a slave that could serve reads, had it replayed everything?
[[nodiscard]] bool has_live_slave(const RouteFacts& facts);

/// True for our own statements (REGISTER ..., ALTER DATANODE ..., CALL pgxc....), by their first words: they
/// run on this coordinator, whatever node the client means.
[[nodiscard]] bool is_own_statement(std::string_view sql);

/// Is the transaction that begins with this text declared read only, and can it run on a slave?
/// Serializable can't (a hot standby refuses it).
[[nodiscard]] bool is_declared_read_only(std::string_view sql, bool default_read_only,
                                         bool default_serializable);

}  // namespace pgxc::pooler
