#pragma once

/// What differs between server versions 13 to 18, in one place: the only file that mentions PG_VERSION_NUM.

extern "C" {
#include "postgres.h"

#include "storage/ipc.h"
#include "utils/guc.h"
}

namespace pgxc::compat {

/// From 15 on a module asks for shared memory in a hook, before that in _PG_init itself.
#if PG_VERSION_NUM >= 150000
inline constexpr bool has_shmem_request_hook = true;
#else
inline constexpr bool has_shmem_request_hook = false;
#endif

/// Makes unknown settings with our prefix an error (15 and later), or a warning.
inline void reserve_setting_prefix(const char* prefix) {
#if PG_VERSION_NUM >= 150000
    MarkGUCPrefixReserved(prefix);
#else
    EmitWarningsOnPlaceholders(prefix);
#endif
}

}  // namespace pgxc::compat
