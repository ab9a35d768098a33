#include "pooler/router.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <vector>

#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

using wire::AccessMode;
using wire::IsolationLevel;
using wire::SqlScanner;
using wire::SqlToken;
using wire::StatementHead;
using wire::TransactionControl;

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

bool same_text(std::string_view text, std::string_view lower_text) {
    return std::equal(text.begin(), text.end(), lower_text.begin(), lower_text.end(),
                      [](char a, char b) { return lower(a) == b; });
}

/// A name as a word or in double quotes.
bool is_name(const SqlToken& token, std::string_view lower_name) {
    return token.is(lower_name) || (token.kind == SqlToken::Kind::Quoted && token.text == lower_name);
}

bool is_node_type(const SqlToken& token) {
    return token.is("coordinator") || token.is("datanode");
}

std::vector<NodeId> datanode_groups(const ClusterView& view) {
    std::vector<NodeId> groups;
    for (const auto& entry : view.nodes)
        if (entry.node.key.type == NodeType::Datanode && entry.node.is_master())
            groups.push_back(entry.node.key.id);
    return groups;
}

std::string list_groups(const ClusterView& view) {
    std::string list;
    for (const NodeId id : datanode_groups(view)) {
        if (!list.empty()) list += ", ";
        list += std::to_string(id.value());
    }
    return list.empty() ? "There is no datanode in pgxc_nodes; pgxc.node = 'C' is this coordinator."
                        : "Datanode groups are: " + list + "; pgxc.node = 'C' is this coordinator.";
}

/// Statements that may run on a slave when the session's transactions are read only by default.
bool is_plain_read(std::string_view sql) {
    if (wire::read_statement_head(sql).control != TransactionControl::None) return false;
    SqlScanner scanner(sql);
    SqlToken first = scanner.next();
    while (first.is_symbol('(')) first = scanner.next();
    constexpr std::array<std::string_view, 5> reads = {"select", "with", "values", "table", "show"};
    return std::any_of(reads.begin(), reads.end(), [&](std::string_view word) { return first.is(word); });
}

const NodeLoad* load_of(const RouteFacts& facts, NodeKey node) {
    const auto it = std::find_if(facts.load.begin(), facts.load.end(),
                                 [node](const NodeLoad& load) { return load.node == node; });
    return it == facts.load.end() ? nullptr : &*it;
}

bool is_live(const RouteFacts& facts, const NodeView& slave) {
    if (slave.node.key.type != facts.group.type || slave.node.is_master()) return false;
    if (slave.state != NodeState::Up || !slave.may_read || slave.role_seen == RoleSeen::Master) return false;
    if (!slave.lag_bytes || *slave.lag_bytes > facts.max_read_lag_bytes) return false;
    return is_slave_of(*facts.view, slave, facts.group);
}

bool may_serve(const RouteFacts& facts, const NodeView& slave, const NodeLoad* load) {
    if (!is_live(facts, slave) || (load != nullptr && load->troubled)) return false;
    switch (facts.bound.state) {
        case CausalBound::State::None:
            return true;
        case CausalBound::State::Unknown:
            return false;
        case CausalBound::State::Known:
            // Only what the slave said over a connection that is still there: a server that crashed may come
            // back behind what it told the monitor before.
            return load != nullptr && load->progress.position.known() &&
                   load->progress.covers(facts.bound.progress);
    }
    return false;
}

/// The least loaded slave that may serve; of equals another one each time.
const NodeView* choose_slave(const RouteFacts& facts) {
    std::optional<std::uint32_t> least;
    std::size_t equals = 0;
    const auto each = [&facts](const auto& look) {
        for (const NodeView& candidate : facts.view->nodes) {
            const NodeLoad* load = load_of(facts, candidate.node.key);
            if (may_serve(facts, candidate, load)) look(candidate, load != nullptr ? load->outstanding : 0);
        }
    };
    each([&](const NodeView&, std::uint32_t outstanding) {
        if (!least || outstanding < *least) {
            least = outstanding;
            equals = 0;
        }
        if (outstanding == *least) ++equals;
    });
    if (equals == 0) return nullptr;
    std::size_t skip = facts.turn % equals;
    const NodeView* chosen = nullptr;
    each([&](const NodeView& candidate, std::uint32_t outstanding) {
        if (chosen == nullptr && outstanding == *least && skip-- == 0) chosen = &candidate;
    });
    return chosen;
}

