// Prepared statements that SQL names: PREPARE, EXECUTE, DEALLOCATE, and what looks at them.
#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {
namespace {

/// A text that does any of this may name a statement.
constexpr std::uint32_t brings =
    SessionUse::NamesStatements | SessionUse::Prepares | SessionUse::Several | SessionUse::RunsCode;

/// May that have to be the first of its transaction (SET TRANSACTION), or in front of its snapshot (LOCK)? To
/// prepare anything takes one.
bool precedes_snapshot(const wire::SqlToken& first) {
    return first.is("set") || first.is("lock");
}

/// Does it leave what comes behind it the first chance to take one?
bool goes_without_snapshot(std::string_view sql) {
    static constexpr std::array<std::string_view, 9> words{
        "abort", "begin", "commit", "end", "release", "rollback", "savepoint", "show", "start"};
    const wire::SqlToken first = wire::SqlScanner{sql}.next();
    return precedes_snapshot(first) ||
           std::any_of(words.begin(), words.end(), [&](std::string_view word) { return first.is(word); });
}

}  // namespace

void Session::drop_others_statements() {
    Backend& backend = *backend_;
    if (!backend.sql_statements || backend.sql_statements == sql_statements_) return;
    SqlStatements left;
    for (const SqlStatements::Entry& entry : backend.sql_statements->entries()) {
        const auto* own = sql_statements_ ? sql_statements_->find(entry.name) : nullptr;
        if (own != nullptr && *own == entry && (same_member_again() || reads_the_same(entry))) {
            (void)left.put(entry.name, entry.text);
        } else {
            put_own_query(backend.connection().out(), deallocate_sql(entry.name));
            backend.sql_readings.erase(entry.name);
        }
    }
    backend.sql_statements = share(std::move(left));
}

bool Session::reads_the_same(const SqlStatements::Entry& there) const {
    const auto reading = backend_->sql_readings.find(there.name);
    return reading != backend_->sql_readings.end() && reading->second == parse_context(there.text);
}

bool Session::bring_sql_statements(const std::function<bool(const SqlStatements::Entry&)>& is_needed) {
    Backend& backend = *backend_;
    const auto& tracker = backend.tracker();
    // Behind messages of a pipeline a Query of ours would be skipped should they fail; in a COPY it ends
    // that.
    if (!expects_only_own() || tracker.copy_mode() != wire::TransactionTracker::CopyMode::None ||
        tracker.in_doubt() || tracker.status() == wire::TransactionStatus::Failed)
        return false;
    // One that can't be prepared any more must neither keep the others away nor fail the client's block, and
    // the locks of those that can are not to be the block's.
    const bool in_block = tracker.status() != wire::TransactionStatus::Idle;
    const auto put = [&](const std::string& name, std::string_view sql) {
        backend.bringing.emplace_back(backend.expected.unit_sent(), name);
        put_own_query(context_.front, sql);
    };
    SqlStatements there = backend.sql_statements ? *backend.sql_statements : SqlStatements{};
    bool any = false;
    for (const SqlStatements::Entry& entry : sql_statements_->entries()) {
        if (there.find(entry.name) != nullptr || !is_needed(entry)) continue;
        if (in_block && !std::exchange(any, true)) put({}, "SAVEPOINT pgxc_ha");
        put(entry.name, entry.text);
        if (in_block) put({}, "ROLLBACK TO SAVEPOINT pgxc_ha");
        (void)there.put(entry.name, entry.text);
        backend.sql_readings.insert_or_assign(entry.name, parse_context(entry.text));
    }
    if (any) put({}, "RELEASE SAVEPOINT pgxc_ha");
    backend.sql_statements =
        there == *sql_statements_ ? sql_statements_ : std::make_shared<const SqlStatements>(std::move(there));
    return true;
}

bool Session::lacks_sql_statements() const {
    return sql_statements_ && backend_->sql_statements != sql_statements_;
}

