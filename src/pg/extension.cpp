#include "pg/boundary.h"
#include "pg/database_hook.h"
#include "pg/guc.h"
#include "pg/node_library.h"
#include "pg/node_store_pg.h"
#include "pg/raw_parser_detour.h"
#include "pg/shared_state.h"
#include "pg/workers.h"

extern "C" {
#include "miscadmin.h"
#include "postmaster/postmaster.h"

PG_MODULE_MAGIC;
}

namespace pgxc {
namespace {

/// What only a server that loads us from shared_preload_libraries gets.
void set_up_server() {
    if (guc::role() == guc::Role::Datanode) {
        define_node_requests();
        if (!IsBinaryUpgrade) check_start_as_master();
        return;
    }
    if (guc::grammar()) pg::install_raw_parser_detour();
    // pg_upgrade starts the server with its own connections only; a pooler or a failover would be in its way.
    if (IsBinaryUpgrade) return;
    if (guc::pooler_port() == PostPortNumber)
        ereport(FATAL, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("pgxc.pooler_port and port are both %d", PostPortNumber),
                        errhint("Give the pooler a port of its own, or 0 for no pooler.")));
    request_shared_state();
    register_workers();
    install_database_hook();
}

}  // namespace
}  // namespace pgxc

// The server looks it up by this name. NOLINTNEXTLINE(bugprone-reserved-identifier)
extern "C" PGDLLEXPORT void _PG_init() {
    pgxc::install_log_sink();
    pgxc::guc::define_settings(process_shared_preload_libraries_in_progress);
    pgxc::install_catalog_callbacks();
    // A single-user server (pg_rewind runs one) is neither watched nor pooled, and must start whatever is
    // set.
    if (process_shared_preload_libraries_in_progress && IsPostmasterEnvironment) pgxc::set_up_server();
}
