#include "pooler/session_use.h"

#include <algorithm>
#include <array>

#include "pooler/router.h"
#include "pooler/setting_set.h"
#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

using Use = SessionUse;
using wire::SqlScanner;
using wire::SqlToken;

constexpr char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

constexpr bool in_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           static_cast<unsigned char>(c) >= 0x80;
}

bool begins_with(std::string_view text, std::string_view word) {
    if (text.size() < word.size()) return false;
    for (std::size_t i = 0; i < word.size(); ++i) {
        if (lower(text[i]) != word[i]) return false;
    }
    return true;
}

bool same(std::string_view text, std::string_view word) {
    return text.size() == word.size() && begins_with(text, word);
}

/// The word that ends before `at`, over white space; empty where something else stands there.
std::string_view word_before(std::string_view sql, std::size_t at) {
    while (at > 0 && (sql[at - 1] == ' ' || (sql[at - 1] >= '\t' && sql[at - 1] <= '\r'))) --at;
    const std::size_t end = at;
    while (at > 0 && in_word(sql[at - 1])) --at;
    return sql.substr(at, end - at);
}

/// Is that the TEMP of CREATE TEMP, INTO TEMP, or a name in pg_temp?
bool makes_temporary(std::string_view sql, std::size_t at) {
    const std::string_view rest = sql.substr(at);
    const std::size_t length = begins_with(rest, "temporary") ? 9 : 4;
    const bool in_schema =
        at >= 3 && begins_with(sql.substr(at - 3), "pg_") && (at == 3 || !in_word(sql[at - 4]));
    if (in_schema) return true;
    if ((at > 0 && in_word(sql[at - 1])) || (rest.size() > length && in_word(rest[length]))) return false;
    const std::string_view before = word_before(sql, at);
    // A comment in between counts as any of the words.
    static constexpr std::array<std::string_view, 6> makers{"create", "into",    "local",
                                                            "global", "replace", ""};
    return std::any_of(makers.begin(), makers.end(),
                       [&](std::string_view word) { return same(before, word); });
}

/// The next token, with a parameter ($1) as a number.
SqlToken next_with_parameters(SqlScanner& scanner) {
    std::string_view rest = scanner.rest();
    while (!rest.empty() && (rest[0] == ' ' || rest[0] == '\n' || rest[0] == '\t')) rest.remove_prefix(1);
    if (rest.size() > 1 && rest[0] == '$' && rest[1] >= '0' && rest[1] <= '9')
        scanner = SqlScanner{rest.substr(1)};
    return scanner.next();
}

/// Behind a name that may have stood in double quotes.
std::string_view behind_quote(std::string_view rest) {
    return rest.substr(!rest.empty() && rest[0] == '"' ? 1 : 0);
}

/// What a call of set_config(name, value, is_local) does, `rest` being the text behind that word.
std::uint32_t set_config_use(std::string_view rest) {
    SqlScanner scanner{behind_quote(rest)};
    if (!scanner.next().is_symbol('(')) return 0;
    const SqlToken name = next_with_parameters(scanner);
    bool plain = name.kind == SqlToken::Kind::String;
    SqlToken token = next_with_parameters(scanner);
    plain = plain && token.is_symbol(',');
    // The value may be any expression, the third argument stands behind its last comma.
    int depth = 0;
    SqlToken last;
    bool alone = false;
    while (true) {
        token = next_with_parameters(scanner);
        if (token.kind == SqlToken::Kind::End || token.kind == SqlToken::Kind::Unknown)
            return Use::CallsSetConfig | Use::SetsUnknown;
        if (token.is_symbol('(') || token.is_symbol('[')) ++depth;
        if (token.is_symbol(')') || token.is_symbol(']')) {
            if (depth-- == 0) break;
        }
        if (depth == 0 && token.is_symbol(',')) {
            last = {};
            alone = false;
        } else {
            alone = last.kind == SqlToken::Kind::End;
            last = token;
        }
    }
    if (alone && (last.is("true") || (last.kind == SqlToken::Kind::String && same(last.text, "true"))))
        return 0;
    return plain ? Use::CallsSetConfig : Use::CallsSetConfig | Use::SetsUnknown;
}

