#include <algorithm>
#include <array>

#include "base/log.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {
namespace {

/// A message that must be seen whole; the server's own texts are shorter.
constexpr std::size_t max_seen = 32 * 1024;
/// The function whose warning says that a commit is on no synchronous slave (F19).
constexpr std::string_view sync_wait_routine = "SyncRepWaitForLSN";

bool must_be_whole(wire::BackendMessage type) {
    switch (type) {
        case wire::BackendMessage::ReadyForQuery:
        case wire::BackendMessage::CommandComplete:
        case wire::BackendMessage::ErrorResponse:
        case wire::BackendMessage::NoticeResponse:
        case wire::BackendMessage::ParameterStatus:
            return true;
        default:
            return false;
    }
}

/// What a server says before it has anything to tell.
bool is_only_announced(wire::BackendMessage type) {
    return type == wire::BackendMessage::ParseComplete || type == wire::BackendMessage::BindComplete ||
           type == wire::BackendMessage::RowDescription || type == wire::BackendMessage::NoData ||
           type == wire::BackendMessage::ParameterDescription;
}

/// F38: errors that a slave may give because it is one. Everything else is the client's answer.
bool is_slaves_own_error(std::string_view state) {
    static constexpr std::array<std::string_view, 9> states{"25006", "0A000", "40001", "40P01", "55000",
                                                            "57P01", "57P02", "57P03", "57P04"};
    return state.starts_with("08") || std::find(states.begin(), states.end(), state) != states.end();
}

bool reports_lost_server(std::string_view state) {
    return state == "57P01" || state == "57P02" || state == "57P03";
}

}  // namespace

void Session::settings_applied() {
    backend_->applied = wanted_;
    tell_settings_ = false;
    if (state_ == State::LoginWaiting || state_ == State::LoginApplying) {
        learn_login(*backend_);
        return;
    }
    set_state(State::Linked);
    if (!beginning_) resume();
}

void Session::server_input(wire::Bytes& input) {
    if (state_ == State::LoginApplying || state_ == State::Applying) {
        applying_input(input);
    } else {
        relay(input);
    }
}

void Session::applying_input(wire::Bytes& input) {
    while (!input.empty()) {
        const auto header = wire::read_backend_header(input);
        if (header.violation()) {
            server_lost("the server sent something that is not the PostgreSQL protocol");
            return;
        }
        if (!header.complete() || input.size() < header.total_bytes()) return;
        const wire::Bytes body = input.substr(wire::header_bytes, header.body_bytes);
        input.remove_prefix(header.total_bytes());
        if (header.type == wire::BackendMessage::ParameterStatus) {
            if (const auto status = wire::parse_parameter_status(body)) {
                backend_->parameter_reported(status->name, status->value);
                if (tell_settings_) wire::put_parameter_status(client_.out(), status->name, status->value);
            }
        } else if (header.type == wire::BackendMessage::ErrorResponse) {
            const auto fields = wire::parse_error_fields(body);
            if (!fields || fields->fatal()) {
                server_lost(fields ? std::string{fields->message} : fields.error().message);
                return;
            }
            apply_error_ = fields->to_error();
        } else if (header.type == wire::BackendMessage::ReadyForQuery) {
            if (!apply_error_) {
                settings_applied();
            } else {
                settings_refused();
            }
            return;
        }
    }
}

void Session::settings_refused() {
    const Error error = *std::exchange(apply_error_, std::nullopt);
    const bool login = state_ == State::LoginApplying;
    let_go(true);
    if (login) {
        refuse_login(error);
    } else {
        refuse_pending(error);
    }
}

