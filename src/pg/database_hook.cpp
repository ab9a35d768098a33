#include "pg/database_hook.h"

#include "pg/boundary.h"
#include "pg/pg_compat.h"
#include "pg/shared_state.h"

extern "C" {
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
}

namespace pgxc {
namespace {

ProcessUtility_hook_type previous_hook = nullptr;

bool may_create_databases() {
    if (superuser()) return true;
    bool may = false;
    HeapTuple const row = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
    if (HeapTupleIsValid(row)) {
        may = reinterpret_cast<Form_pg_authid>(GETSTRUCT(row))->rolcreatedb;
        ReleaseSysCache(row);
    }
    return may;
}

const char* option_of(const List* options, const char* name) {
    const ListCell* cell = nullptr;
    foreach (cell, options) {
        auto* option = static_cast<DefElem*>(lfirst(cell));
        if (strcmp(option->defname, name) == 0 && option->arg != nullptr) return defGetString(option);
    }
    return nullptr;
}

/// The database that the command wants for itself, if the user may ask that; else nullptr. The command itself
/// checks everything again: here it matters that nobody can disturb the pooler by commands that will be
/// refused.
const char* database_wanted_alone(const ::Node* parsed) {
    const char* name = nullptr;
    switch (parsed->type) {
        case T_DropdbStmt:
            name = reinterpret_cast<const DropdbStmt*>(parsed)->dbname;
            break;
        case T_RenameStmt: {
            const auto* rename = reinterpret_cast<const RenameStmt*>(parsed);
            if (rename->renameType == OBJECT_DATABASE) name = rename->subname;
            break;
        }
        case T_AlterDatabaseStmt: {
            const auto* alter = reinterpret_cast<const AlterDatabaseStmt*>(parsed);
            if (option_of(alter->options, "tablespace") != nullptr) name = alter->dbname;
            break;
        }
        case T_CreatedbStmt: {
            const char* from = option_of(reinterpret_cast<const CreatedbStmt*>(parsed)->options, "template");
            return may_create_databases() ? (from != nullptr ? from : "template1") : nullptr;
        }
        default:
            return nullptr;
    }
    if (name == nullptr) return nullptr;
    const Oid id = get_database_oid(name, true);
    return OidIsValid(id) && compat::owns_database(id, GetUserId()) ? name : nullptr;
}

extern "C" void pgxc_process_utility(PGXC_UTILITY_PARAMETERS) {
    // These commands refuse to run inside a transaction block, and the catalog can't be read in an aborted
    // one.
    if (context == PROCESS_UTILITY_TOPLEVEL && IsTransactionState() && !IsTransactionBlock()) {
        const char* name = database_wanted_alone(statement->utilityStmt);
        if (name != nullptr) pg_entry([name] { return ask_workers_to_leave_database(name); });
    }
    if (previous_hook != nullptr)
        previous_hook(PGXC_UTILITY_ARGUMENTS);
    else
        standard_ProcessUtility(PGXC_UTILITY_ARGUMENTS);
}

}  // namespace

void install_database_hook() {
    previous_hook = ProcessUtility_hook;
    ProcessUtility_hook = pgxc_process_utility;
}

}  // namespace pgxc
