#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pgxc::pooler {

/// The database that a command wants for itself: DROP DATABASE, ALTER DATABASE ... RENAME TO or ...
/// TABLESPACE, CREATE DATABASE (its template). The server refuses it while anybody else is in there, and
/// looks again for five seconds. nullopt: another statement, several, or one that can't be read with
/// certainty. Pure.
[[nodiscard]] std::optional<std::string> database_wanted_alone(std::string_view sql);

}  // namespace pgxc::pooler
