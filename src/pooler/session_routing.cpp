// pgxc.read_routing = auto: what a client sends is looked at up to the end of its statement or pipeline, and
// goes to a slave if all of it only reads. A block begins where its first statement goes, and moves to the
// master at the first that may write.

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "pooler/session.h"
#include "wire/messages.h"
#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

using wire::mentions;

/// A pipeline that is longer goes to the master as it comes.
constexpr std::size_t max_looked_at = 64 * 1024;

/// Does it set something, or can't that be told at a glance: a comment in front, or several statements?
bool may_set(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r\n;(");
    if (first == std::string_view::npos) return false;
    const char c = text[first];
    if (c == '/' || c == '-') return true;
    if (c == 'r' || c == 'R') return mentions(text.substr(first, 5), "reset");
    if ((c == 's' || c == 'S') && mentions(text.substr(first, 3), "set")) return true;
    const auto end = text.find(';');
    if (end != std::string_view::npos && text.find_first_not_of("; \t\r\n", end) != std::string_view::npos)
        return true;
    return (c == 's' || c == 'S' || c == 'w' || c == 'W') && mentions(text, "set_config");
}

/// In its place, in the buffer that is about to be sent: a level at which the server warns.
void replace_level(std::string_view value) {
    char* const at = const_cast<char*>(value.data());
    const bool quoted = value[0] == '\'' || value[0] == '"';
    std::string put = quoted ? value[0] + std::string{loud_level} + value[0] : std::string{loud_level};
    put.resize(value.size(), ' ');
    std::copy(put.begin(), put.end(), at);
}

struct Message {
    wire::FrontendMessage type;
    wire::Bytes body;
};

/// The first message, and takes it off; nullopt if there is no whole one.
std::optional<Message> next_message(wire::Bytes& rest) {
    const auto header = wire::read_frontend_header(rest, wire::FrontendPhase::Normal);
    if (header.violation() || !header.complete() || rest.size() < header.total_bytes()) return std::nullopt;
    const Message message{header.type, rest.substr(wire::header_bytes, header.body_bytes)};
    rest.remove_prefix(header.total_bytes());
    return message;
}

}  // namespace

RouteFacts Session::route_facts() const {
    RouteFacts facts;
    facts.view = context_.view.get();
    facts.group = group_;
    facts.own_coordinator = context_.settings().own_node_id;
    facts.routing = force_master_ || never_slave_ ? ReadRouting::Master : routing_;
    facts.default_read_only = default_read_only_;
    facts.default_serializable = default_serializable_;
    facts.max_read_lag_bytes = context_.settings().max_read_lag_bytes;
    return facts;
}

Decision Session::decide(RouteFacts& facts) {
    if (!has_live_slave(facts) || !could_go_to_slave(facts)) return decide_route(facts);
    know_slaves(facts);
    const Decision decision = decide_route(facts);
    facts.load = {};
    return decision;
}

void Session::know_slaves(RouteFacts& facts) {
    std::vector<NodeLoad>& loads = context_.loads;
    loads.clear();
    const NodeView* master = facts.view->find(group_);
    if (master == nullptr || !has_live_slave(facts)) return;
    const bool causal = context_.settings().causal_reads;
    if (causal) {
        CausalPosition& position = group_pool_->position();
        position.want(context_.coarse_now);
        facts.bound = position.bound(master->node.epoch, seen_);
        if (facts.bound.state == CausalBound::State::Unknown) {
            if (position.unresolved(master->node.epoch)) group_pool_->ask_master();
            return;
        }
    }
    facts.turn = context_.turn++;
    for (const NodeView& node : facts.view->nodes) {
        // Another group's positions mean nothing here.
        if (!node.may_read || !is_slave_of(*facts.view, node, group_)) continue;
        const auto& pool = slave_pool(node.node.key);
        const ReplayProgress& replayed = pool->replayed();
        if (pool->in_trouble()) pool->try_again();
        loads.push_back({node.node.key, replayed.outstanding, replayed.progress(), pool->in_trouble()});
        if (!causal || replayed.progress().covers(facts.bound.progress)) continue;
        pool->ask_slave(group_, facts.bound.progress);
        if (replayed.progress().position >= facts.bound.progress.position) group_pool_->end_a_transaction();
    }
    facts.load = loads;
}

