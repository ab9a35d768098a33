#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "pooler/session_use.h"

/// Statements that a session has prepared in SQL (PREPARE). They have the client's own names on the server,
/// so a server connection has those of one client at a time, and is brought from one set to the next when it
/// changes hands. Pure.
namespace pgxc::pooler {

/// A set, by name. Immutable once it is shared; no set at all is an empty one.
class SqlStatements {
  public:
    struct Entry {
        std::string name;
        std::string text;  // the PREPARE
        SessionUse use;    // what EXECUTE of it may do
        friend bool operator==(const Entry& a, const Entry& b) {
            return a.name == b.name && a.text == b.text;
        }
    };

    [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
    [[nodiscard]] const Entry* find(std::string_view name) const;
    /// False, and it isn't taken, where that text would not make the same of it again elsewhere, or there is
    /// no room (limits::max_sql_statements).
    [[nodiscard]] bool put(std::string_view name, std::string_view text);
    void erase(std::string_view name);
    friend bool operator==(const SqlStatements&, const SqlStatements&) = default;

  private:
    std::vector<Entry> entries_;
    std::size_t bytes_ = 0;
};

using SqlStatementsRef = std::shared_ptr<const SqlStatements>;

/// nullptr for an empty one.
[[nodiscard]] SqlStatementsRef share(SqlStatements set);

/// Names of statements that may be on the server connection under the client's own.
class StatementNames {
  public:
    /// Empty: one that isn't known.
    void add(std::string name) {
        if (name.empty() || names_.size() >= limits::max_sql_statements) any_ = true;
        if (!any_) names_.push_back(std::move(name));
    }
    [[nodiscard]] bool may_have(std::string_view name) const;
    void clear() {
        names_.clear();
        any_ = false;
    }

  private:
    std::vector<std::string> names_;
    bool any_ = false;
};

/// What the statements may do that the protocol has put on the server connection under the client's own
/// names.
class NamedUses {
  public:
    void add(std::string_view name, SessionUse use) {
        const bool has_room = uses_.size() < limits::max_client_statements;
        (has_room ? uses_[std::string{name}] : others_).add(use);
    }
    [[nodiscard]] SessionUse of(std::string_view name) const {
        const auto known = uses_.find(name);
        return known == uses_.end() ? others_ : known->second;
    }
    void clear() {
        uses_.clear();
        others_ = {};
    }

  private:
    std::map<std::string, SessionUse, std::less<>> uses_;
    SessionUse others_;  // of those for which there was no room
};

/// The text of a Query that takes it away.
[[nodiscard]] std::string deallocate_sql(std::string_view name);

/// A text of one statement that names one prepared statement.
struct SqlStatementName {
    enum class Verb : std::uint8_t { Prepare, Execute, Deallocate } verb = Verb::Execute;
    std::string name;  // empty: DEALLOCATE ALL
};
[[nodiscard]] std::optional<SqlStatementName> read_statement_name(std::string_view sql);

/// Does that statement's name stand in the text as a word, whatever its case?
[[nodiscard]] bool may_name(std::string_view sql, std::string_view name);

}  // namespace pgxc::pooler
