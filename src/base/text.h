#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace pgxc {

/// An SQL string constant that means the same whatever standard_conforming_strings is, as the server's
/// quote_literal() writes it. It may begin with an E: no letter or digit may stand right before it.
[[nodiscard]] std::string sql_literal(std::string_view text);

/// Two lower-case digits for each byte.
[[nodiscard]] std::string to_hex(std::span<const std::uint8_t> bytes);

/// The decimal number that the whole text is; nothing else before or behind it, and within the type's range.
template <class Number>
[[nodiscard]] std::optional<Number> to_number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

}  // namespace pgxc
