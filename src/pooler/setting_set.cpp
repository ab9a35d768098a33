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

std::string change_settings_sql(const SettingSet& from, const SettingSet& to) {
    std::string sql;
    for (const auto& [name, value] : from.entries()) {
        if (to.find(name) != nullptr) continue;
        sql += "RESET ";
        append_identifier(sql, name);
        sql += ';';
    }
    bool first = true;
    for (const auto& [name, value] : to.entries()) {
        const std::string* has = from.find(name);
        if (has != nullptr && *has == value) continue;
        sql += first ? "SELECT " : ",";
        first = false;
        sql += "pg_catalog.set_config(";
        sql += sql_literal(name);
        sql += ',';
        sql += sql_literal(value);
        sql += ",false)";
    }
    return sql;
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