/// Why a statement goes to the master by what it is; empty if a slave may have it.
std::string_view masters_business(const RouteFacts& facts) {
    const std::string_view sql = *facts.first_statement;
    const bool declared = is_declared_read_only(sql, facts.default_read_only, facts.default_serializable);
    if (declared) return {};
    if (facts.routing != ReadRouting::Auto || !facts.statement) return "not declared read only";
    if (facts.default_serializable) return "its transaction is serializable";
    switch (facts.statement->kind) {
        case StatementClass::Read:
            return {};
        case StatementClass::ReadWithTime:
            return facts.in_block ? "it shows when its transaction began, which changes when that moves"
                                  : std::string_view{};
        case StatementClass::Begin:
        case StatementClass::End:
        case StatementClass::MasterOnly:
        case StatementClass::Write:
        case StatementClass::Unknown:
            return facts.statement->reason;
    }
    return facts.statement->reason;
}

}  // namespace

bool is_slave_of(const ClusterView& view, const NodeView& slave, NodeKey master) {
    const NodeView* at = &slave;
    for (std::size_t steps = 0; steps <= view.nodes.size(); ++steps) {
        if (at->node.is_master()) return false;
        const NodeKey above{at->node.key.type, at->node.master_id};
        if (above == master) return true;
        at = view.find(above);
        if (at == nullptr) return false;
    }
    return false;
}

bool chooses_own_coordinator(std::optional<std::string_view> choice) {
    return choice && (*choice == "C" || *choice == "c");
}

std::optional<NodeKey> named_group(std::string_view choice) {
    NodeId::rep number = 0;
    const char* const end = choice.data() + choice.size();
    const auto [stopped, error] = std::from_chars(choice.data(), end, number);
    if (error != std::errc{} || stopped != end || number < 1) return std::nullopt;
    return NodeKey{NodeType::Datanode, NodeId{number}};
}

Result<NodeKey> choose_group(std::optional<std::string_view> choice, const ClusterView& view,
                             NodeId own_coordinator) {
    const NodeKey own{NodeType::Coordinator, own_coordinator};
    if (!choice || choice->empty()) {
        const auto groups = datanode_groups(view);
        return groups.size() == 1 ? NodeKey{NodeType::Datanode, groups.front()} : own;
    }
    if (chooses_own_coordinator(choice)) return own;
    const auto named = named_group(*choice);
    if (!named)
        return Error(sqlstate::invalid_parameter_value,
                     "invalid value for parameter \"pgxc.node\": \"" + std::string(*choice) + "\"",
                     "Give the id of a datanode group, or C for this coordinator.");
    const NodeKey key = *named;
    const NodeView* found = view.find(key);
    if (found == nullptr)
        return Error(sqlstate::connection_exception,
                     "datanode group " + std::to_string(key.id.value()) + " does not exist",
                     list_groups(view));
    if (!found->node.is_master())
        return Error(sqlstate::connection_exception,
                     key.to_string() + " is a slave and does not name a group of its own",
                     "Its master is datanode " + std::to_string(found->node.master_id.value()) +
                         ". Declared read-only transactions there use its slaves.");
    return key;
}

Result<ReadRouting> parse_read_routing(std::string_view text) {
    if (same_text(text, "master") || same_text(text, "primary")) return ReadRouting::Master;
    if (same_text(text, "explicit")) return ReadRouting::Explicit;
    if (same_text(text, "auto")) return ReadRouting::Auto;
    return Error(sqlstate::invalid_parameter_value,
                 "invalid value for parameter \"pgxc.read_routing\": \"" + std::string(text) + "\"",
                 "Available values: master, explicit, auto.");
}

