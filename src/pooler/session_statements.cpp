// The client's prepared statements: what it sends is given the server's names, and what a server connection
// lacks is brought there first.
#include <utility>

#include "base/limits.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {
namespace {

using Entry = ExpectedAnswers::Entry;

void put_header(wire::Buffer& out, wire::FrontendMessage type, std::size_t body_bytes) {
    wire::put_u8(out, static_cast<std::uint8_t>(type));
    wire::put_u32(out, static_cast<std::uint32_t>(body_bytes + 4));
}

/// The SQL of what is a Statement::parse_tail().
std::string_view sql_of(std::string_view tail) {
    return tail.substr(0, tail.find('\0'));
}

}  // namespace

std::optional<std::string_view> Session::text_of(wire::FrontendMessage type, wire::Bytes body) const {
    wire::BodyReader reader{body};
    std::string_view name;
    switch (type) {
        case wire::FrontendMessage::Query:
            break;
        case wire::FrontendMessage::Parse:
            (void)reader.cstring();
            break;
        case wire::FrontendMessage::Bind:
            (void)reader.cstring();
            name = reader.cstring();
            break;
        case wire::FrontendMessage::Describe:
            if (reader.u8() != static_cast<std::uint8_t>(wire::ObjectKind::Statement)) return std::nullopt;
            name = reader.cstring();
            break;
        default:
            return std::nullopt;
    }
    if (type == wire::FrontendMessage::Bind || type == wire::FrontendMessage::Describe) {
        if (!reader.ok()) return std::nullopt;
        if (name.empty()) {
            if (!has_unnamed_ || unnamed_.empty()) return std::nullopt;
            return sql_of(unnamed_);
        }
        const Statement* statement = prepared_.find(name);
        return statement == nullptr ? std::nullopt : std::optional{statement->sql()};
    }
    const wire::Bytes text = reader.rest();
    return text.substr(0, text.find('\0'));
}

void Session::remember_parse(wire::Bytes body) {
    wire::BodyReader reader{body};
    const std::string_view name = reader.cstring();
    const wire::Bytes tail = reader.rest();
    if (!reader.ok() || tail.size() > limits::max_unnamed_bytes) return;
    if (name.empty()) {
        has_unnamed_ = true;
        unnamed_number_ = ++context_.unnamed_statements;
        unnamed_noted_ = false;
        unnamed_.assign(tail);
    } else {
        prepared_.put(name, context_.statements.intern(tail, parse_context(sql_of(tail))));
    }
}

void Session::put_own_parse(std::string_view name, wire::Bytes tail, StatementRef statement) {
    begin_last_ = false;
    wire::Buffer& out = context_.front;
    put_header(out, wire::FrontendMessage::Parse, name.size() + 1 + tail.size());
    wire::put_cstring(out, name);
    out.append(tail);
    if (statement) {
        backend_->tracker().extended_sent();
    } else {
        const std::string_view sql = sql_of(tail);
        backend_->tracker().statement_sent(name, wire::read_statement_head(sql).control);
    }
    Entry entry;
    entry.own = true;
    entry.unnamed = name.empty();
    entry.statement = std::move(statement);
    backend_->expected.sent(std::move(entry));
}

void Session::put_own_close(std::string_view name, StatementRef statement) {
    begin_last_ = false;
    wire::put_close_statement(context_.front, name);
    backend_->tracker().extended_sent();
    Entry entry;
    entry.kind = Entry::Kind::Close;
    entry.own = true;
    entry.unnamed = name.empty();
    entry.statement = std::move(statement);
    backend_->expected.sent(std::move(entry));
}

void Session::make_room() {
    while (StatementRef last = backend_->statements.surplus(limits::max_server_statements)) {
        backend_->statements.remove(last.get());
        put_own_close(last->server_name, last);
    }
}

StatementRef Session::bring(std::string_view name, StatementRef statement) {
    if (backend_->statements.use(statement.get())) return statement;
    if (const std::string context = parse_context(statement->sql()); statement->context() != context) {
        // The server will read it under these settings: it isn't what others know by that name.
        statement = context_.statements.intern(statement->parse_tail(), context);
        prepared_.put(name, statement);
        if (backend_->statements.use(statement.get())) return statement;
    }
    make_room();
    backend_->statements.add(statement);
    put_own_parse(statement->server_name, statement->parse_tail(), statement);
    return statement;
}

