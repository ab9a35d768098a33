#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace pgxc {

/// An integer with a meaning: two of different tags never mix by accident.
template <class Tag, class Rep>
class StrongId {
  public:
    using rep = Rep;
    constexpr StrongId() = default;
    constexpr explicit StrongId(Rep value) : value_(value) {}
    [[nodiscard]] constexpr Rep value() const { return value_; }
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the 0 that it compares with for a pointer.
    friend constexpr auto operator<=>(StrongId, StrongId) = default;

  private:
    Rep value_{};
};

/// A node's id, unique within its type; > 0 for a real node, 0 where the catalog says "no master".
using NodeId = StrongId<struct NodeIdTag, std::int32_t>;
/// How many times a node group has changed its master. Grows by one with every promotion.
using Epoch = StrongId<struct EpochTag, std::int64_t>;
/// Which REGISTER MASTER a node group comes from: one that was dropped and registered anew is another group
/// under the same name, whose epochs begin again. 0 = not known.
using Registration = StrongId<struct RegistrationTag, std::uint32_t>;
/// Number of a topology snapshot: grows with every catalog or health change on this coordinator.
using Generation = StrongId<struct GenerationTag, std::uint64_t>;
/// One client of the pooler, unique over the pooler's life.
using ClientId = StrongId<struct ClientIdTag, std::uint64_t>;
/// A PostgreSQL timeline id (1, 2, ...); 0 = not known.
using TimelineId = StrongId<struct TimelineIdTag, std::uint32_t>;

/// A WAL position in bytes; 0 = InvalidXLogRecPtr = not known.
class Lsn {
  public:
    constexpr Lsn() = default;
    constexpr explicit Lsn(std::uint64_t bytes) : bytes_(bytes) {}
    [[nodiscard]] constexpr std::uint64_t bytes() const { return bytes_; }
    [[nodiscard]] constexpr bool known() const { return bytes_ != 0; }
    /// PostgreSQL's text form, e.g. "16/B374D848" (pg_lsn_out).
    [[nodiscard]] std::string to_string() const;
    /// Reads PostgreSQL's text form; nullopt where it is none.
    [[nodiscard]] static std::optional<Lsn> parse(std::string_view text);
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the 0 that it compares with for a pointer.
    friend constexpr auto operator<=>(Lsn, Lsn) = default;

  private:
    std::uint64_t bytes_ = 0;
};

}  // namespace pgxc

template <class Tag, class Rep>
struct std::hash<pgxc::StrongId<Tag, Rep>> {
    std::size_t operator()(pgxc::StrongId<Tag, Rep> id) const noexcept {
        return std::hash<Rep>{}(id.value());
    }
};
