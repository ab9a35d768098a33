#pragma once

#include <optional>
#include <string>
#include <vector>

#include "catalog/node.h"
#include "pg/boundary.h"

namespace pgxc {

/// One CALL of an administrative procedure: checks who asks, connects SPI, reads the arguments (each function
/// names the argument in its errors), and commits in the middle where the caller allows it.
class AdminCall {
  public:
    /// 42501 for anybody but superusers and members of pgxc_admin.
    [[nodiscard]] static Result<AdminCall> begin(FunctionCallInfo fcinfo);

    /// Inside a transaction block, a function, a multi-statement string: commit() is not possible.
    [[nodiscard]] bool atomic() const { return atomic_; }
    /// Commits what was done so far; a new transaction has begun when it returns.
    [[nodiscard]] Status commit();

    /// The role that asks, for the log.
    [[nodiscard]] const std::string& user() const { return user_; }
    /// Writes to the server's log who did what: a CALL is no DDL for log_statement.
    void log(const std::string& what) const;

    /// Arguments `index` (node_type) and `index` + 1 (node_id).
    [[nodiscard]] Result<NodeKey> node(int index) const;
    [[nodiscard]] Result<std::int32_t> integer(int index, const char* name) const;
    [[nodiscard]] Result<bool> boolean(int index, const char* name) const;
    [[nodiscard]] Result<std::string> text(int index, const char* name) const;
    [[nodiscard]] Result<std::optional<std::string>> optional_text(int index) const;
    /// NULL = Replication::None.
    [[nodiscard]] Result<Replication> optional_replication(int index) const;
    [[nodiscard]] Result<std::vector<std::string>> texts(int index, const char* name) const;

  private:
    AdminCall(FunctionCallInfo fcinfo, bool atomic, std::string user, SpiConnection connection)
        : fcinfo_(fcinfo), atomic_(atomic), user_(std::move(user)), connection_(std::move(connection)) {}
    [[nodiscard]] Status check_given(int index, const char* name) const;

    FunctionCallInfo fcinfo_;
    bool atomic_;
    std::string user_;
    SpiConnection connection_;
};

}  // namespace pgxc
