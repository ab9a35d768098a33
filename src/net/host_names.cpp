#include "net/host_names.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "net/address.h"
#include "net/resolver.h"

namespace pgxc::net {
namespace {

SocketAddress socket_address(const std::vector<std::uint8_t>& address) {
    SocketAddress made;
    if (address.size() == 4) {
        auto& to = reinterpret_cast<sockaddr_in&>(made.storage);
        to.sin_family = AF_INET;
        std::memcpy(&to.sin_addr, address.data(), address.size());
        made.length = sizeof to;
    } else if (address.size() == 16) {
        auto& to = reinterpret_cast<sockaddr_in6&>(made.storage);
        to.sin6_family = AF_INET6;
        std::memcpy(&to.sin6_addr, address.data(), address.size());
        made.length = sizeof to;
    }
    return made;
}

}  // namespace

std::vector<std::uint8_t> plain_address(const std::vector<std::uint8_t>& address) {
    constexpr std::array<std::uint8_t, 12> mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    if (address.size() == 16 && std::equal(mapped.begin(), mapped.end(), address.begin()))
        return {address.begin() + mapped.size(), address.end()};
    return address;
}

ConfirmedName look_up_confirmed_name(const std::vector<std::uint8_t>& address) {
    const std::vector<std::uint8_t> plain = plain_address(address);
    const SocketAddress from = socket_address(plain);
    ConfirmedName found;
    std::array<char, NI_MAXHOST> name{};
    if (from.length == 0 || ::getnameinfo(reinterpret_cast<const sockaddr*>(&from.storage), from.length,
                                          name.data(), name.size(), nullptr, 0, NI_NAMEREQD) != 0)
        return found;
    found.name = name.data();
    // Whoever owns the address may call it anything; whoever owns the name says whose it is.
    if (const auto addresses = look_up_host(found.name, 0)) {
        found.confirmed = std::any_of(addresses->begin(), addresses->end(),
                                      [&](const SocketAddress& one) { return one.ip_bytes() == plain; });
    }
    return found;
}

}  // namespace pgxc::net
