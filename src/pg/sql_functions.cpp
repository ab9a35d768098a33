// The procedures of schema pgxc that change the cluster. Each one: who asks, with what, may it be so (rules
// on the catalog as it is), is it so (asking the servers, with no lock held), then lock, read again, change;
// and after the commit wait for what the monitor makes of it.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "catalog/topology_rules.h"
#include "pg/admin_call.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/node_examination.h"
#include "pg/node_store_pg.h"
#include "pg/shared_state.h"

extern "C" {
#include "miscadmin.h"
}

namespace pgxc {
namespace {

/// How long a CALL waits for the monitor to put a change of synchronous replication in force. It goes on
/// without.
constexpr Millis settle_timeout{15'000};

/// The one place that knows that a change is made on this coordinator only.
void warn_about_other_coordinators(const Topology& topology) {
    std::string others;
    for (const Node* coordinator : topology.masters(NodeType::Coordinator))
        if (coordinator->key.id != guc::node_id())
            others += (others.empty() ? "" : ", ") + coordinator->key.to_string() + " (" +
                      coordinator->address.to_string() + ")";
    if (others.empty()) return;
    report(WARNING, Error{"01000", "pgxc_nodes is changed on this coordinator only",
                          "Run the same statement on the others.", "Other coordinators: " + others + "."});
}

std::string describe(const Node& node) {
    std::string text = node.key.to_string() + " at " + node.address.to_string();
    if (node.is_master()) return text + ", master";
    return text + ", " + std::string(to_word(node.replication)) + " slave of " +
           NodeKey{node.key.type, node.master_id}.to_string();
}

bool is_synchronous(const Topology& topology, NodeKey key) {
    const Node* node = topology.find(key);
    return node != nullptr && node->replication == Replication::Synchronous;
}

/// What concerns synchronous replication is set up on the servers by the monitor, after the commit.
Status settle(AdminCall& call, NodeKey master) {
    const Error later{"00000",
                      "replication of " + master.to_string() + " is set up shortly after this commits",
                      "See pgxc_node_status."};
    if (call.atomic()) {
        report(NOTICE, later);
        return {};
    }
    if (Status committed = call.commit(); !committed) return committed;
    if (!guc::check_nodes()) {
        report(NOTICE,
               Error{"00000", "replication of " + master.to_string() + " is set up when its nodes are up",
                     "See pgxc_node_status."});
        return {};
    }
    MonitorRequest request;
    request.kind = MonitorRequestKind::Settle;
    request.node = master;
    request.user = call.user();
    Status settled = submit_monitor_request(request, nullptr, settle_timeout);
    if (settled) return settled;
    const Error& error = settled.error();
    // Cancelled or told to end: the change is committed, but whoever asked wants no more waiting.
    if (error.sqlstate == sqlstate::query_canceled || error.sqlstate == sqlstate::admin_shutdown)
        return settled;
    report(WARNING, Error{error.sqlstate,
                          "the change is made, but replication of " + master.to_string() +
                              " is not in force yet: " + error.message,
                          error.hint.empty() ? "See pgxc_node_status." : error.hint, error.detail});
    return {};
}

/// Between asking the servers and the lock somebody may have moved a node that was asked.
Status check_unmoved(const Topology& asked, const Topology& now, NodeKey key) {
    const Node* before = asked.find(key);
    const Node* after = now.find(key);
    if (before != nullptr && after != nullptr && *before == *after) return {};
    return Error{sqlstate::object_not_in_prerequisite_state,
                 key.to_string() + " was changed by somebody else while its server was asked",
                 "Look at pgxc_nodes and repeat the statement."};
}

Error master_error(const Topology& topology, NodeKey key) {
    const Node* node = topology.find(key);
    return {sqlstate::object_not_in_prerequisite_state,
            node == nullptr ? key.to_string() + " does not exist" : key.to_string() + " leads to no master",
            "SELECT * FROM pgxc_nodes shows the nodes there are."};
}

Status settle_group_of(AdminCall& call, const Topology& topology, NodeKey key) {
    const Node* master = topology.top_master_of(key);
    if (master == nullptr) return master_error(topology, key);
    return settle(call, master->key);
}

/// The masters of one setting that the catalog doesn't know. What a promotion has changed since the setting
/// was written stays as it is.
Result<Topology> with_missing(Topology topology, NodeType type, const std::vector<ListedNode>& listed,
                              std::vector<Error>* skipped) {
    for (const ListedNode& entry : listed) {
        const NodeKey key{type, entry.id};
        if (const Node* known = topology.find(key); known != nullptr) {
            if (!known->is_master() || known->address != entry.address)
                skipped->emplace_back(
                    "00000",
                    key.to_string() + " stays as it is in pgxc_nodes, not at " + entry.address.to_string(),
                    "Correct pgxc." + std::string(to_word(type)) + "s.", "It is " + describe(*known) + ".");
            continue;
        }
        auto added = register_master(topology, key, entry.address);
        if (!added) {
            Error error = std::move(added).error();
            error.detail = "While adding " + key.to_string() + " of the setting pgxc." +
                           std::string(to_word(type)) + "s.";
            return error;
        }
        topology = std::move(*added);
    }
    return topology;
}

}  // namespace

PGXC_FUNCTION(pgxc_init) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    std::vector<Error> skipped;
    Topology before;
    auto after = change_topology(
        [&](const Topology& topology) {
            before = topology;
            auto with = with_missing(topology, NodeType::Coordinator, guc::coordinators(), &skipped);
            return with ? with_missing(std::move(*with), NodeType::Datanode, guc::datanodes(), &skipped)
                        : std::move(with);
        },
        Records::CreateAndDrop);
    if (!after) return std::move(after).error();
    for (const Error& notice : skipped) report(NOTICE, notice);
    for (const Node& node : after->nodes())
        if (before.find(node.key) == nullptr) call->log("added " + describe(node) + ", from the settings");
    return Datum{0};
}

PGXC_FUNCTION(pgxc_register_master) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();
    const auto addresses = call->texts(2, "addresses");
    if (!addresses) return addresses.error();

