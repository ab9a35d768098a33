#include "replication/settings_file.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace pgxc::replication {
namespace {

// The scanner of guc-file.l: at each place the longest match of its rules wins, the earlier rule in a tie.
enum class TokenKind { End, EndOfLine, Space, Id, QualifiedId, String, Unquoted, Integer, Real, Equals, Bad };

struct Token {
    TokenKind kind;
    std::size_t begin;
    std::size_t length;
};

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_ascii_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_hex_digit(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool is_letter(char c) {
    return is_ascii_letter(c) || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool is_letter_or_digit(char c) {
    return is_letter(c) || is_digit(c);
}

template <class Predicate>
std::size_t skip_while(std::string_view s, std::size_t at, Predicate predicate) {
    while (at < s.size() && predicate(s[at])) ++at;
    return at;
}

// Each match_x gives the length of the longest match of rule x at the start of s, 0 for none.

std::size_t match_id(std::string_view s) {
    if (s.empty() || !is_letter(s[0])) return 0;
    return skip_while(s, 1, is_letter_or_digit);
}

std::size_t match_qualified_id(std::string_view s) {
    const std::size_t first = match_id(s);
    if (first == 0 || first >= s.size() || s[first] != '.') return 0;
    const std::size_t second = match_id(s.substr(first + 1));
    return second == 0 ? 0 : first + 1 + second;
}

std::size_t match_unquoted(std::string_view s) {
    if (s.empty() || !is_letter(s[0])) return 0;
    return skip_while(s, 1, [](char c) {
        return is_letter_or_digit(c) || c == '-' || c == '.' || c == '_' || c == ':' || c == '/';
    });
}

std::size_t match_string(std::string_view s) {
    if (s.empty() || s[0] != '\'') return 0;
    std::size_t longest = 0;
    std::size_t at = 1;
    while (at < s.size()) {
        if (s[at] == '\n') break;
        if (s[at] == '\\') {
            if (at + 1 >= s.size() || s[at + 1] == '\n') break;
            at += 2;
        } else if (s[at] == '\'') {
            // Either the end or the first half of a doubled quote; which one, only what follows can tell.
            longest = at + 1;
            if (at + 1 >= s.size() || s[at + 1] != '\'') break;
            at += 2;
        } else {
            ++at;
        }
    }
    return longest;
}

std::size_t skip_sign(std::string_view s) {
    return !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0;
}

std::size_t match_integer(std::string_view s) {
    const std::size_t start = skip_sign(s);
    std::size_t longest = 0;
    const std::size_t decimal = skip_while(s, start, is_digit);
    if (decimal > start) longest = skip_while(s, decimal, is_ascii_letter);
    if (start + 1 < s.size() && s[start] == '0' && s[start + 1] == 'x') {
        const std::size_t hex = skip_while(s, start + 2, is_hex_digit);
        if (hex > start + 2) longest = std::max(longest, skip_while(s, hex, is_ascii_letter));
    }
    return longest;
}

std::size_t match_real(std::string_view s) {
    std::size_t at = skip_while(s, skip_sign(s), is_digit);
    if (at >= s.size() || s[at] != '.') return 0;
    at = skip_while(s, at + 1, is_digit);
    if (at < s.size() && (s[at] == 'e' || s[at] == 'E')) {
        const std::size_t digits = at + 1 + skip_sign(s.substr(at + 1));
        const std::size_t end = skip_while(s, digits, is_digit);
        if (end > digits) at = end;
    }
    return at;
}

Token token_at(std::string_view text, std::size_t at) {
    if (at >= text.size()) return {TokenKind::End, at, 0};
    const std::string_view s = text.substr(at);
    if (s[0] == '\n') return {TokenKind::EndOfLine, at, 1};
    if (s[0] == ' ' || s[0] == '\t' || s[0] == '\r') {
        const auto end = skip_while(s, 0, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
        return {TokenKind::Space, at, end};
    }
    if (s[0] == '#') return {TokenKind::Space, at, skip_while(s, 0, [](char c) { return c != '\n'; })};
    if (s[0] == '=') return {TokenKind::Equals, at, 1};

    Token best{TokenKind::Bad, at, 0};
    const auto consider = [&best](TokenKind kind, std::size_t length) {
        if (length > best.length) best = {kind, best.begin, length};
    };
    consider(TokenKind::Id, match_id(s));
    consider(TokenKind::QualifiedId, match_qualified_id(s));
    consider(TokenKind::String, match_string(s));
    consider(TokenKind::Unquoted, match_unquoted(s));
    consider(TokenKind::Integer, match_integer(s));
    consider(TokenKind::Real, match_real(s));
    if (best.length == 0) best.length = 1;
    return best;
}

// The next token that the server's parser sees: its scanner drops white space and comments.
Token next_token(std::string_view text, std::size_t at) {
    Token token = token_at(text, at);
    while (token.kind == TokenKind::Space) token = token_at(text, token.begin + token.length);
    return token;
}

bool is_value(TokenKind kind) {
    // A qualified name (a.b) is none: the server wants it in quotes.
    return kind == TokenKind::Id || kind == TokenKind::String || kind == TokenKind::Integer ||
           kind == TokenKind::Real || kind == TokenKind::Unquoted;
}

bool is_whole(std::string_view text, TokenKind kind) {
    const Token token = token_at(text, 0);
    return token.kind == kind && token.length == text.size();
}

// DeescapeQuotedString of guc-file.l.
std::string unquote(std::string_view quoted) {
    const std::string_view s = quoted.substr(1, quoted.size() - 2);
    std::string value;
    value.reserve(s.size());
    for (std::size_t i = 0; i < s.size(); ++i) {
        if (s[i] == '\\' && i + 1 < s.size()) {
            ++i;
            switch (s[i]) {
                case 'b':
                    value += '\b';
                    break;
                case 'f':
                    value += '\f';
                    break;
                case 'n':
                    value += '\n';
                    break;
                case 'r':
                    value += '\r';
                    break;
                case 't':
                    value += '\t';
                    break;
                default:
                    if (s[i] >= '0' && s[i] <= '7') {
                        unsigned octal = 0;
                        std::size_t digits = 0;
                        for (; digits < 3 && i + digits < s.size() && s[i + digits] >= '0' &&
                               s[i + digits] <= '7';
                             ++digits) {
                            octal = octal * 8 + static_cast<unsigned>(s[i + digits] - '0');
                        }
                        i += digits - 1;
                        value += static_cast<char>(octal & 0xFFU);
                    } else {
                        value += s[i];
                    }
            }
        } else {
            if (s[i] == '\'' && i + 1 < s.size() && s[i + 1] == '\'') ++i;
            value += s[i];
        }
    }
    // To the server the value is a C string: an escaped zero byte ends it.
    if (const auto zero = value.find('\0'); zero != std::string::npos) value.resize(zero);
    return value;
}

SettingsItem::Kind kind_of(std::string_view name) {
    if (same_setting(name, "include")) return SettingsItem::Kind::Include;
    if (same_setting(name, "include_if_exists")) return SettingsItem::Kind::IncludeIfExists;
    if (same_setting(name, "include_dir")) return SettingsItem::Kind::IncludeDir;
    return SettingsItem::Kind::Setting;
}

// How the value is written: bare where the line's style is bare (or a new line's value is a plain
// number) and the scanner reads it back as one token, else in quotes.
std::string written_value(std::string_view value, bool bare_wanted) {
    if (bare_wanted && !value.empty()) {
        const Token token = token_at(value, 0);
        if (token.length == value.size() && is_value(token.kind) && token.kind != TokenKind::String) {
            return std::string(value);
        }
    }
    return quote_setting_value(value);
}

}  // namespace

bool same_setting(std::string_view a, std::string_view b) {
    const auto fold = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [fold](char x, char y) { return fold(x) == fold(y); });
}

std::string quote_setting_value(std::string_view value) {
    std::string quoted = "'";
    for (const char c : value.substr(0, value.find('\0'))) {
        switch (c) {
            case '\'':
                quoted += "''";
                break;
            case '\\':
                quoted += "\\\\";
                break;
            case '\n':
                quoted += "\\n";
                break;
            case '\r':
                quoted += "\\r";
                break;
            default:
                quoted += c;
        }
    }
    quoted += '\'';
    return quoted;
}

SettingsFile::SettingsFile(std::string text, std::string file_name)
    : text_(std::move(text)), file_name_(std::move(file_name)) {
    read();
}

Result<SettingsFile> SettingsFile::parse(std::string text, std::string file_name) {
    if (text.size() > limits::max_settings_file_bytes) {
        return Error(sqlstate::config_file_error,
                     "file \"" + file_name +
                         "\" is too large to be a settings file: " + std::to_string(text.size()) +
                         " bytes, at most " + std::to_string(limits::max_settings_file_bytes));
    }
    return SettingsFile(std::move(text), std::move(file_name));
}

void SettingsFile::read() {
    items_.clear();
    places_.clear();
    error_.reset();
    std::size_t line = 1;
    std::size_t line_begin = 0;
    while (line_begin < text_.size()) {
        const Token name = next_token(text_, line_begin);
        Token token = name;
        bool good = name.kind == TokenKind::EndOfLine || name.kind == TokenKind::End;
        const bool blank = good;
        Token value{};
        if (name.kind == TokenKind::Id || name.kind == TokenKind::QualifiedId) {
            token = next_token(text_, name.begin + name.length);
            if (token.kind == TokenKind::Equals) token = next_token(text_, token.begin + token.length);
            value = token;
            if (is_value(value.kind)) {
                token = next_token(text_, value.begin + value.length);
                good = token.kind == TokenKind::EndOfLine || token.kind == TokenKind::End;
            }
        }
        // The server cuts a token at a zero byte in the middle; what it makes of that is nothing to build on.
        if (good && !blank && text_.find('\0', value.begin) < value.begin + value.length) {
            good = false;
            token = value;
        }
        if (!good && !error_) {
            const bool at_end = token.kind == TokenKind::EndOfLine || token.kind == TokenKind::End;
            error_ = Error(sqlstate::config_file_error,
                           "syntax error in file \"" + file_name_ + "\" line " + std::to_string(line) +
                               (at_end ? ", near end of line"
                                       : ", near token \"" + text_.substr(token.begin, token.length) + "\""),
                           "Correct that line: the server would not start with it.");
        }
        const std::size_t newline = text_.find('\n', line_begin);
        const std::size_t line_end = newline == std::string::npos ? text_.size() : newline + 1;
        if (good && !blank) {
            SettingsItem item;
            item.name = text_.substr(name.begin, name.length);
            item.kind = kind_of(item.name);
            item.value = text_.substr(value.begin, value.length);
            if (value.kind == TokenKind::String) item.value = unquote(item.value);
            item.line = line;
            items_.push_back(std::move(item));
            places_.push_back({line_begin, line_end, value.begin, value.length});
        }
        line_begin = line_end;
        ++line;
    }
}

std::optional<std::size_t> SettingsFile::last_index(std::string_view name) const {
    for (std::size_t i = items_.size(); i-- > 0;) {
        if (items_[i].kind == SettingsItem::Kind::Setting && same_setting(items_[i].name, name)) return i;
    }
    return std::nullopt;
}

std::optional<SettingsItem> SettingsFile::get(std::string_view name) const {
    const auto index = last_index(name);
    if (!index) return std::nullopt;
    return items_[*index];
}

Status SettingsFile::set(std::string_view name, std::string_view value) {
    if ((!is_whole(name, TokenKind::Id) && !is_whole(name, TokenKind::QualifiedId)) ||
        kind_of(name) != SettingsItem::Kind::Setting) {
        return Error(sqlstate::invalid_parameter_value,
                     "\"" + std::string(name) + "\" is no name of a setting");
    }
    if (value.find('\n') != std::string_view::npos || value.find('\0') != std::string_view::npos) {
        return Error(sqlstate::invalid_parameter_value, "value for setting \"" + std::string(name) +
                                                            "\" must not contain a newline or a zero byte");
    }
    std::string changed = text_;
    if (const auto index = last_index(name)) {
        const Place& place = places_[*index];
        const bool was_bare = text_[place.value_begin] != '\'';
        std::string written = written_value(value, was_bare);
        // "name'value'" and "name=-1" need no space, but "name5" would be another name.
        if (place.value_begin > place.line_begin && written[0] != '\'' &&
            is_letter_or_digit(text_[place.value_begin - 1])) {
            written.insert(written.begin(), ' ');
        }
        changed.replace(place.value_begin, place.value_length, written);
    } else {
        const std::size_t newline = text_.find('\n');
        const bool crlf = newline != std::string::npos && newline > 0 && text_[newline - 1] == '\r';
        const std::string_view line_ending = crlf ? "\r\n" : "\n";
        if (!changed.empty() && changed.back() != '\n') changed += line_ending;
        changed += name;
        changed += " = ";
        // Words get quotes, as ALTER SYSTEM and every example have it.
        const Token token = token_at(value, 0);
        changed += written_value(value, token.kind == TokenKind::Integer || token.kind == TokenKind::Real);
        changed += line_ending;
    }
    if (changed.size() > limits::max_settings_file_bytes) {
        return Error(sqlstate::config_file_error, "file \"" + file_name_ + "\" would become too large");
    }
    text_ = std::move(changed);
    read();
    return {};
}

std::size_t SettingsFile::comment_out(std::string_view name) {
    std::size_t count = 0;
    for (std::size_t i = items_.size(); i-- > 0;) {  // from the end, so that earlier places stay right
        if (items_[i].kind != SettingsItem::Kind::Setting || !same_setting(items_[i].name, name)) continue;
        text_.insert(places_[i].line_begin, 1, '#');
        ++count;
    }
    if (count > 0) read();
    return count;
}

std::size_t SettingsFile::remove(std::string_view name) {
    std::size_t count = 0;
    for (std::size_t i = items_.size(); i-- > 0;) {
        if (items_[i].kind != SettingsItem::Kind::Setting || !same_setting(items_[i].name, name)) continue;
        text_.erase(places_[i].line_begin, places_[i].line_end - places_[i].line_begin);
        ++count;
    }
    if (count > 0) read();
    return count;
}

}  // namespace pgxc::replication
