#include "pooler/environment.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

#include "net/host_names.h"

namespace pgxc::pooler {

std::string ClientAddress::host() const {
    if (is_unix) return "[local]";
    std::array<char, INET6_ADDRSTRLEN> text{};
    const int family = address.size() == 4 ? AF_INET : AF_INET6;
    if ((address.size() != 4 && address.size() != 16) ||
        ::inet_ntop(family, address.data(), text.data(), text.size()) == nullptr) {
        return "???";
    }
    return text.data();
}

std::string ClientAddress::throttle_key() const {
    if (peer_uid) return host() + " uid " + std::to_string(*peer_uid);
    if (net::plain_address(address).size() != 16) return host();
    ClientAddress network = *this;
    std::fill(network.address.begin() + 8, network.address.end(), std::uint8_t{0});
    return network.host() + "/64";
}

std::string ClientAddress::to_string() const {
    return is_unix ? host() : host() + "(" + std::to_string(port) + ")";
}

}  // namespace pgxc::pooler
