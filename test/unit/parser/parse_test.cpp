#include "parser/parse.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/limits.h"
#include "base/text.h"
#include "parser/translate.h"

namespace pgxc::parser {
namespace {

using namespace std::string_literals;

constexpr LexOptions standard{};
constexpr LexOptions nonstandard{false, true, true};

/// The CALLs that a text of ours is translated to, one in a line.
std::string calls(std::string_view text, const LexOptions& options = standard) {
    const ParseResult result = parse(text, options);
    if (std::holds_alternative<NotOurs>(result)) return "not ours";
    if (const auto* error = std::get_if<SyntaxError>(&result)) return "error: " + error->error.message;
    std::string out;
    for (const Statement& statement : std::get<std::vector<Statement>>(result)) {
        if (!out.empty()) out += "\n";
        out += to_call(statement);
    }
    return out;
}

std::vector<Statement> statements(std::string_view text) {
    ParseResult result = parse(text, standard);
    auto* list = std::get_if<std::vector<Statement>>(&result);
    EXPECT_NE(list, nullptr) << text;
    return list == nullptr ? std::vector<Statement>{} : *list;
}

Action action(std::string_view text) {
    const auto list = statements(text);
    EXPECT_EQ(list.size(), 1U) << text;
    return list.empty() ? Action{} : list.front().action;
}

SyntaxError error_of(std::string_view text, const LexOptions& options = standard) {
    const ParseResult result = parse(text, options);
    const auto* error = std::get_if<SyntaxError>(&result);
    EXPECT_NE(error, nullptr) << text;
    return error == nullptr ? SyntaxError{} : *error;
}

bool not_ours(std::string_view text, const LexOptions& options = standard) {
    return std::holds_alternative<NotOurs>(parse(text, options));
}

NodeKey datanode(int id) {
    return {NodeType::Datanode, NodeId{id}};
}
NodeKey coordinator(int id) {
    return {NodeType::Coordinator, NodeId{id}};
}

TEST(Parse, RegisterSlave) {
    EXPECT_EQ(
        action("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('127.0.0.1:15435') ON MASTER 1"),
        Action(RegisterSlave{datanode(3), {"127.0.0.1:15435"}, NodeId{1}, Replication::None}));
    EXPECT_EQ(action("REGISTER COORDINATOR SLAVE IDENTIFIED BY ID 2147483647 WITH CONNECTION ('a:1', 'b:2' , "
                     "'[::1]:3') ON MASTER 1 REPLICATION TO SYNCHRONOUS"),
              Action(RegisterSlave{
                  coordinator(2147483647), {"a:1", "b:2", "[::1]:3"}, NodeId{1}, Replication::Synchronous}));
    EXPECT_EQ(
        action("CREATE DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('a:1') ON MASTER 1 REPLICATION TO "
               "ASYNCHRONOUS;"),
        Action(RegisterSlave{datanode(3), {"a:1"}, NodeId{1}, Replication::Asynchronous}));
}

TEST(Parse, RegisterMaster) {
    EXPECT_EQ(action("REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION ('a:1')"),
              Action(RegisterMaster{datanode(3), {"a:1"}}));
    EXPECT_EQ(action("REGISTER COORDINATOR MASTER IDENTIFIED BY ID 2 WITH CONNECTION ('a:1','b:2')"),
              Action(RegisterMaster{coordinator(2), {"a:1", "b:2"}}));
}

TEST(Parse, Promote) {
    EXPECT_EQ(action("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER"),
              Action(PromoteSlave{datanode(3), std::nullopt, false, false}));
    for (const char* address : {"host:1", ":1", "host:"})
        EXPECT_EQ(action("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH CONNECTION ('"s + address + "')"),
                  Action(PromoteSlave{datanode(3), address, false, false}));
    EXPECT_EQ(action("ALTER COORDINATOR SLAVE 3 PROMOTE TO MASTER WITH RESTART"),
              Action(PromoteSlave{coordinator(3), std::nullopt, true, false}));
    EXPECT_EQ(action("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER FORCE"),
              Action(PromoteSlave{datanode(3), std::nullopt, false, true}));
    EXPECT_EQ(action("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH RESTART FORCE"),
              Action(PromoteSlave{datanode(3), std::nullopt, true, true}));
    EXPECT_EQ(action("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH CONNECTION (':1') FORCE"),
              Action(PromoteSlave{datanode(3), ":1", false, true}));
    EXPECT_EQ(action("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH CONNECTION (':1') WITH RESTART FORCE"),
              Action(PromoteSlave{datanode(3), ":1", true, true}));
}

TEST(Parse, AlterSlave) {
    EXPECT_EQ(action("ALTER DATANODE SLAVE 3 REPLICATION TO SYNCHRONOUS"),
              Action(SetSlaveReplication{datanode(3), Replication::Synchronous}));
    EXPECT_EQ(action("ALTER COORDINATOR SLAVE 3 REPLICATION TO ASYNCHRONOUS"),
              Action(SetSlaveReplication{coordinator(3), Replication::Asynchronous}));
    EXPECT_EQ(action("ALTER DATANODE SLAVE 3 ID TO 4"), Action(SetSlaveId{datanode(3), NodeId{4}}));
    EXPECT_EQ(action("ALTER COORDINATOR SLAVE 3 ON MASTER 4"),
              Action(SetSlaveMaster{coordinator(3), NodeId{4}}));
}

TEST(Parse, DropAndUnregister) {
    for (const char* verb : {"DROP", "UNREGISTER"}) {
        EXPECT_EQ(action(verb + " DATANODE SLAVE 3"s), Action(DropSlave{datanode(3)}));
        EXPECT_EQ(action(verb + " COORDINATOR SLAVE 3"s), Action(DropSlave{coordinator(3)}));
        EXPECT_EQ(action(verb + " DATANODE MASTER 3"s), Action(DropMaster{datanode(3)}));
        EXPECT_EQ(action(verb + " COORDINATOR PRIMARY 3"s), Action(DropMaster{coordinator(3)}));
        EXPECT_EQ(action(verb + " DATANODE STANDBY 3"s), Action(DropSlave{datanode(3)}));
    }
}

TEST(Parse, PrimaryAndStandbyEverywhere) {
    EXPECT_EQ(action("CREATE DATANODE STANDBY IDENTIFIED BY ID 3 WITH CONNECTION ('a:1') ON PRIMARY 1"),
              Action(RegisterSlave{datanode(3), {"a:1"}, NodeId{1}, Replication::None}));
    EXPECT_EQ(action("REGISTER DATANODE STANDBY IDENTIFIED BY ID 3 WITH CONNECTION ('a:1') ON MASTER 1"),
              Action(RegisterSlave{datanode(3), {"a:1"}, NodeId{1}, Replication::None}));
    EXPECT_EQ(action("REGISTER DATANODE PRIMARY IDENTIFIED BY ID 3 WITH CONNECTION ('a:1')"),
              Action(RegisterMaster{datanode(3), {"a:1"}}));
    EXPECT_EQ(action("ALTER DATANODE STANDBY 3 PROMOTE TO PRIMARY"),
              Action(PromoteSlave{datanode(3), std::nullopt, false, false}));
    EXPECT_EQ(action("ALTER DATANODE STANDBY 3 ON PRIMARY 4"),
              Action(SetSlaveMaster{datanode(3), NodeId{4}}));
}

TEST(Parse, AnyCaseSpaceAndComments) {
    const Action wanted = RegisterSlave{datanode(3), {"a:1"}, NodeId{1}, Replication::Synchronous};
    EXPECT_EQ(
        action(
            "register datanode slave identified by id 3 with connection ('a:1') on master 1 replication to "
            "synchronous"),
        wanted);
    EXPECT_EQ(
        action("--first\n/* /* nested */ */ ReGiSter/**/DataNode--x\n\tSLAVE\r\nIdentified\fBY ID/*;*/3 WITH "
               "CONNECTION('a:1')ON MASTER 1 REPLICATION TO SYNCHRONOUS -- last"),
        wanted);
    EXPECT_EQ(action("ALTER DATANODE SLAVE +3 ON MASTER 04"), Action(SetSlaveMaster{datanode(3), NodeId{4}}));
}

TEST(Parse, EveryFormOfString) {
    const auto drop_in = [](std::string_view address) {
        return "REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION (" + std::string(address) + ")";
    };
    const Action wanted = RegisterMaster{datanode(3), {"db:15433"}};
    for (const char* address :
         {"'db:15433'", "E'db\\x3a15433'", "e'd\\142:15433'", "E'\\u0064b:15433'", "$$db:15433$$",
          "$q$db:15433$q$", "U&'d\\0062:15433'", "U&'d!0062:15433' UESCAPE '!'", "u&'d\\+000062:15433'",
          "N'db:15433'", "'db:'\n'15433'", "'db' -- host\n':15433'", "E'd'\n'\\x62:15433'"})
        EXPECT_EQ(action(drop_in(address)), wanted) << address;
    EXPECT_EQ(action(drop_in("'a''b', $$$$")), Action(RegisterMaster{datanode(3), {"a'b", ""}}));
    EXPECT_EQ(calls(drop_in("'d\\x62:1'")), "CALL pgxc.register_master('D', 3, ARRAY[E'd\\\\x62:1'])");
    EXPECT_EQ(calls(drop_in("'d\\x62:1'"), nonstandard), "CALL pgxc.register_master('D', 3, ARRAY['db:1'])");
}

TEST(Translate, WritesTheContractOfTheProcedures) {
    EXPECT_EQ(
        calls("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('127.0.0.1:15435') ON MASTER 1"),
        "CALL pgxc.register_slave('D', 3, ARRAY['127.0.0.1:15435'], 1, NULL)");
    EXPECT_EQ(calls("CREATE COORDINATOR SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('a:1','b:1') ON MASTER 1 "
                    "REPLICATION TO SYNCHRONOUS"),
              "CALL pgxc.register_slave('C', 3, ARRAY['a:1', 'b:1'], 1, 's')");
    EXPECT_EQ(calls("REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION ('a:1')"),
              "CALL pgxc.register_master('D', 3, ARRAY['a:1'])");
    EXPECT_EQ(calls("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER"),
              "CALL pgxc.promote_slave('D', 3, NULL, false, false)");
    EXPECT_EQ(calls("ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH CONNECTION (':5432') WITH RESTART FORCE"),
              "CALL pgxc.promote_slave('D', 3, ':5432', true, true)");
    EXPECT_EQ(calls("ALTER DATANODE SLAVE 3 REPLICATION TO ASYNCHRONOUS"),
              "CALL pgxc.set_slave_replication('D', 3, 'a')");
    EXPECT_EQ(calls("ALTER DATANODE SLAVE 3 ID TO 4"), "CALL pgxc.set_slave_id('D', 3, 4)");
    EXPECT_EQ(calls("ALTER DATANODE SLAVE 3 ON MASTER 4"), "CALL pgxc.set_slave_master('D', 3, 4)");
    EXPECT_EQ(calls("DROP DATANODE SLAVE 3"), "CALL pgxc.drop_slave('D', 3)");
    EXPECT_EQ(calls("UNREGISTER COORDINATOR MASTER 3"), "CALL pgxc.drop_master('C', 3)");
}

TEST(Translate, QuotesForBothSettings) {
    for (const char* text : {"", "a", "it's", "''", "back\\slash", "\\'", "a\nb", "$$", "E'x'"}) {
        for (const auto& options : {standard, nonstandard}) {
            const std::string quoted = sql_literal(text);
            Lexer lexer(quoted, options);
            const Token token = lexer.next();
            EXPECT_EQ(token.kind, TokenKind::String) << quoted;
            EXPECT_EQ(token.text, text) << quoted;
            EXPECT_EQ(lexer.next().kind, TokenKind::End) << quoted;
        }
    }
}

TEST(ParseBatch, SeveralStatementsAndEmptyOnes) {
    EXPECT_EQ(calls("DROP DATANODE SLAVE 3; DROP DATANODE SLAVE 4"),
              "CALL pgxc.drop_slave('D', 3)\nCALL pgxc.drop_slave('D', 4)");
    EXPECT_EQ(calls(";;DROP DATANODE SLAVE 3;;\n;--c\nALTER DATANODE SLAVE 4 ID TO 5;;"),
              "CALL pgxc.drop_slave('D', 3)\nCALL pgxc.set_slave_id('D', 4, 5)");
    EXPECT_EQ(calls(" ; /* c */ DROP DATANODE SLAVE 3"), "CALL pgxc.drop_slave('D', 3)");
}

TEST(ParseBatch, LocationsAreThoseOfTheServersOwnParser) {
    auto list = statements(" DROP DATANODE SLAVE 3");
    EXPECT_EQ(list[0].location, 0U);
    EXPECT_EQ(list[0].length, 0U);
    list = statements(" DROP DATANODE SLAVE 3 ;; /*c*/ DROP DATANODE SLAVE 4; DROP DATANODE SLAVE 5 ");
    ASSERT_EQ(list.size(), 3U);
    EXPECT_EQ(list[0].location, 0U);
    EXPECT_EQ(list[0].length, 23U);
    EXPECT_EQ(list[1].location, 25U);
    EXPECT_EQ(list[1].length, 28U);
    EXPECT_EQ(list[2].location, 54U);
    EXPECT_EQ(list[2].length, 0U);
}

TEST(ParseBatch, MixingIsAnErrorAtTheFirstThatDiffers) {
    const SyntaxError ours_first = error_of("DROP DATANODE SLAVE 3; SELECT 1");
    EXPECT_EQ(ours_first.error.sqlstate, sqlstate::syntax_error);
    EXPECT_EQ(ours_first.error.message,
              "statements of pgxc_ha cannot be mixed with other statements in one query string");
    EXPECT_NE(ours_first.error.hint, "");
    EXPECT_EQ(ours_first.offset, 23U);

    const SyntaxError other_first = error_of("SELECT 1; /* c */ drop datanode SLAVE 3");
    EXPECT_EQ(other_first.error, ours_first.error);
    EXPECT_EQ(other_first.offset, 18U);

    EXPECT_EQ(error_of("BEGIN;REGISTER COORDINATOR SLAVE").offset, 6U);
    EXPECT_EQ(error_of("SELECT 'a\\';UNREGISTER DATANODE SLAVE 3;--'").offset, 12U);
    EXPECT_EQ(error_of("SELECT $$;$$;ALTER Coordinator").offset, 13U);
    EXPECT_EQ(error_of("DROP DATANODE SLAVE 3; \"DROP\" DATANODE SLAVE 4").offset, 23U);
}

TEST(ParseBatch, WordsInStringsNamesCommentsAndBodiesTriggerNothing) {
    for (const char* text : {
             "SELECT 1; SELECT '; DROP DATANODE SLAVE 3'",
             "SELECT 1; SELECT $$; DROP DATANODE SLAVE 3$$",
             "CREATE FUNCTION f() RETURNS void AS $f$ BEGIN; DROP DATANODE SLAVE 3; END $f$ LANGUAGE plpgsql",
             "SELECT 1 /* ; DROP DATANODE SLAVE 3 */; SELECT 2",
             "SELECT 1 -- ; DROP DATANODE SLAVE 3",
             "SELECT \"; DROP DATANODE SLAVE 3\"",
             "SELECT U&\"; DROP DATANODE SLAVE 3\", U&'; DROP DATANODE SLAVE 3'",
             "SELECT E'\\'; DROP DATANODE SLAVE 3'",
             "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM datanode; UPDATE coordinator SET a = 1)",
             "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT id FROM datanode; END",
             "INSERT INTO t VALUES (1); SELECT datanode FROM coordinator",
             "SELECT 1; DROP TABLE datanode; CREATE TABLE coordinator (id int)",
             "SELECT 1; \"DROP\" DATANODE SLAVE 3",
             "SELECT 1; DROP \"datanode\" SLAVE 3",
             "SELECT 1; DROP DATANODE_X",
             "SELECT 1; DROPX DATANODE",
             "SELECT 'a; DROP DATANODE SLAVE 3",  // can't be read: the server says so
             "SELECT 1;",
             "SELECT 1; ; datanode",
         })
        EXPECT_TRUE(not_ours(text)) << text;
    EXPECT_TRUE(not_ours("SELECT 'a\\'; DROP DATANODE SLAVE 3;--'", nonstandard));
}

TEST(ParseNotOurs, EverythingElse) {
    for (const char* text : {
             "",
             " ",
             ";",
             "-- REGISTER DATANODE",
             "/* REGISTER DATANODE",
             "SELECT 1",
             "REGISTER",
             "REGISTER NODE a",
             "CREATE TABLE t (a int)",
             "CREATE NODE dn1 WITH (TYPE = 'datanode')",
             "ALTER NODE dn1 WITH (PORT = 1)",
             "DROP NODE dn1",
             "DROP TABLE t",
             "ALTER TABLE datanode RENAME TO coordinator",
             "CREATE",
             "DROP /* DATANODE",
             "PREPARE foo AS REGISTER DATANODE SLAVE IDENTIFIED BY ID 3",
             "EXPLAIN DROP DATANODE SLAVE 3",
             "\"REGISTER\" DATANODE SLAVE",
             "REGISTER \"DATANODE\" SLAVE",
             "REGISTERDATANODE SLAVE",
             "REGISTER DATANODES SLAVE",
             "REGISTER DATANODE1 SLAVE",
             "REGISTER DATANODE$ SLAVE",
             "REGISTER DATANODE\xC3\xA9 SLAVE",
             "REGISTERREGISTERREGISTER DATANODE",
             "(DROP DATANODE SLAVE 3)",
             "DROP, DATANODE SLAVE 3",
             "REGISTER 'DATANODE'",
             "CALL pgxc.drop_slave('D', 3)",
         }) {
        EXPECT_TRUE(not_ours(text)) << text;
        EXPECT_FALSE(begins_with_ours(text)) << text;
    }
    EXPECT_TRUE(not_ours("\0DROP DATANODE SLAVE 3"s));
}

TEST(ParseNotOurs, BeginsWithOursLooksAtTwoWords) {
    EXPECT_TRUE(begins_with_ours("REGISTER DATANODE"));
    EXPECT_TRUE(begins_with_ours("/**/ drop\ncoordinator nonsense 'open"));
    EXPECT_TRUE(begins_with_ours("DROP DATANODE'a'"));
}

TEST(ParseNotOurs, TooLongATextIsNotLookedAt) {
    const std::string statement = "DROP DATANODE SLAVE 3";
    const std::string padding(limits::max_statement_bytes - statement.size(), ' ');
    EXPECT_EQ(calls(padding + statement), "CALL pgxc.drop_slave('D', 3)");
    EXPECT_TRUE(not_ours(padding + " " + statement));
    EXPECT_FALSE(begins_with_ours(padding + " " + statement));
}

TEST(ParseError, PositionMessageAndExpectation) {
    struct Case {
        const char* text;
        std::size_t offset;
        const char* near;  // nullptr: end of input
        const char* detail;
    };
    const char* const role = "Expected SLAVE, STANDBY, MASTER or PRIMARY.";
    const char* const id = "Expected a node id, which is a positive integer.";
    for (const Case& c : {
             Case{"REGISTER DATANODE", 17, nullptr, role},
             Case{"REGISTER DATANODE SLAV IDENTIFIED", 18, "SLAV", role},
             Case{"REGISTER DATANODE \"SLAVE\" x", 18, "\"SLAVE\"", role},
             Case{"DROP DATANODE 3", 14, "3", role},
             Case{"UNREGISTER COORDINATOR;", 22, ";", role},
             Case{"CREATE DATANODE MASTER IDENTIFIED", 16, "MASTER", "Expected SLAVE or STANDBY."},
             Case{"ALTER DATANODE MASTER 1", 15, "MASTER", "Expected SLAVE or STANDBY."},
             Case{"REGISTER DATANODE SLAVE ID 3", 24, "ID", "Expected IDENTIFIED."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED ID 3", 36, "ID", "Expected BY."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY 3", 39, "3", "Expected ID."},
             Case{"DROP DATANODE SLAVE", 19, nullptr, id},
             Case{"DROP DATANODE SLAVE x", 20, "x", id},
             Case{"DROP DATANODE SLAVE '3'", 20, "'3'", id},
             Case{"DROP DATANODE SLAVE 1.5", 20, "1.5", id},
             Case{"DROP DATANODE SLAVE 3x", 20, "3x", id},
             Case{"DROP DATANODE SLAVE $1", 20, "$1", id},
             Case{"DROP DATANODE SLAVE - x", 22, "x", id},
             Case{"DROP DATANODE SLAVE 3 4", 22, "4", "Expected the end of the statement."},
             Case{"DROP DATANODE SLAVE 3 CASCADE", 22, "CASCADE", "Expected the end of the statement."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3", 43, nullptr, "Expected WITH."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH 'a'", 49, "'a'", "Expected CONNECTION."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION 'a:1'", 60, "'a:1'",
                  "Expected \"(\"."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION ()", 61, ")",
                  "Expected an address in quotes."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION (a:1)", 61, "a",
                  "Expected an address in quotes."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION (B'1')", 61, "B'1'",
                  "Expected an address in quotes."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION ('a:1'", 66, nullptr,
                  "Expected \",\" or \")\"."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION ('a:1',)", 67, ")",
                  "Expected an address in quotes."},
             Case{"REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION ('a:1') ON MASTER 1", 68, "ON",
                  "Expected the end of the statement."},
             Case{"CREATE DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('a:1')", 64, nullptr,
                  "Expected ON."},
             Case{"CREATE DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('a:1') ON 1", 68, "1",
                  "Expected MASTER or PRIMARY."},
             Case{"CREATE DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('a:1') ON MASTER 1 SYNCHRONOUS",
                  77, "SYNCHRONOUS", "Expected REPLICATION or the end of the statement."},
             Case{"CREATE DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('a:1') ON MASTER 1 REPLICATION "
                  "SYNCHRONOUS",
                  89, "SYNCHRONOUS", "Expected TO."},
             Case{"ALTER DATANODE SLAVE 3 REPLICATION TO SYNC", 38, "SYNC",
                  "Expected SYNCHRONOUS or ASYNCHRONOUS."},
             Case{"ALTER DATANODE SLAVE 3", 22, nullptr, "Expected PROMOTE, REPLICATION, ID or ON."},
             Case{"ALTER DATANODE SLAVE 3 PROMOTE", 30, nullptr, "Expected TO."},
             Case{"ALTER DATANODE SLAVE 3 PROMOTE TO SLAVE", 34, "SLAVE", "Expected MASTER or PRIMARY."},
             Case{"ALTER DATANODE SLAVE 3 PROMOTE TO MASTER NOW", 41, "NOW",
                  "Expected WITH, FORCE or the end of the statement."},
             Case{"ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH FORCE", 46, "FORCE",
                  "Expected CONNECTION or RESTART."},
             Case{"ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH CONNECTION ('a:1', 'b:1')", 63, ",",
                  "Expected \")\"."},
             Case{"ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH CONNECTION (':1') WITH CONNECTION (':2')",
                  69, "CONNECTION", "Expected RESTART."},
             Case{"ALTER DATANODE SLAVE 3 PROMOTE TO MASTER WITH RESTART WITH", 54, "WITH",
                  "Expected FORCE or the end of the statement."},
             Case{"ALTER DATANODE SLAVE 3 ID 4", 26, "4", "Expected TO."},
             Case{"ALTER DATANODE SLAVE 3 ON 4", 26, "4", "Expected MASTER or PRIMARY."},
             Case{"DROP DATANODE SLAVE 3; DROP DATANODE x", 37, "x", role},
         }) {
        const SyntaxError error = error_of(c.text);
        const std::string message = c.near == nullptr ? "syntax error at end of input"
                                                      : "syntax error at or near \""s + c.near + "\"";
        EXPECT_EQ(error.error.message, message) << c.text;
        EXPECT_EQ(error.error.detail, c.detail) << c.text;
        EXPECT_EQ(error.offset, c.offset) << c.text;
        EXPECT_EQ(error.error.sqlstate, sqlstate::syntax_error) << c.text;
        EXPECT_TRUE(error.error.hint.starts_with("The form is: ")) << error.error.hint;
    }
}

TEST(ParseError, TheHintIsTheFormOfTheStatement) {
    EXPECT_EQ(error_of("drop datanode").error.hint, "The form is: DROP DATANODE {SLAVE | MASTER} n");
    EXPECT_EQ(
        error_of("CREATE COORDINATOR x").error.hint,
        "The form is: CREATE COORDINATOR SLAVE IDENTIFIED BY ID n WITH CONNECTION ('host:port' [, ...]) ON "
        "MASTER m [REPLICATION TO {SYNCHRONOUS | ASYNCHRONOUS}]");
    EXPECT_EQ(
        error_of("ALTER DATANODE SLAVE 1 PROMOTE x").error.hint,
        "The form is: ALTER DATANODE SLAVE n PROMOTE TO MASTER [WITH CONNECTION ({'host:port' | ':port' | "
        "'host:'})] [WITH RESTART] [FORCE]");
}

TEST(ParseError, IdsOutOfRange) {
    struct Case {
        const char* text;
        SqlState state;
        const char* message;
        std::size_t offset;
    };
    for (const Case& c : {
             Case{"DROP DATANODE SLAVE 0", sqlstate::invalid_parameter_value,
                  "node id 0 is not greater than 0", 20},
             Case{"DROP DATANODE SLAVE -3", sqlstate::invalid_parameter_value,
                  "node id -3 is not greater than 0", 20},
             Case{"DROP DATANODE SLAVE - 3", sqlstate::invalid_parameter_value,
                  "node id -3 is not greater than 0", 20},
             Case{"DROP DATANODE SLAVE 2147483648", sqlstate::numeric_value_out_of_range,
                  "node id 2147483648 is out of range for type integer", 20},
             Case{"DROP DATANODE SLAVE -99999999999999999999", sqlstate::numeric_value_out_of_range,
                  "node id -99999999999999999999 is out of range for type integer", 20},
             Case{"ALTER DATANODE SLAVE 1 ID TO 0", sqlstate::invalid_parameter_value,
                  "node id 0 is not greater than 0", 29},
             Case{"ALTER DATANODE SLAVE 1 ON MASTER 0", sqlstate::invalid_parameter_value,
                  "node id 0 is not greater than 0", 33},
         }) {
        const SyntaxError error = error_of(c.text);
        EXPECT_EQ(error.error.sqlstate, c.state) << c.text;
        EXPECT_EQ(error.error.message, c.message) << c.text;
        EXPECT_EQ(error.offset, c.offset) << c.text;
        EXPECT_EQ(error.error.hint, "A node id is an integer from 1 to 2147483647.");
    }
}

TEST(ParseError, UnreadableTextAfterOurBeginning) {
    EXPECT_EQ(error_of("DROP DATANODE 'a").error.message, "unterminated quoted string at or near \"'a\"");
    EXPECT_EQ(error_of("DROP DATANODE SLAVE 3 /* x").error.message,
              "unterminated /* comment at or near \"/* x\"");
    EXPECT_EQ(error_of("DROP DATANODE SLAVE 3; 'a").offset, 23U);
    EXPECT_EQ(error_of("REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION (U&'a')", nonstandard)
                  .error.sqlstate,
              sqlstate::feature_not_supported);
    const SyntaxError zero =
        error_of("REGISTER DATANODE MASTER IDENTIFIED BY ID 3 WITH CONNECTION (E'a\\000b')");
    EXPECT_EQ(zero.error.sqlstate, sqlstate::character_not_in_repertoire);
    EXPECT_EQ(zero.offset, 61U);
    EXPECT_EQ(error_of("DROP DATANODE SLAVE\0 3"s).offset, 19U);
}

}  // namespace
}  // namespace pgxc::parser
