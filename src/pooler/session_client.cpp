#include <algorithm>
#include <cstring>

#include "base/limits.h"
#include "pooler/database_command.h"
#include "pooler/router.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {
namespace {

/// How much of a message is looked at: the whole text of statements, the names in front of everything else.
constexpr std::size_t max_statement_seen = limits::max_statement_bytes;
constexpr std::size_t max_names_seen = 512;
/// A read-only transaction whose messages are larger is not repeated elsewhere.
constexpr std::size_t max_repeatable = 64 * 1024;

std::size_t bytes_to_see(wire::FrontendMessage type, std::size_t total) {
    switch (type) {
        case wire::FrontendMessage::Query:
        case wire::FrontendMessage::Parse:
            return std::min(total, max_statement_seen);
        case wire::FrontendMessage::Bind:
        case wire::FrontendMessage::Close:
        case wire::FrontendMessage::Describe:
        case wire::FrontendMessage::Execute:
            return std::min(total, max_names_seen);
        case wire::FrontendMessage::CopyData:
        case wire::FrontendMessage::CopyDone:
        case wire::FrontendMessage::CopyFail:
        case wire::FrontendMessage::Flush:
        case wire::FrontendMessage::FunctionCall:
        case wire::FrontendMessage::Password:
        case wire::FrontendMessage::Sync:
        case wire::FrontendMessage::Terminate:
            return wire::header_bytes;
    }
    return wire::header_bytes;
}

/// The text of a Query or Parse, or its front; nullopt for everything else.
std::optional<std::string_view> statement_text(wire::FrontendMessage type, wire::Bytes body) {
    wire::BodyReader reader{body};
    if (type == wire::FrontendMessage::Parse) (void)reader.cstring();
    if (type != wire::FrontendMessage::Query && type != wire::FrontendMessage::Parse) return std::nullopt;
    const wire::Bytes text = reader.rest();
    return text.substr(0, text.find('\0'));
}

/// Does it do something with what a session has set or prepared?
bool uses_session(wire::FrontendMessage type) {
    return type == wire::FrontendMessage::Bind || type == wire::FrontendMessage::Describe ||
           type == wire::FrontendMessage::Execute || type == wire::FrontendMessage::FunctionCall ||
           type == wire::FrontendMessage::Parse || type == wire::FrontendMessage::Query;
}

}  // namespace

void Session::take_commands(wire::Bytes input) {
    std::string again_input;
    do {
        again_ = false;
        taking_ = true;
        wire::Bytes rest = input;
        const char* run = rest.data();       // where the bytes begin that go to the server as they are
        const char* original = rest.data();  // where the bytes begin that were not written to it in any form
        bool paused = false;
        bool over = false;  // the transaction, with the message that ends here
        const auto since = [&](const char* from) {
            return wire::Bytes{from, static_cast<std::size_t>(rest.data() - from)};
        };
        while (!rest.empty() && !paused && state_ != State::Ended) {
            if (client_pass_ > 0) {
                const std::size_t bytes = std::min(client_pass_, rest.size());
                client_pass_ -= bytes;
                rest.remove_prefix(bytes);
                if (client_pass_dropped_) run = original = rest.data();
                if (client_pass_ == 0) over = paused = std::exchange(over_at_end_of_message_, false);
                continue;
            }
            const auto header = wire::read_frontend_header(rest, wire::FrontendPhase::Normal);
            if (header.violation()) {
                protocol_error(wire::to_error(header));
                break;
            }
            if (!header.complete() || rest.size() < bytes_to_see(header.type, header.total_bytes())) break;
            const std::size_t here = std::min(header.total_bytes(), rest.size());
            const bool whole = here == header.total_bytes();
            upcoming_ = rest;
            switch (admit(header.type, rest.substr(wire::header_bytes, here - wire::header_bytes), whole)) {
                case Admit::Forward:
                    run = put_front(since(run), rest);
                    rest.remove_prefix(here);
                    client_pass_ = header.total_bytes() - here;
                    client_pass_dropped_ = false;
                    client_pass_owes_ = header.type == wire::FrontendMessage::Query ||
                                        header.type == wire::FrontendMessage::FunctionCall ||
                                        header.type == wire::FrontendMessage::Sync ||
                                        header.type == wire::FrontendMessage::CopyFail;
                    break;
                case Admit::Drop:
                    // What was put there is for this server, though the message is answered here.
                    run = put_front(since(run), rest);
                    client_pass_ = header.total_bytes() - here;
                    client_pass_dropped_ = true;
                    client_pass_owes_ = false;
                    // It has been answered: whoever does the rest isn't sent it again.
                    if (!forward(since(run), since(original), rest.substr(here))) {
                        rest = {};
                        run = nullptr;
                        break;
                    }
                    rest.remove_prefix(here);
                    run = original = rest.data();
                    break;
                case Admit::Pause:
                    paused = true;
                    break;
                case Admit::Restart:
                    paused = true;
                    run = nullptr;
                    again_ = true;
                    break;
                case Admit::Ended:
                    break;
            }
        }
        taking_ = false;
        if (state_ == State::Ended) {
            context_.front.clear();
            return;
        }
        const bool passed = run != nullptr && forward(since(run), since(original), rest);
        if (passed) keep(rest);
        if (over && passed) {
            all_answered();
            if (state_ != State::Ended) resume();
            return;
        }
        // What is in hand for the client goes with the server's answers, if there are any to come.
        const bool answers_come = backend_ != nullptr && !flush_asked_ && !backend_->tracker().quiet();
        flush_asked_ = false;
        if (state_ != State::Ended && !answers_come && !client_.out().empty() && !send()) return;
        if (again_) {
            again_input = std::exchange(kept_, {});
            input = again_input;
        }
    } while (again_);
}