const std::shared_ptr<NodePool>& Session::slave_pool(NodeKey slave) {
    const auto found = std::find_if(slave_pools_.begin(), slave_pools_.end(),
                                    [slave](const auto& pool) { return pool->key().node == slave; });
    if (found != slave_pools_.end()) return *found;
    // Nodes come and go; a session remembers those of one view.
    if (slave_pools_.size() > context_.view->nodes.size()) slave_pools_.clear();
    return slave_pools_.emplace_back(context_.pools->get({slave, database_, user_}));
}

Classification Session::classify(std::string_view sql) const {
    return context_.classes.classify(sql, dialect_);
}

Session::Unit Session::look_ahead() const {
    Unit unit;
    const auto unknown = [&unit](std::string_view reason) {
        unit.complete = true;
        unit.what = {StatementClass::Unknown, reason};
        return unit;
    };
    bool any = false;
    const auto add = [&](Classification what) {
        if (!any || badness(what.kind) > badness(unit.what.kind)) unit.what = what;
        any = true;
    };
    wire::Bytes rest = upcoming_;
    std::vector<std::pair<std::string_view, std::string_view>> prepared;  // in this unit: name, text
    std::size_t unbound = 0;  // the size of the unnamed statement, where nothing has used it yet
    int bound = 0;            // statements that are run
    while (true) {
        const auto header = wire::read_frontend_header(rest, wire::FrontendPhase::Normal);
        if (header.violation()) return unknown("it is not the protocol");
        if (!header.complete() || rest.size() < header.total_bytes()) {
            const std::size_t seen = upcoming_.size() - rest.size();
            const std::size_t next = header.complete() ? header.total_bytes() : 0;
            if (seen + next > max_looked_at) return unknown("it is too long to be looked at");
            return unit;
        }
        const wire::Bytes message = rest.substr(wire::header_bytes, header.body_bytes);
        wire::BodyReader body{message};
        rest.remove_prefix(header.total_bytes());
        switch (header.type) {
            case wire::FrontendMessage::Query:
                if (message.data() != upcoming_.data() + wire::header_bytes)
                    return unknown("a simple query behind a pipeline");
                unit.what = classify(body.cstring());
                unit.ends = unit.what.kind == StatementClass::End;
                unit.complete = true;
                return unit;
            case wire::FrontendMessage::Parse: {
                const std::string_view name = body.cstring();
                const std::string_view text = body.cstring();
                if (!body.ok()) return unknown("it is not the protocol");
                // What can't be prepared anywhere stays where it is prepared.
                if (!name.empty() && (message.size() > limits::max_prepared_bytes ||
                                      prepared_.size() + prepared.size() >= limits::max_client_statements))
                    return unknown("a prepared statement that has to stay where it was made");
                if (name.empty()) unbound = message.size();
                prepared.emplace_back(name, text);
                // Whether it controls a transaction matters when it is run.
                const Classification what = classify(text);
                if (what.kind != StatementClass::Begin && what.kind != StatementClass::End) add(what);
                break;
            }
            case wire::FrontendMessage::Bind:
            case wire::FrontendMessage::Describe: {
                const bool binds = header.type == wire::FrontendMessage::Bind;
                bool portal = !binds && body.u8() != static_cast<std::uint8_t>(wire::ObjectKind::Statement);
                if (portal && bound == 0) return unknown("it goes on with what was opened before");
                if (portal) break;
                if (binds) portal = !body.cstring().empty();
                const std::string_view name = body.cstring();
                const auto here = std::find_if(prepared.rbegin(), prepared.rend(),
                                               [name](const auto& entry) { return entry.first == name; });
                const auto text =
                    here != prepared.rend() ? std::optional{here->second} : text_of(header.type, message);
                if (!body.ok() || !text) return unknown("it uses a statement that is not known");
                const Classification what = classify(*text);
                if (!binds) {
                    const bool controls =
                        what.kind == StatementClass::Begin || what.kind == StatementClass::End;
                    if (!controls) add(what);
                    break;
                }
                if (name.empty()) unbound = 0;
                if (what.kind == StatementClass::Begin && bound == 0) {
                    unit.begins = true;
                    unit.begin_text = *text;
                    if (!any) add({StatementClass::Read, "it only reads"});
                } else if (what.kind == StatementClass::End) {
                    unit.ends = true;
                } else {
                    add(what);
                    ++unit.statements;
                }
                ++bound;
                if (portal)
                    add({StatementClass::ReadWithTime, "the rest of its transaction may use what it opens"});
                break;
            }
            case wire::FrontendMessage::Execute:
                if (bound == 0) return unknown("it goes on with what was opened before");
                (void)body.cstring();
                if (body.u32() != 0)
                    add({StatementClass::ReadWithTime, "the rest of its transaction may go on with it"});
                break;
            case wire::FrontendMessage::Close:
                break;
            case wire::FrontendMessage::Sync:
                if (unbound > limits::max_unnamed_bytes)
                    return unknown("a prepared statement that has to stay where it was made");
                if (bound > 0 && unit.statements == 0) {
                    if (unit.begins) return unknown("nothing but the begin of a transaction");
                    unit.what = {StatementClass::End, "it ends a transaction"};
                } else if (!any) {
                    return unknown("its messages tell nothing of what they do");
                }
                unit.complete = true;
                return unit;
            case wire::FrontendMessage::Flush:
                return unknown("the client waits for a part of the pipeline's answer");
            case wire::FrontendMessage::CopyData:
            case wire::FrontendMessage::CopyDone:
            case wire::FrontendMessage::CopyFail:
            case wire::FrontendMessage::FunctionCall:
            case wire::FrontendMessage::Password:
            case wire::FrontendMessage::Terminate:
                return unknown("its message tells nothing of what it does");
        }
    }
}

