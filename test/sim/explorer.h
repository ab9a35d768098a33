#pragma once

#include "sim/model.h"

/// Breadth first through every state of a small world, so that a violation comes with a shortest way to it.
namespace pgxc::sim {

struct Exploration {
    std::size_t states = 0;
    bool complete = false;  // no limit was met
    std::string violation;  // empty: none
    std::vector<std::string> trace;
};

/// `from` is made by Model::start() or Model::diverged_start().
[[nodiscard]] Exploration explore(Model& model, const World& from, std::size_t max_states);

}  // namespace pgxc::sim
