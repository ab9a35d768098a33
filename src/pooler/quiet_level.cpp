#include "pooler/quiet_level.h"

#include <algorithm>
#include <array>
#include <utility>

#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

using wire::SqlScanner;
using wire::SqlToken;

bool is_setting(const SqlToken& token) {
    constexpr std::string_view name = "client_min_messages";
    return token.is(name) || (token.kind == SqlToken::Kind::Quoted && token.text == name);
}

bool ends(SqlScanner& scanner) {
    SqlToken token = scanner.next();
    while (token.is_symbol(';')) token = scanner.next();
    return token.kind == SqlToken::Kind::End;
}

}  // namespace

bool is_quiet_level(std::string_view level) {
    constexpr std::array<std::string_view, 3> levels{"error", "fatal", "panic"};
    return std::any_of(levels.begin(), levels.end(), [level](std::string_view known) {
        return std::equal(level.begin(), level.end(), known.begin(), known.end(), [](char a, char b) {
            return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
        });
    });
}

std::optional<MinMessagesSet> read_min_messages(std::string_view sql) {
    SqlScanner scanner(sql);
    SqlToken token = scanner.next();
    MinMessagesSet set;
    if (token.is("reset")) {
        token = scanner.next();
        if ((!is_setting(token) && !token.is("all")) || !ends(scanner)) return std::nullopt;
        set.reset = true;
        return set;
    }
    if (!token.is("set")) return std::nullopt;
    token = scanner.next();
    if (token.is("local") || token.is("session")) {
        set.local = token.is("local");
        token = scanner.next();
    }
    if (!is_setting(token)) return std::nullopt;
    token = scanner.next();
    if (!token.is("to") && !token.is_symbol('=')) return std::nullopt;
    const SqlToken value = scanner.next();
    if (!ends(scanner)) return std::nullopt;
    set.reset = value.is("default");
    set.quiet = is_quiet_level(value.text);
    if (set.quiet) {
        const bool quotes = value.kind == SqlToken::Kind::String || value.kind == SqlToken::Kind::Quoted;
        const auto begin = static_cast<std::size_t>(value.text.data() - sql.data()) - (quotes ? 1 : 0);
        set.value = sql.substr(begin, value.text.size() + (quotes ? 2 : 0));
    }
    return set;
}

void QuietLevel::done(bool in_block) {
    const auto set = std::exchange(pending_, std::nullopt);
    if (!set) return;
    const bool quiet = set->reset ? login_ : set->quiet;
    if (set->local) {
        if (in_block) local_ = quiet;
    } else if (in_block) {
        block_ = quiet;
        local_.reset();
    } else {
        session_ = quiet;
    }
}

void QuietLevel::transaction_ended(bool committed) {
    if (block_ && committed) session_ = *block_;
    block_.reset();
    local_.reset();
    pending_.reset();
}

}  // namespace pgxc::pooler
