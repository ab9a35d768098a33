#include "pg/node_store_pg.h"

#include <charconv>

#include "pg/boundary.h"
#include "pg/catalog_write.h"
#include "pg/shared_state.h"

extern "C" {
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
}

namespace pgxc {
namespace {

bool changed_in_this_transaction = false;
object_access_hook_type next_object_access_hook = nullptr;

/// Must not fail: an error after the commit record is a PANIC.
void at_transaction_end(XactEvent event, void*) {
    switch (event) {
        case XACT_EVENT_COMMIT:
            if (changed_in_this_transaction) bump_catalog_generation();
            changed_in_this_transaction = false;
            break;
        case XACT_EVENT_ABORT:
        case XACT_EVENT_PREPARE:  // COMMIT PREPARED runs no callback: who commits a prepared change tells the
                                  // monitor
            changed_in_this_transaction = false;
            break;
        case XACT_EVENT_PARALLEL_COMMIT:
        case XACT_EVENT_PARALLEL_ABORT:
        case XACT_EVENT_PRE_COMMIT:
        case XACT_EVENT_PARALLEL_PRE_COMMIT:
        case XACT_EVENT_PRE_PREPARE:
            break;
    }
}

void at_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void* argument) {
    if (next_object_access_hook != nullptr)
        next_object_access_hook(access, class_id, object_id, sub_id, argument);
    if (access == OAT_DROP && class_id == ExtensionRelationId &&
        object_id == get_extension_oid("pgxc_ha", true))
        changed_in_this_transaction = true;
}

template <class Number>
bool read_number(const std::optional<std::string>& cell, Number* number) {
    if (!cell) return false;
    const auto [end, error] = std::from_chars(cell->data(), cell->data() + cell->size(), *number);
    return error == std::errc{} && end == cell->data() + cell->size();
}

Error broken_row(const std::string& what) {
    return {sqlstate::internal_error, "unexpected " + what + " in pgxc_nodes"};
}

Result<Node> node_of_row(const SpiRow& row) {
    Node node;
    if (!row[0] || (*row[0] != "C" && *row[0] != "D")) return broken_row("node_type");
    node.key.type = static_cast<NodeType>(row[0]->front());
    std::int32_t id = 0;
    std::int32_t master = 0;
    std::int64_t epoch = 0;
    if (!read_number(row[1], &id)) return broken_row("node_id");
    if (!row[2]) return broken_row("node_host");
    if (!read_number(row[3], &node.address.port)) return broken_row("node_port");
    if (!read_number(row[4], &master)) return broken_row("node_master_id");
    if (!read_number(row[6], &epoch)) return broken_row("node_epoch");
    node.key.id = NodeId{id};
    node.address.host = *row[2];
    node.master_id = NodeId{master};
    node.epoch = Epoch{epoch};
    if (row[5]) {
        if (*row[5] != "s" && *row[5] != "a") return broken_row("node_replication");
        node.replication = static_cast<Replication>(row[5]->front());
    }
    return node;
}

SpiRow key_parameters(NodeKey key) {
    return {std::string(1, static_cast<char>(key.type)), std::to_string(key.id.value())};
}

SpiRow parameters_of(const Node& node) {
    SpiRow row = key_parameters(node.key);
    row.emplace_back(node.address.host);
    row.emplace_back(std::to_string(node.address.port));
    row.emplace_back(std::to_string(node.master_id.value()));
    if (node.replication == Replication::None)
        row.emplace_back(std::nullopt);
    else
        row.emplace_back(std::string(1, static_cast<char>(node.replication)));
    row.emplace_back(std::to_string(node.epoch.value()));
    return row;
}

// The statements run as the bootstrap superuser, under whatever search_path the caller has: each name is
// qualified.
constexpr const char* select_nodes =
    "SELECT node_type, node_id, node_host, node_port, node_master_id, node_replication, node_epoch "
    "FROM pg_catalog.pgxc_nodes";
constexpr const char* lock_nodes = "LOCK TABLE pg_catalog.pgxc_nodes IN SHARE ROW EXCLUSIVE MODE";
#define THIS_NODE                                                     \
    " WHERE node_type OPERATOR(pg_catalog.=) $1::pg_catalog.\"char\"" \
    " AND node_id OPERATOR(pg_catalog.=) $2::pg_catalog.int4"
constexpr const char* delete_node = "DELETE FROM pg_catalog.pgxc_nodes" THIS_NODE;
constexpr const char* update_node =
    "UPDATE pg_catalog.pgxc_nodes SET node_host = $3, node_port = $4::pg_catalog.int4,"
    " node_master_id = $5::pg_catalog.int4, node_replication = $6::pg_catalog.\"char\","
    " node_epoch = $7::pg_catalog.int8" THIS_NODE;
constexpr const char* insert_node =
    "INSERT INTO pg_catalog.pgxc_nodes (node_type, node_id, node_host, node_port, node_master_id, "
    "node_replication,"
    " node_epoch) VALUES ($1::pg_catalog.\"char\", $2::pg_catalog.int4, $3, $4::pg_catalog.int4,"
    " $5::pg_catalog.int4, $6::pg_catalog.\"char\", $7::pg_catalog.int8)";
constexpr const char* insert_record =
    "INSERT INTO pgxc.node_record (node_type, node_id, generation, record)"
    " VALUES ($1::pg_catalog.\"char\", $2::pg_catalog.int4, 1, '{}'::pg_catalog.jsonb)";
constexpr const char* delete_record = "DELETE FROM pgxc.node_record" THIS_NODE;
constexpr const char* end_as_created = "DELETE FROM pgxc.as_created";
#undef THIS_NODE

Status run(const char* sql, const SpiRow& parameters = {}) {
    auto done = spi_execute(sql, parameters);
    if (!done) return std::move(done).error();
    return {};
}

Status write_node(const char* sql, const SpiRow& parameters, const Node& node) {
    auto done = spi_execute(sql, parameters);
    if (!done) return std::move(done).error();
    if (done->processed != 1)
        return Error{sqlstate::internal_error, node.key.to_string() + " is not in pgxc_nodes as it was read"};
    return {};
}

Status write_difference(const Topology& before, const Topology& after, Records records) {
    // Deletes first: what comes after may take over an id or an address.
    for (const Node& node : before.nodes()) {
        if (after.find(node.key) != nullptr) continue;
        if (Status done = write_node(delete_node, key_parameters(node.key), node); !done) return done;
        if (records == Records::CreateAndDrop && node.is_master())
            if (Status done = run(delete_record, key_parameters(node.key)); !done) return done;
    }
    for (const Node& node : after.nodes()) {
        const Node* old = before.find(node.key);
        if (old == nullptr || *old == node) continue;
        if (Status done = write_node(update_node, parameters_of(node), node); !done) return done;
    }
    for (const Node& node : after.nodes()) {
        if (before.find(node.key) != nullptr) continue;
        if (Status done = write_node(insert_node, parameters_of(node), node); !done) return done;
        if (records == Records::CreateAndDrop && node.is_master())
            if (Status done = run(insert_record, key_parameters(node.key)); !done) return done;
    }
    return run(end_as_created);
}

Result<Topology> read_nodes() {
    auto selected = spi_execute(select_nodes);
    if (!selected) return std::move(selected).error();
    std::vector<Node> nodes;
    nodes.reserve(selected->rows.size());
    for (const SpiRow& row : selected->rows) {
        auto node = node_of_row(row);
        if (!node) return std::move(node).error();
        nodes.push_back(*node);
    }
    return Topology(std::move(nodes));
}

Status require_catalog() {
    auto there = catalog_exists();
    if (!there) return std::move(there).error();
    if (*there) return {};
    return Error{sqlstate::undefined_object, "extension \"pgxc_ha\" is not created in this database",
                 "Run CREATE EXTENSION pgxc_ha, or connect to the database of pgxc.database."};
}

int catalog_write_depth = 0;

}  // namespace