void Session::note_unnamed() {
    // Prepared in an earlier transaction, it is this one that it does something in.
    if (!has_unnamed_ || std::exchange(unnamed_noted_, true)) return;
    if (unnamed_.empty()) {
        if (unnamed_here()) note_use(unnamed_use_, {});
    } else {
        note_text(sql_of(unnamed_), true);
    }
}

void Session::bring_unnamed() {
    Backend& backend = *backend_;
    if (unnamed_here()) return;
    if (has_unnamed_ && !unnamed_.empty()) {
        put_own_parse({}, unnamed_, nullptr);
        backend.unnamed = unnamed_number_;
    } else if (backend.unnamed != 0) {
        // There is none, or it was too large to be remembered. It must not run another client's: the server
        // shall say that there is none.
        put_own_close({}, nullptr);
        backend.unnamed = 0;
    }
}

bool Session::may_be_skipped() const {
    const auto& tracker = backend_->tracker();
    // Behind its Sync more would be done even if the BEGIN in front has failed.
    const bool behind_begin = begin_owed_ && !tracker.pipeline_open() &&
                              tracker.ready_for_query_owed() > backend_->expected.own_units();
    return tracker.mixed_query_owed() || behind_begin;
}

bool Session::must_wait_for_answers(wire::FrontendMessage type, wire::Bytes body, bool whole) const {
    const auto& tracker = backend_->tracker();
    if (tracker.in_doubt()) return false;
    switch (type) {
        case wire::FrontendMessage::Bind:
        case wire::FrontendMessage::Close:
        case wire::FrontendMessage::Describe:
        case wire::FrontendMessage::Parse:
        case wire::FrontendMessage::Query:
            break;
        case wire::FrontendMessage::Execute:
        case wire::FrontendMessage::FunctionCall:
            return may_be_skipped();
        case wire::FrontendMessage::CopyData:
        case wire::FrontendMessage::CopyDone:
        case wire::FrontendMessage::CopyFail:
        case wire::FrontendMessage::Flush:
        case wire::FrontendMessage::Password:
        case wire::FrontendMessage::Sync:
        case wire::FrontendMessage::Terminate:
            return false;
    }
    return may_be_skipped() || depends_on_answers(type, body, whole);
}

bool Session::depends_on_answers(wire::FrontendMessage type, wire::Bytes body, bool whole) const {
    const ExpectedAnswers& expected = backend_->expected;
    wire::BodyReader reader{body};
    switch (type) {
        case wire::FrontendMessage::Query:
            return read_session_use(reader.cstring(), whole).has(SessionUse::NamesStatements);
        case wire::FrontendMessage::Parse: {
            const std::string_view name = reader.cstring();
            const wire::Bytes tail = reader.rest();
            if (read_session_use(sql_of(tail), whole).has(SessionUse::NamesStatements)) return true;
            if (name.empty()) return false;
            const StatementRef known = context_.statements.find(tail, parse_context(sql_of(tail)));
            return expected.earlier_name(name) || (known && expected.earlier_statement(known.get()));
        }
        case wire::FrontendMessage::Bind:
            (void)reader.cstring();
            break;
        default:
            if (reader.u8() != static_cast<std::uint8_t>(wire::ObjectKind::Statement)) return false;
            break;
    }
    const std::string_view name = reader.cstring();
    if (!reader.ok()) return false;
    if (name.empty()) return expected.earlier_unnamed();
    const Statement* statement = prepared_.find(name);
    return expected.earlier_name(name) || (statement != nullptr && expected.earlier_statement(statement));
}

std::string Session::parse_context(std::string_view sql) const {
    std::string context = pooler::parse_context(sql, *wanted_);
    // What was set in this transaction may not have been done, or be undone by now.
    if (set_in_transaction_ || names_a_moment(sql)) context += context_.statements.unique_context();
    return context;
}