    const auto now = load_topology();
    if (!now) return now.error();
    const auto address = address_for_coordinator(*now, guc::node_id(), *addresses);
    if (!address) return address.error();
    if (auto early = register_master(*now, *key, *address); !early) return std::move(early).error();
    if (guc::check_nodes())
        if (Status fit = examine_new_master(*now, *key, *address); !fit) return std::move(fit).error();

    auto after =
        change_topology([&](const Topology& topology) { return register_master(topology, *key, *address); },
                        Records::CreateAndDrop);
    if (!after) return std::move(after).error();
    call->log("registered " + describe(*after->find(*key)));
    warn_about_other_coordinators(*after);
    return Datum{0};
}

PGXC_FUNCTION(pgxc_register_slave) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();
    const auto addresses = call->texts(2, "addresses");
    if (!addresses) return addresses.error();
    const auto master_id = call->integer(3, "master_id");
    if (!master_id) return master_id.error();
    const auto replication = call->optional_replication(4);
    if (!replication) return replication.error();

    const auto now = load_topology();
    if (!now) return now.error();
    const auto address = address_for_coordinator(*now, guc::node_id(), *addresses);
    if (!address) return address.error();
    NewSlave slave{*key, *address, NodeId{*master_id},
                   *replication == Replication::None ? Replication::Asynchronous : *replication};
    if (auto early = register_slave(*now, slave); !early) return std::move(early).error();
    const NodeKey master{key->type, slave.master};
    if (guc::check_nodes()) {
        const auto seen = examine_new_slave(*now, *key, *address, master, *replication);
        if (!seen) return seen.error();
        slave.replication = *seen;
    }

    auto after = change_topology([&](const Topology& topology) -> Result<Topology> {
        if (Status unmoved = check_unmoved(*now, topology, master); !unmoved)
            return std::move(unmoved).error();
        return register_slave(topology, slave);
    });
    if (!after) return std::move(after).error();
    call->log("registered " + describe(*after->find(*key)));
    warn_about_other_coordinators(*after);
    if (slave.replication == Replication::Synchronous)
        if (Status settled = settle_group_of(*call, *after, *key); !settled)
            return std::move(settled).error();
    return Datum{0};
}

PGXC_FUNCTION(pgxc_set_slave_replication) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();
    const auto text = call->text(2, "replication");
    if (!text) return text.error();
    const auto replication = parse_replication(*text);
    if (!replication) return replication.error();

    const auto now = load_topology();
    if (!now) return now.error();
    if (auto early = set_replication(*now, *key, *replication); !early) return std::move(early).error();
    const NodeKey master{key->type, now->find(*key)->master_id};
    if (guc::check_nodes() && *replication == Replication::Synchronous && !is_synchronous(*now, *key)) {
        const auto fit = examine_new_slave(*now, *key, now->find(*key)->address, master, *replication);
        if (!fit) return fit.error();
    }

    auto after = change_topology([&](const Topology& topology) -> Result<Topology> {
        if (Status unmoved = check_unmoved(*now, topology, master); !unmoved)
            return std::move(unmoved).error();
        if (Status unmoved = check_unmoved(*now, topology, *key); !unmoved) return std::move(unmoved).error();
        return set_replication(topology, *key, *replication);
    });
    if (!after) return std::move(after).error();
    if (*after == *now) return Datum{0};
    call->log("changed " + describe(*after->find(*key)));
    warn_about_other_coordinators(*after);
    if (Status settled = settle_group_of(*call, *after, *key); !settled) return std::move(settled).error();
    return Datum{0};
}