Decision decide_route(const RouteFacts& facts) {
    const NodeKey own{NodeType::Coordinator, facts.own_coordinator};
    const auto go = [](NodeKey target, std::string_view reason) {
        return Decision{target, false, false, reason};
    };
    const auto hold = [&facts](std::string_view reason) {
        return Decision{facts.group, true, false, reason};
    };

    if (facts.first_statement && is_own_statement(*facts.first_statement))
        return go(own, "a statement of pgxc_ha itself runs on this coordinator");

    // This coordinator is the server that the pooler lives in: no gate stands between the two.
    const NodeView* master = facts.view->find(facts.group);
    if (facts.group != own) {
        if (master == nullptr || !master->node.is_master())
            return hold("the node group is not in the catalog");
        switch (master->gate) {
            case Gate::Held:
                return hold(master->why.empty() ? std::string_view("its master is not proven yet")
                                                : master->why);
            case Gate::Open:
                break;
        }
        if (master->paused) return hold(master->why.empty() ? std::string_view("it is paused") : master->why);
    }
    switch (facts.routing) {
        case ReadRouting::Master:
            return go(facts.group, "read routing is off");
        case ReadRouting::Explicit:
        case ReadRouting::Auto:
            break;
    }
    if (!facts.first_statement) return go(facts.group, "its first statement is not known");
    if (const auto why = masters_business(facts); !why.empty()) return go(facts.group, why);
    switch (facts.bound.state) {
        case CausalBound::State::Unknown:
            return go(facts.group, "the position of a commit before it is not known");
        case CausalBound::State::Known:
            if (master == nullptr || master->node.epoch != facts.bound.epoch)
                return go(facts.group, "the causal bound is of another epoch");
            break;
        case CausalBound::State::None:
            break;
    }
    if (const NodeView* slave = choose_slave(facts)) {
        const bool declared = facts.routing != ReadRouting::Auto || !facts.statement ||
                              facts.statement->kind == StatementClass::MasterOnly;
        return {slave->node.key, false, true,
                declared ? std::string_view{"declared read only"} : facts.statement->reason};
    }
    return go(facts.group, has_live_slave(facts) ? "no slave shows every commit before it"
                                                 : "no slave may serve this read");
}

bool could_go_to_slave(const RouteFacts& facts) {
    return facts.routing != ReadRouting::Master && facts.first_statement &&
           !is_own_statement(*facts.first_statement) && masters_business(facts).empty();
}

bool may_read_at(const RouteFacts& facts, NodeKey slave) {
    const NodeView* found = facts.view->find(slave);
    return found != nullptr && may_serve(facts, *found, load_of(facts, slave));
}

bool has_live_slave(const RouteFacts& facts) {
    return std::any_of(facts.view->nodes.begin(), facts.view->nodes.end(),
                       [&](const NodeView& node) { return is_live(facts, node); });
}

bool is_own_statement(std::string_view sql) {
    SqlScanner scanner(sql);
    SqlToken first = scanner.next();
    while (first.is_symbol(';')) first = scanner.next();
    if (first.is("call")) {
        const SqlToken schema = scanner.next();
        return is_name(schema, "pgxc") && scanner.next().is_symbol('.');
    }
    constexpr std::array<std::string_view, 5> verbs = {"register", "unregister", "create", "alter", "drop"};
    return std::any_of(verbs.begin(), verbs.end(), [&](std::string_view verb) { return first.is(verb); }) &&
           is_node_type(scanner.next());
}

bool is_declared_read_only(std::string_view sql, bool default_read_only, bool default_serializable) {
    if (!default_read_only) {
        // Asked of every statement: most are told by their first word.
        const SqlToken first = SqlScanner{sql}.next();
        if (!first.is("begin") && !first.is("start")) return false;
    }
    const StatementHead head = wire::read_statement_head(sql);
    switch (head.control) {
        case TransactionControl::Begin: {
            const bool serializable = head.isolation == IsolationLevel::Serializable ||
                                      (head.isolation == IsolationLevel::Unspecified && default_serializable);
            const bool read_only = head.access == AccessMode::ReadOnly ||
                                   (head.access == AccessMode::Unspecified && default_read_only);
            return read_only && !serializable;
        }
        case TransactionControl::None:
            return default_read_only && !default_serializable && is_plain_read(sql);
        case TransactionControl::Commit:
        case TransactionControl::Rollback:
        case TransactionControl::Prepare:
        case TransactionControl::Savepoint:
        case TransactionControl::Other:
        case TransactionControl::Unknown:
            return false;
    }
    return false;
}

}  // namespace pgxc::pooler
