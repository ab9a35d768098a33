#include "sim/explorer.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

namespace pgxc::sim {
namespace {

/// States are known by 64 bits of hash: with 10 million of them one is taken for another, and so not
/// explored, with a probability below 10^-5.
std::uint64_t hash_of(const World& world) {
    std::array<unsigned char, (sizeof(World) + 7) / 8 * 8> bytes{};
    std::memcpy(bytes.data(), &world, sizeof world);
    std::uint64_t hash = 0x9e3779b97f4a7c15ULL;
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + at, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdULL;
        hash ^= hash >> 32;
    }
    return hash;
}

struct Step {
    std::uint32_t before;
    Action action;
};

std::vector<std::string> trace_of(Model& model, World world, const std::vector<Step>& steps, std::uint32_t at,
                                  const Action& last) {
    std::vector<Action> actions{last};
    for (; at != 0; at = steps[at].before) actions.push_back(steps[at].action);
    std::reverse(actions.begin(), actions.end());
    std::vector<std::string> lines;
    for (const Action& action : actions) {
        lines.push_back(model.describe(world, action));
        (void)model.apply(world, action);
    }
    lines.push_back("\n" + to_text(world, model.options().nodes));
    return lines;
}

}  // namespace

Exploration explore(Model& model, const World& from, std::size_t max_states) {
    Exploration result;
    std::unordered_set<std::uint64_t> seen{hash_of(from)};
    std::vector<Step> steps{{0, {}}};
    struct Open {
        World world;
        std::uint32_t at;
    };
    std::vector<Open> level{{from, 0}};
    std::vector<Open> next_level;
    std::vector<Action> actions;
    while (!level.empty()) {
        next_level.clear();
        for (const Open& open : level) {
            actions.clear();
            model.enabled(open.world, actions);
            for (const Action& action : actions) {
                World world = open.world;
                if (const char* broken = model.apply(world, action)) {
                    result.violation = broken;
                    result.states = steps.size();
                    result.trace = trace_of(model, from, steps, open.at, action);
                    return result;
                }
                if (!seen.insert(hash_of(world)).second) continue;
                if (steps.size() >= max_states) {
                    result.states = steps.size();
                    return result;
                }
                next_level.push_back({world, static_cast<std::uint32_t>(steps.size())});
                steps.push_back({open.at, action});
            }
        }
        std::swap(level, next_level);
    }
    result.states = steps.size();
    result.complete = true;
    return result;
}

}  // namespace pgxc::sim