CatalogWrite::CatalogWrite() {
    Oid user = InvalidOid;
    GetUserIdAndSecContext(&user, &security_context_);
    user_ = user;
    SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, security_context_ | SECURITY_LOCAL_USERID_CHANGE);
    ++catalog_write_depth;
}

CatalogWrite::~CatalogWrite() {
    --catalog_write_depth;
    SetUserIdAndSecContext(user_, security_context_);
}

bool CatalogWrite::active() {
    return catalog_write_depth > 0;
}

void note_catalog_change() {
    changed_in_this_transaction = true;
}

Result<bool> catalog_exists() {
    return pg_call([] { return OidIsValid(get_relname_relid("pgxc_nodes", PG_CATALOG_NAMESPACE)); });
}

Result<Topology> load_topology() {
    if (Status there = require_catalog(); !there) return std::move(there).error();
    return read_nodes();
}

Result<Topology> lock_and_load_topology() {
    if (Status there = require_catalog(); !there) return std::move(there).error();
    if (IsolationUsesXactSnapshot())
        return Error{sqlstate::feature_not_supported,
                     "pgxc_nodes can only be changed in READ COMMITTED transactions",
                     "Use SET TRANSACTION ISOLATION LEVEL READ COMMITTED."};
    const CatalogWrite write;
    if (Status locked = run(lock_nodes); !locked) return std::move(locked).error();
    return read_nodes();
}

Status apply_topology(const Topology& before, const Topology& after, Records records) {
    if (before == after) return {};
    const CatalogWrite write;
    note_catalog_change();
    return write_difference(before, after, records);
}

void install_catalog_callbacks() {
    RegisterXactCallback(at_transaction_end, nullptr);
    next_object_access_hook = object_access_hook;
    object_access_hook = at_object_access;
}

}  // namespace pgxc
