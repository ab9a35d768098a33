#pragma once

#include <map>
#include <string>

#include "replication/observation.h"
#include "replication/record.h"

/// Why the monitor acted, or did not: a row of pgxc.failover_evidence for each change of its mind.
namespace pgxc {

struct Evidence {
    WallTime at;  // when it was decided
    NodeKey group;
    Epoch epoch;
    /// "alive", "wait", "fail over", "no failover", "promoted", "synchronous", "refused"
    std::string decision;
    std::string reason;
    std::string facts;  // JSON: what was known of the master and of each slave that counts
};

/// What was known at `now`, as JSON: {"master": {...}, "slaves": [{...}]}. Ages in milliseconds.
[[nodiscard]] std::string evidence_facts(const Record& record, const std::map<HostPort, Observation>& seen,
                                         TimePoint now);

/// Do two reasons say the same but for their figures? A wait that goes on is one decision, not one per look.
[[nodiscard]] bool same_but_for_figures(const std::string& one, const std::string& other);

}  // namespace pgxc
