#pragma once

#include <string>

#include "base/result.h"
#include "catalog/topology.h"

/// The table pgxc_nodes as a Topology. Every function needs a transaction with SPI connected
/// (in_transaction(), or a SpiConnection), and works for any user: who may change the catalog is decided by
/// its callers.
namespace pgxc {

/// Is the extension created in this database?
[[nodiscard]] Result<bool> catalog_exists();

/// Reads the catalog without a lock: to show it, or to refuse early what can't succeed.
[[nodiscard]] Result<Topology> load_topology();

/// Takes the lock that every change of the catalog takes (SHARE ROW EXCLUSIVE: readers go on) and then reads,
/// so that what is decided on it holds until the transaction ends. An error in REPEATABLE READ and
/// SERIALIZABLE, where the rows read could be older than the lock.
[[nodiscard]] Result<Topology> lock_and_load_topology();

/// What becomes of pgxc.node_record. CreateAndDrop: masters that are new get an entry, masters that are gone
/// lose theirs (CREATE EXTENSION, REGISTER MASTER, DROP MASTER). Keep: a promotion, and everything about
/// slaves.
enum class Records { Keep, CreateAndDrop };

/// Writes the difference. `before` is what lock_and_load_topology() gave in this transaction, `after` what a
/// rule of topology_rules.h made of it. At commit the monitor is told.
[[nodiscard]] Status apply_topology(const Topology& before, const Topology& after, Records records);

/// lock_and_load_topology(), `change` (const Topology& -> Result<Topology>), apply_topology(). Gives what is
/// now there.
template <class F>
[[nodiscard]] Result<Topology> change_topology(F&& change, Records records = Records::Keep) {
    auto before = lock_and_load_topology();
    if (!before) return before;
    Result<Topology> after = change(static_cast<const Topology&>(*before));
    if (!after) return after;
    if (Status applied = apply_topology(*before, *after, records); !applied)
        return std::move(applied).error();
    return after;
}

/// Tells the monitor after commit that pgxc_nodes has changed, and hears of DROP EXTENSION. Called once by
/// _PG_init.
void install_catalog_callbacks();

}  // namespace pgxc