std::optional<Session::Admit> Session::begin_auto(wire::FrontendMessage type,
                                                  std::optional<std::string_view> text, Unit& unit) {
    if (!unit.complete) return Admit::Pause;
    if (!deferred_begin_.empty()) {
        RouteFacts facts = route_facts();
        facts.first_statement = "";
        facts.statement = unit.what;
        facts.in_block = true;
        if (unit.begins)
            facts.statement = Classification{StatementClass::Unknown, "a transaction in a transaction"};
        return restart_block(decide(facts));
    }
    const bool begins = unit.begins || unit.what.kind == StatementClass::Begin;
    if (!begins) return std::nullopt;
    const NodePool::Defaults& defaults = group_pool_->defaults();
    if (!defaults.known) group_pool_->ask_master();
    const RouteFacts facts = route_facts();
    const bool may_move = defaults.known && !defaults.strict_isolation && !strict_default_ &&
                          !default_serializable_ && !default_read_only_ && has_live_slave(facts);
    if (!may_move) {
        if (unit.begins) unit.what = {StatementClass::Unknown, "its transaction can't move"};
        unit.begins = false;
        return std::nullopt;
    }
    if (unit.begins || type != wire::FrontendMessage::Query || !text) return std::nullopt;
    // Nothing needs a server yet: the next statement says which one.
    answer_begin(*text);
    return Admit::Drop;
}

void Session::answer_begin(std::string_view text) {
    deferred_begin_ = text;
    has_unnamed_ = unnamed_unbound_ = false;  // as by every Query
    told_ = wire::TransactionStatus::InBlock;
    context_.stats_changed = true;
    const bool starts = wire::SqlScanner{text}.next().is("start");
    wire::put_command_complete(client_.out(), starts ? "START TRANSACTION" : "BEGIN");
    wire::put_ready_for_query(client_.out(), wire::TransactionStatus::InBlock);
}

void Session::put_deferred_begin() {
    auto& tracker = backend_->tracker();
    std::string tail = deferred_begin_;
    tail.append(3, '\0');  // its end, and no types of parameters
    put_own_parse({}, tail, nullptr);
    wire::put_bind(context_.front, {}, {}, {});
    tracker.bound_known({}, wire::TransactionControl::Begin);
    wire::put_execute(context_.front, {});
    tracker.client_sent(wire::FrontendMessage::Execute, wire::Bytes{"\0\0\0\0\0", 5});
    backend_->unnamed = Backend::any_unnamed;
    begin_sent_ = begin_owed_ = begin_last_ = true;
    begin_unit_ = backend_->expected.unit_sent();
}