/// By the first letter of what find_words() looks for: the second one. Both together are rare.
constexpr auto second_letters = [] {
    std::array<char, 256> table{};
    for (const std::string_view pair : {"te", "ho", "ad", "se", "pg", "va"}) {
        table[static_cast<unsigned char>(pair[0])] = pair[1];
        table[static_cast<unsigned char>(pair[0] - 'a' + 'A')] = pair[1];
    }
    return table;
}();

/// One pass for the words that matter, wherever they stand (in a comment or a string too: asking is only
/// slower).
std::uint32_t find_words(std::string_view sql) {
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i + 1 < sql.size(); ++i) {
        const char second = second_letters[static_cast<unsigned char>(sql[i])];
        if (second == 0 || lower(sql[i + 1]) != second) continue;
        const std::string_view rest = sql.substr(i);
        switch (lower(sql[i])) {
            case 't':
                if (begins_with(rest, "temp") && makes_temporary(sql, i)) bits |= Use::MakesTemporary;
                break;
            case 'h':
                if (begins_with(rest, "hold") && (rest.size() == 4 || !in_word(rest[4]))) {
                    const std::string_view before = word_before(sql, i);
                    if (before.empty() || same(before, "with")) bits |= Use::HoldsCursor;
                }
                break;
            case 'a':
                // pg_advisory_lock, pg_try_advisory_lock_shared; pg_advisory_xact_lock ends with its
                // transaction.
                if (begins_with(rest, "advisory_lock")) bits |= Use::LocksSession;
                if (begins_with(rest, "advisory_unlock")) bits |= Use::Releases;
                break;
            case 's':
                if (begins_with(rest, "set_config")) bits |= Use::Sets | set_config_use(rest.substr(10));
                if (begins_with(rest, "setseed")) bits |= Use::Seeds;
                break;
            case 'p':
                if (begins_with(rest, "pg_prepared_statement"))
                    bits |= Use::NamesStatements | Use::SeesStatements;
                // An UPDATE of that view is a SET.
                if (begins_with(rest, "pg_settings") && wire::mentions(sql, "update"))
                    bits |= Use::Sets | Use::CallsSetConfig;
                break;
            case 'v':
                if (i >= 4 && begins_with(rest, "val")) {
                    const std::string_view verb = sql.substr(i - 4, 4);
                    if (same(verb, "curr") || same(verb, "last")) bits |= Use::ReadsSequence;
                    if (same(verb, "next")) bits |= Use::MovesSequence;
                }
                if (i >= 3 && begins_with(rest, "val") && same(sql.substr(i - 3, 3), "set"))
                    bits |= Use::MovesSequence;
                break;
            default:
                break;
        }
    }
    return bits;
}

bool is_word_at(std::string_view sql, std::size_t at, std::string_view word) {
    return lower(sql[at]) == word[0] && begins_with(sql.substr(at), word) &&
           (at == 0 || !in_word(sql[at - 1])) &&
           (at + word.size() == sql.size() || !in_word(sql[at + word.size()]));
}

bool has_word(std::string_view sql, std::string_view word) {
    for (std::size_t i = 0; i + word.size() <= sql.size(); ++i)
        if (is_word_at(sql, i, word)) return true;
    return false;
}

/// Does it begin one of the statements? Behind a comment it counts, too.
bool begins_statement(std::string_view sql, std::string_view word) {
    for (std::size_t i = 0; i + word.size() <= sql.size(); ++i) {
        if (!is_word_at(sql, i, word)) continue;
        const auto before = sql.find_last_not_of(" \t\r\n", i == 0 ? std::string_view::npos : i - 1);
        if (i == 0 || before == std::string_view::npos || sql[before] == ';' || sql[before] == '/')
            return true;
        if (sql.substr(before, i - before).find('\n') != std::string_view::npos && wire::mentions(sql, "--"))
            return true;
    }
    return false;
}

