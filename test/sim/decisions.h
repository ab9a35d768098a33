#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "replication/failover_policy.h"
#include "sim/world.h"

/// The production functions, asked in the terms of the abstract world. Answers are remembered: the functions
/// are pure, and an explorer asks the same question very often. Nothing is decided here.
namespace pgxc::sim {

/// What wanted_sync() is told.
struct SyncQuestion {
    NodeSet registered = 0;
    NodeSet answering = 0;
    NodeSet gone = 0;  // their streams have been missing for longer than the detection time
    std::uint8_t k = 1;
    bool degrade = true;
};
struct SyncAnswer {
    Counting configuration;
    NodeSet to_prepare = 0;
};

class Decisions {
  public:
    Decisions(int nodes, Mutation mutation);

    /// The text that a server's configuration holds, as a number; PostgreSQL's reading of it below.
    [[nodiscard]] NameId name_of(int node, int epoch);        // standby_name()
    [[nodiscard]] NameId names_of(const Counting& counting);  // names_in_force()
    [[nodiscard]] NameId nobody_names();                      // nobody_standby_names()
    /// So many entries of this master are acknowledged: synchronous_standby_names as PostgreSQL reads it.
    [[nodiscard]] int acknowledged_by(NameId names, const std::array<Heard, max_nodes>& heard, int own_end);
    /// So many of a configuration's names have flushed up to `barrier`.
    [[nodiscard]] int flushed_by(const Counting& counting, const std::array<Heard, max_nodes>& heard,
                                 int barrier);

    [[nodiscard]] bool enough_fenced(const ArbiterRecord& record, NodeSet fenced);
    [[nodiscard]] int choose(const ArbiterRecord& record, NodeSet fenced,
                             const std::array<std::uint8_t, max_nodes>& positions) const;
    /// May an asynchronous slave be promoted? asynchronous_failover_allowed() with any loss allowed.
    [[nodiscard]] bool asynchronous_allowed(const ArbiterRecord& record);
    /// choose_asynchronous() with any loss allowed; none where it refuses.
    [[nodiscard]] int choose_asynchronous(const ArbiterRecord& record, NodeSet fenced,
                                          const std::array<std::uint8_t, max_nodes>& positions) const;
    /// configuration_after() and record_promotion(); nullopt where the first refuses.
    [[nodiscard]] std::optional<ArbiterRecord> promotion(const ArbiterRecord& record, int chosen,
                                                         NodeSet fenced,
                                                         const std::array<std::uint8_t, max_nodes>& positions,
                                                         NodeSet registered, bool degrade);
    [[nodiscard]] SyncAnswer wanted_sync(const World& world, const SyncQuestion& question);
    [[nodiscard]] std::size_t fences_needed(const Counting& counting) const;
    /// judge_master() on what a decider, whose probes of the master time out, has seen.
    [[nodiscard]] Verdict judge(const ArbiterRecord& record, NodeSet answering, NodeSet streaming,
                                NodeSet receiving) const;
    /// Does with_promotion() make the chosen the master of the group, and take it out of the slaves?
    [[nodiscard]] bool publishes(const ArbiterRecord& record, NodeSet registered_before,
                                 int old_master) const;

  private:
    struct Parsed {
        int k = 0;
        std::vector<NameId> names;
    };
    [[nodiscard]] NameId intern(const std::string& text);
    [[nodiscard]] std::string standby_text(int node, int epoch) const;
    [[nodiscard]] Configuration real(const Counting& counting) const;
    [[nodiscard]] Counting abstract(const Configuration& configuration) const;
    [[nodiscard]] Record real(const ArbiterRecord& record) const;
    [[nodiscard]] Topology topology(int master, NodeSet registered, int epoch) const;
    [[nodiscard]] std::vector<FencedPosition> real(
        const ArbiterRecord& record, NodeSet fenced,
        const std::array<std::uint8_t, max_nodes>& positions) const;

    int nodes_;
    Mutation mutation_;
    std::vector<std::string> texts_{""};
    std::unordered_map<std::string, NameId> ids_{{"", 0}};
    std::vector<Parsed> parsed_{{}};
    NameId nobody_ = 0;
    std::array<std::array<NameId, 16>, max_nodes> standby_ids_{};
    std::unordered_map<std::string, bool> enough_;
    std::unordered_map<std::string, bool> asynchronous_;
    std::unordered_map<std::string, std::optional<ArbiterRecord>> promotions_;
    std::unordered_map<std::string, SyncAnswer> wanted_;
    std::unordered_map<std::string, NameId> names_;
};

}  // namespace pgxc::sim
