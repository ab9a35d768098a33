#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pgxc::net {

/// The name of an address (4 or 16 bytes), and whether the name has that address among its own.
struct ConfirmedName {
    std::string name;  // empty: none
    bool confirmed = false;
};
/// An IPv4 client that came through an IPv6 socket is an IPv4 client.
[[nodiscard]] std::vector<std::uint8_t> plain_address(const std::vector<std::uint8_t>& address);
/// Blocks: for a thread that may.
[[nodiscard]] ConfirmedName look_up_confirmed_name(const std::vector<std::uint8_t>& address);

}  // namespace pgxc::net
