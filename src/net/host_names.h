#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pgxc::net {

/// The name of an address (4 or 16 bytes), and whether the name has that address among its own. Blocks: for a
/// thread that may.
struct ConfirmedName {
    std::string name;  // empty: none
    bool confirmed = false;
};
[[nodiscard]] ConfirmedName look_up_confirmed_name(const std::vector<std::uint8_t>& address);

}  // namespace pgxc::net