const char* Session::put_front(wire::Bytes run, wire::Bytes message) {
    if (context_.front.empty()) return run.data();
    wire::Buffer& out = backend_->connection().out();
    out.append(run);
    out.append(context_.front);
    context_.front.clear();
    return message.data() + std::exchange(replaced_, 0U);
}

bool Session::forward(wire::Bytes run, wire::Bytes original, wire::Bytes rest) {
    if (backend_ == nullptr || (run.empty() && backend_->connection().out().empty())) return true;
    Backend& backend = *backend_;
    backend.meter.query_sent(context_.now());
    if (backend.connection().flush(run)) {
        if (repeatable_) remember_sent(original);
        sent_any_ = true;
        if (backend.connection().backlog() > 0) client_.stream().want_readable(false);
        return true;
    }
    const std::string cause = std::strerror(backend.connection().error());
    if (sent_any_ || client_pass_ > 0) {
        // What this server didn't take is a part of what another one is to repeat.
        if (repeatable_) remember_sent(original);
        keep(rest);
        backend.pool().report(TrafficFailure::ConnectionLost);
        server_lost(cause);
        return false;
    }
    // It was dead before it got the first byte: nothing can have happened, so another one does it.
    forget_pins();
    leaving_ = false;  // that is read again, behind what is to be done first
    std::string all{original};
    all += rest;
    kept_ = std::move(all);
    backend.pool().report(TrafficFailure::ConnectionLost);
    begin_elsewhere(false);
    return false;
}

void Session::resume() {
    if (leaving_) {
        close();
        return;
    }
    // Who doesn't take answers gets no more of them: on_writable() resumes.
    if (client_.congested()) return;
    if (!takes_commands() || kept_.empty()) {
        if (client_.open()) client_.stream().want_readable(true);
        return;
    }
    if (taking_) {
        again_ = true;
        return;
    }
    client_.stream().want_readable(true);
    std::string input = std::exchange(kept_, {});  // note_modes() may write to it
    take_commands(input);
}

Session::Admit Session::admit(wire::FrontendMessage type, wire::Bytes body, bool whole) {
    if (type == wire::FrontendMessage::Terminate) {
        leave();
        return state_ == State::Ended ? Admit::Ended : Admit::Pause;
    }
    return backend_ != nullptr ? admit_linked(type, body, whole) : admit_unlinked(type, body, whole);
}

