#pragma once

#include "sim/model.h"

/// Random schedules of a larger world. A seed tells all of one: the size of the world, its settings, each
/// step.
namespace pgxc::sim {

struct ScheduleResult {
    std::string violation;  // empty: none
    std::vector<std::string> trace;
    int steps = 0;
};

class Schedules {
  public:
    explicit Schedules(Mutation mutation) : mutation_(mutation) {}
    [[nodiscard]] ScheduleResult run(std::uint64_t seed, bool with_trace);
    struct Found {
        std::uint64_t seed = 0;
        std::string violation;  // empty: none
    };
    /// Seeds from `first` on, until one violates.
    [[nodiscard]] Found search(std::uint64_t first, std::uint64_t count);

  private:
    Mutation mutation_;
    std::unordered_map<int, Model> models_;  // by size of the world: they remember answers
    std::vector<Action> actions_;
};

}  // namespace pgxc::sim
