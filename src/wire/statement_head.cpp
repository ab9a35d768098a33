#include "wire/statement_head.h"

#include <algorithm>
#include <array>

namespace pgxc::wire {
namespace {

using Kind = SqlToken::Kind;

constexpr char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

// Every text is looked through a few times on its way to a server, so a character costs one look at a table.
enum Class : std::uint8_t { Space = 1, WordStart = 2, Digit = 4, Dollar = 8, Dot = 16 };
constexpr std::uint8_t in_word = WordStart | Digit | Dollar;

constexpr auto classes = [] {
    std::array<std::uint8_t, 256> table{};
    for (const char c : {' ', '\t', '\n', '\v', '\f', '\r'}) table[static_cast<unsigned char>(c)] = Space;
    for (unsigned c = 'a'; c <= 'z'; ++c) table[c] = table[c - 'a' + 'A'] = WordStart;
    for (unsigned c = 0x80; c <= 0xff; ++c) table[c] = WordStart;
    for (unsigned c = '0'; c <= '9'; ++c) table[c] = Digit;
    table['_'] = WordStart;
    table['$'] = Dollar;
    table['.'] = Dot;
    return table;
}();

constexpr bool is_any(char c, unsigned of) {
    return (classes[static_cast<unsigned char>(c)] & of) != 0;
}
constexpr bool continues_word(char c) {
    return is_any(c, in_word);
}

/// How many characters at the front, of which there is at least one, are of those classes.
std::size_t run_of(std::string_view text, unsigned of) {
    std::size_t end = 1;
    while (end < text.size() && is_any(text[end], of)) ++end;
    return end;
}

bool at_end(SqlScanner& scanner) {
    SqlToken token = scanner.next();
    while (token.is_symbol(';')) token = scanner.next();
    return token.kind == Kind::End;
}

/// What may stand behind COMMIT and ROLLBACK: [WORK | TRANSACTION] [AND [NO] CHAIN], given its first token.
bool ends_like_commit(SqlToken token, SqlScanner& scanner, bool& chains) {
    if (token.is("work") || token.is("transaction")) token = scanner.next();
    if (token.is("and")) {
        token = scanner.next();
        chains = !token.is("no");
        if (!chains) token = scanner.next();
        if (!token.is("chain")) return false;
        token = scanner.next();
    }
    if (token.is_symbol(';')) return at_end(scanner);
    return token.kind == Kind::End;
}

bool has_word(std::string_view sql, std::string_view word) {
    const auto same = [](char c, char expected) { return lower(c) == expected; };
    auto from = sql.begin();
    while (true) {
        const auto found = std::search(from, sql.end(), word.begin(), word.end(), same);
        if (found == sql.end()) return false;
        const auto end = found + static_cast<std::ptrdiff_t>(word.size());
        if ((found == sql.begin() || !continues_word(found[-1])) &&
            (end == sql.end() || !continues_word(*end)))
            return true;
        from = end;
    }
}

}  // namespace

bool SqlToken::same_word(std::string_view lower_word) const {
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (lower(text[i]) != lower_word[i]) return false;
    }
    return true;
}

bool mentions(std::string_view text, std::string_view lower_part) {
    // An underscore is rarer than any letter, and has no case.
    const std::size_t mark = std::min(lower_part.find('_'), lower_part.size() - 1);
    const char lower_mark = lower_part[mark];
    for (std::size_t at = mark; at < text.size(); ++at) {
        if (lower_mark == '_') {
            at = text.find('_', at);
            if (at == std::string_view::npos) return false;
        } else if (lower(text[at]) != lower_mark) {
            continue;
        }
        const std::string_view part = text.substr(at - mark, lower_part.size());
        if (std::equal(part.begin(), part.end(), lower_part.begin(), lower_part.end(),
                       [](char c, char expected) { return lower(c) == expected; }))
            return true;
    }
    return false;
}

bool SqlScanner::skip_blank() {
    while (!rest_.empty()) {
        const char first = rest_[0];
        if (is_any(first, Space)) {
            rest_.remove_prefix(run_of(rest_, Space));
        } else if (first != '-' && first != '/') {
            return true;
        } else if (rest_.starts_with("--")) {
            rest_.remove_prefix(std::min(rest_.find_first_of("\r\n"), rest_.size()));
        } else if (rest_.starts_with("/*")) {
            std::size_t depth = 0;
            do {
                const auto mark = std::min(rest_.find("/*"), rest_.find("*/"));
                if (mark == std::string_view::npos) return false;
                depth = rest_[mark] == '/' ? depth + 1 : depth - 1;
                rest_.remove_prefix(mark + 2);
            } while (depth > 0);
        } else {
            return true;
        }
    }
    return true;
}

SqlToken SqlScanner::next() {
    const auto unknown = [this] {
        rest_ = {};
        return SqlToken{Kind::Unknown, {}};
    };
    if (!skip_blank()) return unknown();
    if (rest_.empty()) return {};
    const auto cut = [this](Kind kind, std::size_t bytes) {
        const SqlToken token{kind, rest_.substr(0, bytes)};
        rest_.remove_prefix(bytes);
        return token;
    };
    const char first = rest_[0];
    if (is_any(first, WordStart)) return cut(Kind::Word, run_of(rest_, in_word));
    if (is_any(first, Digit)) return cut(Kind::Number, run_of(rest_, in_word | Dot));
    if (first == '\'' || first == '"') {
        const auto close = rest_.find(first, 1);
        if (close == std::string_view::npos) return unknown();
        const std::string_view text = rest_.substr(1, close - 1);
        const bool doubled = close + 1 < rest_.size() && rest_[close + 1] == first;
        if (doubled || text.find('\\') != std::string_view::npos) return unknown();
        rest_.remove_prefix(close + 1);
        return {first == '\'' ? Kind::String : Kind::Quoted, text};
    }
    if (first == '$' || first == '\0') return unknown();
    return cut(Kind::Symbol, 1);
}

