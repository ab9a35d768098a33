#pragma once

#include <memory>
#include <string>

#include "pooler/hba_rules.h"

namespace pgxc {

/// Compiles a word of pg_hba.conf or pg_ident.conf (without its slash) by the server's own engine, as hba.c
/// does. Error F0000 in the engine's words.
[[nodiscard]] Result<std::shared_ptr<const pooler::Pattern>> make_auth_pattern(const std::string& text);

}  // namespace pgxc