void Session::relay(wire::Bytes& input) {
    Backend& backend = *backend_;
    auto& tracker = backend.tracker();
    wire::Bytes rest = input;
    const char* run = rest.data();  // where the bytes begin that go to the client
    // Puts the bytes so far in front of what is appended to out() next.
    const auto collect = [&] {
        client_.out().append(run, static_cast<std::size_t>(rest.data() - run));
        run = rest.data();
    };
    while (!rest.empty()) {
        if (server_pass_ > 0) {
            const std::size_t bytes = std::min(server_pass_, rest.size());
            server_pass_ -= bytes;
            rest.remove_prefix(bytes);
            if (server_pass_dropped_) run = rest.data();
            continue;
        }
        const auto header = wire::read_backend_header(rest);
        if (header.violation()) {
            collect();
            input = {};
            server_lost("the server sent something that is not the PostgreSQL protocol");
            return;
        }
        if (!header.complete()) break;
        const std::size_t here = std::min(header.total_bytes(), rest.size());
        const bool whole = here == header.total_bytes();
        if (!whole && must_be_whole(header.type) && header.total_bytes() <= max_seen) break;
        const wire::Bytes body = rest.substr(wire::header_bytes, here - wire::header_bytes);
        bool drop = swallow_units_ > 0 || drop_until_ready_;
        bool answers = true;
        bool more_needed = false;
        switch (header.type) {
            case wire::BackendMessage::DataRow:
            case wire::BackendMessage::CopyData:
                break;
            case wire::BackendMessage::CommandComplete: {
                if (!drop && tracker.ready_for_query_owed() > 0) {
                    const Tail tail = rest.size() > max_seen ? Tail::Durable : read_tail(rest.substr(here));
                    if (tail == Tail::NotYetKnown) {
                        more_needed = true;
                        break;
                    }
                    drop = tail == Tail::NotDurable;
                }
                tracker.server_sent(header.type, body, whole);
                if (const auto tag = wire::parse_command_complete(body)) statement_done(*tag);
                break;
            }
            case wire::BackendMessage::NoticeResponse:
                tracker.server_sent(header.type, body, whole);
                answers = false;
                if (tracker.sync_wait_canceled()) {
                    drop_until_ready_ = true;
                    drop = true;
                } else if (whole && holds_back_notice(body)) {
                    drop = true;
                }
                break;
            case wire::BackendMessage::ParameterStatus:
                answers = false;
                if (const auto status = wire::parse_parameter_status(body)) {
                    backend.parameter_reported(status->name, status->value);
                    drop = drop || !parameter_changed(status->name, status->value);
                }
                break;
            case wire::BackendMessage::NotificationResponse:
                answers = false;
                break;
            case wire::BackendMessage::ErrorResponse:
                tracker.server_sent(header.type, body, whole);
                if (whole && gives_up_server(body)) {
                    collect();
                    input = {};
                    const auto fields = wire::parse_error_fields(body);
                    server_lost(fields ? std::string{fields->message} : fields.error().message);
                    return;
                }
                break;
            case wire::BackendMessage::ReadyForQuery: {
                const auto status = wire::parse_ready_for_query(body);
                tracker.server_sent(header.type, body, whole);
                answers = false;
                if (swallow_units_ > 0) {
                    --swallow_units_;
                    break;
                }
                if (std::exchange(drop_until_ready_, false)) {
                    collect();
                    wire::put_error_response(client_.out(), wire::Severity::Error,
                                             {sqlstate::transaction_resolution_unknown,
                                              "the commit is not known to be on a synchronous slave of " +
                                                  backend.pool().node_text(),
                                              "Check whether the transaction took effect, now and after a "
                                              "failover, before you repeat it.",
                                              "The server stopped waiting for its synchronous slaves after "
                                              "it had committed locally."});
                    drop = false;
                }
                if (status) answer_ready(*status);
                break;
            }
            default:
                tracker.server_sent(header.type, body, whole);
                break;
        }
        if (more_needed) break;
        if (to_slave_ && !drop && may_repeat() && whole && is_only_announced(header.type)) {
            // Not the answer yet: as long as it is held back, the master can give another one.
            collect();
            held_back_.append(rest.substr(0, here));
            drop = true;
            answers = false;
        } else if (!held_back_.empty() && !drop) {
            collect();
            client_.out().append(std::exchange(held_back_, {}));
        }
        if (drop) collect();
        rest.remove_prefix(here);
        server_pass_ = header.total_bytes() - here;
        server_pass_dropped_ = drop;
        if (drop) run = rest.data();
        if (!drop && answers) unit_answered_ = true;
    }
    input = rest;
    if (!tracker.commit_may_be_running()) end_commit();
    if (!send({run, static_cast<std::size_t>(rest.data() - run)}) || backend_ != &backend) return;
    if (tracker.quiet() && server_pass_ == 0) {
        if (leaving_) {
            close();
            return;
        }
        if (tracker.clean_and_idle()) transaction_over();
        if (std::exchange(paused_, false)) resume();
    }
}

