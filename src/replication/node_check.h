#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "catalog/node.h"
#include "replication/node_login.h"

/// What a server says of itself, asked once by libpq when a node is registered (libpq_node_check.cpp).
/// Deciding on it is registration_rules.h.
namespace pgxc {

/// A row of pg_stat_replication, with the slot that its walsender uses.
struct StandbySeen {
    std::string application_name;
    std::string state;        // "streaming", "catchup", ...; empty where the login may not see it
    std::string sync_state;   // "async", "potential", "sync", "quorum"; the same
    std::string client_addr;  // empty = unix socket, or not to be seen
    std::string slot_name;    // empty = none
};

struct NodeFacts {
    int server_version_num = 0;  // e.g. 150020
    bool in_recovery = false;
    std::uint64_t system_identifier = 0;
    TimelineId timeline;
    Lsn position;  // of a master: flushed; of a slave: received or replayed, whichever is more
    bool superuser_login = false;
    bool streaming = false;  // a slave whose WAL receiver streams
    std::string
        upstream_host;  // where a slave streams from, or means to (primary_conninfo); a socket directory too
    std::uint16_t upstream_port = 0;
    std::string application_name;  // of the slave's stream, as primary_conninfo names it; empty = the
                                   // server's default
    std::string cluster_name;      // the application_name that a stream has by default, from 12 on
    std::string primary_slot_name;
    std::string wal_level;
    int max_wal_senders = 0;
    int walsenders = 0;  // in use
    int max_replication_slots = 0;
    int replication_slots = 0;       // there are
    bool rewind_possible = false;    // wal_log_hints or data checksums (pg_rewind needs one)
    bool allow_alter_system = true;  // a setting of 17
    std::string data_directory;      // empty where the login may not see it
    int port = 0;                    // that it listens on
    std::string started_at;          // pg_postmaster_start_time(), microseconds since the epoch
    std::vector<StandbySeen> standbys;
};

/// True = stop, with the error 57014. Called at least every 100 ms.
using Interrupted = bool (*)(void* context);

/// Asks several servers at once, each with its own connection; the answers are in the order of the addresses.
/// Gives up on those that haven't answered after `timeout` (08001); a login that is refused is 08004 with the
/// server's words. Host names are resolved by libpq, which blocks while it does. Never throws but for want of
/// memory.
[[nodiscard]] std::vector<Result<NodeFacts>> examine_nodes(const std::vector<HostPort>& addresses,
                                                           const NodeLogin& login, Millis timeout,
                                                           Interrupted interrupted, void* context);

/// Does `upstream`, as the slave at `slave` writes it, lead to `master`, as this host writes it? Compares
/// resolved addresses and ports. What is "localhost" (or a unix socket) for a slave on another host is that
/// host.
[[nodiscard]] bool leads_to(const HostPort& upstream, const HostPort& slave, const HostPort& master);

}  // namespace pgxc
