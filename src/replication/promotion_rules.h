#pragma once

#include "replication/node_effects.h"

namespace pgxc {

/// Proves that a slave's WAL is a prefix of the master's (rule 9): it ends before the master's line left the
/// slave's, as the master's timeline history file tells. `end` must be of a slave whose stream is cut: what
/// still came from a former master after it was read would be in nobody's proof.
[[nodiscard]] asio::awaitable<Status> prove_prefix(LockSession& master, EndOfWal end);

/// Where a timeline left another one: reads a history file ("1\t0/3000000\treason" per line). nullopt: not an
/// ancestor.
[[nodiscard]] std::optional<Lsn> switch_point(const std::string& history, TimelineId timeline);

/// Where the timeline of that history file itself begins: its last line. nullopt: it has none.
[[nodiscard]] std::optional<Lsn> last_switch_point(const std::string& history);

}  // namespace pgxc
