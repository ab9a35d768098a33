#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "catalog/node.h"
#include "replication/node_check.h"

/// May a server be registered as what the statement says it is? Decided from what the servers said
/// (NodeFacts), without asking anybody. Every refusal has its own message and HINT.
namespace pgxc {

/// A slave that is to be registered, or re-parented, or made synchronous, and the node above it.
struct SlaveCandidate {
    NodeKey slave;
    HostPort slave_address;
    NodeFacts slave_facts;
    NodeKey master;
    HostPort master_address;
    bool master_is_slave = false;  // as the catalog says: cascading replication
    NodeFacts master_facts;
    bool leads_to_master = false;           // leads_to(upstream, slave_address, master_address)
    std::optional<NodeKey> leads_to_other;  // the registered node that it leads to instead
    std::string counting_name;              // application_name and slot under which it would count
    /// Why its stream can't be changed from here; only of a slave before 13, whose files that takes.
    std::optional<Error> files_out_of_reach;
};

/// The stream of this slave in its master's pg_stat_replication; nullptr if it can't be told.
[[nodiscard]] const StandbySeen* stream_of(const SlaveCandidate& candidate);

/// Is it a slave of this very cluster and, by its settings, of this very master?
[[nodiscard]] Status check_slave(const SlaveCandidate& candidate);
/// Does it stream now? Apart from check_slave(), since a slave that has just started may need a moment.
[[nodiscard]] Status check_streaming(const SlaveCandidate& candidate);
/// The master to be of a slave that streams from elsewhere until it is re-pointed.
[[nodiscard]] Status check_new_master(const SlaveCandidate& candidate);
/// Is it a master?
[[nodiscard]] Status check_master(NodeKey key, const HostPort& address, const NodeFacts& facts);

/// What the master says the slave really is. A name that several streams share tells nothing: asynchronous,
/// then, is the answer that promises nothing.
[[nodiscard]] Replication replication_seen(const SlaveCandidate& candidate);
/// Can both servers be set up for synchronous replication? A slave before 13 out of reach can where it has
/// been set up by hand.
[[nodiscard]] Status check_synchronous(const SlaveCandidate& candidate);
/// What works less well than it could: WARNINGs.
[[nodiscard]] std::vector<Error> registration_warnings(const SlaveCandidate& candidate,
                                                       Replication replication);

/// Two addresses, one server?
[[nodiscard]] bool same_server(const NodeFacts& one, const NodeFacts& other);

/// Releases before which commits right after a start don't wait for synchronous slaves.
[[nodiscard]] bool commits_may_not_wait_after_start(int server_version_num);

}  // namespace pgxc
