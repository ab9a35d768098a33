#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pgxc::parser {

/// The session's settings that decide how PostgreSQL's own scanner reads a string constant.
struct LexOptions {
    bool standard_conforming_strings = true;
    /// The server's encoding is UTF8: Unicode escapes may name any code point, otherwise only ASCII.
    bool utf8 = true;
    /// What backslash_quote comes to for this session: whether \' is allowed in a string with escapes.
    bool backslash_quote = true;
};

/// A complaint about the text at a place in it.
struct SyntaxError {
    Error error;
    /// Zero-based offset in bytes of the offending token. The protocol's position field counts characters
    /// from 1, so that whoever reports it converts: characters in the first `offset` bytes, plus 1.
    std::size_t offset = 0;
    friend bool operator==(const SyntaxError&, const SyntaxError&) = default;
};

enum class TokenKind {
    Word,        ///< an unquoted identifier or keyword; `text` is folded to lower case
    QuotedName,  ///< "..." or U&"...": never a keyword
    Integer,     ///< decimal digits only; `text` holds them
    Number,      ///< any other thing that begins like a number: 1.5, 1e3, 0x1F, 12abc
    String,      ///< a string constant of any form; `text` is its value
    BitString,   ///< B'...' or X'...'
    Parameter,   ///< $1
    Symbol,      ///< an operator or a single character
    End,         ///< the end of the text
    Bad,         ///< the text can't be read on from here; Lexer::error() says why
};

struct Token {
    TokenKind kind = TokenKind::End;
    std::size_t begin = 0;  ///< offset of its first byte
    std::size_t end = 0;    ///< offset after its last byte
    std::string text;
};

/// Splits SQL into tokens by the rules of PostgreSQL's src/backend/parser/scan.l (and, for U&'...' UESCAPE,
/// of base_yylex in parser.c). It is exact about where strings, quoted names and comments begin and end, and
/// about the values of strings; the spelling of numbers and operators matters to nobody here and is read
/// leniently. Any bytes are fine as input, zero bytes included. Keeps a view of the text, which must outlive
/// it.
class Lexer {
  public:
    Lexer(std::string_view text, const LexOptions& options) : text_(text), options_(options) {}

    /// Reads the next token. After End or Bad it returns the same again.
    [[nodiscard]] Token next();
    /// Why the last token was Bad.
    [[nodiscard]] const SyntaxError& error() const { return *error_; }
    /// The text of a token as it was written.
    [[nodiscard]] std::string_view source(const Token& token) const {
        return text_.substr(token.begin, token.end - token.begin);
    }

  private:
    enum class Escapes { None, Backslash, Unicode };

    [[nodiscard]] int at(std::size_t offset) const;
    [[nodiscard]] bool scan_string(Escapes escapes, std::string& value);
    [[nodiscard]] bool scan_raw_quoted(char quote, const char* what);
    [[nodiscard]] bool scan_backslash(std::string& value);
    [[nodiscard]] std::optional<char32_t> scan_unicode_escape();
    [[nodiscard]] bool continues_string();
    [[nodiscard]] bool scan_dollar(Token& token);
    [[nodiscard]] bool finish_unicode_string(std::string& value);
    [[nodiscard]] bool decode_unicode(std::string_view raw, char escape, std::string& value);
    [[nodiscard]] bool append_code_point(char32_t code, std::string& value, std::size_t where);
    void scan_operator();
    void skip_junk();
    bool fail(SqlState state, std::string message, std::size_t where, std::string hint = {},
              std::string detail = {});
    bool fail_near(std::string_view what, std::size_t where);

    std::string_view text_;
    LexOptions options_;
    std::size_t pos_ = 0;
    std::size_t token_begin_ = 0;
    std::optional<SyntaxError> error_;
};

/// Offset of the first byte at or after `from` that is neither white space nor in a comment; the text's size
/// where there is none, a comment that isn't closed included.
[[nodiscard]] std::size_t skip_space_and_comments(std::string_view text, std::size_t from = 0);

}  // namespace pgxc::parser
