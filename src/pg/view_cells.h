#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"

/// What the functions behind our views make their rows of.
namespace pgxc {

using Cell = std::optional<std::string>;

template <class Number>
Cell number(Number value) {
    return std::to_string(value);
}

[[nodiscard]] Cell one_char(char c);

/// In the input form of timestamptz, whatever the session's DateStyle and TimeZone are.
[[nodiscard]] Cell timestamp(WallTime time);

/// Tells how many rows did not fit into shared memory.
void tell_left_out(std::uint64_t rows, const char* of_what);

/// May the current user see the details of what `user` does? As pg_stat_activity decides it.
[[nodiscard]] Result<bool> may_see(const std::string& user);

}  // namespace pgxc
