#include "sim/schedules.h"

namespace pgxc::sim {
namespace {

class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    /// splitmix64
    [[nodiscard]] std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }
    [[nodiscard]] int below(int limit) {
        return static_cast<int>(next() % static_cast<std::uint64_t>(limit));
    }

  private:
    std::uint64_t state_;
};

constexpr int longest = 260;

/// How likely an action is beside the others. What goes wrong is rare against what goes on.
int weight_of(const Action& action, const std::array<int, max_deciders>& speed) {
    switch (action.act) {
        case Act::Write:
            return 12;
        case Act::Acknowledge:
        case Act::Receive:
        case Act::Flush:
        case Act::Reply:
            return 16;
        case Act::Reload:
            return 8;
        case Act::Start:
        case Act::OpenGate:
        case Act::LateCut:
            return 6;
        case Act::TakeOver:
        case Act::OldSettings:
        case Act::FillDisk:
        case Act::Rejoin:
        case Act::DeciderDies:
        case Act::CutStream:
        case Act::CutDecider:
        case Act::CloseGate:
            return 1;
        case Act::Crash:
        case Act::Register:
            return 2;
        case Act::Probe:
            return 1;
        case Act::FailOver:
        case Act::FinishPending:
        case Act::Change:
        case Act::Prepare:
            return speed[action.actor];
        case Act::Step:
            return (action.a == 1 ? 1 : 6) * speed[action.actor];
    }
    return 1;
}

}  // namespace

ScheduleResult Schedules::run(std::uint64_t seed, bool with_trace) {
    Random random(seed);
    ScheduleResult result;
    const int nodes = 3 + random.below(4);
    const int k = 1 + random.below(nodes - 1);
    const bool degrade = random.below(4) != 0;
    const int key = nodes * 100 + k * 10 + (degrade ? 1 : 0);
    auto known = models_.find(key);
    if (known == models_.end()) {
        Options options;
        options.nodes = nodes;
        options.deciders = 3;
        options.k = k;
        options.mutation = mutation_;
        options.faults = true;
        options.writes = 40;
        options.claims = {100, 100, 100};
        options.programs = {100, 100, 100};
        options.degrade = degrade;
        options.max_faults = 12;
        known = models_.emplace(key, Model(options)).first;
    }
    Model& model = known->second;
    World world = model.start();
    world.deciders[1].gate = none;
    std::array<int, max_deciders> speed{1, 1, 1};
    constexpr std::array<int, 5> speeds{0, 0, 1, 3, 8};
    for (; result.steps < longest; ++result.steps) {
        // A decider may stall, for long, before any step.
        if (result.steps % 16 == 0)
            speed[static_cast<unsigned>(random.below(3))] = speeds[static_cast<unsigned>(random.below(5))];
        actions_.clear();
        model.enabled(world, actions_);
        int total = 0;
        for (const Action& action : actions_) total += weight_of(action, speed);
        if (total == 0) continue;
        int at = random.below(total);
        const Action* chosen = actions_.data();
        while ((at -= weight_of(*chosen, speed)) >= 0) ++chosen;
        const Action action = *chosen;
        if (with_trace) result.trace.push_back(model.describe(world, action));
        if (const char* broken = model.apply(world, action)) {
            result.violation = broken;
            break;
        }
    }
    if (result.violation.empty() && random.below(4) == 0) {
        if (with_trace) result.trace.push_back("everything is mended; one new decider goes on");
        if (const char* broken = model.stuck(world, with_trace ? &result.trace : nullptr))
            result.violation = broken;
    }
    if (with_trace) result.trace.push_back("\n" + to_text(world, nodes));
    return result;
}

Schedules::Found Schedules::search(std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
        ScheduleResult result = run(seed, false);
        if (!result.violation.empty()) return {seed, result.violation};
    }
    return {};
}

}  // namespace pgxc::sim
