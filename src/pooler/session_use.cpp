#include "pooler/session_use.h"

#include <array>

#include "pooler/router.h"
#include "pooler/setting_set.h"
#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool begins_with(std::string_view text, std::string_view word) {
    if (text.size() < word.size()) return false;
    for (std::size_t i = 0; i < word.size(); ++i) {
        if (lower(text[i]) != word[i]) return false;
    }
    return true;
}

/// One pass for the words that matter, wherever they stand (in a comment or a string too: pinning is only
/// slower).
std::uint8_t find_words(std::string_view sql) {
    std::uint8_t bits = 0;
    for (std::size_t i = 0; i < sql.size(); ++i) {
        switch (lower(sql[i])) {
            case 't':
                if (begins_with(sql.substr(i), "temp")) bits |= SessionUse::MakesTemporary;
                break;
            case 'h':
                if (begins_with(sql.substr(i), "hold")) bits |= SessionUse::HoldsCursor;
                break;
            case 'a':
                // pg_advisory_lock, pg_try_advisory_lock_shared; pg_advisory_xact_lock ends with its
                // transaction.
                if (begins_with(sql.substr(i), "advisory_lock")) bits |= SessionUse::LocksSession;
                break;
            case 's':
                if (begins_with(sql.substr(i), "set_config")) bits |= SessionUse::CallsSetConfig;
                break;
            default:
                break;
        }
    }
    return bits;
}

/// `scanner` stands behind SET, in a text of one statement.
bool set_outlives_transaction(wire::SqlScanner& scanner) {
    wire::SqlToken word = scanner.next();
    if (word.is("local") || word.is("transaction") || word.is("constraints")) return false;
    if (word.is("session")) word = scanner.next();
    if (word.is("names")) return false;
    if (word.is("time")) return !scanner.next().is("zone");
    return word.kind != wire::SqlToken::Kind::Word || !is_followed_setting(to_lower(word.text));
}

}  // namespace

SessionUse read_session_use(std::string_view sql, bool whole) {
    SessionUse use{find_words(sql)};
    if (!whole) use.bits |= SessionUse::Unreadable;
    wire::SqlScanner scanner{sql};
    const wire::SqlToken first = scanner.next();
    static constexpr std::array<std::string_view, 9> plain{"select", "insert", "update", "delete",  "with",
                                                           "begin",  "commit", "end",    "rollback"};
    bool is_plain = false;
    for (const auto word : plain) is_plain = is_plain || first.is(word);
    const bool one = sql.find(';') == std::string_view::npos ||
                     wire::read_statement_head(sql).control != wire::TransactionControl::Unknown;
    if (is_plain && one) return use;
    if (!one) {
        use.bits |= SessionUse::SetsSession | SessionUse::Keeps | SessionUse::Calls;
    } else if (first.is("set")) {
        if (set_outlives_transaction(scanner)) use.bits |= SessionUse::SetsSession;
    } else if (first.is("listen") || first.is("load") || first.is("prepare") || first.is("reset") ||
               first.is("discard") || first.is("do")) {
        use.bits |= SessionUse::Keeps;
    } else if (first.is("call")) {
        use.bits |= SessionUse::Keeps;
        if (!is_own_statement(sql)) use.bits |= SessionUse::Calls;
    } else if (first.kind != wire::SqlToken::Kind::Word && first.kind != wire::SqlToken::Kind::End) {
        use.bits |= SessionUse::SetsSession;
    }
    return use;
}

std::string_view pin_reason_when_sent(SessionUse use) {
    // A session lock outlives the error of the statement that took it.
    if (use.has(SessionUse::LocksSession)) return "session advisory lock";
    if (use.has(SessionUse::Unreadable)) return "a statement too long to be looked at";
    return {};
}

std::string_view pin_reason_when_done(std::string_view tag, SessionUse use) {
    if (tag == "SET") return use.has(SessionUse::SetsSession) ? "SET" : std::string_view{};
    if (tag == "RESET") return "RESET";
    if (tag == "LISTEN") return "LISTEN";
    if (tag == "LOAD") return "LOAD";
    if (tag == "PREPARE") return "PREPARE";
    if (tag == "DO") return "DO";
    if (tag == "CALL") return use.has(SessionUse::Calls) ? "CALL" : std::string_view{};
    if (use.has(SessionUse::CallsSetConfig)) return "set_config()";
    if (tag == "DECLARE CURSOR")
        return use.has(SessionUse::HoldsCursor) ? "WITH HOLD cursor" : std::string_view{};
    if (use.has(SessionUse::MakesTemporary) && (tag.starts_with("CREATE ") || tag.starts_with("SELECT"))) {
        return "temporary object";
    }
    return {};
}

}  // namespace pgxc::pooler
