#pragma once

#include <string>
#include <string_view>

#include "parser/ast.h"

namespace pgxc::parser {

/// Writes the CALL of the procedure in schema pgxc that does what the statement says, without a final
/// semicolon. It means the same whatever standard_conforming_strings is.
[[nodiscard]] std::string to_call(const Statement& statement);

/// Quotes a text as a string constant, as quote_literal() does.
[[nodiscard]] std::string quote_literal(std::string_view text);

}  // namespace pgxc::parser
