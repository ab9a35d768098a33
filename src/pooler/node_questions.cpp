// What the pooler asks servers on its own account, on connections that nobody has: how far the master has
// written, how far a slave has replayed, and what a session begins with.

#include <charconv>
#include <utility>

#include "pooler/node_pool.h"

namespace pgxc::pooler {
namespace {

/// One row, from PostgreSQL 10 on: in recovery; flushed, or replayed; inserted; synchronous_commit;
/// default_transaction_isolation; the snapshot's xmax, which was taken before the positions were read.
constexpr std::string_view question_sql =
    "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery() THEN "
    "pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END, CASE WHEN NOT "
    "pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END, "
    "pg_catalog.current_setting('synchronous_commit'), "
    "pg_catalog.current_setting('default_transaction_isolation'), "
    "pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())";
constexpr std::size_t question_columns = 6;
/// Gets itself a transaction id and commits, waiting for nothing and nobody.
constexpr std::string_view empty_commit_sql = "SELECT pg_catalog.txid_current()";
constexpr Millis empty_commit_pause{1'000};

std::optional<Lsn> lsn_of(const std::optional<std::string>& cell) {
    return cell ? Lsn::parse(*cell) : std::nullopt;
}

std::optional<std::uint64_t> txid_of(const std::optional<std::string>& cell) {
    std::uint64_t number = 0;
    if (!cell) return std::nullopt;
    const char* const end = cell->data() + cell->size();
    const auto read = std::from_chars(cell->data(), end, number);
    return read.ec == std::errc{} && read.ptr == end ? std::optional(number) : std::nullopt;
}

}  // namespace

bool NodePool::question_due() const {
    if (asking_ != nullptr || !target_.exists || core_.paused() || context_.shutting_down) return false;
    if (!target_.is_master) return question_wanted_ && replayed_.due(Clock::now());
    if (question_wanted_ && (!defaults_.known || empty_commit_wanted_)) return true;
    return position_wanted() && position_.unresolved(target_.epoch);
}

bool NodePool::position_wanted() const {
    // Looked at after every transaction: wanted() is false where nobody reads from slaves.
    return position_.wanted(context_.coarse_now) && context_.settings().causal_reads;
}

bool NodePool::ask_on(Backend& backend) {
    // Of a connection that wasn't asked the careful thing is believed.
    const bool first = asking_ == nullptr && target_.is_master && !core_.paused() && !backend.async_commit &&
                       !backend.async_commit_asked && !context_.shutting_down && position_wanted();
    if (!first && !question_due()) return false;
    question_wanted_ = false;
    asking_ = &backend;
    if (target_.is_master) {
        backend.async_commit_asked = true;
        question_ = position_.ask(target_.epoch);
    } else {
        question_version_ = replayed_.ask(Clock::now());
    }
    core_.retire(backend);  // it comes back, but nobody should have to wait for that
    backend.run_own(Backend::Own::Question, question_sql);
    return true;
}

void NodePool::ask_now() {
    if (Member* idle = core_.idle().front()) {
        (void)ask_on(static_cast<Backend&>(*idle));
    } else if (core_.members() == 0) {
        try_again_ = true;
        open_more();
    }
}

void NodePool::ask_master() {
    question_wanted_ = true;
    ask_now();
}

void NodePool::end_a_transaction() {
    const TimePoint now = Clock::now();
    if (now < empty_commit_at_ + empty_commit_pause) return;
    empty_commit_at_ = now;
    empty_commit_wanted_ = true;
    ask_master();
}

void NodePool::ask_slave(NodeKey group, const Progress& wanted) {
    group_ = group;
    replayed_.wanted.raise_to(wanted);
    if (replayed_.progress().position.known() && replayed_.progress().covers(wanted)) return;
    question_wanted_ = true;
    context_.pools->asked_by(shared_from_this());
    if (replayed_.asking()) return;
    if (replayed_.due(Clock::now())) {
        ask_now();
        return;
    }
    if (ask_again_pending_) return;
    ask_again_pending_ = true;
    ask_again_ = context_.loop.call_after(replayed_.pause(), [this] {
        ask_again_pending_ = false;
        ask_on_while_behind();
    });
}

void NodePool::try_again() {
    try_again_ = true;
    if (!retry_pending_) open_more();
}

void NodePool::own_statement_done(Backend& backend, Backend::Own what, const Backend::Row* row) {
    if (what == Backend::Own::Rollback) {
        if (row == nullptr) {
            discard(backend);
        } else {
            give_back(backend);
        }
        return;
    }
    if (what == Backend::Own::EmptyCommit) {
        // However it went: reads at slaves don't depend on it.
        give_back(backend);
        return;
    }
    asking_ = nullptr;
    const bool answered = row != nullptr && row->size() == question_columns && (*row)[0];
    if (!answered) {
        question_lost();
    } else if (target_.is_master) {
        master_answered(backend, *row);
        if (std::exchange(empty_commit_wanted_, false)) {
            backend.run_own(Backend::Own::EmptyCommit, empty_commit_sql);
            return;
        }
    } else {
        slave_answered(*row);
    }
    give_back(backend);
}

void NodePool::question_lost() {
    asking_ = nullptr;
    if (!target_.is_master) replayed_.not_answered();
}

void NodePool::master_answered(Backend& backend, const Backend::Row& row) {
    const auto flushed = lsn_of(row[1]);
    const auto inserted = lsn_of(row[2]);
    const auto xmax = txid_of(row[5]);
    if (*row[0] != "f" || !flushed || !inserted || !xmax) return;
    learn_defaults(backend, row);
    position_.answered(question_, {*flushed, *inserted, *xmax});
    if (context_.settings().causal_reads) context_.pools->ask_slaves(key_.node, position_.progress());
}

void NodePool::learn_defaults(Backend& backend, const Backend::Row& row) {
    // What the last client has set for itself is no default.
    const auto is_default = [&backend](std::string_view name) {
        return backend.applied->find(name) == nullptr;
    };
    if (is_default("synchronous_commit")) {
        const bool async = row[3] == "off";
        const bool changed = backend.async_commit && *backend.async_commit != async;
        if (changed) {
            // By a reload, which the others have seen too.
            for (const auto& other : backends_) {
                other->async_commit.reset();
                other->async_commit_asked = false;
            }
        }
        backend.async_commit = async;
    }
    if (is_default("default_transaction_isolation") && is_default("transaction_isolation")) {
        defaults_.known = true;
        defaults_.strict_isolation = row[4] != "read committed" && row[4] != "read uncommitted";
    }
}

void NodePool::slave_answered(const Backend::Row& row) {
    const auto replayed = lsn_of(row[1]);
    const auto xmax = txid_of(row[5]);
    if (*row[0] != "t" || !replayed || !xmax) {
        replayed_.not_answered();
        return;
    }
    replayed_.answered(question_version_, {*replayed, *xmax});
    ask_on_while_behind();
}

void NodePool::ask_on_while_behind() {
    if (replayed_.behind() && context_.position_of(group_).wanted(Clock::now()))
        ask_slave(group_, replayed_.wanted);
}

void NodePool::roll_back(Backend& backend) {
    context_.stats_changed = true;
    backend.lend_to(nullptr);
    if (!usable(backend) || backend.soiled || context_.shutting_down || backend.cancels_running()) {
        discard(backend);
        return;
    }
    core_.transaction_ended(backend, context_.now());
    core_.retire(backend);
    backend.run_own(Backend::Own::Rollback, "ROLLBACK");
    serve_soon();
}

void PoolSet::ask_slaves(NodeKey group, const Progress& wanted) {
    for (const NodeView& node : context_.view->nodes) {
        if (node.node.is_master() || !node.may_read) continue;
        const auto asker = askers_.find(node.node.key);
        if (asker == askers_.end()) continue;
        const auto pool = asker->second.lock();
        if (pool && pool->asked_group() == group) pool->ask_slave(group, wanted);
    }
}

}  // namespace pgxc::pooler