Session::Tail Session::read_tail(wire::Bytes behind) {
    while (true) {
        const auto header = wire::read_backend_header(behind);
        if (header.violation()) return Tail::Durable;  // told by who reads it next
        if (!header.complete()) return Tail::NotYetKnown;
        if (header.type != wire::BackendMessage::NoticeResponse) return Tail::Durable;
        if (header.total_bytes() > max_seen) return Tail::Durable;
        if (behind.size() < header.total_bytes()) return Tail::NotYetKnown;
        const auto fields = wire::parse_error_fields(behind.substr(wire::header_bytes, header.body_bytes));
        if (fields && fields->routine == sync_wait_routine) return Tail::NotDurable;
        behind.remove_prefix(header.total_bytes());
    }
}

bool Session::gives_up_server(wire::Bytes body) {
    const auto fields = wire::parse_error_fields(body);
    if (!fields) return true;
    if (fields->sqlstate == "25006" && backend_->pool().target().is_master &&
        backend_->reported_value("in_hot_standby") == "on") {
        backend_->pool().report(TrafficFailure::ServerSaysReadOnly);
    }
    if (fields->fatal()) {
        if (reports_lost_server(fields->sqlstate)) backend_->pool().report(TrafficFailure::ConnectionLost);
        return true;
    }
    const bool gives_up = to_slave_ && may_repeat() && is_slaves_own_error(fields->sqlstate);
    if (gives_up && fields->sqlstate == "25006") learn_write();
    return gives_up;
}

/// False: the client is not to hear of it.
bool Session::parameter_changed(std::string_view name, std::string_view value) {
    const std::string lower = to_lower(name);
    // What its login asked for will be brought back before its next transaction, and the client hears of
    // that.
    if (tell_settings_) return login_wanted_->find(lower) == nullptr;
    if (!is_followed_setting(lower) || !pin_reason_.empty()) return true;
    if (lower == "application_name") application_name_ = value;
    auto changed = std::make_shared<SettingSet>(*wanted_);
    changed->set(lower, value);
    wanted_ = std::move(changed);
    backend_->applied = wanted_;
    return true;
}

void Session::statement_done(std::string_view tag) {
    rolled_back_ = tag == "ROLLBACK";
    if (quiet_.pending() && (tag == "SET" || tag == "RESET"))
        quiet_.done(backend_->tracker().status() != wire::TransactionStatus::Idle);
    if (tag == "DISCARD ALL") {
        quiet_.discard_all();
        // The session is as new: nothing holds the client to it, and its settings are those of its login
        // again.
        pin_reason_ = {};
        keep_for_bind_ = false;
        use_ = {};
        static const SettingSetRef none = std::make_shared<const SettingSet>();
        backend_->applied = none;
        wanted_ = login_wanted_;
        tell_settings_ = true;
        return;
    }
    if (!pin_reason_.empty()) return;
    if (const auto reason = pin_reason_when_done(tag, use_); !reason.empty()) pin(reason);
}

void Session::answer_ready(wire::TransactionStatus status) {
    ++units_answered_;
    unit_answered_ = false;
    if (status == wire::TransactionStatus::Idle) {
        ++transactions_;
        quiet_.transaction_ended(!rolled_back_);
    }
    if (movable_) {
        unit_answered_in_block(status);
        return;
    }
    if (repeatable_ && !(begins_with_begin_ && units_answered_ == 1)) {
        repeatable_ = false;
        sent_.clear();
    }
}