Session::Admit Session::admit_unlinked(wire::FrontendMessage type, wire::Bytes body, bool whole) {
    if (failed_block_.active()) {
        take_in_failed_block(type, body, whole);
        return Admit::Drop;
    }
    if (type == wire::FrontendMessage::Query && whole && has_statements() &&
        answer_deallocate(*statement_text(type, body)))
        return Admit::Drop;
    switch (type) {
        case wire::FrontendMessage::Sync:
            wire::put_ready_for_query(client_.out(), told_);
            return Admit::Drop;
        case wire::FrontendMessage::Flush:
        case wire::FrontendMessage::CopyData:
        case wire::FrontendMessage::CopyDone:
        case wire::FrontendMessage::CopyFail:
            return Admit::Drop;  // of a COPY that has failed
        case wire::FrontendMessage::Bind:
        case wire::FrontendMessage::Close:
        case wire::FrontendMessage::Describe:
        case wire::FrontendMessage::Execute:
        case wire::FrontendMessage::FunctionCall:
        case wire::FrontendMessage::Parse:
        case wire::FrontendMessage::Query:
            return begin_transaction(type, body, whole);
        case wire::FrontendMessage::Password:
        case wire::FrontendMessage::Terminate:
            break;
    }
    return Admit::Drop;
}

Session::Admit Session::begin_transaction(wire::FrontendMessage type, wire::Bytes body, bool whole) {
    auto text = text_of(type, body);
    RouteFacts facts = route_facts();
    if (whole) facts.first_statement = text;
    if (!deferred_begin_.empty() && !planned_ && (facts.routing != ReadRouting::Auto || begin_declared_)) {
        facts.first_statement = text = deferred_begin_;
    } else if (facts.routing == ReadRouting::Auto && !planned_) {
        Unit unit = look_ahead();
        if (const auto handled = begin_auto(type, text, unit)) return *handled;
        facts.statement = unit.what;
        facts.in_block = unit.begins;
        if (unit.begins) begin_message_ = unit.begin_text;
    }
    // Whatever it begins with, all of it has been read.
    if (facts.routing == ReadRouting::Auto && !text) facts.first_statement = text = "";
    Decision decision = planned_ ? *planned_ : decide(facts);
    if (decision.to_slave && text) {
        // What a session keeps must be kept at the master, where everything else can be done too; and so must
        // an unnamed statement that is too large to be brought to another server.
        const bool looked_ahead = facts.routing == ReadRouting::Auto;
        const bool bound =
            looked_ahead && !(facts.statement && facts.statement->kind == StatementClass::Unknown);
        const bool stays = type == wire::FrontendMessage::Parse && body.size() > limits::max_unnamed_bytes &&
                           body[0] == '\0' && !bound;
        if (stays ||
            ((!looked_ahead || default_read_only_) && keeps_at_master(read_session_use(*text, whole)))) {
            facts.routing = ReadRouting::Master;
            decision = decide_route(facts);
        }
    }
    planned_.reset();
    to_slave_ = decision.to_slave;
    outstanding_ = to_slave_ ? Outstanding{context_.slaves[decision.target].outstanding} : Outstanding{};
    movable_ = to_slave_ && !begin_message_.empty();
    only_reads_ = !to_slave_ && !force_master_ && facts.statement && !facts.in_block &&
                  (facts.statement->kind == StatementClass::Read ||
                   facts.statement->kind == StatementClass::ReadWithTime);
    repeatable_ = whole && text &&
                  (to_slave_ || is_declared_read_only(*text, default_read_only_, default_serializable_));
    access_ = repeatable_ && !movable_ ? Access::ReadOnly : Access::Open;
    begins_with_begin_ = repeatable_ && type == wire::FrontendMessage::Query &&
                         wire::read_statement_head(*text).control == wire::TransactionControl::Begin;
    set_state(State::Waiting);
    beginning_ = true;
    wait_for(pool_of(decision.target));
    beginning_ = false;
    return state_ == State::Linked ? admit_linked(type, body, whole) : Admit::Pause;
}

const std::shared_ptr<NodePool>& Session::pool_of(NodeKey node) {
    if (group_pool_ && group_pool_->key().node == node) return group_pool_;
    if (!other_pool_ || other_pool_->key().node != node)
        other_pool_ = context_.pools->get({node, database_, user_});
    return other_pool_;
}

void Session::wait_for(const std::shared_ptr<NodePool>& pool, bool again) {
    if (no_other_server_) {
        end(Error{*end_when_idle_});
        return;
    }
    if (Backend* backend = again ? pool->request_again(*this) : pool->request(*this)) {
        lend(*backend);
    } else {
        waits_for_ = pool;
    }
}