PGXC_FUNCTION(pgxc_set_slave_id) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();
    const auto new_id = call->integer(2, "new_id");
    if (!new_id) return new_id.error();

    Topology before;
    auto after = change_topology([&](const Topology& topology) {
        before = topology;
        return set_id(topology, *key, NodeId{*new_id});
    });
    if (!after) return std::move(after).error();
    if (*after == before) return Datum{0};
    const NodeKey renamed{key->type, NodeId{*new_id}};
    call->log("changed the id of " + key->to_string() + ", now " + describe(*after->find(renamed)));
    warn_about_other_coordinators(*after);
    // The id is part of the name by which the master counts the slave.
    if (is_synchronous(before, *key))
        if (Status settled = settle_group_of(*call, *after, renamed); !settled)
            return std::move(settled).error();
    return Datum{0};
}

PGXC_FUNCTION(pgxc_set_slave_master) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();
    const auto master_id = call->integer(2, "master_id");
    if (!master_id) return master_id.error();
    const NodeKey master{key->type, NodeId{*master_id}};

    const auto now = load_topology();
    if (!now) return now.error();
    if (auto early = set_master(*now, *key, master.id); !early) return std::move(early).error();
    if (guc::check_nodes())
        if (Status fit = examine_new_parent(*now, *key, master); !fit) return std::move(fit).error();

    Topology before;
    auto after = change_topology([&](const Topology& topology) -> Result<Topology> {
        before = topology;
        if (Status unmoved = check_unmoved(*now, topology, master); !unmoved)
            return std::move(unmoved).error();
        return set_master(topology, *key, master.id);
    });
    if (!after) return std::move(after).error();
    if (*after == before) return Datum{0};
    call->log("changed " + describe(*after->find(*key)));
    warn_about_other_coordinators(*after);
    if (is_synchronous(before, *key))
        if (Status settled = settle_group_of(*call, *after, *key); !settled)
            return std::move(settled).error();
    return Datum{0};
}

PGXC_FUNCTION(pgxc_drop_slave) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();

    Topology before;
    auto after = change_topology([&](const Topology& topology) {
        before = topology;
        return drop_slave(topology, *key);
    });
    if (!after) return std::move(after).error();
    call->log("dropped " + describe(*before.find(*key)));
    warn_about_other_coordinators(*after);
    if (is_synchronous(before, *key)) {
        const Node* master = before.top_master_of(*key);
        if (master == nullptr) return master_error(before, *key);
        if (Status settled = settle(*call, master->key); !settled) return std::move(settled).error();
    }
    return Datum{0};
}

PGXC_FUNCTION(pgxc_drop_master) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();

    Topology before;
    auto after = change_topology(
        [&](const Topology& topology) {
            before = topology;
            return drop_master(topology, *key);
        },
        Records::CreateAndDrop);
    if (!after) return std::move(after).error();
    call->log("dropped " + describe(*before.find(*key)));
    warn_about_other_coordinators(*after);
    return Datum{0};
}

PGXC_FUNCTION(pgxc_promote_slave) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto key = call->node(0);
    if (!key) return key.error();
    const auto address_text = call->optional_text(2);
    if (!address_text) return address_text.error();
    const auto with_restart = call->boolean(3, "with_restart");
    if (!with_restart) return with_restart.error();
    const auto force = call->boolean(4, "force");
    if (!force) return force.error();
    if (call->atomic())
        return Error{
            sqlstate::active_sql_transaction,
            "a slave cannot be promoted inside a transaction block, a function or a multi-statement string",
            "Run the statement alone: a promotion cannot be rolled back."};

    const auto now = load_topology();
    if (!now) return now.error();
    if (Status may = may_promote(*now, *key, *force); !may) return std::move(may).error();
    std::optional<HostPort> address;
    if (*address_text) {
        auto parsed = promotion_address(now->find(*key)->address, **address_text);
        if (!parsed) return std::move(parsed).error();
        address = std::move(*parsed);
    }
    if (auto would_be = promote(*now, *key, address); !would_be) return std::move(would_be).error();
    if (Status there = require_shared_state(); !there) return std::move(there).error();

    call->log("promotes " + describe(*now->find(*key)) +
              (address ? ", to be at " + address->to_string() : "") +
              (*with_restart ? ", with restart" : "") + (*force ? ", by force" : ""));
    // The monitor's own changes of the catalog must meet no lock and no old snapshot of ours.
    if (Status committed = call->commit(); !committed) return std::move(committed).error();
    MonitorRequest request;
    request.kind = MonitorRequestKind::Promote;
    request.node = *key;
    request.address = address_text->value_or("");
    request.with_restart = *with_restart;
    request.force = *force;
    request.user = call->user();
    std::string outcome;
    if (Status promoted = submit_monitor_request(request, &outcome); !promoted)
        return std::move(promoted).error();
    if (!outcome.empty()) report(NOTICE, Error{"00000", outcome});
    return Datum{0};
}

}  // namespace pgxc
