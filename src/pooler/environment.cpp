#include "pooler/environment.h"

#include <arpa/inet.h>

#include <array>

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
    return peer_uid ? host() + " uid " + std::to_string(*peer_uid) : host();
}

std::string ClientAddress::to_string() const {
    return is_unix ? host() : host() + "(" + std::to_string(port) + ")";
}

}  // namespace pgxc::pooler
