#pragma once

#include "catalog/topology.h"

/// Asks servers whether they are what a statement says they are (pgxc.check_nodes): network questions of a
/// backend, which the user may cancel. Call them without the catalog's lock.
namespace pgxc {

/// Answers, is a master, and isn't another master's server under another address.
[[nodiscard]] Status examine_new_master(const Topology& topology, NodeKey key, const HostPort& address);

/// Answers, is in recovery, a copy of `master` and streaming from it; and, where it is to be synchronous,
/// both can be set up for it. `wanted` None: asks the master. Gives what it is to be, and raises WARNINGs on
/// the way. Works for slaves that are registered already, too.
[[nodiscard]] Result<Replication> examine_new_slave(const Topology& topology, NodeKey key,
                                                    const HostPort& address, NodeKey master,
                                                    Replication wanted);

/// Is the server of `master` one that the slave could stream from?
[[nodiscard]] Status examine_new_parent(const Topology& topology, NodeKey slave, NodeKey master);

}  // namespace pgxc
