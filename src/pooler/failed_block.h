#pragma once

#include <optional>

#include "base/error.h"
#include "wire/framing.h"
#include "wire/messages.h"
#include "wire/statement_head.h"

namespace pgxc::pooler {

/// Answers a client in place of a server that was lost. Inside a transaction block the client's program goes
/// on sending statements that belong together until it looks at an error: they must fail as in a real failed
/// block, or the second half of a transaction would be run, and committed, alone. Outside of a block only the
/// rest of a pipeline is skipped, up to its Sync.
class FailedBlock {
  public:
    /// Is there anything to answer in place of a server?
    [[nodiscard]] bool active() const { return in_block_ || skipping_; }
    [[nodiscard]] wire::TransactionStatus status() const {
        return in_block_ ? wire::TransactionStatus::Failed : wire::TransactionStatus::Idle;
    }
    /// The block has failed. `untold`: the client hasn't been told why; it is at its next statement.
    void fail_block(std::optional<Error> untold) {
        in_block_ = true;
        untold_ = std::move(untold);
        parsed_end_ = parsed_here_ = bound_end_ = false;
    }
    /// An error was reported in the middle of a pipeline.
    void skip_until_sync() { skipping_ = true; }
    [[nodiscard]] bool skipping() const { return skipping_; }

    /// Takes one message of the client; appends what a server in a failed block would answer. `text`: of the
    /// statement that a Bind or Describe names, if that was prepared before. False: it was refused or
    /// skipped.
    bool take(wire::FrontendMessage type, wire::Bytes body, bool whole, wire::Buffer& out,
              std::optional<std::string_view> text = std::nullopt);

  private:
    [[nodiscard]] Error refusal();
    void query(std::string_view sql, wire::Buffer& out);
    [[nodiscard]] bool ends_block(std::string_view sql) const;

    bool in_block_ = false;
    bool skipping_ = false;
    std::optional<Error> untold_;
    bool parsed_here_ = false;  // an unnamed statement
    bool parsed_end_ = false;   // and that is one that ends the block
    bool bound_end_ = false;    // the portal that was bound last does
};

}  // namespace pgxc::pooler
