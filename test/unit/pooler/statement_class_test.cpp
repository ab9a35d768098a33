// What statements count as, and what is remembered of that.
#include "pooler/statement_class.h"

#include <gtest/gtest.h>

#include <utility>

#include "fakes/auto_routing_test.h"

namespace pgxc::pooler {
namespace {

TEST(StatementClasses, TheWorstOfSeveralCounts) {
    using enum StatementClass;
    for (const auto& [better, worse] : {std::pair{Read, ReadWithTime},
                                        {ReadWithTime, Begin},
                                        {ReadWithTime, End},
                                        {Begin, MasterOnly},
                                        {End, MasterOnly},
                                        {MasterOnly, Unknown},
                                        {Unknown, Write}})
        EXPECT_LT(badness(better), badness(worse)) << to_word(better) << " and " << to_word(worse);
}

TEST(ClassifierCache, IsBoundedAndKeepsWhatIsUsed) {
    FirstWord classifier;
    ClassifierCache cache(&classifier, 10);
    for (int i = 0; i < 1000; ++i) {
        EXPECT_EQ(cache.classify("select " + std::to_string(i), {}).kind, StatementClass::Read);
        (void)cache.classify("insert", {});
        EXPECT_LE(cache.size(), 10U);
    }
    EXPECT_EQ(classifier.asked, 1001);
}

TEST(ClassifierCache, DoesNotTrustLongTextsAndEncodingsThatHideQuotes) {
    FirstWord classifier;
    ClassifierCache cache(&classifier);
    SqlDialect sjis;
    sjis.hides_quotes = true;
    EXPECT_EQ(cache.classify("select 1", sjis).kind, StatementClass::Read);
    EXPECT_EQ(cache.classify("select '\x83\x5c'", sjis).kind, StatementClass::Unknown);
    EXPECT_EQ(cache.classify("select " + std::string(max_classified_bytes, 'x'), {}).kind,
              StatementClass::Unknown);
    SqlDialect escapes;
    escapes.standard_conforming_strings = false;
    EXPECT_EQ(cache.classify("select 1", escapes).kind, StatementClass::Read);
    EXPECT_FALSE(classifier.strings);
    EXPECT_EQ(ClassifierCache(nullptr).classify("select 1", {}).kind, StatementClass::Unknown);
}

TEST(ClassifierCache, KnowsThatASessionMayKeepSomethingOfARead) {
    const Classification read{StatementClass::Read, "reads"};
    for (const char* sql :
         {"select set_config('work_mem', '1MB', false)", "select * from pg_prepared_statements",
          "select lastval()", "select * from pg_temp.t"})
        EXPECT_EQ(with_session_use(read, sql).kind, StatementClass::MasterOnly) << sql;
    for (const char* sql : {"select 1", "select 1; select 2", "with x as (select 1) select * from x",
                            "copy t to stdout", "select set_config('work_mem', '1MB', true)"})
        EXPECT_EQ(with_session_use(read, sql).kind, StatementClass::Read) << sql;
    EXPECT_EQ(with_session_use({StatementClass::Write, "writes"}, "select lastval()").kind,
              StatementClass::Write);
}

TEST(ClassifierCache, KnowsEncodingsByAllTheirNames) {
    for (const char* name : {"SJIS", "shift_jis", "GBK", "WIN936", "big5", "UHC", "GB18030", "JOHAB",
                             "SHIFT_JIS_2004", "Windows-949"})
        EXPECT_TRUE(encoding_hides_quotes(name)) << name;
    for (const char* name : {"UTF8", "utf-8", "LATIN1", "EUC_JP", "SQL_ASCII", "WIN1252"})
        EXPECT_FALSE(encoding_hides_quotes(name)) << name;
}

}  // namespace
}  // namespace pgxc::pooler
