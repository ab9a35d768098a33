#include "catalog/node.h"

#include <algorithm>
#include <charconv>

#include "base/limits.h"

namespace pgxc {
namespace {

Error bad_address(std::string_view text, std::string_view why) {
    return {sqlstate::invalid_parameter_value,
            "invalid node address \"" + std::string(text) + "\": " + std::string(why),
            "Write an address as 'host:port', an IPv6 address in brackets: '[::1]:5433'."};
}

}  // namespace

std::string_view to_word(NodeType type) {
    switch (type) {
        case NodeType::Coordinator:
            return "coordinator";
        case NodeType::Datanode:
            return "datanode";
    }
    return "node";
}

std::string_view to_word(Replication replication) {
    switch (replication) {
        case Replication::None:
            return "";
        case Replication::Synchronous:
            return "synchronous";
        case Replication::Asynchronous:
            return "asynchronous";
    }
    return "";
}

std::string NodeKey::to_string() const {
    return std::string(to_word(type)) + " " + std::to_string(id.value());
}

std::string HostPort::to_string() const {
    const bool v6 = host.find(':') != std::string::npos;
    return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<HostPort> HostPort::parse(std::string_view text) {
    std::string_view host;
    std::string_view port;
    if (text.starts_with('[')) {
        const auto close = text.find(']');
        if (close == std::string_view::npos) return bad_address(text, "the bracket is not closed");
        host = text.substr(1, close - 1);
        if (close + 1 >= text.size() || text[close + 1] != ':')
            return bad_address(text, "the port is missing");
        port = text.substr(close + 2);
        if (host.find(':') == std::string_view::npos)
            return bad_address(text, "brackets are for IPv6 addresses");
    } else {
        const auto colon = text.find(':');
        if (colon == std::string_view::npos) return bad_address(text, "the port is missing");
        if (text.find(':', colon + 1) != std::string_view::npos)
            return bad_address(text, "more than one colon outside brackets");
        host = text.substr(0, colon);
        port = text.substr(colon + 1);
    }
    if (host.empty()) return bad_address(text, "the host is empty");
    if (host.size() >= limits::max_host_bytes) return bad_address(text, "the host is too long");
    const auto allowed = [](unsigned char c) {
        return c > ' ' && c != 0x7f && c != '\'' && c != ',' && c != '"';
    };
    if (!std::all_of(host.begin(), host.end(), allowed))
        return bad_address(text, "the host has a character that no host name has");
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc{} || end != port.data() + port.size() || number < 1 || number > 65535)
        return bad_address(text, "the port must be a number from 1 to 65535");
    return HostPort{std::string(host), static_cast<std::uint16_t>(number)};
}

}  // namespace pgxc
