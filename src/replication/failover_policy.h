#pragma once

#include <map>
#include <string>
#include <vector>

#include "catalog/topology.h"
#include "replication/observation.h"
#include "replication/promotion_plan.h"
#include "replication/record.h"

/// What to do about one node group: pure functions of facts. Every answer carries its reason (DESIGN 6.2).
namespace pgxc {

struct PolicySettings {
    bool failover = true;
    Millis probe_interval{200};
    Millis probe_timeout{1'000};
    int probe_retries = 1;
    Millis restart_grace{5'000};
    std::uint64_t max_lost_wal_bytes = 0;
    int sync_slaves = 1;
    bool sync_degrade = true;
    bool rejoin = true;  // make slaves of replaced masters
    replication::PromotionMethod promotion = replication::PromotionMethod::Auto;
    /// How long a silence must last before it counts.
    [[nodiscard]] Millis detection_time() const { return probe_timeout * (1 + probe_retries); }
};

/// The words for pgxc_node_status.
struct StateAndReason {
    NodeState state = NodeState::Unknown;
    std::string why;
};
[[nodiscard]] StateAndReason classify(const Node& node, const Observation& seen,
                                      const PolicySettings& settings, TimePoint now);

/// Is the master to be replaced?
enum class Verdict : std::uint8_t {
    Alive,  // it answers
    Wait,   // it doesn't, and it is too early, or something speaks against acting; `reason` tells
    Dead,   // replace it
};
struct Judgement {
    Verdict verdict = Verdict::Wait;
    std::string reason;
    /// Which slaves should be asked again at once, because the judgement waits for them.
    std::vector<HostPort> ask;
};
/// `asynchronous`: where nobody counts, the slaves that pgxc.max_lost_wal allows to be promoted; their
/// receivers are heard in place of those that count.
[[nodiscard]] Judgement judge_master(const Record& record, const std::map<HostPort, Observation>& seen,
                                     const PolicySettings& settings, TimePoint now,
                                     const std::vector<HostPort>& asynchronous = {});

/// May a failover go on with these servers fenced? Rules 3 of FAILOVER_PROTOCOL: for every listed
/// configuration |S| - k + 1 of its slaves; an empty S forbids it. The error names the configuration that
/// falls short.
[[nodiscard]] Status enough_fenced(const Record& record, const std::vector<HostPort>& fenced);

/// A fenced slave's end of valid WAL, read after all fences.
struct FencedPosition {
    HostPort address;
    std::int64_t line = 0;
    Lsn position;
};
[[nodiscard]] std::vector<HostPort> addresses_of(const std::vector<FencedPosition>& fenced);
/// The highest by (line, LSN): rule 5. Among equals the first by address, so that a repetition chooses the
/// same.
[[nodiscard]] const FencedPosition* choose(const std::vector<FencedPosition>& fenced);

/// Need a promotion wait for the slaves that are not fenced yet? A late one may be left out where the others
/// are enough (rule 3): it counts for nothing, and is proven a prefix before it follows.
enum class Enough : std::uint8_t {
    No,
    /// Enough, but without the others no synchronous slave would be left for the new master.
    ButNobodyLeft,
    Yes,
};
/// `chosen`: the one that is asked for; nullopt = the furthest.
[[nodiscard]] Enough enough_to_go_on(const Record& record, const std::vector<FencedPosition>& fenced,
                                     const std::optional<HostPort>& chosen, const Topology& topology,
                                     const PolicySettings& settings);

/// May an asynchronous slave be promoted by itself? Only with pgxc.max_lost_wal above 0, and only where no
/// listed configuration has a synchronous slave: rule 3 stays as it is wherever somebody was promised
/// anything.
[[nodiscard]] Status asynchronous_failover_allowed(const Record& record, const PolicySettings& settings);
/// The slaves that it may choose from: registered as asynchronous, directly below the master, and not known
/// to belong to a line that ended.
[[nodiscard]] std::vector<Node> asynchronous_candidates(const Record& record, const Topology& topology,
                                                        NodeKey group);
/// What is known of the end of the dead master's WAL: the position it had flushed when it answered last. What
/// it wrote after that nobody knows, so an answer that is older than a probe should take is no bound. The
/// error says what is missing.
[[nodiscard]] Result<Lsn> last_known_end(const Record& record, const std::map<HostPort, Observation>& seen,
                                         const PolicySettings& settings, TimePoint silent_since);
/// The furthest of the fenced ones on the master's line, if it lacks no more than pgxc.max_lost_wal of what
/// is known of the master's WAL.
struct AsynchronousChoice {
    FencedPosition chosen;
    std::uint64_t missing_bytes = 0;  // known to be missing; what the master wrote unseen comes on top
};
[[nodiscard]] Result<AsynchronousChoice> choose_asynchronous(const Record& record,
                                                             const std::vector<FencedPosition>& fenced,
                                                             Lsn master_end, const PolicySettings& settings);

/// The configuration that epoch e+1 begins with: the other fenced slaves, k not above what it was. With
/// nobody left: S' = {} where degrading is allowed or nobody counted before, else an error (rule 8).
[[nodiscard]] Result<Configuration> configuration_after(const Record& record, const HostPort& chosen,
                                                        const std::vector<FencedPosition>& fenced,
                                                        const Topology& topology,
                                                        const PolicySettings& settings);

/// The record of epoch e+1, ready for the compare-and-set: the new configuration beside all older ones (rule
/// 6).
[[nodiscard]] Record record_promotion(const Record& record, const HostPort& new_master,
                                      Configuration configuration, const std::vector<FencedPosition>& fenced,
                                      PendingPromotion pending);

/// The topology after a recorded promotion: the slave that listened there is the group's master now, at that
/// address and epoch. Whoever has dropped or renamed that slave meanwhile changes nothing about who the
/// master is.
[[nodiscard]] Topology with_promotion(const Topology& topology, NodeKey group, const HostPort& listened_at,
                                      const HostPort& address, Epoch epoch);

/// What the catalog asks for, given who is there: which slaves should count now.
struct WantedSync {
    Configuration configuration;
    /// Registered as synchronous and alive, but without the name, slot or upstream of this epoch yet.
    std::vector<Node> to_prepare;
    std::string why;  // what keeps the configuration from being what the catalog says; empty = it is
};
/// `missing_since`: for a slave that counts, since when the master hasn't had its stream; for any, since when
/// its stream stands still.
[[nodiscard]] WantedSync wanted_sync(const Record& record, const Topology& topology, NodeKey group,
                                     const std::map<HostPort, Observation>& seen,
                                     const std::map<HostPort, TimePoint>& missing_since,
                                     const PolicySettings& settings, TimePoint now);

}  // namespace pgxc
