#include "base/ids.h"

#include <charconv>
#include <cstdio>

namespace pgxc {

std::string Lsn::to_string() const {
    char text[32];
    std::snprintf(text, sizeof text, "%X/%X", static_cast<unsigned>(bytes_ >> 32),
                  static_cast<unsigned>(bytes_ & 0xFFFFFFFFU));
    return text;
}

std::optional<Lsn> Lsn::parse(std::string_view text) {
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    const auto half = [](std::string_view digits) -> std::optional<std::uint64_t> {
        std::uint32_t value = 0;
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
        if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
        return value;
    };
    const auto high = half(text.substr(0, slash));
    const auto low = half(text.substr(slash + 1));
    if (!high || !low) return std::nullopt;
    return Lsn{(*high << 32) | *low};
}

}  // namespace pgxc
