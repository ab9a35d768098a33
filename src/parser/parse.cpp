#include "parser/parse.h"

#include <cassert>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/limits.h"

namespace pgxc::parser {
namespace {

/// What a statement of ours can begin with.
enum class Verb { Register, Unregister, Create, Alter, Drop };

std::optional<Verb> verb_of(std::string_view word) {
    if (word == "register") return Verb::Register;
    if (word == "unregister") return Verb::Unregister;
    if (word == "create") return Verb::Create;
    if (word == "alter") return Verb::Alter;
    if (word == "drop") return Verb::Drop;
    return std::nullopt;
}

std::optional<NodeType> node_type_of(std::string_view word) {
    if (word == "coordinator") return NodeType::Coordinator;
    if (word == "datanode") return NodeType::Datanode;
    return std::nullopt;
}

std::string upper(std::string_view word) {
    std::string out(word);
    for (char& c : out)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    return out;
}

/// The word that stands at `pos`, folded to lower case; empty if there is none or it is longer than any of
/// ours.
struct ShortWord {
    char letters[12] = {};  // "coordinator" is the longest
    std::size_t length = 0;
    std::size_t end = 0;
    [[nodiscard]] std::string_view view() const { return {letters, length}; }
};

ShortWord word_at(std::string_view text, std::size_t pos) {
    ShortWord word;
    for (; pos < text.size(); ++pos) {
        const auto c = static_cast<unsigned char>(text[pos]);
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter) {
            // A name that goes on with a digit, a dollar sign, ... is none of our words; a quote makes a
            // string of what may look like one, but no word of ours can be a string's prefix.
            const bool goes_on = (c >= '0' && c <= '9') || c == '_' || c == '$' || c >= 0x80;
            if (goes_on) return {};
            break;
        }
        if (word.length == sizeof word.letters) return {};
        word.letters[word.length++] = static_cast<char>(c | 0x20);
    }
    word.end = pos;
    return word;
}

bool ours_at(std::string_view text, std::size_t pos) {
    const ShortWord verb = word_at(text, skip_space_and_comments(text, pos));
    if (!verb_of(verb.view())) return false;
    return node_type_of(word_at(text, skip_space_and_comments(text, verb.end)).view()).has_value();
}

/// Says whether "coordinator" or "datanode" stands anywhere after `from`, in whatever context. Both words are
/// found by their letter d, so that one pass is enough.
bool mentions_node_type(std::string_view text, std::size_t from) {
    const auto matches = [&](std::size_t begin, std::string_view word) {
        if (text.size() - begin < word.size()) return false;
        for (std::size_t i = 0; i < word.size(); ++i)
            if ((text[begin + i] | 0x20) != word[i]) return false;
        return true;
    };
    constexpr std::size_t d_of_coordinator = 4;
    for (std::size_t i = from; i < text.size(); ++i) {
        if ((text[i] | 0x20) != 'd') continue;
        if (matches(i, "datanode")) return true;
        if (i >= from + d_of_coordinator && matches(i - d_of_coordinator, "coordinator")) return true;
    }
    return false;
}

SyntaxError mixed(std::size_t offset) {
    return {{sqlstate::syntax_error,
             "statements of pgxc_ha cannot be mixed with other statements in one query string",
             "Send the statements about coordinators and datanodes separately from all others."},
            offset};
}

struct Found {
    std::size_t offset = 0;
    bool first = true;  // only empty statements stand before it
};

/// Splits a text at its semicolons, as the lexer sees them, and looks for a statement of ours. Semicolons in
/// rules and in SQL function bodies need no care: where those allow a statement, they allow none that begins
/// as ours.
std::optional<Found> find_ours(std::string_view text, const LexOptions& options) {
    Lexer lexer(text, options);
    Found found;
    bool at_start = true;
    for (;;) {
        const Token token = lexer.next();
        // What can't be read is the server's to complain about.
        if (token.kind == TokenKind::End || token.kind == TokenKind::Bad) return std::nullopt;
        const bool semicolon = token.kind == TokenKind::Symbol && token.text == ";";
        if (at_start && !semicolon && ours_at(text, token.begin)) {
            found.offset = token.begin;
            return found;
        }
        found.first = found.first && semicolon;
        at_start = semicolon;
    }
}

/// Recursive descent over one query string. A production returns false where it fails, with the error in
/// error_.
class Parser {
  public:
    Parser(std::string_view text, const LexOptions& options) : text_(text), lexer_(text, options) {
        advance();
    }

