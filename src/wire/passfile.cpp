#include "wire/passfile.h"

namespace pgxc::wire {
namespace {

/// Takes the next field off a line, escapes undone; nullopt at its end. `any`: the field is a bare '*'.
std::optional<std::string> take_field(std::string_view& line, bool& any) {
    std::string field;
    any = line.starts_with("*:");
    std::size_t at = 0;
    for (; at < line.size() && line[at] != ':'; ++at) {
        if (line[at] == '\\' && at + 1 < line.size()) ++at;
        field.push_back(line[at]);
    }
    if (at == line.size()) return std::nullopt;
    line.remove_prefix(at + 1);
    return field;
}

bool take_match(std::string_view& line, std::string_view wanted) {
    bool any = false;
    const auto field = take_field(line, any);
    return field && (any || *field == wanted);
}

std::string unescape_password(std::string_view rest) {
    std::string password;
    for (std::size_t at = 0; at < rest.size() && rest[at] != ':'; ++at) {
        if (rest[at] == '\\' && at + 1 < rest.size()) ++at;
        password.push_back(rest[at]);
    }
    return password;
}

}  // namespace

std::optional<std::string> find_password(std::string_view passfile, std::string_view host, std::uint16_t port,
                                         std::string_view database, std::string_view user) {
    // As libpq's passwordFromFile: without a database or user there is nothing to look up.
    if (database.empty() || user.empty()) return std::nullopt;
    const std::string port_text = std::to_string(port);
    while (!passfile.empty()) {
        const auto newline = passfile.find('\n');
        std::string_view line = passfile.substr(0, newline);
        passfile.remove_prefix(newline == std::string_view::npos ? passfile.size() : newline + 1);
        while (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty() || line[0] == '#') continue;
        if (take_match(line, host) && take_match(line, port_text) && take_match(line, database) &&
            take_match(line, user))
            return unescape_password(line);
    }
    return std::nullopt;
}

}  // namespace pgxc::wire
