#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pgxc::wire {

/// RFC 4648 with padding, without line breaks.
[[nodiscard]] std::string base64_encode(std::string_view data);
/// Reads what base64_encode writes; nullopt for anything else (wrong length, character, padding, stray bits).
[[nodiscard]] std::optional<std::string> base64_decode(std::string_view text);

}  // namespace pgxc::wire