bool Session::begins_with_names(wire::FrontendMessage type, wire::Bytes body) const {
    const auto& tracker = backend_->tracker();
    if (brought_for_pipeline_ || tracker.pipeline_open()) return false;
    const bool of_statement = !body.empty() && body[0] == static_cast<char>(wire::ObjectKind::Statement);
    // In a block there may be a portal, and what goes on with one names no statement: a Query of ours would
    // end an unnamed one.
    const bool idle = tracker.status() == wire::TransactionStatus::Idle;
    switch (type) {
        case wire::FrontendMessage::Parse:
        case wire::FrontendMessage::Bind:
            return idle || !goes_without_snapshot(text_of(type, body).value_or(""));
        case wire::FrontendMessage::Close:
        case wire::FrontendMessage::Describe:
            return idle || of_statement;
        case wire::FrontendMessage::Execute:
        case wire::FrontendMessage::Flush:
            return idle;
        default:
            return false;
    }
}

bool Session::must_wait_to_bring(wire::FrontendMessage type, wire::Bytes body, bool whole) const {
    const auto& tracker = backend_->tracker();
    if (!lacks_sql_statements() || expects_only_own() || tracker.pipeline_open() || tracker.in_doubt() ||
        tracker.copy_mode() != wire::TransactionTracker::CopyMode::None)
        return false;
    return type == wire::FrontendMessage::Query
               ? read_session_use(wire::BodyReader{body}.cstring(), whole).has(brings)
               : begins_with_names(type, body);
}

void Session::bring_for_text(SessionUse use, std::string_view sql) {
    if (!lacks_sql_statements() || !use.has(brings)) return;
    const bool in_block = backend_->tracker().status() != wire::TransactionStatus::Idle;
    if (in_block && use.has(SessionUse::Several) && precedes_snapshot(wire::SqlScanner{sql}.next())) return;
    const auto named = read_statement_name(sql);
    const bool any = use.has(SessionUse::RunsCode | SessionUse::SeesStatements);
    (void)bring_sql_statements([&](const SqlStatements::Entry& entry) {
        if (named) return named->name == entry.name;
        return any || may_name(sql, entry.name);
    });
}

void Session::bring_for_pipeline(wire::FrontendMessage type, wire::Bytes body) {
    if (!lacks_sql_statements() || !begins_with_names(type, body)) return;
    brought_for_pipeline_ = bring_sql_statements([](const SqlStatements::Entry&) { return true; });
}

void Session::fail_where_not_brought(std::string_view name) {
    Backend& backend = *backend_;
    const bool there = backend.sql_statements && backend.sql_statements->find(name) != nullptr;
    const auto& tracker = backend.tracker();
    if (there || !expects_only_own() || tracker.status() != wire::TransactionStatus::Failed) return;
    put_own_parse(name, wire::Bytes{"SELECT 1\0\0\0", 11}, nullptr);
}

const std::string* Session::statement_being_brought() const {
    const auto sent =
        std::find_if(backend_->bringing.begin(), backend_->bringing.end(),
                     [&](const auto& each) { return each.first == backend_->expected.unit_answered(); });
    return sent == backend_->bringing.end() ? nullptr : &sent->second;
}

bool Session::not_brought(std::string_view why) {
    Backend& backend = *backend_;
    const std::string* const name = statement_being_brought();
    if (name == nullptr) return false;
    if (name->empty()) return true;
    log_info("pooler: client " + from_.to_string() + ": " + backend.pool().node_text() +
             " can't prepare its statement \"" + *name + "\" any more: " + std::string{why});
    SqlStatements there = backend.sql_statements ? *backend.sql_statements : SqlStatements{};
    there.erase(*name);
    backend.sql_statements = share(std::move(there));
    backend.sql_readings.erase(*name);
    return true;
}

void Session::take_over_sql_statements() {
    Backend& backend = *backend_;
    SqlStatements now = std::move(probe_->sql_statements);
    auto there = share(now);
    if (sql_statements_) {
        // What could not be prepared here stays the client's.
        for (const auto& entry : sql_statements_->entries()) {
            const bool was_there =
                backend.sql_statements && backend.sql_statements->find(entry.name) != nullptr;
            if (!was_there && now.find(entry.name) == nullptr) (void)now.put(entry.name, entry.text);
        }
    }
    const bool same = now.entries().size() == (there ? there->entries().size() : 0);
    sql_statements_ = same ? there : std::make_shared<const SqlStatements>(std::move(now));
    backend.sql_statements = std::move(there);
    backend.sql_readings.clear();
}

