#pragma once

#include <string>
#include <vector>

#include "sim/decisions.h"

/// What can happen in the world, one small step at a time. The deciders' steps follow production's order
/// (node_group_failover.cpp: fail_over, record_and_promote, promote_recorded, finish_promotion, undo_fences;
/// node_group.cpp: change_configuration, prepare, follow); what they decide they ask of decisions.h.
namespace pgxc::sim {

enum class Act : std::uint8_t {
    // the servers; `actor` is the node
    Write,        // a client's commit reaches a master's WAL
    Acknowledge,  // a master answers the commits that enough slaves have flushed
    Receive,      // a slave receives, and where `Options::faults` is off also flushes, the next entry
    LateCut,      // a slave carries out what was sent to it when it hung
    TakeOver,     // the address that a slave streams from leads to the recorded master now
    // only with faults
    Flush,
    Reply,        // what a slave told its master arrives (a: slave)
    Reload,       // a settings file is read at last
    Crash,        // a server loses what it has not flushed
    Start,        //
    OldSettings,  // a master is started with the synchronous_standby_names of long ago: none
    CutStream,    // a's WAL doesn't get through to b, or does again
    CutDecider,   // a decider doesn't reach a, or does again
    FillDisk,     //
    Rejoin,       // a former master is rewound to the recorded one and is a slave again
    Register,     // a slave becomes synchronous, or no longer is
    DeciderDies,  // its sessions end; what it recorded stays
    Probe,        // a decider looks at the positions of the slaves
    OpenGate,     // a decider's pooler opens the recorded master
    CloseGate,    // and holds transactions
    // the deciders; `actor` is the decider
    FailOver,       // begins (claiming first if need be)
    FinishPending,  // begins to finish what is recorded
    Change,         // begins to bring ANY b (a) into force
    Prepare,        // begins to make slave a stream under its name
    Step,           // goes on; a = 1: the node can't be reached, or the wait is given up
};

struct Action {
    Act act = Act::Step;
    std::uint8_t actor = 0;
    std::uint8_t a = 0;
    std::uint8_t b = 0;
};

struct Options {
    int nodes = 3;
    int deciders = 2;
    int k = 1;
    Mutation mutation = Mutation::None;
    bool faults = false;  // the larger world
    int writes = 1;
    std::array<int, max_deciders> claims{1, 1, 0};
    std::array<int, max_deciders> programs{1, 1, 0};  // under each claim
    bool degrade = true;
    /// A second failover before the first has settled.
    bool over_pending = false;
    /// pgxc.max_lost_wal: where nobody counts any slave may be promoted.
    bool asynchronous = false;
    /// A slave may hang in the middle of its fence and carry it out later; always so with faults.
    bool hangs = false;
    int max_faults = 0;
};

class Model {
  public:
    explicit Model(Options options);

    [[nodiscard]] const Options& options() const { return options_; }
    [[nodiscard]] World start();
    /// 4 nodes: A, the old master, is dead, B the master of epoch 1 with C as its slave; D holds what A wrote
    /// last and nobody acknowledged. `listed`: an older configuration with D, never in force, is still in the
    /// record.
    [[nodiscard]] World diverged_start(bool listed);
    /// The same, but A lives, cut off from all but D, which is still a beginning of B's WAL and may yet
    /// receive what A wrote last.
    [[nodiscard]] World fed_start();
    /// Nobody counts: the record has an empty S, and the master waits for nobody.
    [[nodiscard]] World asynchronous_start();
    void enabled(const World& world, std::vector<Action>& actions);
    /// nullptr, or the invariant that this step breaks.
    [[nodiscard]] const char* apply(World& world, const Action& action);
    [[nodiscard]] std::string describe(const World& world, const Action& action);
    /// Heals everything and lets one new decider work: nullptr, or why no master is reached (I3).
    [[nodiscard]] const char* stuck(World world, std::vector<std::string>* trace = nullptr);

  private:
    [[nodiscard]] bool mutated(Mutation mutation) const { return options_.mutation == mutation; }
    [[nodiscard]] ArbiterRecord& known(World& world, int decider) const;
    [[nodiscard]] const ArbiterRecord& known(const World& world, int decider) const;
    /// The compare-and-set. False: somebody else has claimed.
    [[nodiscard]] bool write_record(World& world, int decider, const ArbiterRecord& next) const;
    [[nodiscard]] bool reached(const World& world, int decider, int node) const;

    void enabled_servers(const World& world, std::vector<Action>& actions);
    void enabled_faults(const World& world, std::vector<Action>& actions);
    void enabled_decider_faults(const World& world, int decider, std::vector<Action>& actions);
    [[nodiscard]] bool gate_proven(const World& world, int decider);
    void enabled_begin(const World& world, int decider, std::vector<Action>& actions);
    void enabled_step(const World& world, int decider, std::vector<Action>& actions);

    const char* acknowledge(World& world, int node);
    void receive(World& world, int node) const;
    void fault(World& world, const Action& action);
    void start_server(World& world, int node) const;
    void rejoin(World& world, int node) const;
    void crash_server(World& world, int node) const;
    void connect(World& world, int node, Upstream upstream) const;
    void tell(World& world, int node) const;
    void reload(World& world, int node) const;

    bool claim(World& world, int decider) const;
    void give_up(World& world, int decider) const;
    void end_program(World& world, int decider) const;
    void take_lock(World& world, int decider, int node) const;
    [[nodiscard]] bool holds(const World& world, int decider, int node) const;
    const char* judge(World& world, int decider);
    const char* begin(World& world, const Action& action);
    const char* step(World& world, int decider, bool refused);
    [[nodiscard]] bool asynchronous(const ArbiterRecord& record);
    [[nodiscard]] NodeSet fences_wanted(const ArbiterRecord& record);
    void fence_step(World& world, int decider, bool refused);
    void decide(World& world, int decider, int any);
    void record_step(World& world, int decider);
    void promote_step(World& world, int decider, bool refused);
    void prepare_step(World& world, int decider, bool refused);
    void undo_step(World& world, int decider, bool refused);
    const char* settle_step(World& world, int decider, bool refused);
    void set_upstream(World& world, int node, Upstream upstream) const;
    void set_names(World& world, int node, NameId names) const;
    [[nodiscard]] const char* invariants(const World& world) const;
    void tidy(World& world) const;

    Options options_;
    Decisions decisions_;
    NameId slave_names_ = 0;
};

}  // namespace pgxc::sim