    ParseResult run() {
        std::vector<Statement> statements;
        std::size_t location = 0;
        for (;;) {
            while (current_.kind == TokenKind::Symbol && current_.text == ";") {
                location = current_.end;
                advance();
            }
            if (current_.kind == TokenKind::End) return statements;
            if (current_.kind == TokenKind::Bad) return lexer_.error();
            if (!ours_at(text_, current_.begin)) return mixed(current_.begin);
            Statement statement;
            statement.location = location;
            if (!parse_statement(statement)) return *error_;
            if (current_.kind == TokenKind::Symbol) statement.length = current_.begin - location;
            statements.push_back(std::move(statement));
        }
    }

  private:
    void advance() {
        current_ = lexer_.next();
        expected_.clear();
    }

    // Each of the following looks at the current token only. What was looked for in vain is remembered, so
    // that the error can list everything that could have stood there.

    [[nodiscard]] bool accept(std::string_view word) {
        if (current_.kind == TokenKind::Word && current_.text == word) {
            advance();
            return true;
        }
        expected_.push_back(upper(word));
        return false;
    }
    [[nodiscard]] bool accept_symbol(char symbol) {
        if (current_.kind == TokenKind::Symbol && current_.text.size() == 1 && current_.text[0] == symbol) {
            advance();
            return true;
        }
        expected_.push_back(std::string("\"") + symbol + "\"");
        return false;
    }
    [[nodiscard]] bool accept_slave() { return accept("slave") || accept("standby"); }
    [[nodiscard]] bool accept_master() { return accept("master") || accept("primary"); }

    [[nodiscard]] bool expect(std::string_view word) { return accept(word) || unexpected(); }
    [[nodiscard]] bool expect_symbol(char symbol) { return accept_symbol(symbol) || unexpected(); }
    [[nodiscard]] bool expect_slave() { return accept_slave() || unexpected(); }
    [[nodiscard]] bool expect_master() { return accept_master() || unexpected(); }
    [[nodiscard]] bool expect_end() {
        if (current_.kind == TokenKind::End) return true;
        if (current_.kind == TokenKind::Symbol && current_.text == ";") return true;
        expected_.emplace_back("the end of the statement");
        return unexpected();
    }
    [[nodiscard]] bool expect_id(NodeId& id);
    [[nodiscard]] bool expect_address(std::string& address);
    [[nodiscard]] bool expect_connection(std::vector<std::string>& addresses);
    [[nodiscard]] bool expect_replication(Replication& replication);

    [[nodiscard]] bool parse_statement(Statement& statement);
    [[nodiscard]] bool parse_register_slave(NodeType type, Action& action);
    [[nodiscard]] bool parse_register_master(NodeType type, Action& action);
    [[nodiscard]] bool parse_alter(NodeType type, Action& action);
    [[nodiscard]] bool parse_promote(NodeKey node, Action& action);
    [[nodiscard]] bool parse_drop(NodeType type, Action& action);

    bool fail(SqlState state, std::string message, std::size_t offset, std::string hint = {}) {
        error_ = SyntaxError{{state, std::move(message), std::move(hint)}, offset};
        return false;
    }
    bool unexpected();

