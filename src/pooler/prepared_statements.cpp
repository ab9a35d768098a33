#include "pooler/prepared_statements.h"

#include <utility>

namespace pgxc::pooler {

namespace {

std::string key_of(wire::Bytes parse_tail, std::string_view search_path) {
    std::string key{parse_tail};
    key += search_path;
    return key;
}

}  // namespace

StatementStore::StatementStore() : table_(std::make_shared<Table>()) {}

StatementRef StatementStore::find(wire::Bytes parse_tail, std::string_view search_path) const {
    return find_key(key_of(parse_tail, search_path));
}

StatementRef StatementStore::find_key(const std::string& key) const {
    const auto known = table_->find(key);
    return known == table_->end() ? nullptr : known->second.lock();
}

StatementRef StatementStore::intern(wire::Bytes parse_tail, std::string_view search_path) {
    std::string key = key_of(parse_tail, search_path);
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
