#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "parser/parse.h"
#include "parser/translate.h"

// The grammar takes any bytes; and what it makes of them is one CALL that every server reads in the same way.

namespace {

using namespace pgxc::parser;

void require(bool condition) {
    if (!condition) std::abort();
}

std::vector<Token> tokens_of(std::string_view text, bool standard_conforming_strings) {
    Lexer lexer(text, {standard_conforming_strings, true, true});
    std::vector<Token> tokens;
    for (;;) {
        tokens.push_back(lexer.next());
        const Token& token = tokens.back();
        require(token.kind != TokenKind::Bad);
        require(token.begin <= token.end && token.end <= text.size());
        if (token.kind == TokenKind::End) return tokens;
    }
}

/// CALL pgxc.name( ... ): with one pair of parentheses and nothing after it, whatever the setting.
void check_call(const std::string& call) {
    const auto tokens = tokens_of(call, true);
    const auto same = tokens_of(call, false);
    require(tokens.size() == same.size() && tokens.size() > 6);
    require(tokens[0].text == "call" && tokens[1].text == "pgxc" && tokens[2].text == ".");
    require(tokens[4].text == "(" && tokens[tokens.size() - 2].text == ")");
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        require(tokens[i].kind == same[i].kind && tokens[i].text == same[i].text);
        if (tokens[i].kind != TokenKind::Symbol) continue;
        require(i == 2 || i == 4 || i + 2 == tokens.size() || tokens[i].text == "," ||
                tokens[i].text == "[" || tokens[i].text == "]");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const LexOptions options{(data[0] & 1) != 0, (data[0] & 2) != 0, (data[0] & 4) != 0};
    const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);

    const ParseResult result = parse(text, options);
    if (begins_with_ours(text)) require(!std::holds_alternative<NotOurs>(result));
    if (const auto* error = std::get_if<SyntaxError>(&result)) {
        require(error->offset <= text.size() && !error->error.message.empty());
        require(error->error.sqlstate.size() == 5);
    } else if (const auto* statements = std::get_if<std::vector<Statement>>(&result)) {
        require(!statements->empty());
        std::size_t from = 0;
        for (const Statement& statement : *statements) {
            require(statement.location >= from && statement.location + statement.length <= text.size());
            from = statement.location + statement.length;
            check_call(to_call(statement));
        }
    }

    Lexer lexer(text, options);
    std::size_t from = 0;
    for (Token token = lexer.next(); token.kind != TokenKind::End && token.kind != TokenKind::Bad;
         token = lexer.next()) {
        require(token.begin >= from && token.end > token.begin && token.end <= text.size());
        from = token.end;
    }
    return 0;
}
