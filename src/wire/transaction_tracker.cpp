#include "wire/transaction_tracker.h"

#include <algorithm>

namespace pgxc::wire {
namespace {

/// Names of transaction-controlling statements that are remembered; beyond it every unknown name may be one.
constexpr std::size_t max_remembered_statements = 256;
/// CopyDone and CopyFail sent ahead of the server's CopyInResponse. Beyond it the count is given up
/// (in_doubt).
constexpr std::size_t max_early_copy_ends = 1024;

/// The function whose warning says that a commit is not on the synchronous slaves (syncrep.c).
constexpr std::string_view sync_wait_routine = "SyncRepWaitForLSN";

/// Does a statement of that kind end the transaction block that it runs in?
bool ends_block(TransactionControl control) {
    switch (control) {
        case TransactionControl::None:
        case TransactionControl::Begin:
        case TransactionControl::Savepoint:
        case TransactionControl::Other:  // refused in a block
            return false;
        case TransactionControl::Commit:
        case TransactionControl::Rollback:
        case TransactionControl::Prepare:
        case TransactionControl::Unknown:
            return true;
    }
    return true;
}

/// Could a statement of that kind commit something?
bool may_commit(TransactionControl control, bool in_block) {
    switch (control) {
        case TransactionControl::None:
            return !in_block;
        case TransactionControl::Begin:
        case TransactionControl::Rollback:
        case TransactionControl::Savepoint:
            return false;
        case TransactionControl::Commit:
        case TransactionControl::Prepare:
        case TransactionControl::Other:
        case TransactionControl::Unknown:
            return true;
    }
    return true;
}

}  // namespace

void TransactionTracker::client_sent(FrontendMessage type, Bytes body, bool whole) {
    switch (type) {
        case FrontendMessage::Query:
            sent_query(body, whole);
            break;
        case FrontendMessage::FunctionCall:
            sent_function_call();
            break;
        case FrontendMessage::Parse:
            extended_sent();
            sent_parse(body, whole);
            break;
        case FrontendMessage::Bind:
            extended_sent();
            sent_bind(body);
            break;
        case FrontendMessage::Execute:
            extended_sent();
            sent_execute(body);
            break;
        case FrontendMessage::Close:
        case FrontendMessage::Describe:
            extended_sent();
            break;
        case FrontendMessage::Flush:
            pipeline_open_ = true;
            break;
        case FrontendMessage::Sync:
            sent_sync();
            break;
        case FrontendMessage::CopyDone:
        case FrontendMessage::CopyFail:
            sent_copy_end();
            break;
        case FrontendMessage::CopyData:
        case FrontendMessage::Password:
        case FrontendMessage::Terminate:
            break;
    }
}

void TransactionTracker::owe(Sent kind) {
    sent_.push_back(kind);
    if (kind == Sent::MixedQuery) mixed_.push_back(messages_);
    messages_ = 0;
    ++owed_;
    ++units_sent_;
}

void TransactionTracker::sent_query(Bytes body, bool whole) {
    // After an error the server discards everything up to Sync, a Query too (PostgresMain, ignore_till_sync).
    if (skipping_until_sync_) return;
    const auto sql = whole ? parse_query(body) : Result<std::string_view>(std::string_view{});
    const bool readable = whole && sql.ok();
    const bool block = in_block_ || pipeline_began_;
    const auto control = readable ? read_statement_head(*sql).control : TransactionControl::Unknown;
    if (block) {
        // Several statements may be known not to leave the block, though `control` is Unknown for them.
        const bool leaves = !readable || may_commit_block(*sql);
        if (leaves) mark_commit();
        if (leaves || (control != TransactionControl::Unknown && ends_block(control))) in_block_ = false;
    } else if (may_commit(control, false)) {
        mark_commit();
    }
    pipeline_began_ = false;
    owe(pipeline_open_ ? Sent::MixedQuery : Sent::Query);
    pipeline_open_ = false;
}

void TransactionTracker::sent_function_call() {
    if (skipping_until_sync_) return;
    if (!in_block_ && !pipeline_began_) mark_commit();
    pipeline_began_ = false;
    owe(pipeline_open_ ? Sent::MixedQuery : Sent::Query);
    pipeline_open_ = false;
}

void TransactionTracker::sent_parse(Bytes body, bool whole) {
    if (const auto message = whole ? parse_parse(body) : Result<ParseMessage>(ParseMessage{});
        whole && message.ok()) {
        remember(message->statement, read_statement_head(message->sql).control);
        return;
    }
    // Too large to be seen whole: its name is at the front.
    BodyReader reader(body);
    const auto name = reader.cstring();
    if (reader.ok()) {
        remember(name, TransactionControl::Unknown);
    } else {
        unnamed_statement_ = TransactionControl::Unknown;
        statements_overflow_ = true;
    }
}

void TransactionTracker::sent_bind(Bytes body) {
    const auto names = parse_bind_names(body);
    const auto control = names.ok() ? control_of_statement(names->statement) : TransactionControl::Unknown;
    if (!names.ok() || names->portal.empty()) unnamed_portal_ = control;
    if (!names.ok() || (!names->portal.empty() && control != TransactionControl::None))
        named_portal_in_control_ = true;
}

void TransactionTracker::bound_known(std::string_view portal, TransactionControl control) {
    extended_sent();
    if (portal.empty()) {
        unnamed_portal_ = control;
    } else if (control != TransactionControl::None) {
        named_portal_in_control_ = true;
    }
}

void TransactionTracker::sent_execute(Bytes body) {
    if (skipping_until_sync_) return;
    const auto message = parse_execute(body);
    TransactionControl control = TransactionControl::Unknown;
    if (message.ok() && message->portal.empty()) {
        control = unnamed_portal_;
    } else if (message.ok() && !named_portal_in_control_) {
        control = TransactionControl::None;
    }
    const bool block = in_block_ || pipeline_began_;
    if (may_commit(control, block)) mark_commit();
    if (control == TransactionControl::Begin) pipeline_began_ = true;
    if (ends_block(control)) {
        in_block_ = false;
        pipeline_began_ = false;
    }
}

void TransactionTracker::sent_sync() {
    // A server that reads copy data ignores Sync (CopyGetData).
    if (copy_ == CopyMode::In || copy_ == CopyMode::Both) {
        copy_ate_sync_ = true;
        return;
    }
    owe(Sent::Sync);
    pipeline_open_ = false;
    pipeline_began_ = false;
    skipping_until_sync_ = false;
}

void TransactionTracker::sent_copy_end() {
    switch (copy_) {
        case CopyMode::In:
            copy_ = CopyMode::None;
            return;
        case CopyMode::Both:
            copy_ = CopyMode::Out;
            return;
        case CopyMode::None:
        case CopyMode::Out:
            break;
    }
    // Either sent ahead of the server's CopyInResponse, or late, after a COPY that has failed: then it is
    // ignored.
    if (owed_ == 0 && !pipeline_open_) return;
    if (copy_ends_ >= max_early_copy_ends) {
        in_doubt_ = true;
        return;
    }
    sent_.push_back(pipeline_open_ ? Sent::CopyEnd : Sent::LateCopyEnd);
    ++copy_ends_;
}

void TransactionTracker::server_sent(BackendMessage type, Bytes body, bool whole) {
    switch (type) {
        case BackendMessage::ReadyForQuery:
            got_ready(whole ? body : Bytes{});
            break;
        case BackendMessage::CopyInResponse:
            got_copy_in();
            break;
        case BackendMessage::CopyOutResponse:
            copy_ = CopyMode::Out;
            break;
        case BackendMessage::CopyBothResponse:
            copy_ = CopyMode::Both;
            break;
        case BackendMessage::CopyDone:
            copy_ = copy_ == CopyMode::Both ? CopyMode::In : CopyMode::None;
            break;
        case BackendMessage::ErrorResponse:
            got_error(body);
            break;
        case BackendMessage::NoticeResponse:
            got_notice(body);
            break;
        // Parse, Bind, Close, Describe and Execute have each exactly one of these (a Describe of a statement
        // the ParameterDescription in front of it), if they don't fail.
        case BackendMessage::BindComplete:
        case BackendMessage::CloseComplete:
        case BackendMessage::CommandComplete:
        case BackendMessage::EmptyQueryResponse:
        case BackendMessage::NoData:
        case BackendMessage::ParseComplete:
        case BackendMessage::PortalSuspended:
        case BackendMessage::RowDescription:
            ++answers_;
            break;
        case BackendMessage::Authentication:
        case BackendMessage::BackendKeyData:
        case BackendMessage::CopyData:
        case BackendMessage::DataRow:
        case BackendMessage::FunctionCallResponse:
        case BackendMessage::NegotiateProtocolVersion:
        case BackendMessage::NotificationResponse:
        case BackendMessage::ParameterDescription:
        case BackendMessage::ParameterStatus:
            break;
    }
}

void TransactionTracker::got_ready(Bytes body) {
    copy_ = CopyMode::None;
    copy_ate_sync_ = false;
    answers_ = 0;
    last_sync_wait_canceled_ = sync_wait_canceled_;
    sync_wait_canceled_ = false;
    const auto status = parse_ready_for_query(body);
    if (status.ok() && owed_ == 0 && in_doubt_) {
        // It has read the Sync that a failed COPY was taken to have eaten: the unit is over.
        skipping_until_sync_ = pipeline_open_ = pipeline_began_ = false;
        status_ = *status;
        commit_unit_ = units_done_;
        return;
    }
    if (!status.ok() || owed_ == 0) {
        in_doubt_ = true;
        return;
    }
    status_ = *status;
    const auto drop_while = [this](auto unwanted) {
        while (!sent_.empty() && unwanted(sent_.front())) {
            sent_.pop_front();
            --copy_ends_;
        }
    };
    drop_while(is_copy_end);
    if (sent_.front() == Sent::MixedQuery) mixed_.erase(mixed_.begin());
    sent_.pop_front();
    --owed_;
    drop_while([](Sent sent) { return sent == Sent::LateCopyEnd; });
    ++units_done_;
    if (status_ == TransactionStatus::Idle) named_portal_in_control_ = false;
    if (owed_ > 0 || pipeline_open_) return;

    // All is answered: what was guessed while messages were under way gives place to what the server says.
    sent_.clear();
    copy_ends_ = 0;
    units_sent_ = units_done_ = commit_unit_ = 0;
    in_block_ = status_ != TransactionStatus::Idle;
}

void TransactionTracker::got_copy_in() {
    // The COPY is in the oldest unit. Every Sync that was sent behind it and before the end of the copy data
    // is ignored by the server. Behind a simple COPY no other message but a Sync is legal.
    auto at = sent_.begin();
    const bool simple =
        at != sent_.end() && (*at == Sent::Query || (*at == Sent::MixedQuery && at_mixed_query()));
    if (simple) ++at;
    while (at != sent_.end() && *at == Sent::Sync) {
        at = sent_.erase(at);
        --owed_;
        --units_sent_;
        copy_ate_sync_ = true;
    }
    copy_ = CopyMode::In;
    if (at != sent_.end() && is_copy_end(*at)) {
        sent_.erase(at);
        --copy_ends_;
        copy_ = CopyMode::None;
    }
    if (!simple && owed_ == 0) pipeline_open_ = true;
}

void TransactionTracker::got_error(Bytes body) {
    ErrorFields fields;
    (void)scan_error_fields(body, fields);  // the severity is at the front, so a part will do
    if (fields.fatal()) fatal_ = true;
    // Whether the COPY had read that Sync when it failed can't be seen from here.
    if (copy_ate_sync_) in_doubt_ = true;
    copy_ = CopyMode::None;
    // What was parsed or bound behind the error was skipped: names may stand for what they stood for before.
    unnamed_statement_ = unnamed_portal_ = TransactionControl::Unknown;
    for (auto& [name, control] : statements_) control = TransactionControl::Unknown;
    const auto unit = std::find_if(sent_.begin(), sent_.end(), [](Sent sent) { return !is_copy_end(sent); });
    if (unit == sent_.end()) {
        skipping_until_sync_ = pipeline_open_;
    } else if (*unit == Sent::MixedQuery && !at_mixed_query()) {
        skip_to_sync();
    }
}

void TransactionTracker::skip_to_sync() {
    while (!sent_.empty() && sent_.front() != Sent::Sync) {
        if (is_copy_end(sent_.front())) {
            --copy_ends_;
        } else {
            if (sent_.front() == Sent::MixedQuery) mixed_.erase(mixed_.begin());
            --owed_;
            ++units_done_;
        }
        sent_.pop_front();
    }
    if (sent_.empty()) skipping_until_sync_ = pipeline_open_ = true;
}

void TransactionTracker::got_notice(Bytes body) {
    ErrorFields fields;
    (void)scan_error_fields(body, fields);
    if (fields.routine == sync_wait_routine) sync_wait_canceled_ = true;
}

TransactionControl TransactionTracker::control_of_statement(std::string_view name) const {
    if (name.empty()) return unnamed_statement_;
    if (const auto it = statements_.find(name); it != statements_.end()) return it->second;
    return statements_overflow_ ? TransactionControl::Unknown : TransactionControl::None;
}

void TransactionTracker::remember(std::string_view name, TransactionControl control) {
    if (name.empty()) {
        unnamed_statement_ = control;
        return;
    }
    const auto it = statements_.find(name);
    if (it != statements_.end()) {
        // A name in use makes the new Parse fail and leaves the old statement, so either may be what runs.
        if (it->second != control) it->second = TransactionControl::Unknown;
    } else if (control != TransactionControl::None) {
        if (statements_.size() < max_remembered_statements) {
            statements_.emplace(name, control);
        } else {
            statements_overflow_ = true;
        }
    }
}

}  // namespace pgxc::wire
