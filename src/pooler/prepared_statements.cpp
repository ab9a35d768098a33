#include "pooler/prepared_statements.h"

#include <algorithm>
#include <array>
#include <utility>

namespace pgxc::pooler {

namespace {

std::string key_of(wire::Bytes parse_tail, std::string_view context) {
    std::string key{parse_tail};
    key += context;
    return key;
}

/// Has it anything whose meaning a setting decides: a string, or text beyond ASCII?
bool has_literal(std::string_view sql) {
    for (std::size_t i = 0; i < sql.size(); ++i) {
        const char c = sql[i];
        if (c == '\'' || static_cast<unsigned char>(c) >= 0x80) return true;
        // $1 is a parameter, all else begins a string.
        if (c == '$' && i + 1 < sql.size() && !(sql[i + 1] >= '0' && sql[i + 1] <= '9')) return true;
    }
    return false;
}

bool is_among(std::string_view name, const auto& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::string parse_context(std::string_view sql, const SettingSet& settings) {
    static constexpr std::array<std::string_view, 2> always{"search_path", "transform_null_equals"};
    static constexpr std::array<std::string_view, 9> of_literals{"array_nulls", "client_encoding",
                                                                 "datestyle",   "intervalstyle",
                                                                 "lc_monetary", "standard_conforming_strings",
                                                                 "timezone",    "timezone_abbreviations",
                                                                 "xmloption"};
    std::string context;
    const bool literal = !settings.entries().empty() && has_literal(sql);
    for (const auto& [name, value] : settings.entries()) {
        if (!is_among(name, always) && !(literal && is_among(name, of_literals))) continue;
        context += name;
        context += '=';
        context += value;
        context += '\0';
    }
    return context;
}

bool names_a_moment(std::string_view sql) {
    static constexpr std::array<std::string_view, 4> moments{"now", "today", "tomorrow", "yesterday"};
    for (std::size_t at = sql.find('\''); at != std::string_view::npos; at = sql.find('\'', at + 1)) {
        const std::string_view behind = sql.substr(at + 1);
        const auto begin = behind.find_first_not_of(" \t\r\n");
        if (begin == std::string_view::npos) return false;
        const std::string word = to_lower(behind.substr(begin, 9));
        if (std::any_of(moments.begin(), moments.end(),
                        [&](std::string_view moment) { return word.starts_with(moment); }))
            return true;
    }
    return false;
}

StatementStore::StatementStore() : table_(std::make_shared<Table>()) {}

StatementRef StatementStore::find(wire::Bytes parse_tail, std::string_view context) const {
    return find_key(key_of(parse_tail, context));
}

StatementRef StatementStore::find_key(const std::string& key) const {
    const auto known = table_->find(key);
    return known == table_->end() ? nullptr : known->second.lock();
}

StatementRef StatementStore::intern(wire::Bytes parse_tail, std::string_view context) {
    std::string key = key_of(parse_tail, context);
    if (auto statement = find_key(key)) return statement;
    auto* made = new Statement;
    made->key = std::move(key);
    made->tail_bytes = parse_tail.size();
    made->server_name = std::string{server_name_prefix} + std::to_string(next_++);
    made->control = wire::read_statement_head(made->sql()).control;
    made->use = read_session_use(made->sql(), true);
    StatementRef statement{made, [table = table_](const Statement* last) {
                               const auto at = table->find(last->key);
                               // Another one of that text may have taken its place by now.
                               if (at != table->end() && at->first.data() == last->key.data())
                                   table->erase(at);
                               delete last;
                           }};
    table_->erase(std::string_view{made->key});
    table_->emplace(made->key, statement);
    return statement;
}

StatementRef ClientStatements::take(std::string_view name) {
    const auto at = map_.find(name);
    if (at == map_.end()) return nullptr;
    StatementRef statement = std::move(at->second);
    map_.erase(at);
    bytes_ -= statement->key.size();
    return statement;
}

bool ServerStatements::use(const Statement* statement) {
    const auto at = index_.find(statement);
    if (at == index_.end()) return false;
    if (at->second != order_.begin()) order_.splice(order_.begin(), order_, at->second);
    return true;
}

void ServerStatements::add(StatementRef statement) {
    const Statement* key = statement.get();
    if (use(key)) return;
    order_.push_front(std::move(statement));
    index_.emplace(key, order_.begin());
}

void ServerStatements::remove(const Statement* statement) {
    const auto at = index_.find(statement);
    if (at == index_.end()) return;
    order_.erase(at->second);
    index_.erase(at);
}

StatementRef ServerStatements::surplus(std::size_t limit) const {
    return index_.size() < limit ? nullptr : order_.back();
}

void ServerStatements::clear() {
    index_.clear();
    order_.clear();
}

}  // namespace pgxc::pooler