bool Session::begin_answers() const {
    return begin_owed_ && backend_->expected.unit_answered() == begin_unit_;
}

Session::Admit Session::restart_block(Decision decision) {
    if (deferred_begin_.empty()) {
        deferred_begin_ = begin_message_.c_str() + wire::header_bytes;
    } else {
        begin_message_.clear();
        wire::put_query(begin_message_, deferred_begin_);
    }
    kept_ = upcoming_;
    planned_ = decision;
    units_answered_ = 1;
    return Admit::Restart;
}

bool Session::begins_with_rollback() const {
    const auto header = wire::read_frontend_header(upcoming_, wire::FrontendPhase::Normal);
    const auto text = text_of(header.type, upcoming_.substr(wire::header_bytes));
    if (!text) return false;
    wire::SqlScanner scanner{*text};
    const wire::SqlToken first = scanner.next();
    return first.is("rollback") || first.is("abort");
}

std::optional<Session::Admit> Session::stay_at_slave(wire::FrontendMessage type) {
    const auto& tracker = backend_->tracker();
    if (tracker.ready_for_query_owed() > 0 || tracker.pipeline_open() ||
        tracker.status() == wire::TransactionStatus::Idle || type == wire::FrontendMessage::Sync)
        return std::nullopt;
    const Unit unit = look_ahead();
    if (!unit.complete) return Admit::Pause;
    if (unit.what.kind == StatementClass::End) return std::nullopt;
    // Where it has failed, only what begins with its end can do more than fail.
    const bool executes = type == wire::FrontendMessage::Query || unit.ends || unit.statements > 0;
    if (tracker.status() == wire::TransactionStatus::Failed && !(executes && begins_with_rollback()))
        return std::nullopt;
    RouteFacts facts = route_facts();
    facts.first_statement = "";
    facts.statement = unit.what;
    facts.in_block = true;
    if (!unit.begins && could_go_to_slave(facts)) {
        know_slaves(facts);
        if (facts.bound.state != CausalBound::State::Unknown &&
            may_read_at(facts, backend_->pool().key().node))
            return std::nullopt;
    }
    // Nothing of it has run that could be missed there: it begins anew at the master.
    Backend& slave = *backend_;
    backend_ = nullptr;
    forget_use();
    left_ = {};
    repeatable_ = false;
    movable_ = false;
    unit_answered_ = false;
    outstanding_.end();
    held_back_.clear();
    sent_.clear();
    slave.pool().roll_back(slave);
    set_state(State::Idle);
    return restart_block({group_, false, false, "a transaction that began with reads goes on at the master"});
}

std::optional<Session::Admit> Session::keep_nothing_at_slave(wire::FrontendMessage type, wire::Bytes body,
                                                             bool whole) {
    const auto text = text_of(type, body);
    if (!text) return std::nullopt;
    const SessionUse use = read_session_use(*text, whole || type == wire::FrontendMessage::Bind);
    const auto named = read_statement_name(*text);
    const bool names = use.has(SessionUse::NamesStatements) && !prepared_.empty() &&
                       (!named || (named->verb == SqlStatementName::Verb::Execute &&
                                   prepared_.find(named->name) != nullptr));
    if (!names && !pins_client(use)) return std::nullopt;
    const bool only_begun = units_answered_ == 1 && may_repeat() && backend_->tracker().quiet();
    kept_ = upcoming_;
    if (only_begun) {
        repeat_elsewhere();
    } else {
        lose_transaction("it asked for what would stay in the session of a slave",
                         Error{sqlstate::feature_not_supported,
                               "a read-only transaction at a slave can't keep anything beyond its end",
                               "Do that in a transaction that isn't declared READ ONLY."});
    }
    return state_ == State::Ended ? Admit::Ended : Admit::Restart;
}

void Session::leave_slave() {
    // A slave can't be this client's only server. What was kept there is lost; from now on the master has it.
    never_slave_ = true;
    unnamed_unbound_ = false;
    forget_pins();
    paused_ = false;
    let_go(false);
    set_state(State::Idle);
    resume();
}

