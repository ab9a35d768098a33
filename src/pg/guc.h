#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "catalog/node_list.h"

/// The settings pgxc.* (DESIGN section 4). Values are those of this process: the postmaster's at start,
/// updated by reloads. Functions that return a string or a vector return a copy.
namespace pgxc::guc {

enum class Role { Coordinator, Datanode };
enum class Promotion { Auto, Promote, Restart };
enum class Routing { Master, Explicit, Auto };

/// Defines the settings. In shared_preload_libraries: all of them, and the prefix pgxc becomes reserved.
/// Otherwise (the library was loaded by CREATE EXTENSION or a function call) those that may still be defined.
void define_settings(bool preloading);

[[nodiscard]] Role role();
[[nodiscard]] NodeId node_id();
[[nodiscard]] std::vector<ListedNode> coordinators();
[[nodiscard]] std::vector<ListedNode> datanodes();
[[nodiscard]] std::string database();
[[nodiscard]] bool grammar();
[[nodiscard]] std::string node_user();
[[nodiscard]] std::string node_database();
[[nodiscard]] std::string node_conninfo();
[[nodiscard]] int pooler_port();  // 0 = no pooler
[[nodiscard]] std::string pooler_listen_addresses();
[[nodiscard]] std::string pooler_socket_directories();
[[nodiscard]] int pooler_workers();
[[nodiscard]] int max_pool_size();
[[nodiscard]] int min_pool_size();
[[nodiscard]] int max_client_connections();
[[nodiscard]] Millis query_wait_timeout();  // zero: without a limit, as the next three
[[nodiscard]] Millis server_idle_timeout();
[[nodiscard]] Millis server_lifetime();
[[nodiscard]] Millis client_idle_timeout();
[[nodiscard]] std::optional<Millis> client_login_timeout();  // nullopt: the server's own
[[nodiscard]] bool check_nodes();
[[nodiscard]] Routing read_routing();
[[nodiscard]] std::uint64_t max_read_lag_bytes();
[[nodiscard]] bool adaptive_concurrency();
[[nodiscard]] bool causal_reads();
[[nodiscard]] bool failover();
[[nodiscard]] Millis probe_interval();
[[nodiscard]] Millis probe_timeout();
[[nodiscard]] int probe_retries();
[[nodiscard]] Millis restart_grace();
[[nodiscard]] Millis failover_hold();
[[nodiscard]] std::uint64_t max_lost_wal_bytes();
[[nodiscard]] int sync_slaves();
[[nodiscard]] bool sync_degrade();
[[nodiscard]] bool rejoin();
[[nodiscard]] Promotion promotion();
[[nodiscard]] std::string arbiter();

}  // namespace pgxc::guc
