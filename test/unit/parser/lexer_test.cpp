#include "parser/lexer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace pgxc::parser {
namespace {

using namespace std::string_literals;

constexpr LexOptions standard{};
constexpr LexOptions nonstandard{false, true, true};

/// The value of a text that is one string constant and nothing else.
std::string value_of(std::string_view text, const LexOptions& options = standard) {
    Lexer lexer(text, options);
    const Token token = lexer.next();
    if (token.kind == TokenKind::Bad) return "bad: " + lexer.error().error.message;
    EXPECT_EQ(token.kind, TokenKind::String) << text;
    EXPECT_EQ(token.begin, 0U);
    EXPECT_EQ(token.end, text.size()) << text;
    EXPECT_EQ(lexer.next().kind, TokenKind::End);
    return token.text;
}

SyntaxError error_of(std::string_view text, const LexOptions& options = standard) {
    Lexer lexer(text, options);
    for (;;) {
        const Token token = lexer.next();
        if (token.kind == TokenKind::Bad) return lexer.error();
        if (token.kind == TokenKind::End) break;
    }
    ADD_FAILURE() << "no error in " << text;
    return {};
}

/// Source text of all tokens.
std::vector<std::string> split(std::string_view text, const LexOptions& options = standard) {
    Lexer lexer(text, options);
    std::vector<std::string> out;
    for (Token token = lexer.next(); token.kind != TokenKind::End; token = lexer.next()) {
        if (token.kind == TokenKind::Bad) {
            out.emplace_back("<bad>");
            break;
        }
        out.emplace_back(lexer.source(token));
    }
    return out;
}

using Words = std::vector<std::string>;

TEST(Lexer, FoldsWordsAndKeepsQuotedNamesApart) {
    Lexer lexer("ReGiSTer _a$1 \"DROP\" U&\"d\\0061\" \xC3\xA9t\xC3\xA9", standard);
    Token token = lexer.next();
    EXPECT_EQ(token.kind, TokenKind::Word);
    EXPECT_EQ(token.text, "register");
    token = lexer.next();
    EXPECT_EQ(token.text, "_a$1");
    EXPECT_EQ(lexer.next().kind, TokenKind::QuotedName);
    EXPECT_EQ(lexer.next().kind, TokenKind::QuotedName);
    token = lexer.next();
    EXPECT_EQ(token.kind, TokenKind::Word);
    EXPECT_EQ(token.text, "\xC3\xA9t\xC3\xA9");
    EXPECT_EQ(lexer.next().kind, TokenKind::End);
    EXPECT_EQ(lexer.next().kind, TokenKind::End);
}

TEST(Lexer, SkipsEveryKindOfSpaceAndComment) {
    EXPECT_EQ(split(" \t\n\r\f a--b\nc/* d /* e */ f */g--"), (Words{"a", "c", "g"}));
    EXPECT_EQ(split("a/***/b/*/**/*/c"), (Words{"a", "b", "c"}));
    EXPECT_EQ(split("a--b\rc"), (Words{"a", "c"}));
    EXPECT_EQ(split("--/*\na--*/"), (Words{"a"}));
    EXPECT_EQ(split(""), Words{});
}

TEST(Lexer, ReadsOperatorsLikeTheServer) {
    EXPECT_EQ(split("a<=b"), (Words{"a", "<=", "b"}));
    EXPECT_EQ(split("1=-1"), (Words{"1", "=", "-", "1"}));
    EXPECT_EQ(split("@-1"), (Words{"@-", "1"}));
    EXPECT_EQ(split("+/*x*/*--y"), (Words{"+", "*"}));
    EXPECT_EQ(split("(a);b,c[1]"), (Words{"(", "a", ")", ";", "b", ",", "c", "[", "1", "]"}));
    EXPECT_EQ(split("\x01\x7f"), (Words{"\x01", "\x7f"}));
}

TEST(Lexer, ReadsNumbersAndParameters) {
    EXPECT_EQ(split("12 1.5 .5 1e3 0x1F 1_0 12ab $1 $12a"),
              (Words{"12", "1.5", ".5", "1e3", "0x1F", "1_0", "12ab", "$1", "$12a"}));
    Lexer lexer("12 1.5 0x1F 12ab $1", standard);
    EXPECT_EQ(lexer.next().kind, TokenKind::Integer);
    EXPECT_EQ(lexer.next().kind, TokenKind::Number);
    EXPECT_EQ(lexer.next().kind, TokenKind::Number);
    EXPECT_EQ(lexer.next().kind, TokenKind::Number);
    EXPECT_EQ(lexer.next().kind, TokenKind::Parameter);
    // A dollar-quoted string may follow a number without a space, as in the server.
    EXPECT_EQ(split("1$$;$$ $1$a$;$a$"), (Words{"1", "$$;$$", "$1", "$a$;$a$"}));
}

TEST(LexerString, Plain) {
    EXPECT_EQ(value_of("'host:5432'"), "host:5432");
    EXPECT_EQ(value_of("''"), "");
    EXPECT_EQ(value_of("'it''s'"), "it's");
    EXPECT_EQ(value_of("''''"), "'");
    EXPECT_EQ(value_of("'a\\'"), "a\\");
    EXPECT_EQ(value_of("'a\nb'"), "a\nb");
    EXPECT_EQ(value_of("'--a/*b'"), "--a/*b");
    EXPECT_EQ(value_of("'\xff\x80'"), "\xff\x80");
}

TEST(LexerString, PlainHasEscapesWhereTheSettingIsOff) {
    EXPECT_EQ(value_of("'a\\'b'", nonstandard), "a'b");
    EXPECT_EQ(value_of("'a\\n'", nonstandard), "a\n");
    EXPECT_EQ(value_of("n'a\\\\'", nonstandard), "a\\");
    EXPECT_EQ(split("'a\\'; c'", standard), (Words{"'a\\'", ";", "c", "<bad>"}));
}

TEST(LexerString, GoesOnAfterANewline) {
    EXPECT_EQ(value_of("'a'\n'b'"), "ab");
    EXPECT_EQ(value_of("'a' -- c\n\t 'b'\r\n'c'"), "abc");
    EXPECT_EQ(value_of("'a'\n--x\n--y\n'b'"), "ab");
    EXPECT_EQ(value_of("E'a'\n'\\x62'"), "ab");
    EXPECT_EQ(value_of("U&'a'\n'\\0062'"), "ab");
    EXPECT_EQ(value_of("N'a'\n'b'"), "ab");
    EXPECT_EQ(split("'a' 'b'"), (Words{"'a'", "'b'"}));
    EXPECT_EQ(split("'a'/*\n*/'b'"), (Words{"'a'", "'b'"}));
    EXPECT_EQ(split("'a'\n/**/'b'"), (Words{"'a'", "'b'"}));
    EXPECT_EQ(split("'a' --x"), (Words{"'a'"}));
    EXPECT_EQ(split("'a'\n-1"), (Words{"'a'", "-", "1"}));
    EXPECT_EQ(split("B'1'\n'0' x"), (Words{"B'1'\n'0'", "x"}));
}

TEST(LexerString, Escapes) {
    EXPECT_EQ(value_of(R"(E'\b\f\n\r\t\q\\\'')"), "\b\f\n\r\tq\\'");
    EXPECT_EQ(value_of(R"(e'\61\141\0612\x6g\x61b\xg')"),
              "1a12\x06g\x61"
              "bxg");
    EXPECT_EQ(value_of(R"(E'\u0061\U00000062\u00e9\uD83D\uDE00\uD83D\U0000DE00')"),
              "ab\xC3\xA9\xF0\x9F\x98\x80\xF0\x9F\x98\x80");
    EXPECT_EQ(value_of("E'a\\\nb'"), "a\nb");
    EXPECT_EQ(value_of("E'it''s'"), "it's");
    EXPECT_EQ(value_of(R"(E'a\000b')"), "a\0b"s);
}

TEST(LexerString, Unicode) {
    EXPECT_EQ(value_of(R"(U&'\0061\+000062\\')"), "ab\\");
    EXPECT_EQ(value_of(R"(u&'d!0061t!!a' UESCAPE '!')"), "dat!a");
    EXPECT_EQ(value_of("U&'!0061'/* c */uescape\n'!'"), "a");
    EXPECT_EQ(value_of(R"(U&'\D83D\DE00 \20AC')"), "\xF0\x9F\x98\x80 \xE2\x82\xAC");
    EXPECT_EQ(value_of("U&'it''s'"), "it's");
    EXPECT_EQ(split("U&'a' UESCAPED"), (Words{"U&'a'", "UESCAPED"}));
    EXPECT_EQ(split("u & 'a' u&1"), (Words{"u", "&", "'a'", "u", "&", "1"}));
}

TEST(LexerString, DollarQuotes) {
    EXPECT_EQ(value_of("$$a'b\\$$"), "a'b\\");
    EXPECT_EQ(value_of("$$$$"), "");
    EXPECT_EQ(value_of("$tag$a$$b$Tag$c$tag$"), "a$$b$Tag$c");
    EXPECT_EQ(value_of("$a$$$a$"), "$");
    EXPECT_EQ(value_of("$\xC3\xA9_1$x$\xC3\xA9_1$"), "x");
    EXPECT_EQ(split("a$b$c"), (Words{"a$b$c"}));
    EXPECT_EQ(split("$ a"), (Words{"$", "a"}));
    EXPECT_EQ(split("$a b"), (Words{"$", "a", "b"}));
    EXPECT_EQ(split("$a-$"), (Words{"$", "a", "-", "$"}));
}

TEST(LexerString, OthersAreNoStrings) {
    for (const char* text : {"B'101'", "b''", "X'1F'", "x'g'"}) {
        Lexer lexer(text, standard);
        EXPECT_EQ(lexer.next().kind, TokenKind::BitString) << text;
        EXPECT_EQ(lexer.next().kind, TokenKind::End) << text;
    }
}

TEST(LexerError, SaysWhatTheServerSaysAndWhere) {
    struct Case {
        const char* text;
        const char* message;
        std::size_t offset;
        SqlState state = sqlstate::syntax_error;
    };
    for (const Case& c : {
             Case{"a 'bc", "unterminated quoted string at or near \"'bc\"", 2},
             Case{"a E'bc\\", "unterminated quoted string at or near \"E'bc\\\"", 2},
             Case{"a 'bc'\n'", "unterminated quoted string at or near \"'bc'\n'\"", 2},
             Case{"a /* b /* */", "unterminated /* comment at or near \"/* b /* */\"", 2},
             Case{"a \"b", "unterminated quoted identifier at or near \"\"b\"", 2},
             Case{"a U&\"b", "unterminated quoted identifier at or near \"U&\"b\"", 2},
             Case{"a $$b$", "unterminated dollar-quoted string at or near \"$$b$\"", 2},
             Case{"a B'1", "unterminated bit string literal at or near \"B'1\"", 2},
             Case{"a x'1", "unterminated hexadecimal string literal at or near \"x'1\"", 2},
             Case{"E'\\u12'", "invalid Unicode escape", 2, sqlstate::invalid_escape_sequence},
             Case{"E'\\U0000006'", "invalid Unicode escape", 2, sqlstate::invalid_escape_sequence},
             Case{"E'\\uDE00'", "invalid Unicode surrogate pair at or near \"\\uDE00\"", 2},
             Case{"E'\\uD83Dx'", "invalid Unicode surrogate pair at or near \"x\"", 8},
             Case{"E'\\uD83D\\u0061'", "invalid Unicode surrogate pair at or near \"\\u0061\"", 8},
             Case{"E'\\uD83D", "invalid Unicode surrogate pair at or near \"\"", 8},
             Case{"E'\\u0000'", "invalid Unicode escape value", 2},
             Case{"E'\\U00110000'", "invalid Unicode escape value", 2},
             Case{"U&'a\\00'", "invalid Unicode escape", 4},
             Case{"U&'a\\+00006'", "invalid Unicode escape", 4},
             Case{"U&'\\DE00'", "invalid Unicode surrogate pair", 3},
             Case{"U&'\\D83Da'", "invalid Unicode surrogate pair", 8},
             Case{"U&'\\D83D\\0061'", "invalid Unicode surrogate pair", 8},
             Case{"U&'\\D83D'", "invalid Unicode surrogate pair", 0},
             Case{"U&'\\D83D\\\\'", "invalid Unicode surrogate pair", 8},
             Case{"U&'\\0000'", "invalid Unicode escape value", 3},
             Case{"U&'a' UESCAPE 1", "UESCAPE must be followed by a simple string literal at or near \"1\"",
                  14},
             Case{"U&'a' UESCAPE", "UESCAPE must be followed by a simple string literal at or near \"\"", 13},
             Case{"U&'a' UESCAPE 'ab'", "invalid Unicode escape character at or near \"'ab'\"", 14},
             Case{"U&'a' UESCAPE '+'", "invalid Unicode escape character at or near \"'+'\"", 14},
             Case{"U&'a' UESCAPE 'F'", "invalid Unicode escape character at or near \"'F'\"", 14},
         }) {
        const SyntaxError error = error_of(c.text);
        EXPECT_EQ(error.error.message, c.message) << c.text;
        EXPECT_EQ(error.offset, c.offset) << c.text;
        EXPECT_EQ(error.error.sqlstate, c.state) << c.text;
    }
}

TEST(LexerError, FollowsTheSessionsSettings) {
    EXPECT_EQ(error_of("U&'a'", nonstandard).error.sqlstate, sqlstate::feature_not_supported);
    EXPECT_EQ(value_of(R"(E'\'')", {true, true, false}), "bad: unsafe use of \\' in a string literal");
    EXPECT_EQ(error_of(R"(E'\'')", {true, true, false}).error.sqlstate,
              sqlstate::nonstandard_use_of_escape_character);
    EXPECT_EQ(value_of(R"(E'\u0061')", {true, false, true}), "a");
    EXPECT_EQ(error_of(R"(E'\u00e9')", {true, false, true}).error.sqlstate, sqlstate::feature_not_supported);
    EXPECT_EQ(error_of(R"(U&'\00e9')", {true, false, true}).error.sqlstate, sqlstate::feature_not_supported);
}

TEST(LexerError, StaysBad) {
    Lexer lexer("'a", standard);
    EXPECT_EQ(lexer.next().kind, TokenKind::Bad);
    EXPECT_EQ(lexer.next().kind, TokenKind::Bad);
}

TEST(Lexer, TakesZeroBytes) {
    EXPECT_EQ(split("a\0b"s), (Words{"a", "\0"s, "b"}));
    EXPECT_EQ(value_of("'a\0b'"s), "a\0b"s);
}

TEST(SkipSpaceAndComments, StopsAtTheFirstThingThatIsNeither) {
    EXPECT_EQ(skip_space_and_comments("  /* a */ --b\nX"), 14U);
    EXPECT_EQ(skip_space_and_comments("X"), 0U);
    EXPECT_EQ(skip_space_and_comments(" /X"), 1U);
    EXPECT_EQ(skip_space_and_comments(" -X"), 1U);
    EXPECT_EQ(skip_space_and_comments("  /* a"), 6U);
    EXPECT_EQ(skip_space_and_comments("--a"), 3U);
    EXPECT_EQ(skip_space_and_comments(""), 0U);
}

}  // namespace
}  // namespace pgxc::parser
