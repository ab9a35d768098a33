#include "pooler/setting_set.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace pgxc::pooler {
namespace {

constexpr std::array<std::string_view, 6> followed{"application_name", "client_encoding",
                                                   "datestyle",        "intervalstyle",
                                                   "timezone",         "standard_conforming_strings"};

void append_identifier(std::string& sql, std::string_view name) {
    sql += '"';
    for (const char c : name) {
        if (c == '"') sql += c;
        // A setting of a class ("plpgsql.x") is two identifiers.
        if (c == '.') {
            sql += "\".\"";
        } else {
            sql += c;
        }
    }
    sql += '"';
}

bool is_ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

auto position(std::vector<SettingSet::Entry>& entries, std::string_view name) {
    return std::lower_bound(
        entries.begin(), entries.end(), name,
        [](const SettingSet::Entry& entry, std::string_view key) { return entry.first < key; });
}

}  // namespace

const std::string* SettingSet::find(std::string_view name) const {
    const auto found =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.first == name; });
    return found == entries_.end() ? nullptr : &found->second;
}

void SettingSet::set(std::string_view name, std::string_view value) {
    const auto at = position(entries_, name);
    if (at != entries_.end() && at->first == name) {
        at->second = value;
    } else {
        entries_.emplace(at, name, value);
    }
}

void SettingSet::erase(std::string_view name) {
    const auto at = position(entries_, name);
    if (at != entries_.end() && at->first == name) entries_.erase(at);
}

SettingSetRef SettingSetStore::intern(SettingSet set) {
    const auto known = sets_.find(set.entries());
    if (known != sets_.end()) {
        if (auto shared = known->second.lock()) return shared;
    }
    if (sets_.size() >= sweep_at_) {
        std::erase_if(sets_, [](const auto& entry) { return entry.second.expired(); });
        sweep_at_ = 2 * sets_.size() + 64;
    }
    auto made = std::make_shared<const SettingSet>(std::move(set));
    sets_[made->entries()] = made;
    return made;
}

bool depends_on_encoding(const SettingSet& settings) {
    return std::any_of(settings.entries().begin(), settings.entries().end(),
                       [](const SettingSet::Entry& entry) { return !is_ascii(entry.second); });
}

std::string change_settings_sql(const SettingSet& from, const SettingSet& to, bool from_unknown) {
    constexpr std::string_view encoding_setting = "client_encoding";
    if (from_unknown) {
        // That takes away what isn't known, too. It leaves who the session is.
        SettingSet identity;
        for (const std::string_view name : {session_authorization, role_setting})
            if (const std::string* value = from.find(name)) identity.set(name, *value);
        return change_settings_sql(identity, {}) + "RESET ALL;" + change_settings_sql({}, to);
    }
    const auto is_identity = [](std::string_view name) {
        return name == role_setting || name == session_authorization;
    };
    std::string sql;
    const auto reset = [&sql](std::string_view name) {
        sql += "RESET ";
        append_identifier(sql, name);
        sql += ';';
    };
    bool first = true;
    const auto set = [&](std::string_view name, std::string_view value) {
        sql += first ? "SELECT " : ",";
        first = false;
        sql += "pg_catalog.set_config(";
        sql += sql_literal(name);
        sql += ',';
        if (is_ascii(value)) {
            sql += sql_literal(value);
        } else {
            // The whole text is read in the encoding that is in force before it, which may be another one.
            sql += "pg_catalog.convert_from(pg_catalog.decode('";
            sql += to_hex({reinterpret_cast<const std::uint8_t*>(value.data()), value.size()});
            sql += "','hex'),pg_catalog.current_setting('client_encoding'))";
        }
        sql += ",false)";
    };
    if (from == to) return sql;
    // Whoever the client has become may not be allowed to set what it had set before: that is done as who
    // logged in.
    for (const std::string_view name : {session_authorization, role_setting}) {
        if (from.find(name) != nullptr) reset(name);
    }
    for (const auto& [name, value] : from.entries()) {
        if (!is_identity(name) && to.find(name) == nullptr) reset(name);
    }
    if (const std::string* value = to.find(encoding_setting)) {
        const std::string* has = from.find(encoding_setting);
        if (has == nullptr || *has != *value) set(encoding_setting, *value);
    }
    for (const auto& [name, value] : to.entries()) {
        const std::string* has = from.find(name);
        if (is_identity(name) || name == encoding_setting || (has != nullptr && *has == value)) continue;
        set(name, value);
    }
    for (const std::string_view name : {session_authorization, role_setting}) {
        if (const std::string* value = to.find(name)) set(name, *value);
    }
    return sql;
}

bool change_is_safe(const SettingSet& from, const SettingSet& to) {
    // Of these no value names anything that may be gone, and nobody needs a right for them.
    static constexpr std::array<std::string_view, 24> safe{
        "application_name",
        "bytea_output",
        "client_encoding",
        "client_min_messages",
        "constraint_exclusion",
        "datestyle",
        "default_transaction_deferrable",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "extra_float_digits",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "intervalstyle",
        "jit",
        "lock_timeout",
        "random_page_cost",
        "row_security",
        "search_path",
        "standard_conforming_strings",
        "statement_timeout",
        "synchronous_commit",
        "timezone",
        "transform_null_equals",
        "work_mem",
    };
    const auto is_safe = [](const SettingSet::Entry& entry) {
        return std::binary_search(safe.begin(), safe.end(), std::string_view{entry.first});
    };
    const auto differs = [](const SettingSet::Entry& entry, const SettingSet& other) {
        const std::string* value = other.find(entry.first);
        return value == nullptr || *value != entry.second;
    };
    const auto ok = [&](const SettingSet& one, const SettingSet& other) {
        return std::all_of(one.entries().begin(), one.entries().end(), [&](const SettingSet::Entry& entry) {
            return is_safe(entry) || !differs(entry, other);
        });
    };
    // With a role in force even what doesn't differ is set again.
    const auto plain = [](const SettingSet& set) {
        return set.find(role_setting) == nullptr && set.find(session_authorization) == nullptr;
    };
    // It runs under the limits of the one that it takes away, which may cancel it.
    const auto limits = [&from](std::string_view name) {
        const std::string* value = from.find(name);
        return value != nullptr && *value != "0";
    };
    return !limits("statement_timeout") && !limits("lock_timeout") && plain(from) && plain(to) &&
           ok(from, to) && ok(to, from);
}

bool is_followed_setting(std::string_view name) {
    return std::find(followed.begin(), followed.end(), name) != followed.end();
}

std::string to_lower(std::string_view text) {
    std::string lower{text};
    for (char& c : lower) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return lower;
}

}  // namespace pgxc::pooler
