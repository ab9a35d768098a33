// What the texts of a client's transaction may do and leave behind, noted as they are sent.
#include "base/limits.h"
#include "pooler/router.h"
#include "pooler/session.h"

namespace pgxc::pooler {

void Session::note_text(std::string_view text, bool whole) {
    note_modes(text);
    note_bound(read_session_use(text, whole), text);
}

void Session::note_bound(SessionUse use, std::string_view text) {
    note_use(use, text);
    if (use_now_.has(SessionUse::SetsSession | SessionUse::CallsSetConfig | SessionUse::Calls))
        add_custom_settings(text, custom_settings_);
}

void Session::note_use(SessionUse use, std::string_view text) {
    if (sql_statements_ && use.has(SessionUse::NamesStatements)) {
        const SessionUse named = use_of_named(text);
        use.add(named);
        set_in_transaction_ = set_in_transaction_ || named.has(SessionUse::Sets);
    }
    if (makes_all_temporary_) use.add({SessionUse::MakesTemporary});
    use_now_ = use;
    if (!use.any()) return;
    const bool drew_before = use_.has(SessionUse::MovesSequence);
    use_.add(use);
    left_.add(left_when_sent(use));
    if (use.has(SessionUse::Sets) && may_change_reading(text, use)) set_in_transaction_ = true;
    if (use.has(SessionUse::Prepares)) {
        const auto named = read_statement_name(text);
        names_in_transaction_.add(named ? named->name : std::string{});
    }
    if (use.has(SessionUse::Awaited)) awaited_.prepared = true;
    if (use.has(SessionUse::Unreadable)) pin(PinReasons::Unreadable);
    if (use.has(SessionUse::Seeds)) pin(PinReasons::Seeded);
    if (use.has(SessionUse::ReadsSequence | SessionUse::MovesSequence))
        keep_sequence_values(use, drew_before);
    if (use.has(SessionUse::SetsUnknown) || custom_settings_.size() > limits::max_custom_settings)
        pin(PinReasons::SetUnknown);
}

void Session::keep_sequence_values(SessionUse use, bool drew_before) {
    NodePool& pool = backend_->pool();
    if (use.has(SessionUse::ReadsSequence)) pool.sequence_values_asked();
    if (!pool.tells_sequence_values() || to_slave_ || pins_.has(PinReasons::Sequences)) return;
    const auto& tracker = backend_->tracker();
    const bool first = !tracker.pipeline_open() || begin_last_;
    // Its own of this transaction, drawn before anybody had asked, stay.
    if (!drew_before && !same_member_again() && first &&
        tracker.status() != wire::TransactionStatus::Failed) {
        // Values that others have drawn there must not be taken for this client's: then there is none yet.
        put_own_query(context_.front, "DISCARD SEQUENCES");
    }
    pin(PinReasons::Sequences);
}

void Session::note_access(wire::FrontendMessage type, wire::Bytes body, bool whole) {
    const auto text = text_of(type, body);
    if (!text) {
        if (type == wire::FrontendMessage::Bind) access_ = Access::Open;
        return;
    }
    // The text of what was prepared is known, however long the values are.
    whole = whole || type == wire::FrontendMessage::Bind || type == wire::FrontendMessage::Describe;
    if (!whole || access_ == Access::Ended) {
        access_ = Access::Open;
        return;
    }
    switch (wire::read_statement_head(*text).control) {
        case wire::TransactionControl::Begin:
            // Inside of a block it warns, but its modes count.
            if (!is_declared_read_only(*text, default_read_only_, default_serializable_))
                access_ = Access::Open;
            return;
        case wire::TransactionControl::Commit:
        case wire::TransactionControl::Rollback:
            access_ = Access::Ended;
            return;
        case wire::TransactionControl::None: {
            // Before its first snapshot a transaction may be made one that writes, and only by SET.
            const wire::SqlToken first = wire::SqlScanner{*text}.next();
            if (first.is("set") || first.is("reset") || first.is("discard")) access_ = Access::Open;
            return;
        }
        case wire::TransactionControl::Savepoint:
            return;
        case wire::TransactionControl::Prepare:
        case wire::TransactionControl::Other:
        case wire::TransactionControl::Unknown:
            access_ = Access::Open;
            return;
    }
}

void Session::note_commit() {
    if (committing_ || to_slave_ || (access_ != Access::Open && !pinned())) return;
    const auto& tracker = backend_->tracker();
    if (!tracker.commit_may_be_running()) return;
    if (only_reads_) {
        // Nothing but the one statement that is known to read.
        const std::size_t owed = tracker.ready_for_query_owed() - backend_->expected.own_units();
        if (owed == 0 || (owed == 1 && !tracker.pipeline_open())) return;
        only_reads_ = false;
    }
    committing_ = true;
    commit_ = backend_->pool().position().commit_begins();
}

void Session::end_commit() {
    if (!std::exchange(committing_, false)) return;
    backend_->pool().position().commit_ends(commit_, maybe_async_ || backend_->async_commit.value_or(true));
}

void Session::pin(std::uint16_t reasons) {
    if ((pins_.bits | reasons) == pins_.bits) return;
    pins_.add(reasons);
    pin_text_ = pins_.text();
    context_.stats_changed = true;
}

}  // namespace pgxc::pooler
