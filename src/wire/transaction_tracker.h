#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "wire/bytes.h"
#include "wire/framing.h"
#include "wire/messages.h"
#include "wire/statement_head.h"

namespace pgxc::wire {

/// Follows one server connection by the messages that pass over it after login, so that its owner knows
/// exactly when the connection is clean and idle, and what a loss of it means for the client. Source:
/// PostgresMain (postgres.c) and CopyGetData (copyfromparse.c).
///
/// Tell it every message in the order in which it goes onto or comes off the server's socket; the client's
/// before its first byte is written. `body` may be just the front of the body (`whole` = false) where the
/// message is larger than the buffer: then it knows less and says the careful thing.
class TransactionTracker {
  public:
    enum class CopyMode : std::uint8_t { None, In, Out, Both };

    void client_sent(FrontendMessage type, Bytes body, bool whole = true);
    void server_sent(BackendMessage type, Bytes body, bool whole = true);
    /// A Parse of a statement that bound_known() will tell of, or another extended message of the pooler's
    /// own whose name is of no interest.
    void extended_sent() {
        pipeline_open_ = true;
        ++messages_;
    }
    /// A Parse under a client's name whose text the caller knows.
    void statement_sent(std::string_view name, TransactionControl control) {
        extended_sent();
        remember(name, control);
    }
    /// A Bind of a statement whose text the caller knows, under whatever name it has on the server.
    void bound_known(std::string_view portal, TransactionControl control);
    /// A Query or Sync of the pooler's own, which commits nothing of the client's.
    void own_unit_sent() {
        owe(pipeline_open_ ? Sent::Sync : Sent::Query);
        pipeline_open_ = false;
    }
    /// The connection was reset to how it was after login (a new server connection).
    void reset() { *this = TransactionTracker{}; }

    /// Nothing owed, nothing open: the connection may be lent to another client.
    [[nodiscard]] bool clean_and_idle() const { return status_ == TransactionStatus::Idle && quiet(); }
    /// Every message has been answered (perhaps inside a transaction block): the server waits for the client.
    [[nodiscard]] bool quiet() const {
        return owed_ == 0 && !pipeline_open_ && copy_ == CopyMode::None && !in_doubt_ && !fatal_;
    }
    /// How many ReadyForQuery are to come.
    [[nodiscard]] std::size_t ready_for_query_owed() const { return owed_; }
    /// As of the last ReadyForQuery.
    [[nodiscard]] TransactionStatus status() const { return status_; }
    [[nodiscard]] CopyMode copy_mode() const { return copy_; }
    /// Extended-protocol messages were sent after the last Sync (or Query).
    [[nodiscard]] bool pipeline_open() const { return pipeline_open_; }
    /// The server waits for Sync: it has reported an error in a pipeline that isn't synced yet.
    [[nodiscard]] bool skipping_until_sync() const { return skipping_until_sync_; }
    /// A Query or FunctionCall is owed that was sent behind extended messages without Sync: should one of
    /// those fail, the server reads on only behind the next Sync.
    [[nodiscard]] bool mixed_query_owed() const { return !mixed_.empty(); }
    /// The count can't be relied on any more (an error in a COPY whose Sync came early, an unexpected
    /// answer): keep the connection with its client, and close it after.
    [[nodiscard]] bool in_doubt() const { return in_doubt_; }
    /// The server has announced that it ends the connection (FATAL or PANIC).
    [[nodiscard]] bool fatal() const { return fatal_; }

    /// If the connection broke now: might something have been committed whose outcome the client doesn't
    /// know? true -> 08007, false -> 08006 (FAILOVER_PROTOCOL, "Client side").
    [[nodiscard]] bool commit_may_be_running() const { return commit_unit_ > units_done_; }
    /// The server gave up waiting for synchronous slaves (a warning of SyncRepWaitForLSN) in what runs now.
    [[nodiscard]] bool sync_wait_canceled() const { return sync_wait_canceled_; }
    /// The same, in what the last ReadyForQuery has ended.
    [[nodiscard]] bool last_sync_wait_canceled() const { return last_sync_wait_canceled_; }

  private:
    /// What was sent and is not answered. Only Query, FunctionCall and Sync owe a ReadyForQuery.
    enum class Sent : std::uint8_t {
        Query,
        MixedQuery,  // a Query or FunctionCall behind extended messages without Sync
        Sync,
        CopyEnd,      // CopyDone or CopyFail inside of a pipeline
        LateCopyEnd,  // the same behind a Query or Sync: of no use once that one is answered
    };
    [[nodiscard]] static constexpr bool is_copy_end(Sent sent) {
        return sent == Sent::CopyEnd || sent == Sent::LateCopyEnd;
    }

    void sent_query(Bytes body, bool whole);
    void sent_function_call();
    void sent_parse(Bytes body, bool whole);
    void sent_bind(Bytes body);
    void sent_execute(Bytes body);
    void sent_sync();
    void sent_copy_end();
    void owe(Sent kind);
    /// Notes that something may commit in the unit that is being sent.
    void mark_commit() { commit_unit_ = units_sent_ + 1; }

    void got_ready(Bytes body);
    void got_copy_in();
    void got_error(Bytes body);
    void skip_to_sync();
    /// Was everything answered that went ahead of the MixedQuery in whose unit the server is?
    [[nodiscard]] bool at_mixed_query() const { return answers_ >= mixed_.front(); }
    void got_notice(Bytes body);

    [[nodiscard]] TransactionControl control_of_statement(std::string_view name) const;
    void remember(std::string_view name, TransactionControl control);

    std::deque<Sent> sent_;
    std::size_t owed_ = 0;
    std::size_t copy_ends_ = 0;       // how many of sent_ are CopyEnd or LateCopyEnd
    std::size_t messages_ = 0;        // of the open pipeline: extended ones that each have one last answer
    std::size_t answers_ = 0;         // of those, that have come since the last ReadyForQuery
    std::vector<std::size_t> mixed_;  // of each MixedQuery in sent_: the messages ahead of it
    TransactionStatus status_ = TransactionStatus::Idle;
    CopyMode copy_ = CopyMode::None;
    bool pipeline_open_ = false;
    bool skipping_until_sync_ = false;
    bool in_doubt_ = false;
    bool fatal_ = false;
    bool copy_ate_sync_ = false;
    bool sync_wait_canceled_ = false;
    bool last_sync_wait_canceled_ = false;

    // Units are what one ReadyForQuery ends, numbered from 1.
    std::uint64_t units_sent_ = 0;
    std::uint64_t units_done_ = 0;
    std::uint64_t commit_unit_ = 0;  // the last unit in which something may commit

    /// Is what is sent next run inside an explicit block for sure (if it is run at all)?
    bool in_block_ = false;
    /// The same for the rest of the open pipeline alone: it has a BEGIN, and if that failed all up to Sync is
    /// skipped.
    bool pipeline_began_ = false;
    // Prepared statements that control transactions (few: COMMIT and the like); all others are None.
    std::map<std::string, TransactionControl, std::less<>> statements_;
    bool statements_overflow_ = false;
    TransactionControl unnamed_statement_ = TransactionControl::None;
    TransactionControl unnamed_portal_ = TransactionControl::None;
    bool named_portal_in_control_ = false;  // a named portal of a statement that controls transactions
};

}  // namespace pgxc::wire