Session::Admit Session::admit_parse(wire::Bytes body, bool whole) {
    Backend& backend = *backend_;
    auto& tracker = backend.tracker();
    wire::BodyReader reader{body};
    const std::string_view name = reader.cstring();
    const wire::Bytes tail = reader.rest();
    const std::string_view sql = sql_of(tail);
    const auto pass = [&] {
        Entry entry;
        entry.unnamed = reader.ok() && name.empty();
        backend.expected.sent(std::move(entry));
        tracker.client_sent(wire::FrontendMessage::Parse, body, whole);
        return Admit::Forward;
    };
    note_text(sql, whole);
    if (use_now_.has(SessionUse::NamesStatements | SessionUse::Prepares)) bring_named_in_sql(sql, false);
    if (!reader.ok()) return pass();
    if (name.empty()) {
        has_unnamed_ = unnamed_noted_ = true;
        backend.unnamed = unnamed_number_ = ++context_.unnamed_statements;
        unnamed_use_ = use_now_;
        unnamed_unbound_ = !whole || tail.size() > limits::max_unnamed_bytes;
        unnamed_unbound_ ? unnamed_.clear() : void(unnamed_.assign(tail));
        return pass();
    }
    const bool taken = sql_statements_ && sql_statements_->find(name) != nullptr;
    const bool unknown = names_in_transaction_.may_have(name) || own_names_.may_have(name);
    if (taken || (unknown && prepared_.find(name) == nullptr)) {
        // The name may be taken, as the server will say; if not, it is there under its own name.
        left_.add({SessionUse::Prepares});
        own_uses_.add(name, use_now_);
        return pass();
    }
    if (prepared_.find(name) != nullptr) {
        if (!pins_.has(PinReasons::NamedInSql)) {
            // The name is taken: let the server say so. In a failed block it prepares nothing but the end of
            // it, and says that first.
            const bool failed = tracker.status() == wire::TransactionStatus::Failed;
            if (failed && tracker.quiet() &&
                wire::read_statement_head(sql).control == wire::TransactionControl::None)
                return pass();
            put_own_parse(name,
                          failed ? wire::Bytes{"ROLLBACK\0\0\0", 11} : prepared_.find(name)->parse_tail(),
                          nullptr);
            backend.soiled = true;
        }
        return pass();
    }
    if (pins_.has(PinReasons::NamedInSql)) {
        own_uses_.add(name, use_now_);
        return pass();
    }
    if (!whole || tail.size() > limits::max_prepared_bytes ||
        prepared_.size() >= limits::max_client_statements ||
        prepared_.bytes() + tail.size() > limits::max_client_statement_bytes) {
        // It lives under its own name on this connection alone.
        pin(PinReasons::Prepared);
        own_names_.add(std::string{name});
        own_uses_.add(name, use_now_);
        return pass();
    }

    StatementRef statement = context_.statements.intern(tail, parse_context(sql));
    if (backend.statements.use(statement.get())) {
        const bool nothing_before = tracker.quiet() || (!admitted_ && expects_only_own());
        if (nothing_before && !repeatable_ && tracker.status() != wire::TransactionStatus::Failed) {
            // Another client has prepared it here.
            wire::put_parse_complete(client_.out());
            unit_answered_ = true;
            prepared_.put(name, std::move(statement));
            return Admit::Drop;
        }
        // The answer has its place among others and may be an error: the server shall give it.
        put_own_close(statement->server_name, statement);
    } else {
        make_room();
        backend.statements.add(statement);
    }
    put_header(context_.front, wire::FrontendMessage::Parse, statement->server_name.size() + 1 + tail.size());
    wire::put_cstring(context_.front, statement->server_name);
    replaced_ = wire::header_bytes + name.size() + 1;
    tracker.extended_sent();
    Entry entry;
    entry.statement = statement;
    entry.for_client = statement;
    entry.client_name = name;
    backend.expected.sent(std::move(entry));
    prepared_.put(name, std::move(statement));
    return Admit::Forward;
}

void Session::admit_bind(wire::Bytes body, bool whole) {
    Backend& backend = *backend_;
    auto& tracker = backend.tracker();
    wire::BodyReader reader{body};
    const std::string_view portal = reader.cstring();
    const std::string_view name = reader.cstring();
    if (reader.ok() && name.empty()) {
        note_unnamed();
        bring_unnamed();
        unnamed_unbound_ = false;
    }
    const auto* known = reader.ok() && !name.empty() ? prepared_.find_ref(name) : nullptr;
    const auto* found = pins_.has(PinReasons::NamedInSql) ? nullptr : known;
    if (found == nullptr) {
        // It has the client's own name there. What it does counts all the same.
        const auto* in_sql = sql_statements_ ? sql_statements_->find(name) : nullptr;
        if (known != nullptr) {
            note_bound((*known)->use, (*known)->sql());
        } else if (in_sql != nullptr) {
            note_bound(in_sql->use, in_sql->text);
            fail_where_not_brought(name);
        } else {
            note_bound(own_uses_.of(name), {});
        }
        tracker.client_sent(wire::FrontendMessage::Bind, body, whole);
        return;
    }
    const SessionUse use = (*found)->use;
    if (use.has(SessionUse::ReadsSequence | SessionUse::MovesSequence))
        keep_sequence_values(use, use_.has(SessionUse::MovesSequence));
    const StatementRef statement = bring(name, *found);
    if (statement->use.any()) note_bound(statement->use, statement->sql());
    const std::size_t names = portal.size() + 1 + name.size() + 1;
    replaced_ = wire::header_bytes + names;
    // `body` may be just the front: the length is in the header before it.
    const std::size_t body_bytes = wire::get_u32(body.data() - 4) - 4;
    put_header(context_.front, wire::FrontendMessage::Bind,
               body_bytes - name.size() + statement->server_name.size());
    wire::put_cstring(context_.front, portal);
    wire::put_cstring(context_.front, statement->server_name);
    tracker.bound_known(portal, statement->control);
}

