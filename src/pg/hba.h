#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "pooler/hba_rules.h"

namespace pgxc {

/// Reads the coordinator's pg_hba.conf with the server's own tokenizer and line parser, in a memory context
/// of its own (the server's load_hba() must not be called in a worker: its statics point into memory that is
/// gone). One bad line is an error for the whole file, as in the server.
[[nodiscard]] Result<std::vector<pooler::HbaRule>> read_hba_file();

/// Reads pg_ident.conf in the same way; its lines' regular expressions are compiled.
[[nodiscard]] Result<std::vector<pooler::IdentRule>> read_ident_file();

/// What matching asks of the server: role membership in a transaction, interfaces from the system.
[[nodiscard]] pooler::HbaFacts server_hba_facts();

}  // namespace pgxc
