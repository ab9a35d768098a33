#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"

/// Leads the calls of a function of this process to another one. Knows nothing of PostgreSQL.
namespace pgxc::pg {

/// What was changed, for calling the original and for taking the detour back.
struct Detour {
    /// Does what the function did before.
    void* original = nullptr;
    std::uintptr_t patched_at = 0;
    std::vector<std::uint8_t> old_bytes;
    /// Mapping that holds `original`.
    void* block = nullptr;
    std::size_t block_bytes = 0;
};

/// Size in bytes of the function `name` at `address`, from the symbol table of the file that it was loaded
/// from. An error if the address is not that very function's.
[[nodiscard]] Result<std::size_t> function_size(void* address, const char* name);

/// Makes every call of `function` (of `function_bytes` bytes) go to `replacement`, which must have the same
/// type. On any error nothing has changed. Only x86-64 is supported; elsewhere that is the error.
///
/// No memory is writable and executable at any moment. The page with the function's entry is not made
/// writable at all: a finished and already executable copy is moved over it, because making a page executable
/// again is what a security policy may refuse, and then it would be too late.
///
/// The process must have one thread: another one could be inside the bytes that change.
[[nodiscard]] Result<Detour> install_detour(void* function, std::size_t function_bytes, void* replacement);

/// Puts the function back as it was.
[[nodiscard]] Status remove_detour(const Detour& detour);

}  // namespace pgxc::pg
