#include <libpq-fe.h>

#include <memory>

#include "replication/conninfo.h"

namespace pgxc {
namespace {

std::string quoted(const std::string& value) {
    // All that isspace() calls white space ends a value that isn't quoted.
    const bool plain = !value.empty() && value.find_first_of(" '\\\t\n\v\f\r=") == std::string::npos;
    if (plain) return value;
    std::string text = "'";
    for (const char c : value) {
        if (c == '\'' || c == '\\') text += '\\';
        text += c;
    }
    return text + "'";
}

}  // namespace

Result<std::map<std::string, std::string>> conninfo_values(const std::string& conninfo) {
    char* message = nullptr;
    const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
        PQconninfoParse(conninfo.c_str(), &message), PQconninfoFree);
    if (options == nullptr) {
        std::string why = message != nullptr ? message : "out of memory";
        PQfreemem(message);
        while (!why.empty() && why.back() == '\n') why.pop_back();
        return Error{sqlstate::invalid_parameter_value, "invalid connection string: " + why};
    }
    std::map<std::string, std::string> values;
    for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option)
        if (option->val != nullptr) values[option->keyword] = option->val;
    return values;
}

Result<std::string> conninfo_with(const std::string& conninfo,
                                  const std::map<std::string, std::string>& changes) {
    auto values = conninfo_values(conninfo);
    if (!values.ok()) return values.error();
    for (const auto& [key, value] : changes) {
        if (value.empty())
            values->erase(key);
        else
            (*values)[key] = value;
    }
    std::string text;
    for (const auto& [key, value] : *values) text += (text.empty() ? "" : " ") + key + "=" + quoted(value);
    return text;
}

}  // namespace pgxc
