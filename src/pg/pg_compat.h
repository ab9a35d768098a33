#pragma once

/// What differs between server versions 13 to 18, in one place: the only file that mentions PG_VERSION_NUM.

extern "C" {
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "libpq/hba.h"
#include "nodes/nodes.h"
#include "parser/parser.h"
#include "postmaster/bgworker.h"
#include "postmaster/bgworker_internals.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/guc.h"
}

/// From 15 on a module asks for shared memory in a hook, before that in _PG_init itself.
#if PG_VERSION_NUM >= 150000
#define PGXC_HAS_SHMEM_REQUEST_HOOK 1
#else
#define PGXC_HAS_SHMEM_REQUEST_HOOK 0
#endif

/// ProcessUtility_hook: its parameters with their types, and their names to pass on.
#if PG_VERSION_NUM >= 140000
#define PGXC_UTILITY_PARAMETERS                                                                   \
    PlannedStmt *statement, const char *text, bool read_only_tree, ProcessUtilityContext context, \
        ParamListInfo params, QueryEnvironment *environment, DestReceiver *receiver,              \
        QueryCompletion *completion
#define PGXC_UTILITY_ARGUMENTS \
    statement, text, read_only_tree, context, params, environment, receiver, completion
#else
#define PGXC_UTILITY_PARAMETERS                                                                    \
    PlannedStmt *statement, const char *text, ProcessUtilityContext context, ParamListInfo params, \
        QueryEnvironment *environment, DestReceiver *receiver, QueryCompletion *completion
#define PGXC_UTILITY_ARGUMENTS statement, text, context, params, environment, receiver, completion
#endif

namespace pgxc::compat {

inline bool owns_database(Oid database, Oid role) {
#if PG_VERSION_NUM >= 160000
    return object_ownercheck(DatabaseRelationId, database, role);
#else
    return pg_database_ownercheck(database, role);
#endif
}

/// Calls `look` with every worker that the postmaster has on its list.
template <class Look>
void each_registered_worker(Look look) {
    // By hand: the server's list macros are C only. The list is doubly linked, and so circular, from 18 on.
#if PG_VERSION_NUM >= 180000
    const auto* end = &BackgroundWorkerList.head;
    for (const auto* at = BackgroundWorkerList.head.next; at != nullptr && at != end; at = at->next)
#else
    for (const auto* at = BackgroundWorkerList.head.next; at != nullptr; at = at->next)
#endif
        look(reinterpret_cast<const RegisteredBgWorker*>(reinterpret_cast<const char*>(at) -
                                                         offsetof(RegisteredBgWorker, rw_lnode))
                 ->rw_worker);
}

inline Oid role_read_all_stats() {
#if PG_VERSION_NUM >= 140000
    return ROLE_PG_READ_ALL_STATS;
#else
    return DEFAULT_ROLE_READ_ALL_STATS;
#endif
}

/// Makes unknown settings with our prefix an error (15 and later), or a warning.
inline void reserve_setting_prefix(const char* prefix) {
#if PG_VERSION_NUM >= 150000
    MarkGUCPrefixReserved(prefix);
#else
    EmitWarningsOnPlaceholders(prefix);
#endif
}

/// Reads pg_hba.conf into a list of TokenizedAuthLine, in the current memory context. Raises if it can't be
/// opened.
inline void tokenize_hba_file(const char* name, List** lines) {
#if PG_VERSION_NUM >= 160000
    char* why = nullptr;
    FILE* file = open_auth_file(name, DEBUG1, 0, &why);
    if (file == nullptr) ereport(ERROR, (errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg_internal("%s", why)));
    tokenize_auth_file(name, file, lines, DEBUG1, 0);
    free_auth_file(file, 0);
#elif PG_VERSION_NUM >= 150000
    FILE* file = AllocateFile(name, "r");
    if (file == nullptr)
        ereport(ERROR,
                (errcode_for_file_access(), errmsg("could not open configuration file \"%s\": %m", name)));
    (void)tokenize_auth_file(name, file, lines, DEBUG1);
    FreeFile(file);
#else
#error "before 15 the server keeps its tokenizer of pg_hba.conf to itself"
#endif
}

/// From 16 on a word that begins with a slash is a regular expression.
inline bool is_regular_expression(const AuthToken* token) {
#if PG_VERSION_NUM >= 160000
    return token->regex != nullptr;
#else
    (void)token;
    return false;
#endif
}

/// From 16 on the role of a line in pg_ident.conf may be "all", "+role" or a regular expression.
inline constexpr bool ident_role_may_be_keyword() {
    return PG_VERSION_NUM >= 160000;
}

/// A whole text of statements, as the server parses a query string.
inline List* parse_statements(const char* text) {
#if PG_VERSION_NUM >= 140000
    return raw_parser(text, RAW_PARSE_DEFAULT);
#else
    return raw_parser(text);
#endif
}

inline bool changes_rows(NodeTag tag) {
#if PG_VERSION_NUM >= 150000
    if (tag == T_MergeStmt) return true;
#endif
    return tag == T_InsertStmt || tag == T_UpdateStmt || tag == T_DeleteStmt;
}

}  // namespace pgxc::compat