void Session::lend(Backend& backend) {
    waits_for_.reset();
    backend_ = &backend;
    backend.lend_to(this);
    settings_stand();
    sent_any_ = false;
    admitted_ = false;
    begin_sent_ = begin_owed_ = begin_last_ = false;
    brought_for_pipeline_ = false;
    begin_skipped_ = 0;
    settings_unit_.reset();
    left_ = {};
    own_failed_ = false;
    asked_while_quiet_ = false;
    const bool login = state_ == State::LoginWaiting;
    const bool unknown = backend.unseen_settings && !same_member_again();
    if (backend.applied != wanted_ || unknown) {
        if (!login && !to_slave_ && !tell_settings_ && !settings_refused_ && !unknown &&
            change_is_safe(*backend.applied, *wanted_)) {
            // They go in front of what the client has sent, in the same write, and nobody waits.
            settings_unit_ = backend.expected.unit_sent();
            put_settings();
            settings_applied();
            return;
        }
        set_state(login ? State::LoginApplying : State::Applying);
        backend.unnamed = 0;
        apply_error_.reset();
        wire::put_query(backend.connection().out(), change_settings_sql(*backend.applied, *wanted_, unknown));
        if (!backend.connection().flush()) server_lost(std::strerror(backend.connection().error()));
        return;
    }
    settings_applied();
}

void Session::lend_failed(const Error& error) {
    const auto pool = std::exchange(waits_for_, nullptr);
    refuse_start(error, state_ == State::LoginWaiting, *pool);
}

void Session::refuse_start(const Error& error, bool login, const NodePool& pool) {
    if (login) {
        ++pool.counters()->errors;
        refuse_login(error);
    } else if (to_slave_) {
        begin_at_master();
    } else {
        refuse_pending(error, pool);
    }
}

void Session::refuse_pending(const Error& error, const NodePool& pool) {
    ++pool.counters()->errors;
    const bool in_block = told_ != wire::TransactionStatus::Idle;
    forget_block();
    outstanding_.end();
    set_state(State::Idle);
    const auto header = wire::read_frontend_header(kept_, wire::FrontendPhase::Normal);
    if (in_block) failed_block_.fail_block(std::nullopt);
    wire::put_error_response(client_.out(), wire::Severity::Error, error);
    if (header.complete() &&
        (header.type == wire::FrontendMessage::Query || header.type == wire::FrontendMessage::FunctionCall)) {
        const std::size_t here = std::min(header.total_bytes(), kept_.size());
        kept_.erase(0, here);
        client_pass_ = header.total_bytes() - here;
        client_pass_dropped_ = true;
        wire::put_ready_for_query(client_.out(), failed_block_.status());
    } else {
        failed_block_.skip_until_sync();
    }
    if (!send()) return;
    if (ends_now()) return;
    resume();
}

void Session::take_in_failed_block(wire::FrontendMessage type, wire::Bytes body, bool whole) {
    const bool closes = type == wire::FrontendMessage::Close && !failed_block_.skipping();
    const auto text = text_of(type, body);
    const bool taken = failed_block_.take(type, body, whole, client_.out(), text);
    context_.stats_changed = true;
    if (closes) close_named(body);
    if (taken && type == wire::FrontendMessage::Parse) remember_parse(body);
}

