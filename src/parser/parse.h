#pragma once

#include <string_view>
#include <variant>
#include <vector>

#include "parser/ast.h"
#include "parser/lexer.h"

namespace pgxc::parser {

/// The text has nothing to do with us: it belongs to the server, to the byte.
struct NotOurs {
    friend bool operator==(const NotOurs&, const NotOurs&) = default;
};

using ParseResult = std::variant<NotOurs, std::vector<Statement>, SyntaxError>;

/// Reads a query string: one statement of ours, or several separated by semicolons.
///
/// A statement is ours if its first word is REGISTER, UNREGISTER, CREATE, ALTER or DROP and its second
/// COORDINATOR or DATANODE; none of these is SQL in any PostgreSQL, so nothing valid is taken away from the
/// server. One string that holds statements of ours and others is an error (42601), because parts of it could
/// not be handed to the server unchanged. Looking at a text that isn't ours costs a glance at its first words
/// and one search for semicolons; texts longer than limits::max_statement_bytes are never ours.
[[nodiscard]] ParseResult parse(std::string_view text, const LexOptions& options);

/// Says whether the text begins with a statement of ours, right or wrong.
[[nodiscard]] bool begins_with_ours(std::string_view text);

}  // namespace pgxc::parser