/// `scanner` stands behind SET, in a text of one statement.
std::uint32_t set_use(SqlScanner& scanner) {
    SqlToken word = scanner.next();
    if (word.is("local") || word.is("transaction") || word.is("constraints")) return 0;
    if (word.is("session")) word = scanner.next();
    if (word.is("seed")) return Use::Seeds;
    bool followed = word.is("names");
    SqlToken value = scanner.next();
    if (word.is("time") && value.is("zone")) {
        followed = true;
        value = scanner.next();
    } else if (!followed && word.kind == SqlToken::Kind::Word) {
        followed = is_followed_setting(to_lower(word.text));
        value = scanner.next();  // behind TO or =
    }
    // What that is, the login may have said.
    if (value.is("default") || value.is("local") || value.kind == SqlToken::Kind::End)
        return Use::SetsSession | Use::Awaited;
    return followed ? Use::FollowedOnly : Use::SetsSession;
}

}  // namespace

SessionUse read_session_use(std::string_view sql, bool whole) {
    SessionUse use{find_words(sql)};
    if (!whole) use.bits |= Use::Unreadable;
    SqlScanner scanner{sql};
    const SqlToken first = scanner.next();
    static constexpr std::array<std::string_view, 9> plain{"select", "insert", "update", "delete",  "with",
                                                           "begin",  "commit", "end",    "rollback"};
    const bool is_plain =
        std::any_of(plain.begin(), plain.end(), [&](std::string_view word) { return first.is(word); });
    const bool one = wire::is_single(sql);
    if (!one || first.is("insert") || first.is("with") || first.is("copy") || first.is("merge") ||
        first.is("do") || first.is("call") || first.is("execute"))
        use.bits |= Use::MovesSequence;
    if (is_plain && one) return use;
    if (!one) {
        use.bits |= Use::SetsSession | Use::Keeps | Use::Calls | Use::Several | Use::Releases | Use::Sets;
        if (begins_statement(sql, "do") || begins_statement(sql, "call")) use.bits |= Use::RunsCode;
        if (has_word(sql, "execute") || has_word(sql, "deallocate")) use.bits |= Use::NamesStatements;
        if (begins_statement(sql, "prepare")) use.bits |= Use::Prepares | Use::Awaited;
        if (begins_statement(sql, "deallocate")) use.bits |= Use::Awaited;
    } else if (first.is("set")) {
        use.bits |= Use::Sets | set_use(scanner);
    } else if (first.is("reset")) {
        use.bits |= Use::Keeps | Use::SetsSession | Use::Releases | Use::Awaited | Use::Sets;
    } else if (first.is("prepare")) {
        use.bits |= Use::Keeps | Use::Prepares | Use::Awaited;
    } else if (first.is("listen") || first.is("load")) {
        use.bits |= Use::Keeps;
    } else if (first.is("do")) {
        use.bits |= Use::Keeps | Use::Calls | Use::Releases | Use::Sets | Use::RunsCode;
    } else if (first.is("discard")) {
        use.bits |= Use::Keeps | Use::Releases | Use::Sets;
        if (scanner.next().is("all")) use.bits |= Use::Awaited;
    } else if (first.is("call")) {
        use.bits |= Use::Keeps | Use::Releases;
        if (!is_own_statement(sql)) use.bits |= Use::Calls | Use::Sets | Use::RunsCode;
    } else if (first.is("unlisten") || first.is("drop") || first.is("close")) {
        use.bits |= Use::Releases;
        if (first.is("drop") && scanner.next().is("database")) use.bits |= Use::OfDatabase;
    } else if (first.is("execute")) {
        use.bits |= Use::NamesStatements | Use::Releases;
    } else if (first.is("deallocate")) {
        use.bits |= Use::NamesStatements | Use::Releases | Use::Awaited;
    } else if (first.is("explain") || first.is("create")) {
        if (has_word(sql, "execute")) use.bits |= Use::NamesStatements;
        if (first.is("create") && scanner.next().is("database")) use.bits |= Use::OfDatabase;
    } else if (first.is("alter")) {
        if (scanner.next().is("database")) use.bits |= Use::OfDatabase;
    } else if (first.kind != SqlToken::Kind::Word && first.kind != SqlToken::Kind::End) {
        use.bits |= Use::SetsSession | Use::Several | Use::Sets;
    }
    return use;
}