Session::Admit Session::admit_linked(wire::FrontendMessage type, wire::Bytes body, bool whole) {
    auto& tracker = backend_->tracker();
    if (to_slave_ && !pinned() && tracker.ready_for_query_owed() > 0 && !tracker.pipeline_open() &&
        type != wire::FrontendMessage::Sync) {
        // Pipelined: whether this belongs to the transaction at the slave is known when that has answered.
        paused_ = true;
        return Admit::Pause;
    } else if (movable_) {
        if (const auto moved = stay_at_slave(type)) return *moved;
    } else if (to_slave_ && told_ != wire::TransactionStatus::Idle && !tracker.skipping_until_sync()) {
        if (const auto left = keep_nothing_at_slave(type, body, whole)) return *left;
    }
    if ((pinned() || unnamed_unbound_ || !admitted_) && held_by_pause()) return Admit::Pause;
    // To a server that skips all up to Sync nothing else need be said, and it means nothing.
    if (tracker.skipping_until_sync() && type != wire::FrontendMessage::Sync) return Admit::Drop;
    if (((may_be_skipped() || backend_->expected.any_of_earlier_units()) &&
         must_wait_for_answers(type, body, whole)) ||
        must_wait_to_bring(type, body, whole)) {
        paused_ = true;
        return Admit::Pause;
    }
    if (awaited_.sent && !tracker.in_doubt() && uses_session(type)) {
        // What comes behind it must not be taken for what it takes away, and has the login's settings.
        if (!tracker.pipeline_open()) {
            paused_ = true;
            return Admit::Pause;
        }
        // In the same pipeline it can't be held back: what it leaves is asked for.
        awaited_.followed = true;
        left_.add({SessionUse::SetsSession | SessionUse::Calls});
    }
    replaced_ = 0;
    bring_for_pipeline(type, body);
    // In front of a Query the pooler may have to do something of its own, in a unit of its own.
    const bool begins = !deferred_begin_.empty() && !begin_sent_;
    if (begins && type != wire::FrontendMessage::Query) put_deferred_begin();
    const Admit admitted = prepare_to_send(type, body, whole);
    begin_last_ = false;
    if (admitted != Admit::Forward) return admitted;
    admitted_ = true;
    if (use_now_.has(SessionUse::OfDatabase)) free_database(type, body);
    awaited_.sent = awaited_.prepared && (type == wire::FrontendMessage::Query ||
                                          type == wire::FrontendMessage::Execute || awaited_.sent);
    if (access_ != Access::Open) {
        note_access(type, body, whole);
        // At a master that may write, which is not to be done twice.
        if (access_ == Access::Open && !to_slave_) forget_sent();
    }
    note_commit();
    return Admit::Forward;
}

Session::Admit Session::prepare_to_send(wire::FrontendMessage type, wire::Bytes body, bool whole) {
    auto& tracker = backend_->tracker();
    switch (type) {
        case wire::FrontendMessage::Parse:
            return admit_parse(body, whole);
        case wire::FrontendMessage::Bind:
            admit_bind(body, whole);
            return Admit::Forward;
        case wire::FrontendMessage::Describe:
            admit_describe(body);
            tracker.client_sent(type, body, whole);
            return Admit::Forward;
        case wire::FrontendMessage::Close:
            close_sent(body);
            break;
        case wire::FrontendMessage::Query:
            if (const auto text = statement_text(type, body)) {
                if (whole && has_statements() && tracker.quiet() && !backend_->soiled &&
                    tracker.status() != wire::TransactionStatus::Failed && answer_deallocate(*text))
                    return Admit::Drop;
                note_text(*text, whole);
                bring_for_text(use_now_, *text);
                if (use_now_.has(SessionUse::NamesStatements | SessionUse::Prepares))
                    bring_named_in_sql(*text, true);
            }
            if (!deferred_begin_.empty() && !begin_sent_) put_deferred_begin();
            query_sent();
            break;
        case wire::FrontendMessage::FunctionCall:
            had_unnamed_ = has_unnamed_;
            backend_->expected.sent_unit_end();
            break;
        case wire::FrontendMessage::Sync:
            // To a server that reads the data of a COPY it is nothing.
            if (tracker.copy_mode() != wire::TransactionTracker::CopyMode::In &&
                tracker.copy_mode() != wire::TransactionTracker::CopyMode::Both)
                backend_->expected.sent_unit_end();
            break;
        case wire::FrontendMessage::Flush:
            flush_asked_ = true;
            hold_nothing_back();
            break;
        case wire::FrontendMessage::CopyData:
        case wire::FrontendMessage::CopyDone:
        case wire::FrontendMessage::CopyFail:
        case wire::FrontendMessage::Execute:
        case wire::FrontendMessage::Password:
        case wire::FrontendMessage::Terminate:
            break;
    }
    tracker.client_sent(type, body, whole);
    return Admit::Forward;
}

void Session::free_database(wire::FrontendMessage type, wire::Bytes body) {
    const auto text = statement_text(type, body);
    const auto database = text ? database_wanted_alone(*text) : std::nullopt;
    if (database) context_.pools->leave_soon(backend_->pool().key().node, *database);
}

void Session::remember_sent(wire::Bytes run) {
    if (sent_.size() + run.size() > max_repeatable) {
        forget_sent();
        return;
    }
    sent_.append(run);
}

}  // namespace pgxc::pooler