void Session::close_sql_statement(std::string_view name) {
    // Whether the server has done it, it is asked.
    if (backend_ != nullptr && backend_->sql_statements && backend_->sql_statements->find(name) != nullptr)
        left_.add({SessionUse::Prepares});
    if (!sql_statements_ || sql_statements_->find(name) == nullptr) return;
    SqlStatements others = *sql_statements_;
    others.erase(name);
    sql_statements_ = share(std::move(others));
}

SessionUse Session::use_of_named(std::string_view sql) const {
    SessionUse use;
    const auto named = read_statement_name(sql);
    for (const auto& entry : sql_statements_->entries())
        if (!named || named->name == entry.name) use.add(entry.use);
    return use;
}

bool Session::answer_deallocate(std::string_view sql) {
    if (pins_.has(PinReasons::NamedInSql)) return false;
    const auto what = read_statement_name(sql);
    if (!what || what->verb != SqlStatementName::Verb::Deallocate) return false;
    if (what->name.empty()) {
        // On the server it would take away what other clients share, too.
        if (pins_.has(PinReasons::Prepared) || use_.has(SessionUse::Prepares) || sql_statements_)
            return false;
        prepared_.clear();
    } else if (!prepared_.take(what->name)) {
        // One of SQL's that isn't there need not be brought for that.
        const bool there = backend_ != nullptr && backend_->sql_statements &&
                           backend_->sql_statements->find(what->name) != nullptr;
        if (there || !sql_statements_ || sql_statements_->find(what->name) == nullptr) return false;
        close_sql_statement(what->name);
    }
    has_unnamed_ = unnamed_unbound_ = false;
    wire::put_command_complete(client_.out(), what->name.empty() ? "DEALLOCATE ALL" : "DEALLOCATE");
    wire::put_ready_for_query(client_.out(), told_);
    return true;
}

void Session::close_other_clients() {
    // Whoever looks at what is prepared shall see no other client's.
    while (StatementRef last = backend_->statements.surplus(1)) {
        backend_->statements.remove(last.get());
        put_own_close(last->server_name, last);
    }
}

void Session::bring_named_in_sql(std::string_view sql, bool simple) {
    Backend& backend = *backend_;
    // In a failed block nothing can be prepared, and what names statements is refused.
    if (backend.tracker().quiet() && backend.tracker().status() == wire::TransactionStatus::Failed) return;
    const bool in_pipeline = backend.tracker().pipeline_open();
    const bool apart = !in_pipeline && backend.tracker().status() == wire::TransactionStatus::Idle;
    const std::size_t front_before = context_.front.size();
    if (use_now_.has(SessionUse::SeesStatements)) close_other_clients();
    const auto named = read_statement_name(sql);
    // What one statement of the client's own making needs is that one; to take all away, none need be there,
    // and one that can't be prepared any more would only fail.
    const bool needs_all =
        named ? prepared_.find(named->name) != nullptr : use_now_.has(SessionUse::NamesStatements);
    if (needs_all && !prepared_.empty() && !pins_.has(PinReasons::NamedInSql)) {
        if (named && named->verb == SqlStatementName::Verb::Deallocate) {
            // Deallocated where it is made for that: under its name, and nowhere else.
            if (const StatementRef statement = prepared_.take(named->name)) {
                if (backend.soiled) put_own_close(named->name, nullptr);  // it may be there already
                put_own_parse(named->name, statement->parse_tail(), nullptr);
                deallocates_ = !std::exchange(backend.soiled, true);
            }
        } else if (named && named->verb == SqlStatementName::Verb::Prepare) {
            // The name is taken: let the server say so.
            if (backend.soiled) put_own_close(named->name, nullptr);
            put_own_parse(named->name, prepared_.find(named->name)->parse_tail(), nullptr);
            backend.soiled = true;
        } else {
            for (const auto& [own_name, statement] : prepared_.all()) {
                if (backend.soiled) put_own_close(own_name, nullptr);  // it may be there already
                put_own_parse(own_name, statement->parse_tail(), nullptr);
                // One that can't be prepared any more (its table is gone) must not keep the others away.
                if (apart) end_own_unit();
            }
            pin(PinReasons::NamedInSql);
        }
    }
    if (!simple || in_pipeline || context_.front.size() == front_before) return;
    // A Query isn't read behind extended messages that failed.
    end_own_unit();
}

void Session::end_own_unit() {
    wire::put_sync(context_.front);
    backend_->tracker().own_unit_sent();
    backend_->expected.sent_unit_end(true);
}

}  // namespace pgxc::pooler
