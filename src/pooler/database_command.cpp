#include "pooler/database_command.h"

#include "pooler/setting_set.h"
#include "wire/statement_head.h"

namespace pgxc::pooler {
namespace {

using wire::SqlScanner;
using wire::SqlToken;

std::optional<std::string> name_in(const SqlToken& token) {
    if (token.kind == SqlToken::Kind::Word) return to_lower(token.text);
    if (token.kind == SqlToken::Kind::Quoted && !token.text.empty()) return std::string{token.text};
    return std::nullopt;
}

/// `scanner` stands behind the name of what CREATE DATABASE makes.
std::optional<std::string> template_in(SqlScanner& scanner) {
    std::optional<std::string> found{"template1"};
    SqlToken option = scanner.next();
    if (option.is("with")) option = scanner.next();
    while (option.kind == SqlToken::Kind::Word) {
        if (option.is("connection")) (void)scanner.next();  // LIMIT
        SqlToken value = scanner.next();
        if (value.is_symbol('=')) value = scanner.next();
        if (value.is_symbol('-') || value.is_symbol('+')) value = scanner.next();
        if (option.is("template") && !value.is("default"))
            found = value.kind == SqlToken::Kind::String ? std::string{value.text} : name_in(value);
        option = scanner.next();
    }
    const bool over = option.kind == SqlToken::Kind::End || option.is_symbol(';');
    return over ? found : std::nullopt;
}

}  // namespace

std::optional<std::string> database_wanted_alone(std::string_view sql) {
    if (!wire::is_single(sql)) return std::nullopt;
    SqlScanner scanner{sql};
    const SqlToken verb = scanner.next();
    if (!verb.is("drop") && !verb.is("alter") && !verb.is("create")) return std::nullopt;
    if (!scanner.next().is("database")) return std::nullopt;
    SqlToken token = scanner.next();
    if (verb.is("drop") && token.is("if")) {
        SqlScanner behind{scanner.rest()};
        if (behind.next().is("exists")) token = behind.next();
    }
    auto name = name_in(token);
    if (verb.is("drop") || !name) return name;
    if (verb.is("create")) return template_in(scanner);
    token = scanner.next();
    if (token.is("rename")) return name;
    if (token.is("set") || token.is("with")) token = scanner.next();
    return token.is("tablespace") ? name : std::nullopt;
}

}  // namespace pgxc::pooler