bool is_single(std::string_view sql) {
    const auto semicolon = sql.find(';');
    if (semicolon == std::string_view::npos) return true;
    SqlScanner tail(sql.substr(semicolon));
    while (true) {
        const SqlToken token = tail.next();
        if (token.kind == Kind::End) return true;
        if (!token.is_symbol(';')) return false;
    }
}

namespace {

/// Reads the transaction modes behind BEGIN [WORK|TRANSACTION] or START TRANSACTION up to the end of the
/// text. False where something else stands there.
bool read_transaction_modes(SqlScanner& scanner, StatementHead& head) {
    SqlToken token = scanner.next();
    bool need_mode = false;
    while (true) {
        if (token.kind == Kind::End) return !need_mode;
        if (token.is_symbol(';')) return !need_mode && at_end(scanner);
        if (token.is("isolation")) {
            if (!scanner.next().is("level")) return false;
            token = scanner.next();
            if (token.is("serializable")) {
                head.isolation = IsolationLevel::Serializable;
            } else if (token.is("repeatable")) {
                if (!scanner.next().is("read")) return false;
                head.isolation = IsolationLevel::RepeatableRead;
            } else if (token.is("read")) {
                token = scanner.next();
                if (token.is("committed")) {
                    head.isolation = IsolationLevel::ReadCommitted;
                } else if (token.is("uncommitted")) {
                    head.isolation = IsolationLevel::ReadUncommitted;
                } else {
                    return false;
                }
            } else {
                return false;
            }
        } else if (token.is("read")) {
            token = scanner.next();
            if (token.is("only")) {
                head.access = AccessMode::ReadOnly;
            } else if (token.is("write")) {
                head.access = AccessMode::ReadWrite;
            } else {
                return false;
            }
        } else if (token.is("not")) {
            if (!scanner.next().is("deferrable")) return false;
        } else if (!token.is("deferrable")) {
            return false;
        }
        token = scanner.next();
        need_mode = token.is_symbol(',');
        if (need_mode) token = scanner.next();
    }
}

}  // namespace

StatementHead read_statement_head(std::string_view sql) {
    using enum TransactionControl;
    StatementHead head;
    const auto is = [&head](TransactionControl control) {
        head.control = control;
        return head;
    };
    const auto unknown = [] {
        return StatementHead{Unknown, AccessMode::Unspecified, IsolationLevel::Unspecified, false};
    };
    const auto single = [&](TransactionControl control) { return is_single(sql) ? is(control) : unknown(); };

    SqlScanner scanner(sql);
    const SqlToken first = scanner.next();
    switch (first.kind) {
        case Kind::End:
            return is(None);
        case Kind::Word:
            break;
        case Kind::Symbol:
            return first.is_symbol('(') ? single(None) : unknown();
        case Kind::Quoted:
        case Kind::String:
        case Kind::Number:
        case Kind::Unknown:
            return unknown();
    }
    if (first.is("begin")) {
        SqlScanner modes = scanner;
        const SqlToken noise = scanner.next();
        if (noise.is("work") || noise.is("transaction")) modes = scanner;
        return read_transaction_modes(modes, head) ? is(Begin) : unknown();
    }
    if (first.is("start"))
        return scanner.next().is("transaction") && read_transaction_modes(scanner, head) ? is(Begin)
                                                                                         : unknown();

    const bool commits = first.is("commit");
    const bool rolls_back = first.is("rollback");
    if (commits || rolls_back || first.is("end") || first.is("abort")) {
        SqlToken second = scanner.next();
        if ((commits || rolls_back) && second.is("prepared")) return single(Other);
        if (rolls_back) {
            if (second.is("to")) return single(Savepoint);
            if (second.is("work") || second.is("transaction")) {
                SqlScanner after = scanner;
                if (after.next().is("to")) return single(Savepoint);
            }
        }
        if (!ends_like_commit(second, scanner, head.chains)) return unknown();
        return is(commits || first.is("end") ? Commit : Rollback);
    }
    if (first.is("prepare")) return single(scanner.next().is("transaction") ? Prepare : None);
    if (first.is("savepoint") || first.is("release")) return single(Savepoint);
    return single(None);
}

bool may_commit_block(std::string_view sql) {
    using enum TransactionControl;
    if (!is_single(sql)) {
        // ROLLBACK counts too: what follows it in the same text runs outside of the block.
        constexpr std::array<std::string_view, 5> words = {"commit", "end", "prepare", "rollback", "abort"};
        return std::any_of(words.begin(), words.end(),
                           [sql](std::string_view word) { return has_word(sql, word); });
    }
    switch (read_statement_head(sql).control) {
        case None:
        case Begin:
        case Rollback:
        case Savepoint:
            return false;
        case Commit:
        case Prepare:
        case Other:
        case Unknown:
            return true;
    }
    return true;
}

}  // namespace pgxc::wire
