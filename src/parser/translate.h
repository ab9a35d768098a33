#pragma once

#include <string>

#include "parser/ast.h"

namespace pgxc::parser {

/// Writes the CALL of the procedure in schema pgxc that does what the statement says, without a final
/// semicolon. It means the same whatever standard_conforming_strings is.
[[nodiscard]] std::string to_call(const Statement& statement);

}  // namespace pgxc::parser
