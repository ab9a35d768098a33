// What a client's transactions leave behind in their server session: it is asked for when the transaction is
// over, remembered where another session can be given it, and otherwise pins the client.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {

bool Session::must_settle() const {
    if (left_.any()) return true;
    if (!pins_.has(PinReasons::probed | PinReasons::NamedInSql)) return false;
    return use_.has(SessionUse::Releases | SessionUse::Calls | SessionUse::SetsSession);
}

void Session::settle() {
    constexpr std::uint32_t code = SessionUse::Calls | SessionUse::RunsCode;
    // What prepared statements do that SQL names isn't known from what was sent.
    const bool locks = left_.has(SessionUse::LocksSession | code) ||
                       pins_.has(PinReasons::AdvisoryLock | PinReasons::NotKnown | PinReasons::Prepared |
                                 PinReasons::NamedInSql);
    if (left_.has(code)) backend_->unseen_settings = true;
    set_state(State::Settling);
    probe_ = std::make_unique<ProbeAnswer>();
    own_failed_ = false;
    put_own_query(backend_->connection().out(), probe_sql(locks, custom_settings_));
    if (!backend_->connection().flush()) server_lost(std::strerror(backend_->connection().error()));
}

void Session::put_settings() {
    put_own_query(backend_->connection().out(), change_settings_sql(*backend_->applied, *wanted_));
}

void Session::put_own_query(wire::Buffer& out, std::string_view sql) {
    wire::put_query(out, sql);
    backend_->unnamed = 0;  // as by every Query
    backend_->tracker().own_unit_sent();
    backend_->expected.sent_unit_end(true);
}

void Session::own_answer(wire::BackendMessage type, wire::Bytes body) {
    switch (type) {
        case wire::BackendMessage::DataRow:
            if (probe_ && !probe_->take_row(body)) own_failed_ = true;
            return;
        case wire::BackendMessage::ErrorResponse: {
            const auto fields = wire::parse_error_fields(body);
            if (fields && !probe_ && not_brought(fields->message)) return;
            log_warning("pooler: client " + from_.to_string() + ": " + backend_->pool().node_text() +
                        (probe_ ? " does not tell what is left in the session: "
                                : " refused what the pooler sent for it: ") +
                        (fields ? std::string{fields->message} : fields.error().message));
            own_failed_ = true;
            if (!probe_) {
                backend_->soiled = true;
                // In a failed block none of its statements could be brought under their own names.
                if (backend_->tracker().status() != wire::TransactionStatus::Idle)
                    unpin(PinReasons::NamedInSql);
            }
            if (!backend_->expected.empty()) undo(backend_->expected.failed());
            return;
        }
        case wire::BackendMessage::ParameterStatus:
            if (const auto status = wire::parse_parameter_status(body)) {
                backend_->parameter_reported(status->name, status->value);
                if (tell_settings_) wire::put_parameter_status(client_.out(), status->name, status->value);
            }
            return;
        case wire::BackendMessage::ParseComplete:
            (void)backend_->expected.answered(ExpectedAnswers::Entry::Kind::Parse);
            return;
        case wire::BackendMessage::CloseComplete:
            (void)backend_->expected.answered(ExpectedAnswers::Entry::Kind::Close);
            return;
        case wire::BackendMessage::ReadyForQuery:
            backend_->expected.ready();
            if (!probe_) tell_settings_ = false;
            return;
        default:
            return;
    }
}

void Session::take_over_settings() {
    SettingSet now = std::move(probe_->settings);
    if (const std::string* who = now.find(session_authorization); who != nullptr && *who == user_)
        now.erase(session_authorization);
    SettingSet wanted = now;
    const std::string* level = now.find("client_min_messages");
    quiet_.found(level == nullptr ? std::nullopt : std::optional<std::string_view>{*level});
    if (level != nullptr && is_quiet_level(*level))
        wanted.set("client_min_messages", std::string{loud_level});
    // What the login asked for and RESET took away is what RESET goes back to.
    for (const auto& [name, value] : login_wanted_->entries()) {
        if (wanted.find(name) != nullptr) continue;
        wanted.set(name, value);
        tell_settings_ = true;
    }
    backend_->applied = context_.setting_sets.intern(std::move(now));
    wanted_ = context_.setting_sets.intern(std::move(wanted));
    read_defaults();
}

void Session::settled() {
    // Of the statement that waits for this, whatever becomes of it now.
    const bool canceled = std::exchange(cancel_waits_, false);
    take_over_what_is_left();
    if (canceled) cancel();
}

void Session::take_over_what_is_left() {
    PinReasons pins{static_cast<std::uint16_t>(pins_.bits & ~PinReasons::probed)};
    if (own_failed_) {
        // It stays as it is until the server can tell.
        pins = pins_;
        pins.add(PinReasons::NotKnown);
    } else {
        pins.add(probe_->pins.bits);
        // A name that was taken before, of which the server was to say so: the connection goes with its
        // transaction.
        if (backend_->soiled && !pins_.has(PinReasons::Prepared | PinReasons::NamedInSql) &&
            !use_.has(SessionUse::Prepares))
            pins.bits &= static_cast<std::uint16_t>(~PinReasons::Prepared);
        if (pins.has(PinReasons::NamedInSql)) {
            // Its statements are there under its own names, and what isn't there is there nowhere.
            if (!pins.has(PinReasons::Prepared)) {
                prepared_.clear();
                pins.bits &= static_cast<std::uint16_t>(~PinReasons::NamedInSql);
            }
            pins.bits &= static_cast<std::uint16_t>(~PinReasons::Prepared);
        }
        take_over_settings();
        take_over_sql_statements();
        own_names_ = std::move(probe_->own_names);
    }
    probe_.reset();
    left_ = {};
    forget_use();
    if (pins.bits != pins_.bits) {
        pins_ = pins;
        pin_text_ = pins.text();
        context_.stats_changed = true;
    }
    if (to_slave_ && (pinned() || unnamed_unbound_)) {
        leave_slave();
        return;
    }
    if (pinned() || unnamed_unbound_) {
        quiet_since_ = context_.coarse_now;
        set_state(State::Linked);
        if (backend_->pool().target().paused) context_.pools->report_in_use(backend_->pool().target().group);
        if (backend_->applied != wanted_) {
            put_settings();
            backend_->applied = wanted_;
            if (!backend_->connection().flush()) {
                server_lost(std::strerror(backend_->connection().error()));
                return;
            }
        }
    } else {
        let_go(true);
        set_state(State::Idle);
    }
    paused_ = false;
    resume();
}

}  // namespace pgxc::pooler
