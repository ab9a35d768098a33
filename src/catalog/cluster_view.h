#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "catalog/node.h"

/// Where the monitor (which knows) and the pooler (which routes) meet. The monitor publishes views, the
/// pooler reads them and reports what its traffic met; neither includes the other. src/pg keeps both in
/// shared memory.
namespace pgxc {

/// What the monitor knows of one node. The word in pgxc_node_status.state is to_word() of it.
enum class NodeState : std::uint8_t {
    Unknown,    // not asked yet since this monitor started
    Up,         // answers, and is what the catalog says it is
    Wrong,      // answers, but isn't what the catalog says (a "slave" that is a master, another system, ...)
    Starting,   // answers that it starts, recovers or shuts down
    Suspect,    // the last probe failed, not long enough to act
    Down,       // failed for the whole detection time
    Promoting,  // being made the master
    Rejoining,  // a replaced master on its way back as a slave: not in pgxc_nodes, `why` tells what is
                // missing
};
[[nodiscard]] std::string_view to_word(NodeState state);

/// What a server itself says it is.
enum class RoleSeen : std::uint8_t { Unknown, Master, Slave };
[[nodiscard]] std::string_view to_word(RoleSeen role);

/// May the pooler start new transactions at a group's master? (FAILOVER_PROTOCOL rule 12)
enum class Gate : std::uint8_t {
    Open,  // proven the master of its epoch: route
    Held,  // failover, switchover or not proven yet: new transactions wait up to pgxc.failover_hold
};

/// One node, as of the view's generation.
struct NodeView {
    Node node;
    NodeState state = NodeState::Unknown;
    RoleSeen role_seen = RoleSeen::Unknown;
    Gate gate = Gate::Held;     // of a master; meaningless for a slave
    Registration registration;  // of a datanode's master, once its record is known; 0 otherwise
    bool may_read = false;      // of a slave: on the current line, streaming from the group's master
    TimelineId timeline;        // 0 = not known
    Lsn position;               // of a master: its flush position; of a slave: what it has replayed
    std::optional<std::uint64_t> lag_bytes;  // of a slave: behind its master; nullopt = not known
    std::optional<WallTime> last_seen;       // the last answer of the server
    std::string why;                         // one sentence; empty when all is well
    bool paused = false;  // of a master: pgxc.pause() holds its whole group; `why` says who asked
    friend bool operator==(const NodeView&, const NodeView&) = default;
};

/// An immutable picture of the cluster.
struct ClusterView {
    Generation generation;
    std::vector<NodeView> nodes;  // ordered by key
    /// The node of that key, or nullptr. Valid as long as this object.
    [[nodiscard]] const NodeView* find(NodeKey key) const;
};

/// Reads the newest view. Cheap: one atomic load when nothing has changed.
class ClusterViewSource {
  public:
    virtual ~ClusterViewSource() = default;
    /// Never null; before the monitor's first round every node is Unknown and every gate Held.
    [[nodiscard]] virtual std::shared_ptr<const ClusterView> current() = 0;
};

/// What pooled traffic met at a node: evidence for the monitor (DESIGN 6.2, step 1), never a decision.
enum class TrafficFailure : std::uint8_t {
    ConnectRefused,      // nothing listens
    ConnectTimeout,      // no answer to the connection attempt
    ConnectionLost,      // an established connection was reset or closed
    ServerSaysReadOnly,  // a "master" said it is in recovery (25006)
};

class TrafficFailureSink {
  public:
    virtual ~TrafficFailureSink() = default;
    /// Reports and wakes the monitor. Never blocks. `epoch` is the epoch of the view that was routed by.
    virtual void report(NodeKey node, Epoch epoch, TrafficFailure failure) = 0;
};

}  // namespace pgxc
