#pragma once

#include <cstddef>

/// Every limit of the product, with its unit and what happens when it is reached.
namespace pgxc::limits {

/// Nodes in pgxc_nodes (shared memory holds that many). At the limit REGISTER fails with 53400.
inline constexpr std::size_t max_nodes = 1024;
/// Bytes of a host name in the catalog, the terminating zero included. A longer one is refused (22023).
inline constexpr std::size_t max_host_bytes = 256;
/// Bytes of the sentence in pgxc_node_status.why, zero included: it may name a command. A longer one is cut.
inline constexpr std::size_t max_reason_bytes = 1024;
/// Bytes of a startup packet, as the server's MAX_STARTUP_PACKET_LENGTH. A longer one ends the connection
/// (08P01).
inline constexpr std::size_t max_startup_bytes = 10000;
/// Bytes of a message before authentication, as the server's PG_MAX_AUTH_TOKEN_LENGTH (65535).
inline constexpr std::size_t max_auth_message_bytes = 65535;
/// Bytes of one protocol message, as the server's PQ_LARGE_MESSAGE_LIMIT (MaxAllocSize - 1).
inline constexpr std::size_t max_message_bytes = 0x3fffffff - 1;
/// Bytes of one of our own statements. A longer text is not looked at and goes to the server as it is.
inline constexpr std::size_t max_statement_bytes = 64 * 1024;
/// Bytes of a file that the settings editor reads. A larger one is refused (54000 family: F0000).
inline constexpr std::size_t max_settings_file_bytes = 4 * 1024 * 1024;
/// Bytes that are kept of what a program we run (pg_ctl, ...) writes. Its later writes fail; it runs on.
inline constexpr std::size_t max_program_output_bytes = 256 * 1024;
/// Synchronous slaves of one master. At the limit REPLICATION TO SYNCHRONOUS fails with 53400.
inline constexpr std::size_t max_sync_slaves = 32;
/// Replaced masters of one group that are waited for. At the limit the oldest is forgotten.
inline constexpr std::size_t max_former_masters = 8;
/// Pooler processes sharing the port.
inline constexpr int max_pooler_workers = 64;
/// Rows of pgxc_pools and of pgxc_pooler_clients that one pooler process keeps in shared memory. More are
/// counted, and a NOTICE tells how many are not shown.
inline constexpr std::size_t max_pool_rows = 512;
inline constexpr std::size_t max_client_rows = 4096;
/// The same for pgxc_pooler_servers and pgxc_pooler_stats. Beyond the latter a pool is counted only once one
/// that nobody uses any more has been forgotten.
inline constexpr std::size_t max_server_rows = 1024;
inline constexpr std::size_t max_stats_rows = 256;
/// Prepared statements that the pooler keeps on one server connection. At the limit the one that was not used
/// for longest is closed there; it is prepared again when it is needed.
inline constexpr std::size_t max_server_statements = 256;
/// Prepared statements of one client that are remembered, and bytes of one (its text). Beyond either a
/// statement lives on its server connection alone, which its client then keeps ("pinned").
inline constexpr std::size_t max_client_statements = 4096;
/// The same of the bytes of all of them together.
inline constexpr std::size_t max_client_statement_bytes = 4 * 1024 * 1024;
inline constexpr std::size_t max_prepared_bytes = 60 * 1024;
/// Statements of one client that it has prepared in SQL (PREPARE), and bytes of all their texts, which each
/// server connection that it gets is given anew. Beyond either the client keeps its connection ("pinned").
inline constexpr std::size_t max_sql_statements = 64;
inline constexpr std::size_t max_sql_statement_bytes = 64 * 1024;
/// Bytes of an unnamed statement that are remembered behind its transaction. A larger one keeps its
/// connection.
inline constexpr std::size_t max_unnamed_bytes = 8 * 1024;
/// Names of settings that are known to the session alone (those of extensions) which one client's session is
/// asked for. At the limit a client that sets another one keeps its connection.
inline constexpr std::size_t max_custom_settings = 64;
/// Sessions that wait for the monitor's answer at the same time. One more fails with 53400.
inline constexpr std::size_t max_monitor_requests = 16;

/// Datanode groups that are paused at the same time. One more pgxc.pause() fails with 53400.
inline constexpr std::size_t max_paused_groups = 64;

}  // namespace pgxc::limits
