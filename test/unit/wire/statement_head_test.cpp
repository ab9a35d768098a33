#include "wire/statement_head.h"

#include <gtest/gtest.h>

namespace pgxc::wire {
namespace {

using enum TransactionControl;

struct HeadCase {
    const char* sql;
    TransactionControl control;
    AccessMode access = AccessMode::Unspecified;
    IsolationLevel isolation = IsolationLevel::Unspecified;
};

TEST(SqlScanner, CutsWordsNumbersAndSymbolsOfAnyLength) {
    SqlScanner scanner{"  a_1$b\t\n12.5e3,\xc3\xa4 /* x */ 'q' -- end"};
    const auto next = [&] {
        const SqlToken token = scanner.next();
        return std::pair{token.kind, token.text};
    };
    using Kind = SqlToken::Kind;
    EXPECT_EQ(next(), (std::pair{Kind::Word, std::string_view{"a_1$b"}}));
    EXPECT_EQ(next(), (std::pair{Kind::Number, std::string_view{"12.5e3"}}));
    EXPECT_EQ(next(), (std::pair{Kind::Symbol, std::string_view{","}}));
    EXPECT_EQ(next(), (std::pair{Kind::Word, std::string_view{"\xc3\xa4"}}));
    EXPECT_EQ(next(), (std::pair{Kind::String, std::string_view{"q"}}));
    EXPECT_EQ(next().first, Kind::End);
}

TEST(Mentions, FindsAPartWhateverItsCase) {
    EXPECT_TRUE(mentions("select SET_Config('a', 'b', false)", "set_config"));
    EXPECT_TRUE(mentions("set_config", "set_config"));
    EXPECT_TRUE(mentions("a_b_set_config", "set_config"));
    EXPECT_TRUE(mentions("_set_config_", "set_config"));
    EXPECT_FALSE(mentions("set_confi", "set_config"));
    EXPECT_FALSE(mentions("et_config", "set_config"));
    EXPECT_FALSE(mentions("set config", "set_config"));
    EXPECT_FALSE(mentions("", "set_config"));
    EXPECT_TRUE(mentions("x RESET all", "reset"));
    EXPECT_TRUE(mentions("rereset", "reset"));
    EXPECT_FALSE(mentions("rese", "reset"));
}

TEST(StatementHead, TellsTransactionControl) {
    for (const auto& [sql, control, access, isolation] : {
             HeadCase{"", None},
             HeadCase{"  -- nothing", None},
             HeadCase{"select 1", None},
             HeadCase{"SELECT 1;", None},
             HeadCase{"select 1 ; -- done\n ;", None},
             HeadCase{"(select 1)", None},
             HeadCase{"/* a /* nested */ b */ insert into t values (1)", None},
             HeadCase{"begin", Begin},
             HeadCase{"BeGiN;", Begin},
             HeadCase{" --x\n/*y*/begin/**/work;;", Begin},
             HeadCase{"start transaction", Begin},
             HeadCase{"begin read only", Begin, AccessMode::ReadOnly},
             HeadCase{"begin transaction read only;", Begin, AccessMode::ReadOnly},
             HeadCase{"begin work read write, read only", Begin, AccessMode::ReadOnly},
             HeadCase{"start transaction read only read write", Begin, AccessMode::ReadWrite},
             HeadCase{"begin isolation level repeatable read, read only, not deferrable", Begin,
                      AccessMode::ReadOnly, IsolationLevel::RepeatableRead},
             HeadCase{"begin isolation level serializable read only deferrable", Begin, AccessMode::ReadOnly,
                      IsolationLevel::Serializable},
             HeadCase{"begin isolation level read committed", Begin, AccessMode::Unspecified,
                      IsolationLevel::ReadCommitted},
             HeadCase{"begin isolation level read uncommitted", Begin, AccessMode::Unspecified,
                      IsolationLevel::ReadUncommitted},
             HeadCase{"commit", Commit},
             HeadCase{"END;", Commit},
             HeadCase{"commit work and no chain", Commit},
             HeadCase{"commit transaction and chain;", Commit},
             HeadCase{"rollback", Rollback},
             HeadCase{"abort work", Rollback},
             HeadCase{"rollback and chain", Rollback},
             HeadCase{"rollback to savepoint s", Savepoint},
             HeadCase{"rollback work to s;", Savepoint},
             HeadCase{"savepoint s", Savepoint},
             HeadCase{"release s", Savepoint},
             HeadCase{"prepare transaction 'x'", Prepare},
             HeadCase{"prepare p as select 1", None},
             HeadCase{"commit prepared 'x'", Other},
             HeadCase{"rollback prepared 'x';", Other},
             HeadCase{"begin; select 1", Unknown},
             HeadCase{"begin read only; select 1", Unknown},
             HeadCase{"select 1; commit", Unknown},
             HeadCase{"select ';'", Unknown},
             HeadCase{"begin read", Unknown},
             HeadCase{"begin read only,", Unknown},
             HeadCase{"begin read onlyx", Unknown},
             HeadCase{"begin isolation level snapshot", Unknown},
             HeadCase{"begin transaction work", Unknown},
             HeadCase{"begin 'x'", Unknown},
             HeadCase{"start slave", Unknown},
             HeadCase{"commit and", Unknown},
             HeadCase{"commit foo", Unknown},
             HeadCase{"/* open", Unknown},
             HeadCase{"/* a /* b */ begin", Unknown},
             HeadCase{"$$begin$$", Unknown},
             HeadCase{"\"begin\"", Unknown},
             HeadCase{";begin", Unknown},
             HeadCase{"beginx", None},
             HeadCase{"begin_ read only", None},
             HeadCase{"b\xC3\xA9gin", None},
         }) {
        const auto head = read_statement_head(sql);
        EXPECT_EQ(head.control, control) << sql;
        EXPECT_EQ(head.access, access) << sql;
        EXPECT_EQ(head.isolation, isolation) << sql;
    }
}

TEST(StatementHead, KnowsWhatCanNotCommit) {
    for (const char* safe :
         {"", "select 1", "insert into t values (1);", "update t set a = case when b then 1 end", "rollback",
          "savepoint s", "begin", "select 1; select 2", "insert into commits values (';')",
          "/* commit */ select 1", "prepare p as select 1", "select friend; select spend, endx"})
        EXPECT_FALSE(may_commit_block(safe)) << safe;
    for (const char* unsafe :
         {"commit", "END", "prepare transaction 'x'", "select 1; commit", "select 1;COMMIT;",
          "select 1;\nEnd work", "insert into t values (1); rollback; insert into t values (2)",
          "select ';commit'", "abort; select 1", "/* open", "commit work bla", "select 1;/**/commit/**/"})
        EXPECT_TRUE(may_commit_block(unsafe)) << unsafe;
}

TEST(SqlScanner, GivesUpOnWhatItCanNotReadForSure) {
    using Kind = SqlToken::Kind;
    for (const auto& [sql, kind] :
         {std::pair{"'a'", Kind::String}, std::pair{"'a''b'", Kind::Unknown},
          std::pair{"'a\\'", Kind::Unknown}, std::pair{"'a", Kind::Unknown}, std::pair{"\"A\"", Kind::Quoted},
          std::pair{"\"a\"\"b\"", Kind::Unknown}, std::pair{"$1", Kind::Unknown},
          std::pair{"12.5", Kind::Number}, std::pair{"=", Kind::Symbol}, std::pair{" \t\r\n\v\f", Kind::End}})
        EXPECT_EQ(SqlScanner(sql).next().kind, kind) << sql;
    SqlScanner scanner("a$1\xC3\xBC.b--c");
    EXPECT_EQ(scanner.next().text, "a$1\xC3\xBC");
    EXPECT_TRUE(scanner.next().is_symbol('.'));
    EXPECT_TRUE(scanner.next().is("b"));
    EXPECT_EQ(scanner.next().kind, Kind::End);
    EXPECT_EQ(scanner.next().kind, Kind::End);
}

}  // namespace
}  // namespace pgxc::wire
