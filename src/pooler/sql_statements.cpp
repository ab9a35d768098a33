#include "pooler/sql_statements.h"

#include <algorithm>

#include "pooler/setting_set.h"
#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

using wire::SqlScanner;
using wire::SqlToken;

/// In another session, of another client_encoding or standard_conforming_strings, the server reads the same.
bool reads_the_same(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 0x80 && c != '\\'; });
}

bool is_prepare_of(std::string_view text, std::string_view name) {
    const auto found = read_statement_name(text);
    return found && found->verb == SqlStatementName::Verb::Prepare && found->name == name;
}

}  // namespace

const SqlStatements::Entry* SqlStatements::find(std::string_view name) const {
    const auto at = std::find_if(entries_.begin(), entries_.end(),
                                 [&](const Entry& entry) { return entry.name == name; });
    return at == entries_.end() ? nullptr : &*at;
}

bool SqlStatements::put(std::string_view name, std::string_view text) {
    erase(name);
    if (!reads_the_same(text) || !is_prepare_of(text, name)) return false;
    if (entries_.size() >= limits::max_sql_statements ||
        bytes_ + text.size() > limits::max_sql_statement_bytes)
        return false;
    const auto at =
        std::lower_bound(entries_.begin(), entries_.end(), name,
                         [](const Entry& entry, std::string_view key) { return entry.name < key; });
    SessionUse use = read_session_use(text, true);
    use.bits &= ~static_cast<std::uint32_t>(SessionUse::Prepares | SessionUse::Keeps | SessionUse::Awaited);
    entries_.insert(at, {std::string{name}, std::string{text}, use});
    bytes_ += text.size();
    return true;
}

void SqlStatements::erase(std::string_view name) {
    const auto at = std::find_if(entries_.begin(), entries_.end(),
                                 [&](const Entry& entry) { return entry.name == name; });
    if (at == entries_.end()) return;
    bytes_ -= at->text.size();
    entries_.erase(at);
}

SqlStatementsRef share(SqlStatements set) {
    return set.entries().empty() ? nullptr : std::make_shared<const SqlStatements>(std::move(set));
}

bool StatementNames::may_have(std::string_view name) const {
    return any_ || std::find(names_.begin(), names_.end(), name) != names_.end();
}

std::string deallocate_sql(std::string_view name) {
    std::string text{"DEALLOCATE \""};
    for (const char c : name) {
        if (c == '"') text += c;
        text += c;
    }
    return text += '"';
}

bool may_name(std::string_view sql, std::string_view name) {
    if (name.find('"') != std::string_view::npos) return true;  // it is doubled there
    const auto goes_on = [](char c) {
        return c == '_' || c == '$' || static_cast<unsigned char>(c) >= 0x80 || (c >= '0' && c <= '9') ||
               (c >= 'a' && c <= 'z');
    };
    const std::string text = to_lower(sql);
    const std::string word = to_lower(name);
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
        const std::size_t end = at + word.size();
        if ((at == 0 || !goes_on(text[at - 1])) && (end == text.size() || !goes_on(text[end]))) return true;
    }
    return false;
}

std::optional<SqlStatementName> read_statement_name(std::string_view sql) {
    using Verb = SqlStatementName::Verb;
    if (!wire::is_single(sql)) return std::nullopt;
    SqlScanner scanner{sql};
    const SqlToken first = scanner.next();
    const bool deallocates = first.is("deallocate");
    if (!deallocates && !first.is("prepare") && !first.is("execute")) return std::nullopt;
    SqlStatementName found;
    found.verb = deallocates ? Verb::Deallocate : first.is("prepare") ? Verb::Prepare : Verb::Execute;
    SqlToken token = scanner.next();
    if (deallocates && token.is("prepare")) token = scanner.next();
    if (token.kind == SqlToken::Kind::Word) {
        if (deallocates && token.is("all")) {
            // Nothing that could be a name.
        } else if (found.verb == Verb::Prepare && token.is("transaction")) {
            return std::nullopt;
        } else {
            found.name = to_lower(token.text);
        }
    } else if (token.kind == SqlToken::Kind::Quoted && !token.text.empty()) {
        found.name = token.text;
    } else {
        return std::nullopt;
    }
    if (!deallocates) return found;
    do token = scanner.next();
    while (token.is_symbol(';'));
    return token.kind == SqlToken::Kind::End ? std::optional{found} : std::nullopt;
}

}  // namespace pgxc::pooler
