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
/// The function that says 0A000 when a prepared statement has got other result columns.
constexpr std::string_view revalidate_routine = "RevalidateCachedQuery";

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
    if (!same_member_again()) backend_->unseen_settings = false;
    tell_settings_ = false;
    tried_elsewhere_ = false;
    if (!settings_unit_) settings_refused_ = false;
    if (state_ == State::LoginWaiting || state_ == State::LoginApplying) {
        learn_login(*backend_);
        return;
    }
    set_state(State::Linked);
    drop_others_statements();
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
            if (!apply_error_ && state_ == State::Applying &&
                (cancel_waits_ || backend_->pool().target().held)) {
                // Meanwhile no transaction may begin here, or the client doesn't want it any more.
                backend_->applied = wanted_;
                if (!same_member_again()) backend_->unseen_settings = false;
                tell_settings_ = false;
                begin_elsewhere(true);
            } else if (!apply_error_) {
                settings_applied();
            } else {
                refuse_settings();
            }
            return;
        }
    }
}

void Session::refuse_settings() {
    const Error error = *std::exchange(apply_error_, std::nullopt);
    const bool login = state_ == State::LoginApplying;
    if (cancel_waits_) {
        begin_elsewhere(false);
        return;
    }
    // It may be another client's setting that can't be taken back.
    const bool others = !backend_->applied->entries().empty();
    if (others && !std::exchange(tried_elsewhere_, true)) {
        begin_elsewhere(false);
        return;
    }
    tried_elsewhere_ = false;
    const auto pool = backend_->pool().shared_from_this();
    let_go(!others);
    refuse_start(error, login, *pool);
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
        // What others notify the client of comes when it comes.
        const bool own =
            backend.expected.in_own_unit() && header.type != wire::BackendMessage::NotificationResponse;
        if (!whole && (own || must_be_whole(header.type)) && header.total_bytes() <= max_seen) break;
        const wire::Bytes body = rest.substr(wire::header_bytes, here - wire::header_bytes);
        if (own) {
            collect();
            rest.remove_prefix(here);
            server_pass_ = header.total_bytes() - here;
            server_pass_dropped_ = true;
            run = rest.data();
            const std::size_t owed = tracker.ready_for_query_owed();
            tracker.server_sent(header.type, body, whole);
            const bool refuses = header.type == wire::BackendMessage::ErrorResponse;
            if (refuses && settings_unit_ == backend.expected.unit_answered()) {
                // What the client has sent behind them would be done under another one's. Next time it waits.
                settings_refused_ = true;
                input = {};
                server_lost("the server refused the client's settings");
                return;
            }
            if (tracker.fatal() || (begin_answers() && refuses)) {
                input = {};
                if (!tracker.fatal()) begin_skipped_ = owed - tracker.ready_for_query_owed();
                give_up_server(body);
                return;
            }
            if (begin_answers() && header.type == wire::BackendMessage::CommandComplete) begin_owed_ = false;
            own_answer(header.type, body);
            if (cancel_waits_ && !backend.expected.in_own_unit()) cancel();
            continue;
        }
        bool drop = drop_until_ready_;
        bool answers = true;
        bool more_needed = false;
        switch (header.type) {
            case wire::BackendMessage::DataRow:
            case wire::BackendMessage::CopyData:
                break;
            case wire::BackendMessage::BindComplete:
                tracker.server_sent(header.type, body, whole);
                drop = drop || begin_owed_;
                break;
            case wire::BackendMessage::CommandComplete: {
                drop = drop || std::exchange(begin_owed_, false);
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
                // These two are no part of an answer that is replaced.
                answers = drop = false;
                if (const auto status = wire::parse_parameter_status(body)) {
                    std::string before{backend.reported_value(status->name)};
                    backend.parameter_reported(status->name, status->value);
                    drop = !parameter_changed(status->name, status->value, std::move(before));
                }
                break;
            case wire::BackendMessage::NotificationResponse:
                answers = drop = false;
                break;
            case wire::BackendMessage::ParseComplete:
            case wire::BackendMessage::CloseComplete: {
                tracker.server_sent(header.type, body, whole);
                const auto kind = header.type == wire::BackendMessage::ParseComplete
                                      ? ExpectedAnswers::Entry::Kind::Parse
                                      : ExpectedAnswers::Entry::Kind::Close;
                const auto* entry = backend.expected.answered(kind);
                drop = drop || (entry != nullptr && entry->own);
                break;
            }
            case wire::BackendMessage::ErrorResponse: {
                const std::size_t owed = tracker.ready_for_query_owed();
                tracker.server_sent(header.type, body, whole);
                const std::size_t skipped = owed - tracker.ready_for_query_owed();
                if (begin_owed_) begin_skipped_ = skipped;
                if ((whole && gives_up_server(body)) || begin_owed_) {
                    collect();
                    input = {};
                    give_up_server(body);
                    return;
                }
                if (!drop) backend.meter.error_sent();
                if (skipped > 0) units_skipped();
                if (skipped > 0 || !backend.expected.empty()) undo(backend.expected.failed(skipped));
                break;
            }
            case wire::BackendMessage::ReadyForQuery: {
                const auto status = wire::parse_ready_for_query(body);
                tracker.server_sent(header.type, body, whole);
                backend.expected.ready();
                answers = false;
                if (std::exchange(drop_until_ready_, false)) {
                    collect();
                    backend.meter.error_sent();
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
                if (committing_) {
                    // What this one acknowledges counts now, and not when the last of a pipeline has come.
                    end_commit();
                    note_commit();
                }
                backend.meter.query_answered(context_.now(),
                                             status && *status == wire::TransactionStatus::Idle,
                                             tracker.ready_for_query_owed() > 0);
                break;
            }
            case wire::BackendMessage::CopyInResponse: {
                const std::size_t owed = tracker.ready_for_query_owed();
                tracker.server_sent(header.type, body, whole);
                if (const std::size_t eaten = owed - tracker.ready_for_query_owed(); eaten > 0)
                    backend.expected.syncs_eaten(eaten);
                break;
            }
            case wire::BackendMessage::PortalSuspended:
                // As many rows as were asked for: it has done what it does for them, and may never be ended.
                tracker.server_sent(header.type, body, whole);
                left_.add(left_when_done("SELECT", use_));
                break;
            default:
                tracker.server_sent(header.type, body, whole);
                break;
        }
        if (more_needed) break;
        // What comes in between, a notice for example, keeps its place behind what is held back.
        const bool in_between = !held_back_.empty() && held_back_.size() < max_seen && !answers &&
                                header.type != wire::BackendMessage::ReadyForQuery;
        if (to_slave_ && !drop && may_repeat() && whole && (is_only_announced(header.type) || in_between)) {
            // Not the answer yet: as long as it is held back, the master can give another one.
            collect();
            held_back_.append(rest.substr(0, here));
            drop = true;
            answers = false;
        } else if (!held_back_.empty() && !drop) {
            collect();
            client_.out().append(std::exchange(held_back_, {}));
            answers = header.type != wire::BackendMessage::ReadyForQuery;
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
    if (leaving_ && !owes_answers() && client_.backlog() == 0) {
        close();
        return;
    }
    if (server_pass_ > 0) return;
    if (!tracker.quiet()) {
        // In the middle of a pipeline: what waited for the units before it is looked at again.
        const bool known = tracker.ready_for_query_owed() == 0 || tracker.in_doubt() ||
                           tracker.copy_mode() != wire::TransactionTracker::CopyMode::None;
        if (known && !leaving_ && std::exchange(paused_, false)) resume();
        return;
    }
    if (client_pass_ > 0 && !client_pass_dropped_) {
        // Data of a COPY that has failed: the server reads on to the end of that message, and so nobody else
        // may have it.
        over_at_end_of_message_ = true;
        return;
    }
    all_answered();
}

void Session::all_answered() {
    Backend& backend = *backend_;
    if (!backend.expected.empty()) undo(backend.expected.lost());
    backend.expected.settle();
    backend.bringing.clear();
    settings_unit_.reset();  // units are numbered anew
    awaited_ = {};
    if (state_ != State::Settling) cancel_waits_ = false;
    if (backend.tracker().clean_and_idle()) {
        if (probe_) {
            settled();
        } else if (admitted_) {
            transaction_over();
        } else if (backend.pool().target().paused) {
            context_.pools->report_in_use(backend.pool().target().group);
        }
    }
    if (state_ != State::Settling && !leaving_ && std::exchange(paused_, false)) resume();
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
    if (fields->sqlstate == "0A000" && fields->routine == revalidate_routine) context_.statements.outdate();
    const bool of_statement = fields->sqlstate == "26000" || fields->sqlstate == "42P05";
    if (of_statement && fields->message.find('"' + std::string{server_name_prefix}) != std::string::npos) {
        // It isn't what it is taken for there (code has run DEALLOCATE ALL): nobody shall hear of that again.
        backend_->statements.clear();
        backend_->soiled = true;
    }
    if (fields->fatal()) {
        if (reports_lost_server(fields->sqlstate)) backend_->pool().report(TrafficFailure::ConnectionLost);
        return true;
    }
    const bool gives_up = to_slave_ && may_repeat() && is_slaves_own_error(fields->sqlstate);
    if (gives_up && fields->sqlstate == "25006") learn_write();
    return gives_up;
}

void Session::give_up_server(wire::Bytes body) {
    const auto fields = wire::parse_error_fields(body);
    const std::string cause = fields ? std::string{fields->message} : fields.error().message;
    if (begin_owed_ && fields && !fields->fatal() && !to_slave_) {
        // Another one would refuse that BEGIN as well.
        lose_transaction(cause, fields->to_error());
    } else {
        server_lost(cause);
    }
}

/// False: the client is not to hear of it.
bool Session::parameter_changed(std::string_view name, std::string_view value, std::string before) {
    const std::string lower = to_lower(name);
    // What its login asked for will be brought back before its next transaction, and the client hears of
    // that.
    if (tell_settings_) return login_wanted_->find(lower) == nullptr;
    if (!is_followed_setting(lower)) return true;
    if (std::none_of(reported_before_.begin(), reported_before_.end(),
                     [&](const auto& each) { return each.first == name; }))
        reported_before_.emplace_back(name, std::move(before));
    if (lower == "application_name") application_name_ = value;
    SettingSet changed = *wanted_;
    changed.set(lower, value);
    wanted_ = context_.setting_sets.intern(std::move(changed));
    backend_->applied = wanted_;
    // What is remembered of the others is in the encoding that was.
    if (lower == "client_encoding" && depends_on_encoding(*wanted_)) left_.add({SessionUse::SetsSession});
    return true;
}

void Session::statement_done(std::string_view tag) {
    rolled_back_ = tag == "ROLLBACK";
    if (tag == "COMMIT") settings_stand();  // it may go on with another one (AND CHAIN)
    if (tag.size() < 7 || tag[0] != 'D' || tag[1] == 'E') {
        // DELETE, DECLARE CURSOR, DEALLOCATE and all that isn't DISCARD
        if (tag.starts_with("DEALLOCATE")) {
            // Which of those it was, the server tells.
            if (backend_->sql_statements) left_.add({SessionUse::Prepares});
            if (tag == "DEALLOCATE ALL") {
                forget_statements();
            } else if (std::exchange(deallocates_, false)) {
                backend_->soiled = false;
            }
        } else if (tag == "LOAD") {
            pin(PinReasons::Loaded);
        }
        if (quiet_.pending() && (tag == "SET" || tag == "RESET"))
            quiet_.done(backend_->tracker().status() != wire::TransactionStatus::Idle);
        left_.add(left_when_done(tag, use_));
        return;
    }
    if (tag == "DISCARD SEQUENCES") {
        unpin(PinReasons::Sequences);
        left_.add({SessionUse::SetsSession});  // what it has set while it was pinned wasn't followed
    }
    if (tag != "DISCARD ALL") return;
    // The session is as new: nothing holds the client to it, and its settings are those of its login again.
    quiet_.discard_all();
    backend_->unseen_settings = false;
    forget_statements();
    if (!awaited_.followed) {
        forget_pins();
        forget_use();
        left_ = {};
        custom_settings_.clear();
    }
    backend_->applied = context_.setting_sets.intern({});
    wanted_ = login_wanted_;
    read_defaults();
    tell_settings_ = true;
}

void Session::forget_statements() {
    Backend& backend = *backend_;
    prepared_.clear();
    backend.statements.clear();
    // Nothing is brought behind what the client waits for, and so not behind this.
    sql_statements_ = backend.sql_statements = nullptr;
    backend.sql_readings.clear();
    backend.soiled = false;
    // What was sent behind that comes after it.
    for (const auto& entry : backend.expected.outstanding()) {
        const bool parse = entry.kind == ExpectedAnswers::Entry::Kind::Parse;
        if (entry.statement) {
            parse ? backend.statements.add(entry.statement)
                  : backend.statements.remove(entry.statement.get());
        } else if (parse && entry.own && !entry.unnamed) {
            backend.soiled = true;
        }
        if (entry.for_client) {
            parse ? prepared_.put(entry.client_name, entry.for_client)
                  : void(prepared_.take(entry.client_name));
        }
    }
}

void Session::answer_ready(wire::TransactionStatus status) {
    ++units_answered_;
    unit_answered_ = false;
    told_ = status;
    if (std::exchange(begin_sent_, false)) deferred_begin_.clear();
    if (status == wire::TransactionStatus::Idle) {
        ++transactions_;
        settings_stand();
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
    if (ends_now()) return;
    if (must_settle()) {
        settle();
        return;
    }
    forget_use();
    if (to_slave_ && (pinned() || unnamed_unbound_)) {
        leave_slave();
        return;
    }
    if (pinned() || unnamed_unbound_) {
        quiet_since_ = context_.coarse_now;
        asked_while_quiet_ = false;
        if (backend_->pool().target().paused) context_.pools->report_in_use(backend_->pool().target().group);
        return;
    }
    let_go(true);
    set_state(State::Idle);
    resume();
}

void Session::let_go(bool reusable) {
    end_commit();
    Backend& backend = *std::exchange(backend_, nullptr);
    if (!backend.expected.empty()) {
        backend_ = &backend;
        undo(backend.expected.lost());
        backend_ = nullptr;
    }
    backend.lend_to(nullptr);
    forget_use();
    own_uses_.clear();
    left_ = {};
    probe_.reset();
    server_pass_ = 0;
    client_pass_dropped_ = true;  // the rest of a message is for nobody
    over_at_end_of_message_ = false;
    awaited_ = {};
    deallocates_ = false;
    cancel_waits_ = false;
    drop_until_ready_ = false;
    unit_answered_ = false;
    paused_ = false;
    outstanding_.end();
    held_back_.clear();
    if (reusable && !backend.soiled) {
        backend.read_on(true);
        backend.pool().give_back(backend);
    } else {
        backend.pool().discard(backend);
    }
}

}  // namespace pgxc::pooler
