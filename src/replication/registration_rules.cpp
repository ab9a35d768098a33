#include "replication/registration_rules.h"

#include <strings.h>

#include <algorithm>

#include "replication/promotion_plan.h"

namespace pgxc {
namespace {

std::string at(NodeKey key, const HostPort& address) {
    return key.to_string() + " (" + address.to_string() + ")";
}

std::string version_text(int version) {
    return std::to_string(version / 10000) + "." + std::to_string(version % 10000);
}

/// The application_name that the slave's stream has: set, or the default of its version.
std::string stream_name(const NodeFacts& slave) {
    if (!slave.application_name.empty()) return slave.application_name;
    if (slave.server_version_num >= 120000 && !slave.cluster_name.empty()) return slave.cluster_name;
    return "walreceiver";
}

/// Is the stream's name, or its slot, one that only this slave has? Clones share the defaults.
bool has_own_name(const NodeFacts& slave) {
    if (!slave.primary_slot_name.empty()) return true;
    const std::string name = stream_name(slave);
    return name != "walreceiver" && name != slave.cluster_name;
}

std::vector<const StandbySeen*> possible_streams(const SlaveCandidate& candidate) {
    std::vector<const StandbySeen*> found;
    const std::string& slot = candidate.slave_facts.primary_slot_name;
    const std::string name = stream_name(candidate.slave_facts);
    for (const StandbySeen& standby : candidate.master_facts.standbys) {
        const bool same = slot.empty() ? standby.slot_name.empty() &&
                                             strcasecmp(standby.application_name.c_str(), name.c_str()) == 0
                                       : standby.slot_name == slot;
        if (same) found.push_back(&standby);
    }
    return found;
}

Status check_cluster(const SlaveCandidate& candidate) {
    if (candidate.slave_facts.system_identifier == candidate.master_facts.system_identifier) return {};
    return Error{
        sqlstate::object_not_in_prerequisite_state,
        at(candidate.slave, candidate.slave_address) + " is not a copy of " +
            at(candidate.master, candidate.master_address),
        "Make the slave with pg_basebackup from that master, or name the master that it was made from.",
        "Their system identifiers are " + std::to_string(candidate.slave_facts.system_identifier) + " and " +
            std::to_string(candidate.master_facts.system_identifier) + "."};
}

/// The node above is what the catalog says: a master, or a slave with slaves of its own.
Status check_upstream_role(const SlaveCandidate& candidate) {
    if (candidate.master_is_slave == candidate.master_facts.in_recovery) return {};
    return Error{sqlstate::object_not_in_prerequisite_state,
                 at(candidate.master, candidate.master_address) +
                     (candidate.master_is_slave ? " is registered as a slave but is not in recovery"
                                                : " is registered as a master but is in recovery"),
                 "See pgxc_node_status, and repair that node first."};
}

/// Does it stream as it would have to, though nobody here can have it do so?
bool counts_by_hand(const SlaveCandidate& candidate) {
    const NodeFacts& slave = candidate.slave_facts;
    return slave.application_name == candidate.counting_name &&
           slave.primary_slot_name == candidate.counting_name;
}

/// What an administrator has to write for a slave whose files can't be reached.
std::string by_hand(const SlaveCandidate& candidate) {
    const NodeFacts& slave = candidate.slave_facts;
    const bool recovery_conf = slave.server_version_num < replication::first_without_recovery_conf;
    const std::string& name = candidate.counting_name;
    std::string text = "By hand: on " + at(candidate.master, candidate.master_address) +
                       " SELECT pg_create_physical_replication_slot('" + name + "', true); in " +
                       (recovery_conf ? "recovery.conf" : "postgresql.auto.conf") + " of " +
                       at(candidate.slave, candidate.slave_address) + " primary_slot_name = '" + name +
                       "', in primary_conninfo there application_name=" + name;
    if (recovery_conf) text += ", and recovery_target_timeline = 'latest'";
    return text + "; restart it and register it again. Each promotion needs that anew.";
}

}  // namespace

const StandbySeen* stream_of(const SlaveCandidate& candidate) {
    const auto possible = possible_streams(candidate);
    return possible.size() == 1 ? possible.front() : nullptr;
}

Status check_master(NodeKey key, const HostPort& address, const NodeFacts& facts) {
    if (!facts.in_recovery) return {};
    return Error{sqlstate::object_not_in_prerequisite_state,
                 at(key, address) + " is not a master: it is in recovery",
                 "Register it as a slave of its master, or promote it first."};
}

Status check_slave(const SlaveCandidate& candidate) {
    if (same_server(candidate.slave_facts, candidate.master_facts))
        return Error{sqlstate::unique_violation,
                     candidate.slave_address.to_string() + " leads to the same server as " +
                         at(candidate.master, candidate.master_address),
                     "A server is registered once. Name the address of the slave."};
    if (!candidate.slave_facts.in_recovery)
        return Error{sqlstate::object_not_in_prerequisite_state,
                     at(candidate.slave, candidate.slave_address) + " is not a slave: it is not in recovery",
                     "Make it a slave (pg_basebackup -R), or register it as a master."};
    if (Status status = check_cluster(candidate); !status) return status;
    if (Status status = check_upstream_role(candidate); !status) return status;
    const NodeFacts& slave = candidate.slave_facts;
    if (slave.upstream_host.empty() && slave.upstream_port == 0)
        return Error{sqlstate::object_not_in_prerequisite_state,
                     at(candidate.slave, candidate.slave_address) + " streams from nowhere",
                     "Set primary_conninfo there to " + candidate.master_address.to_string() +
                         ", and let pgxc.node_user be a superuser there, or a member of pg_monitor.",
                     "It has no primary_conninfo, or does not show it to the login of this coordinator."};
    const auto refuse = [&](const std::string& upstream) {
        return Error{sqlstate::object_not_in_prerequisite_state,
                     at(candidate.slave, candidate.slave_address) + " streams from " + upstream +
                         ", not from " + at(candidate.master, candidate.master_address),
                     "Name the node that it streams from as its master, or change its primary_conninfo."};
    };
    const HostPort upstream{slave.upstream_host, slave.upstream_port};
    if (candidate.leads_to_master) return {};
    if (candidate.leads_to_other) return refuse(at(*candidate.leads_to_other, upstream));
    // Through another network the slave may know its master by an address that says nothing here; a slot or a
    // name of its own in the master's list of its slaves says it all.
    if (has_own_name(slave) && stream_of(candidate) != nullptr) return {};
    return refuse(upstream.to_string());
}

Status check_streaming(const SlaveCandidate& candidate) {
    if (candidate.slave_facts.streaming) return {};
    return Error{
        sqlstate::object_not_in_prerequisite_state,
        at(candidate.slave, candidate.slave_address) + " does not stream from " +
            at(candidate.master, candidate.master_address),
        "See the log of the slave for what keeps it from streaming (pg_hba.conf of the master, a missing WAL "
        "segment or slot), or register it before it is up with SET pgxc.check_nodes = off."};
}

Status check_new_master(const SlaveCandidate& candidate) {
    if (!candidate.slave_facts.in_recovery) return check_slave(candidate);
    if (Status status = check_cluster(candidate); !status) return status;
    return check_upstream_role(candidate);
}

Replication replication_seen(const SlaveCandidate& candidate) {
    const auto possible = possible_streams(candidate);
    const bool all_synchronous =
        std::all_of(possible.begin(), possible.end(), [](const StandbySeen* standby) {
            return standby->sync_state == "sync" || standby->sync_state == "quorum" ||
                   standby->sync_state == "potential";
        });
    return !possible.empty() && all_synchronous ? Replication::Synchronous : Replication::Asynchronous;
}

Status check_synchronous(const SlaveCandidate& candidate) {
    const NodeFacts& master = candidate.master_facts;
    const NodeFacts& slave = candidate.slave_facts;
    const std::string master_name = at(candidate.master, candidate.master_address);
    const std::string slave_name = at(candidate.slave, candidate.slave_address);
    const auto refuse = [&](const std::string& message, const std::string& hint) {
        return Error{sqlstate::object_not_in_prerequisite_state, message, hint,
                     "Needed for synchronous replication of " + candidate.slave.to_string() + "."};
    };
    for (const auto& [name, facts] : {std::pair{&master_name, &master}, std::pair{&slave_name, &slave}}) {
        if (!facts->superuser_login)
            return Error{sqlstate::insufficient_privilege, "pgxc.node_user is not a superuser on " + *name,
                         "Let pgxc.node_user be a superuser there: synchronous replication is set up with "
                         "ALTER SYSTEM."};
        if (!facts->allow_alter_system)
            return refuse("allow_alter_system is off on " + *name, "Set allow_alter_system = on there.");
    }
    if (master.wal_level != "replica" && master.wal_level != "logical")
        return refuse("wal_level of " + master_name + " is " + master.wal_level,
                      "Set wal_level = replica there and restart it.");
    if (candidate.files_out_of_reach && !counts_by_hand(candidate)) {
        const Error& why = *candidate.files_out_of_reach;
        return Error{why.sqlstate, why.message, by_hand(candidate), why.detail};
    }
    const bool has_stream = stream_of(candidate) != nullptr;
    if (master.max_wal_senders - master.walsenders < (has_stream ? 0 : 1) || master.max_wal_senders == 0)
        return refuse("no WAL sender of " + master_name + " is free: max_wal_senders is " +
                          std::to_string(master.max_wal_senders),
                      "Raise max_wal_senders there and restart it.");
    if (slave.primary_slot_name.empty() && master.replication_slots >= master.max_replication_slots)
        return refuse("no replication slot of " + master_name + " is free: max_replication_slots is " +
                          std::to_string(master.max_replication_slots),
                      "Raise max_replication_slots there and restart it, or drop unused slots.");
    return {};
}

std::vector<Error> registration_warnings(const SlaveCandidate& candidate, Replication replication) {
    std::vector<Error> warnings;
    const auto warn = [&](const std::string& message, const std::string& hint, const std::string& detail) {
        warnings.emplace_back("01000", message, hint, detail);
    };
    if (candidate.files_out_of_reach && replication == Replication::Synchronous)
        warn("no automatic failover to " + candidate.slave.to_string() + ", which runs PostgreSQL " +
                 version_text(candidate.slave_facts.server_version_num),
             "Use PostgreSQL 13 or later, or promote by hand on its host.",
             candidate.files_out_of_reach->message + ".");
    else if (candidate.files_out_of_reach)
        warn(candidate.slave.to_string() + ", which runs PostgreSQL " +
                 version_text(candidate.slave_facts.server_version_num) +
                 ", does not follow a new master by itself",
             "Use PostgreSQL 13 or later, or change its primary_conninfo by hand after each promotion.",
             candidate.files_out_of_reach->message + ".");
    if (replication == Replication::Synchronous &&
        commits_may_not_wait_after_start(candidate.master_facts.server_version_num))
        warn(candidate.master.to_string() + " runs PostgreSQL " +
                 version_text(candidate.master_facts.server_version_num) +
                 ", where commits right after a start do not wait for synchronous slaves",
             "Update it to the newest minor release.", "Corrected in 13.21, 14.18, 15.13, 16.9 and 17.5.");
    if (!candidate.master_facts.rewind_possible)
        warn("a former master of " + candidate.slave.to_string() + "'s group cannot be rewound",
             "Set wal_log_hints = on in postgresql.conf of " + candidate.master.to_string() +
                 " and its slaves, and restart them; until then a master that comes back is copied anew.",
             "pg_rewind needs wal_log_hints or data checksums, and " + candidate.master.to_string() +
                 " has neither.");
    return warnings;
}

bool same_server(const NodeFacts& one, const NodeFacts& other) {
    return one.system_identifier == other.system_identifier && one.started_at == other.started_at &&
           one.port == other.port && one.data_directory == other.data_directory;
}

bool commits_may_not_wait_after_start(int server_version_num) {
    const int major = server_version_num / 10000;
    const int minor = server_version_num % 10000;
    switch (major) {
        case 13:
            return minor < 21;
        case 14:
            return minor < 18;
        case 15:
            return minor < 13;
        case 16:
            return minor < 9;
        case 17:
            return minor < 5;
        default:
            return major < 13;
    }
}

}  // namespace pgxc
