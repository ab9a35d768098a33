// The triggers of the catalog's tables: nobody changes pgxc_nodes by hand, and a restore puts back what was
// dumped.

#include <string>

#include "catalog/topology_rules.h"
#include "pg/boundary.h"
#include "pg/catalog_write.h"
#include "pg/node_store_pg.h"
#include "pg/node_tag.h"

extern "C" {
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "tcop/pquery.h"
#include "utils/rel.h"
}

namespace pgxc {
namespace {

Result<const TriggerData*> trigger_data(FunctionCallInfo fcinfo) {
    if (!has_tag(fcinfo->context, T_TriggerData))
        return Error{sqlstate::object_not_in_prerequisite_state, "this function is for triggers of pgxc_ha"};
    return reinterpret_cast<const TriggerData*>(fcinfo->context);
}

/// Is the statement that the client sent a COPY into this very table? An INSERT that some trigger makes
/// during a COPY into another table is none; nor is a COPY inside a function, where the portal's statement is
/// the function's caller.
Result<bool> is_copy_into(Relation table) {
    return pg_call([=] {
        if (ActivePortal == nullptr || list_length(ActivePortal->stmts) != 1) return false;
        const auto* planned = linitial_node(PlannedStmt, ActivePortal->stmts);
        if (!has_tag(planned->utilityStmt, T_CopyStmt)) return false;
        const auto* copy = reinterpret_cast<const CopyStmt*>(planned->utilityStmt);
        return copy->is_from && copy->relation != nullptr &&
               RangeVarGetRelid(copy->relation, NoLock, true) == RelationGetRelid(table);
    });
}

/// A superuser's COPY replaces what CREATE EXTENSION put into the table, once.
Status begin_restore(const std::string& table) {
    const CatalogWrite write;
    const auto connection = SpiConnection::open();
    if (!connection) return connection.error();
    auto as_created = spi_execute(
        "DELETE FROM pgxc.as_created WHERE table_name OPERATOR(pg_catalog.=) $1::pg_catalog.name", {table});
    if (!as_created) return std::move(as_created).error();
    if (as_created->processed == 0)
        return Error{
            sqlstate::object_not_in_prerequisite_state,
            "cannot restore \"" + table + "\" because the catalog has changed since CREATE EXTENSION",
            "Restore into a fresh database, or after DROP EXTENSION pgxc_ha and CREATE EXTENSION pgxc_ha."};
    const std::string schema = table == "pgxc_nodes" ? "pg_catalog." : "pgxc.";
    auto emptied = spi_execute("DELETE FROM " + schema + table);
    if (!emptied) return std::move(emptied).error();
    return {};
}

const char* word_of(TriggerEvent event) {
    if (TRIGGER_FIRED_BY_INSERT(event)) return "INSERT";
    if (TRIGGER_FIRED_BY_UPDATE(event)) return "UPDATE";
    if (TRIGGER_FIRED_BY_DELETE(event)) return "DELETE";
    return "TRUNCATE";
}

}  // namespace

/// BEFORE any change of pgxc_nodes.
PGXC_FUNCTION(pgxc_guard_nodes) {
    const auto trigger = trigger_data(fcinfo);
    if (!trigger) return trigger.error();
    if (CatalogWrite::active()) return PointerGetDatum(nullptr);
    const TriggerEvent event = (*trigger)->tg_event;
    auto copy =
        TRIGGER_FIRED_BY_INSERT(event) ? is_copy_into((*trigger)->tg_relation) : pgxc::Result<bool>(false);
    if (!copy) return std::move(copy).error();
    if (!*copy)
        return Error{
            sqlstate::insufficient_privilege,
            std::string("pgxc_nodes cannot be changed by ") + word_of(event),
            "Use REGISTER, ALTER and DROP { COORDINATOR | DATANODE } { MASTER | SLAVE }, or the procedures "
            "pgxc.register_slave() and its family."};
    if (!superuser())
        return Error{sqlstate::insufficient_privilege, "only a superuser can restore pgxc_nodes",
                     "Restore the dump as a superuser."};
    if (Status begun = begin_restore("pgxc_nodes"); !begun) return std::move(begun).error();
    note_catalog_change();
    return PointerGetDatum(nullptr);
}

/// BEFORE INSERT into the other tables that are dumped. Who may insert is a matter of their privileges.
PGXC_FUNCTION(pgxc_guard_restore) {
    const auto trigger = trigger_data(fcinfo);
    if (!trigger) return trigger.error();
    if (CatalogWrite::active()) return PointerGetDatum(nullptr);
    Relation table = (*trigger)->tg_relation;
    auto copy = is_copy_into(table);
    if (!copy) return std::move(copy).error();
    if (!*copy) return PointerGetDatum(nullptr);
    const std::string name = RelationGetRelationName(table);
    if (!superuser())
        return Error{sqlstate::insufficient_privilege, "only a superuser can restore \"" + name + "\"",
                     "Restore the dump as a superuser."};
    if (Status begun = begin_restore(name); !begun) return std::move(begun).error();
    return PointerGetDatum(nullptr);
}

/// AFTER INSERT into pgxc_nodes: the statements keep the rules by themselves, a restored dump is looked at as
/// a whole.
PGXC_FUNCTION(pgxc_check_restored_nodes) {
    const auto trigger = trigger_data(fcinfo);
    if (!trigger) return trigger.error();
    if (CatalogWrite::active()) return PointerGetDatum(nullptr);
    const auto connection = SpiConnection::open();
    if (!connection) return connection.error();
    auto topology = load_topology();
    if (!topology) return std::move(topology).error();
    if (Status in_order = check_topology(*topology); !in_order) return std::move(in_order).error();
    return PointerGetDatum(nullptr);
}

}  // namespace pgxc
