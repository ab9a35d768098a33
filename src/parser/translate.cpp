#include "parser/translate.h"

#include <type_traits>

#include "base/text.h"

namespace pgxc::parser {
namespace {

template <class... Ts>
struct Overloaded : Ts... {
    using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

std::string literal(char letter) {
    return std::string("'") + letter + "'";
}

std::string literal(NodeId id) {
    return std::to_string(id.value());
}

std::string literal(Replication replication) {
    return replication == Replication::None ? "NULL" : literal(static_cast<char>(replication));
}

std::string literal(bool value) {
    return value ? "true" : "false";
}

std::string literal(const std::optional<std::string>& text) {
    return text ? sql_literal(*text) : "NULL";
}

std::string literal(const std::vector<std::string>& texts) {
    std::string out = "ARRAY[";
    for (const auto& text : texts) {
        if (out.back() != '[') out += ", ";
        out += sql_literal(text);
    }
    return out + "]";
}

template <class... Arguments>
std::string call(std::string_view procedure, const NodeKey& node, const Arguments&... arguments) {
    std::string out = "CALL pgxc.";
    out += procedure;
    out += "(" + literal(static_cast<char>(node.type)) + ", " + literal(node.id);
    ((out += ", " + literal(arguments)), ...);
    return out + ")";
}

}  // namespace

std::string to_call(const Statement& statement) {
    return std::visit(
        Overloaded{
            [](const RegisterSlave& s) {
                return call("register_slave", s.node, s.addresses, s.master, s.replication);
            },
            [](const RegisterMaster& s) { return call("register_master", s.node, s.addresses); },
            [](const PromoteSlave& s) {
                return call("promote_slave", s.node, s.address, s.with_restart, s.force);
            },
            [](const SetSlaveReplication& s) { return call("set_slave_replication", s.node, s.replication); },
            [](const SetSlaveId& s) { return call("set_slave_id", s.node, s.new_id); },
            [](const SetSlaveMaster& s) { return call("set_slave_master", s.node, s.master); },
            [](const DropSlave& s) { return call("drop_slave", s.node); },
            [](const DropMaster& s) { return call("drop_master", s.node); },
        },
        statement.action);
}

}  // namespace pgxc::parser
