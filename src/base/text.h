#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pgxc {

/// An SQL string constant that means the same whatever standard_conforming_strings is, as the server's
/// quote_literal() writes it. It may begin with an E: no letter or digit may stand right before it.
[[nodiscard]] std::string sql_literal(std::string_view text);

/// Two lower-case digits for each byte.
[[nodiscard]] std::string to_hex(std::span<const std::uint8_t> bytes);

}  // namespace pgxc
