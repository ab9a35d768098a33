// What it means for a client that its server connection is lost.
#include "base/log.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {
namespace {

/// A transaction whose own statement ends its server is not to end one after the other.
constexpr unsigned max_repeats = 3;

}  // namespace

bool Session::may_repeat() const {
    return repeatable_ && !unit_answered_ && client_pass_ == 0 && repeats_ < max_repeats;
}

void Session::repeat_elsewhere() {
    const bool was_slave = to_slave_;
    let_go(false);
    take_settings_back();
    forget_sent_names();
    std::string all = std::exchange(sent_, {});
    ++repeats_;
    begin_declared_ = !movable_;
    if (told_ != wire::TransactionStatus::Idle && deferred_begin_.empty()) {
        // Its BEGIN has been answered.
        const std::size_t bytes = wire::read_frontend_header(all, wire::FrontendPhase::Normal).total_bytes();
        deferred_begin_ = all.c_str() + wire::header_bytes;
        all.erase(0, bytes);
    }
    // What was sent goes in front of what wasn't.
    all += kept_;
    kept_ = std::move(all);
    repeatable_ = false;
    movable_ = false;
    force_master_ = force_master_ || was_slave;
    forget_pins();
    set_state(State::Idle);
    // The answer of what was done before may have come together with the loss.
    if (send()) resume();
}

void Session::take_settings_back() {
    if (!wanted_before_ || wanted_before_ == wanted_) return;
    wanted_ = wanted_before_;
    read_defaults();
    for (const auto& [name, value] : std::exchange(reported_before_, {}))
        wire::put_parameter_status(client_.out(), name, value);
}

void Session::leave_silent_slave(const std::string& cause) {
    if (!to_slave_) return;
    if (state_ == State::Applying || (state_ == State::Linked && may_repeat())) server_lost(cause);
}

void Session::begin_elsewhere(bool reusable) {
    const auto pool = backend_->pool().shared_from_this();
    const bool login = state_ == State::LoginApplying;
    // What was answered without the server ended the first wait.
    const bool again = !unit_answered_;
    const bool canceled = state_ == State::Applying && cancel_waits_;
    let_go(reusable);
    client_.stream().want_readable(true);
    if (canceled) {
        tried_elsewhere_ = false;
        refuse_canceled(*pool);
        return;
    }
    if (!login && to_slave_ && !pool->target().exists) {
        // Nobody will ever connect there.
        begin_at_master();
        return;
    }
    set_state(login ? State::LoginWaiting : State::Waiting);
    wait_for(pool, again);
}

void Session::begin_at_master() {
    force_master_ = true;
    set_state(State::Idle);
    resume();
}

void Session::server_lost(const std::string& cause) {
    switch (state_) {
        case State::LoginApplying:
        case State::Applying:
            begin_elsewhere(false);
            return;
        case State::Settling:
        case State::Linked:
            if (may_repeat()) {
                repeat_elsewhere();
            } else {
                lose_transaction(cause);
            }
            return;
        case State::Login:
        case State::LoginWaiting:
        case State::Idle:
        case State::Waiting:
        case State::Ended:
            return;
    }
}

Error Session::loss_error(const std::string& cause, bool outcome_unknown) const {
    const std::string node = backend_->pool().node_text();
    if (outcome_unknown) {
        return {sqlstate::transaction_resolution_unknown,
                "the connection to " + node + " was lost before the outcome of the transaction was known",
                "Check whether the transaction took effect before you repeat it.", cause};
    }
    return {sqlstate::connection_failure, "the connection to " + node + " was lost",
            "The transaction was rolled back: repeat it.", cause};
}

void Session::lose_transaction(const std::string& cause, const std::optional<Error>& refusal) {
    auto& tracker = backend_->tracker();
    const bool in_block = told_ != wire::TransactionStatus::Idle;
    const bool read_only = repeatable_ || to_slave_ || state_ == State::Settling;
    const bool unknown = !read_only && tracker.commit_may_be_running();
    const std::size_t owed = tracker.ready_for_query_owed() - backend_->expected.own_units() + begin_skipped_;
    // A COPY that has eaten its Sync owes nothing, and yet its client must hear that it is over.
    // The Query behind a refused BEGIN was skipped, and is answered here: no Sync will come for it.
    const bool skips_own = begin_skipped_ > 0 && tracker.skipping_until_sync();
    const bool pipeline = (tracker.pipeline_open() && !skips_own) ||
                          (owed == 0 && tracker.copy_mode() != wire::TransactionTracker::CopyMode::None);
    const bool busy = owed > 0 || pipeline;
    const Error error =
        refusal ? *refusal : loss_error(cause, busy && (unknown || (!in_block && !read_only)));
    backend_->meter.error_sent();
    log_info("pooler: client " + from_.to_string() + " lost its server: " + error.message + ": " + cause);
    // A message that was cut off in the middle can't be ended, and a pinned session is lost with its server.
    if (server_pass_ > 0 && !server_pass_dropped_) {
        close();
        return;
    }
    if (begin_owed_) {
        // Nothing was drawn.
        unpin(PinReasons::Sequences);
    }
    if (pinned() || unnamed_unbound_ || state_ == State::Settling) {
        Error fatal = error;
        const std::string_view why = pinned()           ? std::string_view{pin_text_}
                                     : unnamed_unbound_ ? "prepared statement"
                                                        : "settings";
        fatal.hint +=
            " The connection depended on that server session (" + std::string{why} + "): connect again.";
        end(fatal);
        return;
    }
    const bool block_survives = in_block && (refusal || !(busy && tracker.commit_may_be_running()));
    transaction_seen();
    forget_block();
    take_settings_back();
    if (block_survives) failed_block_.fail_block(busy ? std::nullopt : std::optional{error});
    let_go(false);
    set_state(State::Idle);
    if (busy) {
        auto& out = client_.out();
        for (std::size_t unit = 0; unit < owed; ++unit) {
            wire::put_error_response(out, wire::Severity::Error, error);
            wire::put_ready_for_query(out, failed_block_.status());
        }
        if (pipeline) {
            wire::put_error_response(out, wire::Severity::Error, error);
            failed_block_.skip_until_sync();
        }
    }
    if (ends_now()) return;
    if (send()) resume();
}

void Session::server_writable() {
    if (!client_.open() || leaving_) return;
    // What is in hand for the client waits for an answer that won't come before the client has said more.
    if (send() && client_.backlog() == 0) client_.stream().want_readable(true);
}

}  // namespace pgxc::pooler
