// pgxc.explain_route(), pgxc.pause(), pgxc.resume(): what the pooler would do, and holding what it does.

#include <limits>
#include <string>

#include "pg/admin_call.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/pooler_environment.h"
#include "pg/shared_state.h"
#include "pg/statement_classifier.h"
#include "pooler/causal_bound.h"
#include "pooler/router.h"

extern "C" {
#include "parser/parser.h"
}

namespace pgxc {
namespace {

/// The type of an argument: what names the group in the overload that is called.
enum class GroupNamed : std::uint8_t { ByText, ById };

/// How the call names a datanode group, as pgxc.node does.
Result<std::string> group_text(const AdminCall& call, GroupNamed named) {
    if (named == GroupNamed::ByText) return call.text(0, "node");
    const auto id = call.integer(0, "node_id");
    if (!id) return id.error();
    return std::to_string(*id);
}

Result<NodeKey> find_group(const std::string& text) {
    SharedClusterView source;
    const auto view = source.current();
    auto group = pooler::choose_group(text, *view, guc::node_id());
    if (!group) return group.error();
    if (group->type != NodeType::Datanode)
        return Error{sqlstate::feature_not_supported, "this coordinator itself cannot be paused",
                     "Name a datanode group, as in pgxc.node."};
    return group;
}

/// The statement's class as a word.
std::string class_word(const std::string& sql, const pooler::Classification& statement) {
    if (pooler::is_own_statement(sql)) return "own";
    if (pooler::is_declared_read_only(sql, false, false)) return "read only transaction";
    return std::string(pooler::to_word(statement.kind));
}

Result<Datum> pause_group_named(FunctionCallInfo fcinfo, GroupNamed named) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    const auto text = group_text(*call, named);
    if (!text) return text.error();
    const auto group = find_group(*text);
    if (!group) return group.error();
    const auto paused = pause_group(*group, call->user());
    if (!paused) return paused.error();
    // Nothing that could end the session stands between the pause and what takes it back then.
    Status unused = wait_until_unused(*group, *paused);
    if (*paused) {
        call->log("has paused " + group->to_string());
    } else {
        report(NOTICE, Error{"00000", group->to_string() + " is paused already"});
    }
    if (unused) return Datum{0};
    return std::move(unused).error();
}

Result<Datum> resume_group_named(FunctionCallInfo fcinfo, GroupNamed named) {
    auto call = AdminCall::begin(fcinfo);
    if (!call) return std::move(call).error();
    if (Status there = require_shared_state(); !there) return std::move(there).error();
    const auto text = group_text(*call, named);
    if (!text) return text.error();
    // A group that is gone may still be paused.
    if (const auto gone = pooler::named_group(*text); gone && resume_group(*gone)) {
        call->log("resumes " + gone->to_string());
        return Datum{0};
    }
    const auto group = find_group(*text);
    if (!group) return group.error();
    report(NOTICE, Error{"00000", group->to_string() + " is not paused"});
    return Datum{0};
}

}  // namespace

PGXC_FUNCTION(pgxc_explain_route) {
    if (Status there = require_shared_state(); !there) return there.error();
    if (PG_ARGISNULL(0)) return return_rows(fcinfo, {});
    const auto sql = text_argument(fcinfo, 0);
    if (!sql) return sql.error();
    std::optional<std::string> node;
    if (!PG_ARGISNULL(1)) {
        auto text = text_argument(fcinfo, 1);
        if (!text) return text.error();
        node = std::move(*text);
    }
    pooler::ReadRouting routing = routing_of(guc::read_routing());
    if (!PG_ARGISNULL(2)) {
        const auto text = text_argument(fcinfo, 2);
        if (!text) return text.error();
        const auto parsed = pooler::parse_read_routing(*text);
        if (!parsed) return parsed.error();
        routing = *parsed;
    }
    SharedClusterView source;
    const auto view = source.current();
    const auto group = pooler::choose_group(node ? std::optional<std::string_view>{*node} : std::nullopt,
                                            *view, guc::node_id());
    if (!group) return group.error();

    const auto classifier = make_statement_classifier();
    pooler::SqlDialect dialect;
    dialect.standard_conforming_strings = standard_conforming_strings;
    const pooler::Classification statement =
        sql->size() > pooler::max_classified_bytes
            ? pooler::Classification{pooler::StatementClass::Unknown, "its text is too long to be looked at"}
            : pooler::with_session_use(classifier->classify(*sql, dialect), *sql);

    pooler::RouteFacts facts;
    facts.view = view.get();
    facts.group = *group;
    facts.own_coordinator = guc::node_id();
    facts.routing = routing;
    facts.first_statement = *sql;
    facts.statement = statement;
    facts.max_read_lag_bytes = guc::max_read_lag_bytes();
    const NodeView* master = view->find(*group);
    // Of the slaves' positions the monitor's last answers are known here, of their snapshots nothing.
    constexpr auto any_xmax = std::numeric_limits<std::uint64_t>::max();
    std::vector<pooler::NodeLoad> slaves;
    for (const NodeView& slave : view->nodes)
        if (!slave.node.is_master()) slaves.push_back({slave.node.key, 0, {slave.position, any_xmax}, false});
    facts.load = slaves;
    if (guc::causal_reads() && master != nullptr && group->type == NodeType::Datanode) {
        if (const pooler::CausalRecord* record = shared_causal_record(*group))
            facts.bound = pooler::look_at(*record, master->registration, master->node.epoch);
    }
    const pooler::Decision decision = pooler::decide_route(facts);
    const NodeView* target = view->find(decision.target);
    std::string where = decision.target.to_string();
    if (target != nullptr) where += " (" + target->node.address.to_string() + ")";
    if (decision.hold) where += ", held";
    const bool next_decides = statement.kind == pooler::StatementClass::Begin &&
                              routing == pooler::ReadRouting::Auto && !decision.hold && !decision.to_slave;
    if (next_decides) where = "that of the next statement";
    return return_rows(fcinfo, {{class_word(*sql, statement), where,
                                 std::string(next_decides ? statement.reason : decision.reason)}});
}

PGXC_FUNCTION(pgxc_pause) {
    return pause_group_named(fcinfo, GroupNamed::ByText);
}

PGXC_FUNCTION(pgxc_pause_id) {
    return pause_group_named(fcinfo, GroupNamed::ById);
}

PGXC_FUNCTION(pgxc_resume) {
    return resume_group_named(fcinfo, GroupNamed::ByText);
}

PGXC_FUNCTION(pgxc_resume_id) {
    return resume_group_named(fcinfo, GroupNamed::ById);
}

}  // namespace pgxc
