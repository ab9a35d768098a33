#pragma once

#include "replication/lock_session.h"
#include "replication/observation.h"

namespace pgxc {

/// Proves that a slave's WAL is a prefix of the master's (rule 9): it ends before the master's line left the
/// slave's, as the master's timeline history file tells.
[[nodiscard]] asio::awaitable<Status> prove_prefix(LockSession& master, ServerFacts slave);

/// Where a timeline left another one: reads a history file ("1\t0/3000000\treason" per line). nullopt: not an
/// ancestor.
[[nodiscard]] std::optional<Lsn> switch_point(const std::string& history, TimelineId timeline);

/// Where the timeline of that history file itself begins: its last line. nullopt: it has none.
[[nodiscard]] std::optional<Lsn> last_switch_point(const std::string& history);

}  // namespace pgxc