void Session::transaction_over() {
    transaction_seen();
    forget_block();
    units_answered_ = 0;
    repeatable_ = false;
    sent_.clear();
    force_master_ = false;
    if (end_when_idle_) {
        const Error error = *end_when_idle_;
        end(error);
        return;
    }
    if (to_slave_ && !pin_reason_.empty()) {
        // A slave can't be this client's only server. What was kept there is lost; from now on the master has
        // it.
        never_slave_ = true;
        pin_reason_ = {};
        let_go(false);
    } else if (pin_reason_.empty() && !keep_for_bind_) {
        let_go(true);
    } else {
        if (backend_->pool().target().paused) context_.pools->report_in_use(backend_->pool().target().group);
        return;
    }
    set_state(State::Idle);
    resume();
}

void Session::let_go(bool reusable) {
    end_commit();
    Backend& backend = *std::exchange(backend_, nullptr);
    backend.lend_to(nullptr);
    use_ = {};
    server_pass_ = 0;
    drop_until_ready_ = false;
    swallow_units_ = 0;
    unit_answered_ = false;
    paused_ = false;
    first_unit_ = false;
    outstanding_.end();
    held_back_.clear();
    if (reusable) {
        backend.read_on(true);
        backend.pool().give_back(backend);
    } else {
        backend.pool().discard(backend);
    }
}

bool Session::may_repeat() const {
    return repeatable_ && !unit_answered_ && swallow_units_ == 0 && client_pass_ == 0;
}

void Session::repeat_elsewhere() {
    // What was sent goes in front of what wasn't, and the first unit's answer isn't given twice.
    std::string all = std::exchange(sent_, {});
    all += kept_;
    kept_ = std::move(all);
    const bool was_slave = to_slave_;
    let_go(false);
    repeatable_ = false;
    movable_ = false;
    force_master_ = force_master_ || was_slave;
    swallow_next_ = units_answered_;
    set_state(State::Idle);
    resume();
}

void Session::server_lost(const std::string& cause) {
    switch (state_) {
        case State::LoginApplying:
        case State::Applying: {
            // Nothing of the client's has gone there.
            const auto pool = backend_->pool().shared_from_this();
            const bool login = state_ == State::LoginApplying;
            let_go(false);
            set_state(login ? State::LoginWaiting : State::Waiting);
            client_.stream().want_readable(true);
            wait_for(pool);
            return;
        }
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

void Session::lose_transaction(const std::string& cause) {
    auto& tracker = backend_->tracker();
    const bool in_block = tracker.status() != wire::TransactionStatus::Idle;
    const bool read_only = repeatable_ || to_slave_;
    const bool unknown = !read_only && tracker.commit_may_be_running();
    const std::size_t owed = tracker.ready_for_query_owed();
    // A COPY that has eaten its Sync owes nothing, and yet its client must hear that it is over.
    const bool pipeline = tracker.pipeline_open() ||
                          (owed == 0 && tracker.copy_mode() != wire::TransactionTracker::CopyMode::None);
    const bool busy = owed > 0 || pipeline;
    const Error error = loss_error(cause, busy && (unknown || (!in_block && !read_only)));
    log_info("pooler: client " + from_.to_string() + " lost its server: " + error.message + ": " + cause);
    // A message that was cut off in the middle can't be ended, and a pinned session is lost with its server.
    if (server_pass_ > 0 && !server_pass_dropped_) {
        close();
        return;
    }
    if (!pin_reason_.empty() || keep_for_bind_) {
        Error fatal = error;
        fatal.hint += " The connection depended on that server session (" +
                      std::string{pin_reason_.empty() ? "prepared statement" : pin_reason_} +
                      "): connect again.";
        end(fatal);
        return;
    }
    const bool block_survives = in_block && !(busy && tracker.commit_may_be_running());
    transaction_seen();
    forget_block();
    if (block_survives) failed_block_.fail_block(busy ? std::nullopt : std::optional{error});
    units_answered_ = 0;
    repeatable_ = false;
    sent_.clear();
    force_master_ = false;
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
    if (end_when_idle_) {
        const Error last = *end_when_idle_;
        end(last);
        return;
    }
    if (send()) resume();
}

void Session::server_writable() {
    if (client_.open() && !client_.congested() && !leaving_) client_.stream().want_readable(true);
}

}  // namespace pgxc::pooler