void Session::admit_describe(wire::Bytes body) {
    wire::BodyReader reader{body};
    const auto kind = reader.u8();
    const std::string_view name = reader.cstring();
    if (!reader.ok() || kind != static_cast<std::uint8_t>(wire::ObjectKind::Statement)) return;
    if (name.empty()) {
        bring_unnamed();
        return;
    }
    const auto* found = pins_.has(PinReasons::NamedInSql) ? nullptr : prepared_.find_ref(name);
    if (found == nullptr) {
        if (sql_statements_ && sql_statements_->find(name) != nullptr) fail_where_not_brought(name);
        return;
    }
    const StatementRef statement = bring(name, *found);
    put_header(context_.front, wire::FrontendMessage::Describe, 1 + statement->server_name.size() + 1);
    wire::put_u8(context_.front, kind);
    wire::put_cstring(context_.front, statement->server_name);
    replaced_ = wire::header_bytes + body.size();
}

StatementRef Session::close_named(wire::Bytes body) {
    wire::BodyReader reader{body};
    if (reader.u8() != static_cast<std::uint8_t>(wire::ObjectKind::Statement)) return nullptr;
    const std::string_view name = reader.cstring();
    if (!reader.ok()) return nullptr;
    if (name.empty()) has_unnamed_ = unnamed_unbound_ = false;
    close_sql_statement(name);
    return prepared_.take(name);
}

void Session::close_sent(wire::Bytes body) {
    // The server closes what has the client's own name, if anything; what has ours stays for others.
    Entry entry;
    entry.kind = Entry::Kind::Close;
    entry.for_client = close_named(body);
    if (entry.for_client) entry.client_name = body.substr(1, body.size() - 2);
    backend_->expected.sent(std::move(entry));
}

void Session::query_sent() {
    // The server drops the unnamed statement (exec_simple_query).
    had_unnamed_ = has_unnamed_;
    has_unnamed_ = unnamed_unbound_ = false;
    backend_->unnamed = 0;
    backend_->expected.sent_unit_end();
}

bool Session::expects_only_own() const {
    return backend_->tracker().ready_for_query_owed() == backend_->expected.own_units() &&
           !backend_->tracker().pipeline_open();
}

void Session::units_skipped() {
    // A Query among them has dropped no unnamed statement.
    has_unnamed_ = had_unnamed_;
    backend_->unnamed = Backend::any_unnamed;
}

void Session::unnamed_skipped(bool own) {
    if (backend_->expected.any_unnamed()) return;  // it was to be replaced by one that is read
    backend_->unnamed = Backend::any_unnamed;
    // What failed itself has taken the one before it away; of what was skipped that text isn't kept.
    if (!own) has_unnamed_ = had_unnamed_ = unnamed_unbound_ = false;
}

void Session::undo(std::vector<ExpectedAnswers::Entry> entries) {
    // Backwards: one of them may have made room for another.
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
        if (entry->unnamed) unnamed_skipped(entry->own);
        switch (entry->kind) {
            case Entry::Kind::Parse:
                if (entry->statement) backend_->statements.remove(entry->statement.get());
                if (entry->for_client && prepared_.find(entry->client_name) == entry->for_client.get())
                    (void)prepared_.take(entry->client_name);
                break;
            case Entry::Kind::Close:
                if (entry->statement) backend_->statements.add(std::move(entry->statement));
                if (entry->for_client) prepared_.put(entry->client_name, std::move(entry->for_client));
                break;
        }
    }
}

}  // namespace pgxc::pooler
