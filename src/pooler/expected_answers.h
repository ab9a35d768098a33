#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pooler/prepared_statements.h"

namespace pgxc::pooler {

/// What a server connection still has to answer, as far as it is ours or means something for prepared
/// statements: each Parse and Close in order, and which units (what one ReadyForQuery ends) are the pooler's
/// own. Nothing is stored for all other messages.
class ExpectedAnswers {
  public:
    struct Entry {
        enum class Kind : std::uint8_t { Parse, Close } kind = Kind::Parse;
        bool own = false;         // the client doesn't know of it: its answer is dropped
        bool unnamed = false;     // of the unnamed statement: a Parse, or an own Close
        std::uint64_t unit = 0;   // numbered from 1
        StatementRef statement;   // Parse: on the server after it; Close: gone from there. May be null
        StatementRef for_client;  // the client's own Parse or Close: what its name stands for
        std::string client_name;  // the name that is put (Parse) or was taken away (Close)
    };

    void sent(Entry entry) {
        entry.unit = units_sent_ + 1;
        entries_.push_back(std::move(entry));
    }
    /// A Query, FunctionCall or Sync was sent: a ReadyForQuery will come for it.
    void sent_unit_end(bool own = false) {
        ++units_sent_;
        if (own) own_units_.push_back(units_sent_);
    }

    /// The server has begun a COPY from the client in the unit whose answers come: that many Syncs which were
    /// sent behind it are data to it, and end no unit.
    void syncs_eaten(std::size_t count);

    /// What comes now belongs to a unit of the pooler's own.
    [[nodiscard]] bool in_own_unit() const {
        return !own_units_.empty() && own_units_.front() == units_done_ + 1;
    }
    /// The number of the unit that is being sent, and of the one whose answers come.
    [[nodiscard]] std::uint64_t unit_sent() const { return units_sent_ + 1; }
    [[nodiscard]] std::uint64_t unit_answered() const { return units_done_ + 1; }
    [[nodiscard]] bool any_own_unit() const { return !own_units_.empty(); }
    /// ReadyForQuery that are to come and that the client doesn't know of.
    [[nodiscard]] std::size_t own_units() const { return own_units_.size(); }
    /// A ParseComplete or CloseComplete came: the entry that it answers; nullptr if none is known. Valid
    /// until the next call.
    [[nodiscard]] const Entry* answered(Entry::Kind kind);
    /// An error came: what the unit that runs had still to be answered is skipped by the server, and so are
    /// `units` that were to end before the Sync up to which it skips. Returned in order.
    [[nodiscard]] std::vector<Entry> failed(std::size_t units = 0);
    /// The same for everything that is outstanding: the connection is lost.
    [[nodiscard]] std::vector<Entry> lost();
    void ready();
    /// All was answered, whatever was counted (a COPY eats Syncs).
    void settle();
    [[nodiscard]] bool empty() const { return head_ == entries_.size(); }
    /// What is outstanding, in order.
    [[nodiscard]] std::span<const Entry> outstanding() const { return std::span{entries_}.subspan(head_); }

    /// How many are in memory, with those that were answered.
    [[nodiscard]] std::size_t kept() const { return entries_.size(); }

    /// Does a Parse or Close wait for its answer that isn't of the unit which is being sent? If something
    /// fails in its own, it will have been skipped, and what comes now is read all the same.
    [[nodiscard]] bool any_of_earlier_units() const {
        return !empty() && entries_[head_].unit <= units_sent_;
    }
    /// The same, of that name of the client's.
    [[nodiscard]] bool earlier_name(std::string_view client_name) const;
    /// The same, of what that is on the server.
    [[nodiscard]] bool earlier_statement(const Statement* statement) const;
    /// Is the newest of the unnamed statement one of those?
    [[nodiscard]] bool earlier_unnamed() const;
    /// Is any of the unnamed statement outstanding?
    [[nodiscard]] bool any_unnamed() const;

  private:
    void compact();
    [[nodiscard]] std::vector<Entry>::const_iterator first() const {
        return entries_.begin() + static_cast<std::ptrdiff_t>(head_);
    }

    std::vector<Entry> entries_;
    std::size_t head_ = 0;
    std::vector<std::uint64_t> own_units_;  // ascending; there are one or two at most
    std::uint64_t units_sent_ = 0;
    std::uint64_t units_done_ = 0;
};

}  // namespace pgxc::pooler
