#pragma once

/// Our library on a datanode (pgxc.role = datanode; DESIGN 6.5): takes requests of a coordinator through the
/// setting pgxc.node_request, and refuses to start a server as a master that a newer epoch has replaced.
namespace pgxc {

/// Defines pgxc.node_request and pgxc.node_answer. During preload only.
void define_node_requests();

/// Asks the coordinators whether this server was replaced. If so: FATAL, after the return as a slave has been
/// begun, where it is waited for. Nobody answers: a WARNING, and the server starts, because what it
/// acknowledges is kept safe by others (FAILOVER_PROTOCOL). In the postmaster, during preload.
void check_start_as_master();

}  // namespace pgxc