    std::string_view text_;
    Lexer lexer_;
    Token current_;
    std::vector<std::string> expected_;
    /// The form of the statement that is being read, for the hint.
    std::string form_;
    std::optional<SyntaxError> error_;
};

bool Parser::unexpected() {
    if (current_.kind == TokenKind::Bad) {
        error_ = lexer_.error();
        return false;
    }
    std::string detail = "Expected ";
    for (std::size_t i = 0; i < expected_.size(); ++i) {
        if (i > 0) detail += i + 1 == expected_.size() ? " or " : ", ";
        detail += expected_[i];
    }
    detail += ".";
    std::string message = "syntax error at end of input";
    if (current_.kind != TokenKind::End)
        message = "syntax error at or near \"" + std::string(lexer_.source(current_)) + "\"";
    error_ =
        SyntaxError{{sqlstate::syntax_error, std::move(message), "The form is: " + form_, std::move(detail)},
                    current_.begin};
    return false;
}

/// Reads a node's id. A sign is read too, so that -1 is told to be out of range rather than no number.
bool Parser::expect_id(NodeId& id) {
    const std::size_t begin = current_.begin;
    bool negative = false;
    if (current_.kind == TokenKind::Symbol && (current_.text == "-" || current_.text == "+")) {
        negative = current_.text == "-";
        advance();
    }
    if (current_.kind != TokenKind::Integer) {
        expected_.emplace_back("a node id, which is a positive integer");
        return unexpected();
    }
    const std::string& digits = current_.text;
    std::int32_t value = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const std::string hint = "A node id is an integer from 1 to 2147483647.";
    if (problem != std::errc{})
        return fail(
            sqlstate::numeric_value_out_of_range,
            "node id " + std::string(negative ? "-" : "") + digits + " is out of range for type integer",
            begin, hint);
    if (negative || value == 0)
        return fail(sqlstate::invalid_parameter_value,
                    "node id " + std::string(negative ? "-" : "") + digits + " is not greater than 0", begin,
                    hint);
    id = NodeId{value};
    advance();
    return true;
}

bool Parser::expect_address(std::string& address) {
    if (current_.kind != TokenKind::String) {
        expected_.emplace_back("an address in quotes");
        return unexpected();
    }
    if (current_.text.find('\0') != std::string::npos)
        return fail(sqlstate::character_not_in_repertoire, "a string constant cannot contain a zero byte",
                    current_.begin);
    address = current_.text;
    advance();
    return true;
}

/// CONNECTION ( 'host:port' [, ...] )
bool Parser::expect_connection(std::vector<std::string>& addresses) {
    if (!expect("connection") || !expect_symbol('(')) return false;
    do {
        if (!expect_address(addresses.emplace_back())) return false;
    } while (accept_symbol(','));
    return expect_symbol(')');
}

/// TO { SYNCHRONOUS | ASYNCHRONOUS }
bool Parser::expect_replication(Replication& replication) {
    if (!expect("to")) return false;
    if (accept("synchronous")) {
        replication = Replication::Synchronous;
        return true;
    }
    if (accept("asynchronous")) {
        replication = Replication::Asynchronous;
        return true;
    }
    return unexpected();
}

bool Parser::parse_statement(Statement& statement) {
    const auto verb = verb_of(current_.text);
    form_ = upper(current_.text);
    advance();
    const auto type = node_type_of(current_.text);
    form_ += " " + upper(current_.text);
    advance();
    assert(verb && type);  // ours_at() has seen them

    const std::string slave_form =
        " SLAVE IDENTIFIED BY ID n WITH CONNECTION ('host:port' [, ...]) ON MASTER m "
        "[REPLICATION TO {SYNCHRONOUS | ASYNCHRONOUS}]";
    bool parsed = false;
    switch (*verb) {
        case Verb::Register:
            if (accept_slave()) {
                form_ += slave_form;
                parsed = parse_register_slave(*type, statement.action);
            } else if (accept_master()) {
                form_ += " MASTER IDENTIFIED BY ID n WITH CONNECTION ('host:port' [, ...])";
                parsed = parse_register_master(*type, statement.action);
            } else {
                form_ += " {SLAVE | MASTER} IDENTIFIED BY ID n WITH CONNECTION ('host:port' [, ...]) ...";
                return unexpected();
            }
            break;
        case Verb::Create:
            form_ += slave_form;
            parsed = expect_slave() && parse_register_slave(*type, statement.action);
            break;
        case Verb::Alter:
            parsed = parse_alter(*type, statement.action);
            break;
        case Verb::Drop:
        case Verb::Unregister:
            parsed = parse_drop(*type, statement.action);
            break;
    }
    return parsed && expect_end();
}

bool Parser::parse_register_slave(NodeType type, Action& action) {
    RegisterSlave slave;
    slave.node.type = type;
    if (!expect("identified") || !expect("by") || !expect("id") || !expect_id(slave.node.id)) return false;
    if (!expect("with") || !expect_connection(slave.addresses)) return false;
    if (!expect("on") || !expect_master() || !expect_id(slave.master)) return false;
    if (accept("replication") && !expect_replication(slave.replication)) return false;
    action = std::move(slave);
    return true;
}

bool Parser::parse_register_master(NodeType type, Action& action) {
    RegisterMaster master;
    master.node.type = type;
    if (!expect("identified") || !expect("by") || !expect("id") || !expect_id(master.node.id)) return false;
    if (!expect("with") || !expect_connection(master.addresses)) return false;
    action = std::move(master);
    return true;
}

bool Parser::parse_alter(NodeType type, Action& action) {
    form_ +=
        " SLAVE n {PROMOTE TO MASTER ... | REPLICATION TO {SYNCHRONOUS | ASYNCHRONOUS} | ID TO k | ON MASTER "
        "m}";
    NodeKey node{type, NodeId{}};
    if (!expect_slave() || !expect_id(node.id)) return false;
    if (accept("promote")) return parse_promote(node, action);
    if (accept("replication")) {
        SetSlaveReplication change{node};
        if (!expect_replication(change.replication)) return false;
        action = change;
        return true;
    }
    if (accept("id")) {
        SetSlaveId change{node, NodeId{}};
        if (!expect("to") || !expect_id(change.new_id)) return false;
        action = change;
        return true;
    }
    if (accept("on")) {
        SetSlaveMaster change{node, NodeId{}};
        if (!expect_master() || !expect_id(change.master)) return false;
        action = change;
        return true;
    }
    return unexpected();
}

/// TO MASTER [ WITH CONNECTION ( 'address' ) ] [ WITH RESTART ] [ FORCE ]
bool Parser::parse_promote(NodeKey node, Action& action) {
    const auto begin = form_.find('{');
    form_.replace(
        begin, std::string::npos,
        "PROMOTE TO MASTER [WITH CONNECTION ({'host:port' | ':port' | 'host:'})] [WITH RESTART] [FORCE]");
    PromoteSlave promotion;
    promotion.node = node;
    if (!expect("to") || !expect_master()) return false;
    bool with = accept("with");
    if (with && accept("connection")) {
        if (!expect_symbol('(') || !expect_address(promotion.address.emplace()) || !expect_symbol(')'))
            return false;
        with = accept("with");
    }
    if (with) {
        if (!expect("restart")) return false;
        promotion.with_restart = true;
    }
    promotion.force = accept("force");
    action = std::move(promotion);
    return true;
}

bool Parser::parse_drop(NodeType type, Action& action) {
    form_ += " {SLAVE | MASTER} n";
    NodeKey node{type, NodeId{}};
    if (accept_slave()) {
        if (!expect_id(node.id)) return false;
        action = DropSlave{node};
        return true;
    }
    if (!expect_master() || !expect_id(node.id)) return false;
    action = DropMaster{node};
    return true;
}

}  // namespace

bool begins_with_ours(std::string_view text) {
    return text.size() <= limits::max_statement_bytes && ours_at(text, 0);
}

ParseResult parse(std::string_view text, const LexOptions& options) {
    if (text.size() > limits::max_statement_bytes) return NotOurs{};
    if (!ours_at(text, 0)) {
        const auto semicolon = text.find(';');
        if (semicolon == std::string_view::npos || !mentions_node_type(text, semicolon)) return NotOurs{};
        const auto ours = find_ours(text, options);
        if (!ours) return NotOurs{};
        if (!ours->first) return mixed(ours->offset);
    }
    return Parser(text, options).run();
}

}  // namespace pgxc::parser
