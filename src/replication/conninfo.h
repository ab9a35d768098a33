#pragma once

#include <map>
#include <string>

#include "base/result.h"
#include "catalog/node.h"

namespace pgxc {

/// Reads a libpq connection string (both spellings), replaces or adds the given keywords ('' removes one),
/// and writes it as "key=value ..." for primary_conninfo. A string that libpq refuses is an Error (22023).
[[nodiscard]] Result<std::string> conninfo_with(const std::string& conninfo,
                                                const std::map<std::string, std::string>& changes);

/// The changes that make a connection string lead to that server.
[[nodiscard]] inline std::map<std::string, std::string> conninfo_of(const HostPort& server) {
    return {{"host", server.host}, {"hostaddr", ""}, {"port", std::to_string(server.port)}};
}

/// The keywords that a connection string sets. A string that libpq refuses is an Error (22023).
[[nodiscard]] Result<std::map<std::string, std::string>> conninfo_values(const std::string& conninfo);

}  // namespace pgxc
