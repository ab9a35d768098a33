#include "pooler/quiet_level.h"

#include <algorithm>
#include <array>
#include <utility>

#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

using wire::SqlScanner;
using wire::SqlToken;

constexpr std::string_view setting = "client_min_messages";

bool is_setting(const SqlToken& token) {
    return token.is(setting) || (token.kind == SqlToken::Kind::Quoted && token.text == setting);
}

bool is_setting_name(std::string_view text) {
    return std::equal(text.begin(), text.end(), setting.begin(), setting.end(), [](char a, char b) {
        return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
    });
}

/// The value that `token` is, if it is a quiet one that can be replaced where it stands.
std::optional<std::string_view> quiet_value(std::string_view sql, const SqlToken& token) {
    if (!is_quiet_level(token.text)) return std::nullopt;
    if (token.kind == SqlToken::Kind::Word) return token.text;
    if (token.kind != SqlToken::Kind::String && token.kind != SqlToken::Kind::Quoted) return std::nullopt;
    const auto begin = static_cast<std::size_t>(token.text.data() - sql.data());
    const auto end = begin + token.text.size();
    if (begin == 0 || end >= sql.size() || sql[begin - 1] != sql[end]) return std::nullopt;
    if (sql[end] != '\'' && sql[end] != '"') return std::nullopt;
    return sql.substr(begin - 1, token.text.size() + 2);
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
    return set;
}

std::vector<std::string_view> quiet_values(std::string_view sql) {
    std::vector<std::string_view> values;
    SqlScanner scanner(sql);
    bool begins = true;  // a statement
    bool queries = false;
    while (true) {
        SqlToken token = scanner.next();
        if (token.kind == SqlToken::Kind::End || token.kind == SqlToken::Kind::Unknown) return values;
        if (token.is_symbol(';')) {
            begins = true;
            continue;
        }
        if (std::exchange(begins, false)) {
            queries = token.is("select") || token.is("with") || token.is("values") || token.is_symbol('(');
            if (!token.is("set")) continue;
            token = scanner.next();
            if (token.is("local") || token.is("session")) token = scanner.next();
            if (!is_setting(token)) continue;
            token = scanner.next();
            if (!token.is("to") && !token.is_symbol('=')) continue;
            if (const auto value = quiet_value(sql, scanner.next())) values.push_back(*value);
        } else if (queries && token.is("set_config")) {
            if (!scanner.next().is_symbol('(')) continue;
            token = scanner.next();
            if (token.kind != SqlToken::Kind::String || !is_setting_name(token.text)) continue;
            if (!scanner.next().is_symbol(',')) continue;
            if (const auto value = quiet_value(sql, scanner.next())) values.push_back(*value);
        }
    }
}

void QuietLevel::found(std::optional<std::string_view> level) {
    const bool unseen = std::exchange(unseen_, false);
    if (!level) {
        session_ = login_;
    } else if (is_quiet_level(*level)) {
        session_ = true;
    } else if (*level != loud_level) {
        session_ = false;
    } else if (unseen) {
        session_ = true;  // nobody but the pooler sets that level
    }
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