SessionUse left_when_sent(SessionUse use) {
    // A session lock outlives the error of the statement that took it, and so does the seed; and what has
    // committed in between may have left anything.
    return {use.bits & (Use::LocksSession | Use::Unreadable | Use::Seeds | Use::RunsCode)};
}

SessionUse left_when_done(std::string_view tag, SessionUse use) {
    if (tag.size() < 2) return {};
    // Most statements end here.
    constexpr std::uint32_t by_any_tag =
        Use::CallsSetConfig | Use::MakesTemporary | Use::HoldsCursor | Use::LocksSession;
    switch (tag[0]) {
        case 'B':  // BEGIN
        case 'I':  // INSERT
        case 'U':  // UPDATE, UNLISTEN
            break;
        case 'S':
            if (tag == "SET") return {use.bits & (Use::SetsSession | Use::Seeds)};
            break;
        case 'R':
            if (tag == "RESET") return {Use::SetsSession};
            break;
        case 'L':
            if (tag == "LISTEN" || tag == "LOAD") return {Use::Keeps};
            break;
        case 'P':
            if (tag == "PREPARE") return {Use::Prepares};
            break;
        case 'D':
            if (tag == "DO") return {Use::Calls | (use.bits & by_any_tag)};
            if (tag == "DECLARE CURSOR") return {use.bits & Use::HoldsCursor};
            break;
        case 'C':
            if (tag == "CALL") return {use.bits & (Use::Calls | by_any_tag)};
            break;
        default:
            break;
    }
    return {use.bits & (by_any_tag & ~static_cast<std::uint32_t>(Use::HoldsCursor))};
}

bool may_change_reading(std::string_view sql, SessionUse use) {
    static constexpr std::array<std::string_view, 17> parts{"search_path",
                                                            "schema",
                                                            "transform_null_equals",
                                                            "array_nulls",
                                                            "client_encoding",
                                                            "names",
                                                            "datestyle",
                                                            "intervalstyle",
                                                            "lc_monetary",
                                                            "standard_conforming_strings",
                                                            "timezone",
                                                            "time zone",
                                                            "xmloption",
                                                            "xml option",
                                                            "reset",
                                                            "discard",
                                                            "pg_settings"};
    if (sql.empty() || use.has(Use::RunsCode)) return true;
    if (std::any_of(parts.begin(), parts.end(),
                    [&](std::string_view part) { return wire::mentions(sql, part); }))
        return true;
    for (std::size_t i = 0; i < sql.size(); ++i) {
        if (lower(sql[i]) != 's' || !begins_with(sql.substr(i), "set_config")) continue;
        // Whose name is no plain string.
        SqlScanner scanner{behind_quote(sql.substr(i + 10))};
        if (!scanner.next().is_symbol('(') || scanner.next().kind != SqlToken::Kind::String) return true;
    }
    return false;
}

void add_custom_settings(std::string_view sql, std::vector<std::string>& names) {
    const auto add = [&](std::string_view name) {
        std::string text = to_lower(name);
        if (text.find('.') == std::string::npos) return;
        if (std::find(names.begin(), names.end(), text) == names.end()) names.push_back(std::move(text));
    };
    for (std::size_t i = 0; i < sql.size(); ++i) {
        if (lower(sql[i]) != 's' || !begins_with(sql.substr(i), "set") || (i > 0 && in_word(sql[i - 1])))
            continue;
        std::string_view rest = sql.substr(i + 3);
        if (begins_with(rest, "_config")) {
            SqlScanner scanner{behind_quote(rest.substr(7))};
            if (!scanner.next().is_symbol('(')) continue;
            if (const SqlToken name = scanner.next(); name.kind == SqlToken::Kind::String) add(name.text);
            continue;
        }
        if (rest.empty() || in_word(rest[0])) continue;
        SqlScanner scanner{rest};
        SqlToken token = scanner.next();
        if (token.is("session") || token.is("local")) token = scanner.next();
        std::string name;
        while (token.kind == SqlToken::Kind::Word || token.kind == SqlToken::Kind::Quoted) {
            name += token.text;
            token = scanner.next();
            if (!token.is_symbol('.')) break;
            name += '.';
            token = scanner.next();
        }
        if (token.is("to") || token.is_symbol('=')) add(name);
    }
}

}  // namespace pgxc::pooler
