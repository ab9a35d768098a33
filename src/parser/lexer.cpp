#include "parser/lexer.h"

#include <utility>

namespace pgxc::parser {
namespace {

// The character classes are spelled out because those of <cctype> depend on the locale, and because a byte
// from 0x80 up always belongs to a name, whatever the encoding.
constexpr bool is_space(int c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}
constexpr bool is_newline(int c) {
    return c == '\n' || c == '\r';
}
constexpr bool is_digit(int c) {
    return c >= '0' && c <= '9';
}
constexpr bool is_name_start(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}
constexpr bool is_tag_part(int c) {
    return is_name_start(c) || is_digit(c);
}
constexpr bool is_name_part(int c) {
    return is_tag_part(c) || c == '$';
}
constexpr bool is_operator_char(int c) {
    return c > 0 &&
           std::string_view("~!@#^&|`?+-*/%<>=").find(static_cast<char>(c)) != std::string_view::npos;
}
/// Allows the last character of an operator to be + or -.
constexpr bool is_unusual_operator_char(char c) {
    return std::string_view("~!@#^&|`?%").find(c) != std::string_view::npos;
}

constexpr int hex_value(int c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/// Reads `count` hexadecimal digits; nullopt if there are fewer.
std::optional<char32_t> hex_number(std::string_view text, std::size_t from, std::size_t count) {
    if (from > text.size() || text.size() - from < count) return std::nullopt;
    char32_t value = 0;
    for (std::size_t i = from; i < from + count; ++i) {
        const int digit = hex_value(static_cast<unsigned char>(text[i]));
        if (digit < 0) return std::nullopt;
        value = value * 16 + static_cast<char32_t>(digit);
    }
    return value;
}

constexpr bool is_high_surrogate(char32_t code) {
    return code >= 0xD800 && code <= 0xDBFF;
}
constexpr bool is_low_surrogate(char32_t code) {
    return code >= 0xDC00 && code <= 0xDFFF;
}
constexpr char32_t join_surrogates(char32_t high, char32_t low) {
    return ((high & 0x3FF) << 10) + 0x10000 + (low & 0x3FF);
}

void append_utf8(char32_t code, std::string& out) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
    if (code < 0x80) {
        out += static_cast<char>(code);
    } else if (code < 0x800) {
        out += static_cast<char>(0xC0 | (code >> 6));
        tail(0);
    } else if (code < 0x10000) {
        out += static_cast<char>(0xE0 | (code >> 12));
        tail(6);
        tail(0);
    } else {
        out += static_cast<char>(0xF0 | (code >> 18));
        tail(12);
        tail(6);
        tail(0);
    }
}

/// check_uescapechar of PostgreSQL's parser.c.
constexpr bool may_be_escape_character(int c) {
    return hex_value(c) < 0 && c != '+' && c != '\'' && c != '"' && !is_space(c);
}

/// Offset after the block comment that begins at `from`; npos if it isn't closed. Block comments nest.
std::size_t end_of_block_comment(std::string_view text, std::size_t from) {
    std::size_t pos = from + 2;
    std::size_t depth = 1;
    while (pos + 1 < text.size()) {
        if (text[pos] == '*' && text[pos + 1] == '/') {
            pos += 2;
            if (--depth == 0) return pos;
        } else if (text[pos] == '/' && text[pos + 1] == '*') {
            pos += 2;
            ++depth;
        } else {
            ++pos;
        }
    }
    return std::string_view::npos;
}

std::size_t end_of_line(std::string_view text, std::size_t from) {
    const auto end = text.find_first_of("\n\r", from);
    return end == std::string_view::npos ? text.size() : end;
}

bool starts(std::string_view text, std::size_t from, std::string_view what) {
    return text.substr(from, what.size()) == what;
}

/// Offset of the first byte that is no space and in no comment that ends; an unclosed comment's own offset.
std::size_t skip_closed(std::string_view text, std::size_t pos) {
    while (pos < text.size()) {
        if (is_space(static_cast<unsigned char>(text[pos]))) {
            ++pos;
        } else if (starts(text, pos, "--")) {
            pos = end_of_line(text, pos);
        } else if (starts(text, pos, "/*")) {
            const auto end = end_of_block_comment(text, pos);
            if (end == std::string_view::npos) return pos;
            pos = end;
        } else {
            return pos;
        }
    }
    return text.size();
}

}  // namespace

std::size_t skip_space_and_comments(std::string_view text, std::size_t from) {
    const auto pos = skip_closed(text, from);
    return starts(text, pos, "/*") ? text.size() : pos;
}

/// The byte at an offset, or -1 past the end.
int Lexer::at(std::size_t offset) const {
    return offset < text_.size() ? static_cast<unsigned char>(text_[offset]) : -1;
}

bool Lexer::fail(SqlState state, std::string message, std::size_t where, std::string hint,
                 std::string detail) {
    error_ = SyntaxError{{state, std::move(message), std::move(hint), std::move(detail)}, where};
    return false;
}

/// Fails in the words of PostgreSQL's scanner, which shows the text from `where` to as far as it has read.
bool Lexer::fail_near(std::string_view what, std::size_t where) {
    return fail(sqlstate::syntax_error,
                std::string(what) + " at or near \"" + std::string(text_.substr(where, pos_ - where)) + "\"",
                where);
}

Token Lexer::next() {
    Token token;
    const auto bad = [&] {
        token.kind = TokenKind::Bad;
        token.end = pos_ = text_.size();
        return token;
    };
    if (error_) {
        token.begin = error_->offset;
        return bad();
    }
    pos_ = skip_closed(text_, pos_);
    token.begin = token_begin_ = pos_;
    const auto done = [&](TokenKind kind) {
        token.kind = kind;
        token.end = pos_;
        return std::move(token);
    };
    if (starts(text_, pos_, "/*")) {
        pos_ = text_.size();
        fail_near("unterminated /* comment", token_begin_);
        return bad();
    }

    const int c = at(pos_);
    const int second = at(pos_ + 1);
    if (c < 0) return done(TokenKind::End);

    if (c == '\'') {
        ++pos_;
        const auto escapes = options_.standard_conforming_strings ? Escapes::None : Escapes::Backslash;
        return scan_string(escapes, token.text) ? done(TokenKind::String) : bad();
    }
    if (second == '\'' && (c == 'e' || c == 'E')) {
        pos_ += 2;
        return scan_string(Escapes::Backslash, token.text) ? done(TokenKind::String) : bad();
    }
    if (second == '\'' && (c == 'n' || c == 'N')) {
        // The server reads N'...' as the type name NCHAR before an ordinary string.
        pos_ += 2;
        const auto escapes = options_.standard_conforming_strings ? Escapes::None : Escapes::Backslash;
        return scan_string(escapes, token.text) ? done(TokenKind::String) : bad();
    }
    if (second == '\'' && (c == 'b' || c == 'B' || c == 'x' || c == 'X')) {
        pos_ += 2;
        const char* const what = c == 'b' || c == 'B' ? "unterminated bit string literal"
                                                      : "unterminated hexadecimal string literal";
        return scan_raw_quoted('\'', what) ? done(TokenKind::BitString) : bad();
    }
    if ((c == 'u' || c == 'U') && second == '&') {
        if (at(pos_ + 2) == '"') {
            pos_ += 3;
            return scan_raw_quoted('"', "unterminated quoted identifier") ? done(TokenKind::QuotedName)
                                                                          : bad();
        }
        if (at(pos_ + 2) == '\'') {
            pos_ += 3;
            if (!options_.standard_conforming_strings) {
                fail(sqlstate::feature_not_supported, "unsafe use of string constant with Unicode escapes",
                     token_begin_, {},
                     "String constants with Unicode escapes cannot be used when "
                     "standard_conforming_strings is off.");
                return bad();
            }
            return scan_string(Escapes::Unicode, token.text) && finish_unicode_string(token.text)
                       ? done(TokenKind::String)
                       : bad();
        }
    }
    if (c == '"') {
        ++pos_;
        return scan_raw_quoted('"', "unterminated quoted identifier") ? done(TokenKind::QuotedName) : bad();
    }
    if (c == '$') return scan_dollar(token) ? done(token.kind) : bad();
    if (is_name_start(c)) {
        while (is_name_part(at(pos_))) {
            const int letter = at(pos_++);
            token.text += static_cast<char>(letter >= 'A' && letter <= 'Z' ? letter - 'A' + 'a' : letter);
        }
        return done(TokenKind::Word);
    }
    if (is_digit(c) || (c == '.' && is_digit(second))) {
        while (is_digit(at(pos_))) ++pos_;
        const std::size_t digits_end = pos_;
        while (is_digit(at(pos_)) || at(pos_) == '.') ++pos_;
        skip_junk();
        token.text = text_.substr(token.begin, pos_ - token.begin);
        return done(pos_ == digits_end ? TokenKind::Integer : TokenKind::Number);
    }
    if (is_operator_char(c)) {
        scan_operator();
    } else {
        ++pos_;
    }
    token.text = text_.substr(token.begin, pos_ - token.begin);
    return done(TokenKind::Symbol);
}

/// Takes in a name that follows a number without a space, exponents and digits of other bases among them. A
/// dollar sign right after the number is no part of it: it may begin a string.
void Lexer::skip_junk() {
    if (!is_name_start(at(pos_))) return;
    while (is_name_part(at(pos_))) ++pos_;
}

/// Reads an operator: as long as possible, but a comment ends it, and only an unusual one ends in + or -.
void Lexer::scan_operator() {
    const std::size_t begin = pos_;
    while (is_operator_char(at(pos_)) && !starts(text_, pos_, "--") && !starts(text_, pos_, "/*")) ++pos_;
    const auto ends_in_sign = [&] { return text_[pos_ - 1] == '+' || text_[pos_ - 1] == '-'; };
    for (std::size_t i = begin; i + 1 < pos_; ++i)
        if (is_unusual_operator_char(text_[i])) return;
    while (pos_ - begin > 1 && ends_in_sign()) --pos_;
}

/// Reads up to the closing quote of B'...', X'...', "..." or U&"...", whose contents nobody here needs.
bool Lexer::scan_raw_quoted(char quote, const char* what) {
    const bool name = quote == '"';
    for (;;) {
        const auto close = text_.find(quote, pos_);
        if (close == std::string_view::npos) {
            pos_ = text_.size();
            return fail_near(what, token_begin_);
        }
        pos_ = close + 1;
        if (name ? at(pos_) == '"' : continues_string()) {
            if (name) ++pos_;
            continue;
        }
        return true;
    }
}

/// After a closing quote: if white space with a newline in it and another quote follow, the string goes on
/// there.
bool Lexer::continues_string() {
    std::size_t pos = pos_;
    bool newline = false;
    for (;;) {
        const int c = at(pos);
        if (is_space(c)) {
            newline = newline || is_newline(c);
            ++pos;
        } else if (starts(text_, pos, "--")) {
            pos = end_of_line(text_, pos);
        } else if (c == '\'' && newline) {
            pos_ = pos + 1;
            return true;
        } else {
            return false;
        }
    }
}

/// Reads the rest of a string constant after its opening quote. With Escapes::Unicode the escapes stay in
/// place, because only the token after the string (UESCAPE) tells which character introduces them.
bool Lexer::scan_string(Escapes escapes, std::string& value) {
    for (;;) {
        const int c = at(pos_);
        if (c < 0) return fail_near("unterminated quoted string", token_begin_);
        if (c == '\'') {
            ++pos_;
            if (at(pos_) == '\'') {
                value += '\'';
                ++pos_;
            } else if (!continues_string()) {
                return true;
            }
        } else if (c == '\\' && escapes == Escapes::Backslash) {
            if (!scan_backslash(value)) return false;
        } else {
            value += static_cast<char>(c);
            ++pos_;
        }
    }
}

/// Reads one backslash escape of an E'...' string.
bool Lexer::scan_backslash(std::string& value) {
    const std::size_t where = pos_;
    const int c = at(pos_ + 1);
    if (c < 0) {
        pos_ = text_.size();
        return fail_near("unterminated quoted string", token_begin_);
    }
    const auto add_byte = [&](unsigned byte) {
        value += static_cast<char>(byte & 0xFF);
        return true;
    };
    if (c >= '0' && c <= '7') {
        unsigned byte = 0;
        ++pos_;
        for (int digits = 0; digits < 3 && at(pos_) >= '0' && at(pos_) <= '7'; ++digits)
            byte = byte * 8 + static_cast<unsigned>(at(pos_++) - '0');
        return add_byte(byte);
    }
    if (c == 'x' && hex_value(at(pos_ + 2)) >= 0) {
        unsigned byte = 0;
        pos_ += 2;
        for (int digits = 0; digits < 2 && hex_value(at(pos_)) >= 0; ++digits)
            byte = byte * 16 + static_cast<unsigned>(hex_value(at(pos_++)));
        return add_byte(byte);
    }
    if (c == 'u' || c == 'U') {
        auto code = scan_unicode_escape();
        if (!code) return false;
        if (is_low_surrogate(*code)) return fail_near("invalid Unicode surrogate pair", where);
        if (is_high_surrogate(*code)) {
            const std::size_t second = pos_;
            const int kind = at(pos_ + 1);
            if (at(pos_) != '\\' || (kind != 'u' && kind != 'U')) {
                if (pos_ < text_.size()) ++pos_;
                return fail_near("invalid Unicode surrogate pair", second);
            }
            const auto low = scan_unicode_escape();
            if (!low) return false;
            if (!is_low_surrogate(*low)) return fail_near("invalid Unicode surrogate pair", second);
            code = join_surrogates(*code, *low);
        }
        return append_code_point(*code, value, where);
    }
    if (c == '\'' && !options_.backslash_quote)
        return fail(sqlstate::nonstandard_use_of_escape_character, "unsafe use of \\' in a string literal",
                    where, "Use '' to write quotes in strings. \\' is insecure in client-only encodings.");
    pos_ += 2;
    switch (c) {
        case 'b':
            value += '\b';
            return true;
        case 'f':
            value += '\f';
            return true;
        case 'n':
            value += '\n';
            return true;
        case 'r':
            value += '\r';
            return true;
        case 't':
            value += '\t';
            return true;
        default:
            return add_byte(static_cast<unsigned>(c));
    }
}

/// Reads \uXXXX or \UXXXXXXXX at the current place.
std::optional<char32_t> Lexer::scan_unicode_escape() {
    const std::size_t digits = at(pos_ + 1) == 'u' ? 4 : 8;
    const auto code = hex_number(text_, pos_ + 2, digits);
    if (!code) {
        fail(sqlstate::invalid_escape_sequence, "invalid Unicode escape", pos_,
             "Unicode escapes must be \\uXXXX or \\UXXXXXXXX.");
        return std::nullopt;
    }
    pos_ += 2 + digits;
    return code;
}

bool Lexer::append_code_point(char32_t code, std::string& value, std::size_t where) {
    if (code == 0 || code > 0x10FFFF)
        return fail(sqlstate::syntax_error, "invalid Unicode escape value", where);
    if (code > 0x7F && !options_.utf8)
        return fail(sqlstate::feature_not_supported,
                    "Unicode escapes above 007F cannot be used here when the server encoding is not UTF8",
                    where, "Write the character itself.");
    append_utf8(code, value);
    return true;
}

/// Applies UESCAPE, if it follows a U&'...' string, and resolves the string's escapes.
bool Lexer::finish_unicode_string(std::string& value) {
    const std::string raw = std::exchange(value, {});
    const std::size_t string_end = pos_;
    const std::size_t string_begin = token_begin_;
    const auto leave_at = [&](std::size_t end) {
        pos_ = end;
        token_begin_ = string_begin;
    };
    const std::size_t word = skip_closed(text_, pos_);
    std::size_t word_end = word;
    while (is_name_part(at(word_end))) ++word_end;
    const auto folded = [](int c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; };
    constexpr std::string_view keyword = "uescape";
    bool uescape = word_end - word == keyword.size();
    for (std::size_t i = 0; uescape && i < keyword.size(); ++i) uescape = folded(at(word + i)) == keyword[i];
    if (!uescape) {
        leave_at(string_end);
        return decode_unicode(raw, '\\', value);
    }
    pos_ = word_end;
    const Token escape = next();
    if (escape.kind == TokenKind::Bad) return false;
    const std::string_view written = source(escape);
    if (escape.kind != TokenKind::String || written.starts_with('U') || written.starts_with('u') ||
        written.starts_with('N') || written.starts_with('n'))
        return fail_near("UESCAPE must be followed by a simple string literal", escape.begin);
    if (escape.text.size() != 1 || !may_be_escape_character(static_cast<unsigned char>(escape.text[0])))
        return fail_near("invalid Unicode escape character", escape.begin);
    leave_at(escape.end);
    return decode_unicode(raw, escape.text[0], value);
}

/// str_udeescape of PostgreSQL's parser.c. Errors point into the string; where quotes are doubled or the
/// string is continued on another line the place is approximate, as it is in the server.
bool Lexer::decode_unicode(std::string_view raw, char escape, std::string& value) {
    char32_t high = 0;
    for (std::size_t i = 0; i < raw.size();) {
        const std::size_t where = token_begin_ + 3 + i;
        const auto bad_pair = [&] {
            return fail(sqlstate::syntax_error, "invalid Unicode surrogate pair", where);
        };
        const auto here = [&](std::size_t ahead) { return i + ahead < raw.size() ? raw[i + ahead] : '\0'; };
        if (raw[i] != escape || here(1) == escape) {
            if (high != 0) return bad_pair();
            value += raw[i];
            i += raw[i] == escape ? 2 : 1;
            continue;
        }
        const bool long_form = here(1) == '+';
        const auto code = long_form ? hex_number(raw, i + 2, 6) : hex_number(raw, i + 1, 4);
        if (!code)
            return fail(sqlstate::syntax_error, "invalid Unicode escape", where,
                        "Unicode escapes must be \\XXXX or \\+XXXXXX.");
        i += long_form ? 8 : 5;
        if (high != 0) {
            if (!is_low_surrogate(*code)) return bad_pair();
            if (!append_code_point(join_surrogates(high, *code), value, where)) return false;
            high = 0;
        } else if (is_low_surrogate(*code)) {
            return bad_pair();
        } else if (is_high_surrogate(*code)) {
            high = *code;
        } else if (!append_code_point(*code, value, where)) {
            return false;
        }
    }
    if (high != 0) return fail(sqlstate::syntax_error, "invalid Unicode surrogate pair", token_begin_);
    return true;
}

/// Reads $1, $$...$$, $tag$...$tag$ or a lone dollar sign.
bool Lexer::scan_dollar(Token& token) {
    std::size_t pos = pos_ + 1;
    if (is_digit(at(pos))) {
        pos_ = pos;
        while (is_digit(at(pos_))) ++pos_;
        skip_junk();
        token.kind = TokenKind::Parameter;
        return true;
    }
    if (is_name_start(at(pos)))
        while (is_tag_part(at(pos))) ++pos;
    if (at(pos) != '$') {
        ++pos_;
        token.kind = TokenKind::Symbol;
        token.text = "$";
        return true;
    }
    const std::string_view tag = text_.substr(pos_, pos + 1 - pos_);
    const auto close = text_.find(tag, pos + 1);
    if (close == std::string_view::npos) {
        pos_ = text_.size();
        return fail_near("unterminated dollar-quoted string", token_begin_);
    }
    token.kind = TokenKind::String;
    token.text = text_.substr(pos + 1, close - (pos + 1));
    pos_ = close + tag.size();
    return true;
}

}  // namespace pgxc::parser