void Session::unit_answered_in_block(wire::TransactionStatus status) {
    if (begin_message_.empty() || begin_message_[0] != 'Q') {
        // It began inside of a pipeline: only the text is known.
        std::string message;
        wire::put_query(message, begin_message_);
        begin_message_ = std::move(message);
    }
    // What a lost slave, or its own error, makes to be repeated is the next statement, in a block begun anew.
    sent_ = begin_message_;
    units_answered_ = 1;
    repeatable_ = status == wire::TransactionStatus::InBlock;
    movable_ = status != wire::TransactionStatus::Idle;
}

void Session::released() {
    if (pause_held_ && std::exchange(paused_, false)) {
        pause_held_ = false;
        resume();
    }
}

bool Session::held_by_pause() {
    // A client that keeps its connection, or has got it for nothing yet: its next transaction waits here,
    // also behind what the pooler has sent for it.
    const auto& tracker = backend_->tracker();
    const bool owes_own = backend_->expected.any_own_unit() && expects_only_own() && !tracker.in_doubt() &&
                          tracker.copy_mode() == wire::TransactionTracker::CopyMode::None;
    if (!backend_->pool().target().paused || tracker.status() != wire::TransactionStatus::Idle ||
        !(tracker.quiet() || owes_own))
        return false;
    pause_held_ = true;
    paused_ = true;
    return true;
}

void Session::forget_block() {
    begin_message_.clear();
    deferred_begin_.clear();
    begin_declared_ = false;
    told_ = wire::TransactionStatus::Idle;
    units_answered_ = repeats_ = 0;
    repeatable_ = false;
    sent_.clear();
    force_master_ = false;
    movable_ = false;
    planned_.reset();
    only_reads_ = false;
}

void Session::transaction_seen() {
    // Tickets are numbered by each group for itself.
    if (!to_slave_ && routing_ != ReadRouting::Master && backend_ != nullptr &&
        backend_->pool().target().is_master && backend_->pool().key().node == group_)
        seen_ = backend_->pool().position().newest();
}

void Session::hold_nothing_back() {
    if (!repeatable_) return;
    repeatable_ = false;
    sent_.clear();
    if (held_back_.empty()) return;
    client_.out().append(std::exchange(held_back_, {}));
    unit_answered_ = true;
}

bool Session::holds_back_notice(wire::Bytes body) const {
    if (!quiet_.quiet()) return false;
    const auto fields = wire::parse_error_fields(body);
    // INFO is sent at every level.
    return fields && fields->severity != "INFO";
}

void Session::learn_write() {
    std::string_view only;
    for (wire::Bytes rest = sent_; const auto message = next_message(rest);) {
        if (message->type != wire::FrontendMessage::Query && message->type != wire::FrontendMessage::Bind)
            continue;
        auto text = text_of(message->type, message->body);
        if (!text || classify(*text).kind == StatementClass::Begin) continue;
        if (!only.empty()) return;
        only = *text;
    }
    if (!only.empty()) context_.classes.learn_write(only, dialect_);
}

void Session::forget_sent_names() {
    for (wire::Bytes rest = sent_; const auto message = next_message(rest);) {
        if (message->type != wire::FrontendMessage::Parse) continue;
        wire::BodyReader body{message->body};
        if (const std::string_view name = body.cstring(); !name.empty()) (void)prepared_.take(name);
    }
}

void Session::note_dialect(std::string_view name, std::string_view value) {
    if (name == "client_encoding") dialect_.hides_quotes = encoding_hides_quotes(value);
    if (name == "standard_conforming_strings") dialect_.standard_conforming_strings = value != "off";
}

void Session::note_reported(const Backend::Reported& reported) {
    for (const auto& [name, value] : reported) note_dialect(name, value);
}

void Session::note_modes(std::string_view text) {
    if (!may_set(text)) return;
    if (mentions(text, "client_min_messages")) {
        const auto set = read_min_messages(text);
        const auto values = quiet_values(text);
        if (set) {
            quiet_.sent(*set);
        } else if (!values.empty()) {
            quiet_.sent_unseen();
        }
        for (const std::string_view value : values) replace_level(value);
    } else if (const auto reset_all = read_min_messages(text)) {
        quiet_.sent(*reset_all);
    }
    if (mentions(text, "synchronous_commit")) maybe_async_ = true;
    if (mentions(text, "isolation") || mentions(text, "characteristics")) strict_default_ = true;
}

}  // namespace pgxc::pooler
