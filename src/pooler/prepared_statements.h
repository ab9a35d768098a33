#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "pooler/session_use.h"
#include "pooler/setting_set.h"
#include "wire/bytes.h"
#include "wire/statement_head.h"

/// Prepared statements of the protocol, which work on every server connection: a client's name stands for a
/// text, and a text has one name on all servers, under which any client's Parse has put it there.
namespace pgxc::pooler {

/// A text with its parameter types, shared by all clients that have prepared it under settings that give it
/// the same meaning (parse_context).
struct Statement {
    std::string key;             // the tail, and what it is read under
    std::size_t tail_bytes = 0;  // of it
    std::string server_name;     // unique in this process
    wire::TransactionControl control = wire::TransactionControl::None;
    SessionUse use;
    /// Of a Parse message, behind the name: text, zero, parameter types.
    [[nodiscard]] wire::Bytes parse_tail() const { return wire::Bytes{key}.substr(0, tail_bytes); }
    [[nodiscard]] std::string_view sql() const { return parse_tail().substr(0, key.find('\0')); }
    [[nodiscard]] std::string_view context() const { return std::string_view{key}.substr(tail_bytes); }
};
using StatementRef = std::shared_ptr<const Statement>;

/// What a server reads that text under, of a session's settings: where names are looked up, and, as the
/// constants in it are made of its literals when it is parsed (transformExpr, coerce_type), what those mean.
[[nodiscard]] std::string parse_context(std::string_view sql, const SettingSet& settings);
/// Has it a literal that means the time at which it is read ('now', 'today')?
[[nodiscard]] bool names_a_moment(std::string_view sql);

/// How names on a server begin that are ours. A client's own names pass as they are where they stand for
/// nothing that is known here, so that the server's errors are about the client's name.
inline constexpr std::string_view server_name_prefix = "pgxc:";

/// All statements that some client or server connection has. Owned by the Context.
class StatementStore {
  public:
    StatementStore();
    /// The statement for what stands behind the name in a Parse message, read under that context.
    [[nodiscard]] StatementRef intern(wire::Bytes parse_tail, std::string_view context = {});
    /// The same if it is there; nullptr.
    [[nodiscard]] StatementRef find(wire::Bytes parse_tail, std::string_view context = {}) const;
    /// Part of a context that is like no other one.
    [[nodiscard]] std::string unique_context() { return "?" + std::to_string(next_++); }
    /// The texts mean something else now (a table has other columns): whoever prepares one from now on gets
    /// a statement of its own making. Those that are there stay what they are, as on a server.
    void outdate() { table_->clear(); }
    [[nodiscard]] std::size_t size() const { return table_->size(); }

  private:
    [[nodiscard]] StatementRef find_key(const std::string& key) const;

    // Keys are views into the statements. Statements that outlive the store keep the table.
    using Table = std::unordered_map<std::string_view, std::weak_ptr<const Statement>>;
    std::shared_ptr<Table> table_;
    std::uint64_t next_ = 1;
};

/// What a client has prepared, by its own names.
class ClientStatements {
  public:
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };
    using Map = std::unordered_map<std::string, StatementRef, Hash, std::equal_to<>>;

    [[nodiscard]] const Statement* find(std::string_view name) const {
        const StatementRef* found = find_ref(name);
        return found == nullptr ? nullptr : found->get();
    }
    /// Takes the name away, and gives what it stood for.
    StatementRef take(std::string_view name);
    void put(std::string_view name, StatementRef statement) {
        (void)take(name);
        bytes_ += statement->key.size();
        map_.emplace(std::string{name}, std::move(statement));
    }
    void clear() {
        Map{}.swap(map_);
        bytes_ = 0;
    }
    /// Of the texts, which other clients may share.
    [[nodiscard]] std::size_t bytes() const { return bytes_; }
    [[nodiscard]] bool empty() const { return map_.empty(); }
    [[nodiscard]] std::size_t size() const { return map_.size(); }
    [[nodiscard]] const Map& all() const { return map_; }
    /// The same to keep; nullptr = no such name. Valid until the next change.
    [[nodiscard]] const StatementRef* find_ref(std::string_view name) const {
        if (map_.empty()) return nullptr;
        const auto at = map_.find(name);
        return at == map_.end() ? nullptr : &at->second;
    }

  private:
    Map map_;
    std::size_t bytes_ = 0;
};

/// What one server connection has prepared, most recently used first; what was sent and isn't answered counts
/// as there.
class ServerStatements {
  public:
    /// Is it there? If so it is the most recently used one now.
    [[nodiscard]] bool use(const Statement* statement);
    void add(StatementRef statement);
    void remove(const Statement* statement);
    /// The one to close so that another fits in; nullptr while there is room. It stays until remove().
    [[nodiscard]] StatementRef surplus(std::size_t limit) const;
    void clear();
    [[nodiscard]] std::size_t size() const { return index_.size(); }

  private:
    std::list<StatementRef> order_;
    std::unordered_map<const Statement*, std::list<StatementRef>::iterator> index_;
};

}  // namespace pgxc::pooler
