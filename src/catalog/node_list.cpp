#include "catalog/node_list.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "base/limits.h"

namespace pgxc {
namespace {

constexpr std::string_view form_hint =
    "Write the list as 'id=host:port, id=host:port', for example '1=127.0.0.1:5433, 2=[::1]:5434'.";

std::string_view trim(std::string_view text) {
    constexpr std::string_view white = " \t\r\n\f\v";
    const auto first = text.find_first_not_of(white);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(white) - first + 1);
}

Error bad_entry(std::string_view entry, std::string_view why) {
    return {sqlstate::invalid_parameter_value,
            "invalid entry \"" + std::string(entry) + "\" in a list of nodes: " + std::string(why),
            std::string(form_hint)};
}

Result<ListedNode> parse_entry(std::string_view entry) {
    if (entry.empty()) return bad_entry(entry, "it is empty");
    const auto equals = entry.find('=');
    if (equals == std::string_view::npos) return bad_entry(entry, "the sign = is missing");
    const std::string_view id_text = trim(entry.substr(0, equals));
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(id_text.data(), id_text.data() + id_text.size(), id);
    if (error != std::errc{} || end != id_text.data() + id_text.size() || id < 1)
        return bad_entry(entry, "the node id must be a number from 1 to 2147483647");
    auto address = HostPort::parse(trim(entry.substr(equals + 1)));
    if (!address) return std::move(address).error();
    return ListedNode{NodeId{id}, std::move(address).value()};
}

}  // namespace

Result<std::vector<ListedNode>> parse_node_list(std::string_view text) {
    std::vector<ListedNode> nodes;
    if (trim(text).empty()) return nodes;
    for (std::size_t at = 0; at <= text.size();) {
        const auto comma = std::min(text.find(',', at), text.size());
        const std::string_view entry = trim(text.substr(at, comma - at));
        at = comma + 1;
        auto node = parse_entry(entry);
        if (!node) return std::move(node).error();
        if (nodes.size() >= limits::max_nodes)
            return Error{sqlstate::configuration_limit_exceeded,
                         "a list of nodes has more than " + std::to_string(limits::max_nodes) + " entries"};
        for (const ListedNode& known : nodes) {
            if (known.id == node->id) return bad_entry(entry, "the node id comes twice");
            if (known.address == node->address) return bad_entry(entry, "the address comes twice");
        }
        nodes.push_back(std::move(node).value());
    }
    return nodes;
}

}  // namespace pgxc
