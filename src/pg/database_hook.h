#pragma once

namespace pgxc {

/// Makes DROP DATABASE, ALTER DATABASE ... RENAME TO / SET TABLESPACE and CREATE DATABASE ... TEMPLATE ask
/// our workers first to close their idle connections to that database, which would make the server refuse the
/// command after five seconds. Only from _PG_init while preloading.
void install_database_hook();

}  // namespace pgxc
