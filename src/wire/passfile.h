#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pgxc::wire {

/// Looks a password up in the text of a .pgpass file (libpq's manual, "The Password File"): lines of
/// host:port:database:user:password, the first that matches; '*' matches all; \: and \\ are escapes. A unix
/// socket in the default directory is host "localhost": the caller passes that. nullopt if no line matches.
[[nodiscard]] std::optional<std::string> find_password(std::string_view passfile, std::string_view host,
                                                       std::uint16_t port, std::string_view database,
                                                       std::string_view user);

}  // namespace pgxc::wire
