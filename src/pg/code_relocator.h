#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

/// Moves the first instructions of an x86-64 function elsewhere, so that a jump can take their place. Pure:
/// bytes in, bytes out; nothing is executed or mapped here.
namespace pgxc::pg {

/// The bytes of `jmp rel32`, which is what a detour puts at a function's entry.
inline constexpr std::size_t near_jump_bytes = 5;
/// The bytes of `jmp [rip+0]` and the address behind it, which reaches everywhere.
inline constexpr std::size_t far_jump_bytes = 14;

struct RelocatedEntry {
    /// Where in the function the jump belongs: 0, or after the `endbr64` that indirect calls must find.
    std::size_t patch_offset = 0;
    /// How many bytes from there on were moved: whole instructions, at least near_jump_bytes.
    std::size_t replaced_bytes = 0;
    /// What does at the new address what the function did: the moved instructions, and a jump to the rest.
    std::vector<std::uint8_t> code;
};

/// Rewrites the entry of `function` (all its bytes, as they are at `address`) for running at `new_address`.
/// Addresses relative to the instruction are fixed up. Refuses (0A000) what would not be the same elsewhere:
/// a function too short, bytes that don't decode, a jump into the moved part from anywhere in the function, a
/// return in the moved part, a distance beyond 2 GB.
[[nodiscard]] Result<RelocatedEntry> relocate_entry(std::span<const std::uint8_t> function,
                                                    std::uint64_t address, std::uint64_t new_address);

/// `jmp rel32` for placing at `from`; refused where `to` is more than 2 GB away.
[[nodiscard]] Result<std::array<std::uint8_t, near_jump_bytes>> encode_near_jump(std::uint64_t from,
                                                                                 std::uint64_t to);
[[nodiscard]] std::array<std::uint8_t, far_jump_bytes> encode_far_jump(std::uint64_t to);

}  // namespace pgxc::pg
