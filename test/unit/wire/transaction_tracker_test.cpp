#include "wire/transaction_tracker.h"

#include <gtest/gtest.h>

namespace pgxc::wire {
namespace {

using namespace std::string_literals;

/// A client and a server talking past a tracker.
class Talk {
  public:
    TransactionTracker tracker;

    Talk& query(std::string_view sql) {
        return client([&](Buffer& out) { put_query(out, sql); });
    }
    Talk& parse(std::string_view name, std::string_view sql) {
        return client([&](Buffer& out) { put_parse(out, name, sql); });
    }
    Talk& bind(std::string_view portal, std::string_view statement) {
        return client([&](Buffer& out) { put_bind(out, portal, statement); });
    }
    Talk& execute(std::string_view portal = "") {
        return client([&](Buffer& out) { put_execute(out, portal); });
    }
    /// Parse, Bind and Execute without names.
    Talk& run(std::string_view sql) { return parse("", sql).bind("", "").execute(); }
    Talk& sync() { return client(put_sync); }
    Talk& flush() { return client(put_flush); }
    Talk& copy_data() {
        return client([](Buffer& out) { put_copy_data(out, "1\n"); });
    }
    Talk& copy_done() { return client(put_copy_done); }
    Talk& copy_fail() {
        return client([](Buffer& out) { put_copy_fail(out, "no"); });
    }
    Talk& function_call() { return client(FrontendMessage::FunctionCall, "\0\0\0\1"s); }
    Talk& client(FrontendMessage type, std::string_view body) {
        tracker.client_sent(type, body);
        return *this;
    }

    Talk& ready(TransactionStatus status = TransactionStatus::Idle) {
        return server([&](Buffer& out) { put_ready_for_query(out, status); });
    }
    Talk& complete(std::string_view tag = "SELECT 1") {
        return server([&](Buffer& out) { put_command_complete(out, tag); });
    }
    Talk& error(Severity severity = Severity::Error) {
        return server(
            [&](Buffer& out) { put_error_response(out, severity, Error("22012", "division by zero")); });
    }
    Talk& copy_in() { return bare(BackendMessage::CopyInResponse); }
    Talk& copy_out() { return bare(BackendMessage::CopyOutResponse); }
    Talk& server_copy_done() { return bare(BackendMessage::CopyDone); }
    Talk& notice(std::string_view routine) {
        const std::string body =
            "SWARNING\0VWARNING\0C01000\0Mcanceling wait for synchronous replication\0R"s +
            std::string(routine) + "\0\0"s;
        tracker.server_sent(BackendMessage::NoticeResponse, body);
        return *this;
    }
    Talk& bare(BackendMessage type) {
        tracker.server_sent(type, "\0\0\0"s);
        return *this;
    }

    [[nodiscard]] bool clean() const { return tracker.clean_and_idle(); }
    [[nodiscard]] bool commit() const { return tracker.commit_may_be_running(); }

  private:
    template <class Put>
    Talk& client(Put put) {
        Buffer out;
        put(out);
        const auto header = read_frontend_header(out, FrontendPhase::Normal);
        tracker.client_sent(header.type, Bytes(out).substr(header_bytes));
        return *this;
    }
    template <class Put>
    Talk& server(Put put) {
        Buffer out;
        put(out);
        const auto header = read_backend_header(out);
        tracker.server_sent(header.type, Bytes(out).substr(header_bytes));
        return *this;
    }
};

constexpr auto in_block = TransactionStatus::InBlock;
constexpr auto failed = TransactionStatus::Failed;

TEST(Tracker, IsCleanAfterEachAnswer) {
    Talk talk;
    EXPECT_TRUE(talk.clean());
    EXPECT_FALSE(talk.query("select 1").clean());
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 1U);
    EXPECT_FALSE(talk.complete().clean());
    EXPECT_TRUE(talk.ready().clean());
    EXPECT_FALSE(talk.function_call().clean());
    EXPECT_TRUE(talk.ready().clean());
}

TEST(Tracker, IsNotCleanInABlock) {
    Talk talk;
    talk.query("begin").ready(in_block);
    EXPECT_FALSE(talk.clean());
    EXPECT_TRUE(talk.tracker.quiet());
    talk.query("select 1/0").error().ready(failed);
    EXPECT_FALSE(talk.clean());
    EXPECT_TRUE(talk.query("rollback").ready().clean());
}

TEST(Tracker, CountsPipelinedUnits) {
    Talk talk;
    talk.query("select 1").query("select 2").run("select 3").sync().run("select 4").sync();
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 4U);
    talk.ready().ready().ready();
    EXPECT_FALSE(talk.clean());
    EXPECT_TRUE(talk.ready().clean());
}

TEST(Tracker, IsNotCleanBetweenExtendedMessagesAndSync) {
    Talk talk;
    talk.run("select 1");
    EXPECT_TRUE(talk.tracker.pipeline_open());
    EXPECT_FALSE(talk.complete().clean());
    EXPECT_FALSE(talk.flush().clean());
    talk.sync();
    EXPECT_FALSE(talk.tracker.pipeline_open());
    EXPECT_TRUE(talk.ready().clean());
    // The next pipeline begins before the last one is answered.
    talk.run("select 1").sync().run("select 2").ready();
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 0U);
    EXPECT_FALSE(talk.clean());
    EXPECT_TRUE(talk.sync().ready().clean());
}

TEST(Tracker, KnowsThatAServerSkipsUntilSync) {
    Talk talk;
    talk.run("select 1/0").flush().error();
    EXPECT_TRUE(talk.tracker.skipping_until_sync());
    talk.query("select 1");  // discarded, and not answered
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 0U);
    EXPECT_FALSE(talk.clean());
    talk.sync();
    EXPECT_FALSE(talk.tracker.skipping_until_sync());
    EXPECT_TRUE(talk.ready().clean());
}

TEST(Tracker, AnErrorAheadOfAQueryWithoutSyncSkipsTheQuery) {
    Talk talk;
    talk.run("select 1").query("insert into t values (1)").error();
    EXPECT_TRUE(talk.tracker.skipping_until_sync());
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 0U);
    EXPECT_FALSE(talk.clean());
    EXPECT_TRUE(talk.sync().ready().clean());
    // Sync and more were sent by then.
    talk.run("select 1").bare(BackendMessage::ParseComplete);
    talk.query("select 2").query("select 3").run("select 4").query("select 5").copy_done().sync();
    EXPECT_EQ(talk.query("select 6").tracker.ready_for_query_owed(), 5U);
    EXPECT_EQ(talk.error().tracker.ready_for_query_owed(), 2U);
    EXPECT_FALSE(talk.tracker.skipping_until_sync());
    EXPECT_FALSE(talk.ready().clean());
    EXPECT_TRUE(talk.commit());
    EXPECT_TRUE(talk.ready().clean());
    EXPECT_FALSE(talk.commit());
    EXPECT_FALSE(talk.tracker.in_doubt());
}

TEST(Tracker, AnErrorOfAQueryBehindAnsweredMessagesIsItsOwn) {
    Talk talk;
    talk.run("select 1").query("select 2").bare(BackendMessage::ParseComplete);
    talk.bare(BackendMessage::BindComplete).complete().error();
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 1U);
    EXPECT_TRUE(talk.ready().clean());
    // What each message is answered with, and where there is nothing but a Flush.
    talk.client(FrontendMessage::Describe, "Ss\0"s).client(FrontendMessage::Close, "Ss\0"s);
    talk.bind("", "s").execute().flush().query("select 1").sync();
    talk.bare(BackendMessage::ParameterDescription).bare(BackendMessage::RowDescription);
    talk.bare(BackendMessage::CloseComplete).bare(BackendMessage::BindComplete);
    talk.bare(BackendMessage::DataRow).bare(BackendMessage::PortalSuspended).error().ready();
    EXPECT_FALSE(talk.clean());
    EXPECT_TRUE(talk.ready().clean());
    EXPECT_TRUE(talk.flush().function_call().error().ready().clean());
}

TEST(Tracker, ACopyAheadOfAQueryWithoutSyncFailsAtThatQuery) {
    Talk talk;
    talk.run("copy t from stdin").query("select 1").sync();
    talk.bare(BackendMessage::ParseComplete).bare(BackendMessage::BindComplete).copy_in().error();
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 1U);
    EXPECT_TRUE(talk.ready().clean());
    EXPECT_FALSE(talk.tracker.in_doubt());
}

TEST(Tracker, AnAnswerThatNobodyAskedForIsInDoubt) {
    Talk talk;
    EXPECT_FALSE(talk.ready().clean());
    EXPECT_TRUE(talk.tracker.in_doubt());
    talk.tracker.reset();
    EXPECT_TRUE(talk.clean());
    talk.query("select 1").tracker.server_sent(BackendMessage::ReadyForQuery, "?");
    EXPECT_TRUE(talk.tracker.in_doubt());
}

TEST(Tracker, FollowsCopyOut) {
    Talk talk;
    talk.query("copy t to stdout").copy_out();
    EXPECT_EQ(talk.tracker.copy_mode(), TransactionTracker::CopyMode::Out);
    talk.server_copy_done();
    EXPECT_EQ(talk.tracker.copy_mode(), TransactionTracker::CopyMode::None);
    EXPECT_TRUE(talk.complete("COPY 1").ready().clean());
    EXPECT_TRUE(talk.query("copy t to stdout").copy_out().error().ready().clean());
}

TEST(Tracker, FollowsCopyIn) {
    for (const bool done : {true, false}) {
        Talk talk;
        talk.query("copy t from stdin").copy_in();
        EXPECT_EQ(talk.tracker.copy_mode(), TransactionTracker::CopyMode::In);
        talk.copy_data();
        EXPECT_FALSE(talk.clean());
        done ? talk.copy_done() : talk.copy_fail();
        EXPECT_EQ(talk.tracker.copy_mode(), TransactionTracker::CopyMode::None);
        EXPECT_FALSE(talk.clean());
        if (!done) talk.error();
        EXPECT_TRUE(talk.ready().clean());
    }
}

TEST(Tracker, IgnoresCopyDataThatComesLate) {
    Talk talk;
    talk.query("copy t from stdin").copy_in().copy_data().error().copy_data().copy_done();
    EXPECT_TRUE(talk.ready().clean());
    talk.copy_data().copy_done();
    EXPECT_TRUE(talk.clean());
    EXPECT_TRUE(talk.query("select 1").ready().clean());
}

TEST(Tracker, KnowsThatCopyInSwallowsTheSyncBehindExecute) {
    Talk talk;
    talk.run("copy t from stdin").sync();  // as libpq's PQexecParams does
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 1U);
    talk.copy_in();
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 0U);
    EXPECT_FALSE(talk.clean());
    talk.copy_data().copy_done();
    EXPECT_FALSE(talk.clean());
    EXPECT_TRUE(talk.sync().complete("COPY 1").ready().clean());
    EXPECT_FALSE(talk.tracker.in_doubt());
}

TEST(Tracker, CountsTheSyncThatFollowsCopyDataSentAhead) {
    Talk talk;
    talk.run("copy t from stdin").copy_data().copy_done().sync().copy_in();
    EXPECT_EQ(talk.tracker.copy_mode(), TransactionTracker::CopyMode::None);
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 1U);
    EXPECT_TRUE(talk.complete("COPY 1").ready().clean());
    // The same with a Sync that the COPY swallows, and with two COPY in a pipeline.
    talk.run("copy t from stdin").sync().copy_data().copy_done().sync().copy_in();
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 1U);
    EXPECT_TRUE(talk.complete("COPY 1").ready().clean());
    talk.run("copy t from stdin").copy_done().run("copy t from stdin").copy_done().sync();
    talk.copy_in().complete("COPY 0").copy_in().complete("COPY 0");
    EXPECT_EQ(talk.tracker.ready_for_query_owed(), 1U);
    EXPECT_TRUE(talk.ready().clean());
    talk.query("copy t from stdin; copy t from stdin").copy_in().copy_done().copy_in().copy_done();
    EXPECT_TRUE(talk.ready().clean());
}

TEST(Tracker, ForgetsALateCopyEndWithItsUnit) {
    Talk talk;
    talk.query("copy missing from stdin").copy_done().run("copy t from stdin").sync();
    talk.error().ready().copy_in();
    EXPECT_EQ(talk.tracker.copy_mode(), TransactionTracker::CopyMode::In);
    EXPECT_TRUE(talk.copy_done().sync().complete("COPY 0").ready().clean());
    talk.query("select 1").copy_done().query("copy t from stdin").ready().copy_in();
    EXPECT_EQ(talk.tracker.copy_mode(), TransactionTracker::CopyMode::In);
    EXPECT_TRUE(talk.copy_done().complete("COPY 0").ready().clean());
}

TEST(Tracker, ACopyThatFailsBehindASwallowedSyncIsInDoubt) {
    Talk talk;
    talk.run("copy t from stdin").sync().copy_in().copy_data().error();
    EXPECT_TRUE(talk.tracker.in_doubt());
    // Before CopyInResponse nothing is swallowed.
    Talk early;
    EXPECT_TRUE(early.run("copy missing from stdin").sync().error().ready().clean());
}

TEST(Tracker, BoundsWhatItRemembersOfEarlyCopyEnds) {
    Talk talk;
    talk.query("select pg_sleep(1)");
    for (int i = 0; i < 1024; ++i) talk.copy_done();
    EXPECT_FALSE(talk.tracker.in_doubt());
    EXPECT_TRUE(talk.copy_done().tracker.in_doubt());
}

TEST(Tracker, FatalEndsIt) {
    Talk talk;
    talk.error(Severity::Fatal);
    EXPECT_TRUE(talk.tracker.fatal());
    EXPECT_FALSE(talk.clean());
    EXPECT_FALSE(talk.commit());
}

TEST(Tracker, OutsideOfABlockEverythingMayCommit) {
    Talk talk;
    EXPECT_FALSE(talk.commit());
    EXPECT_TRUE(talk.query("insert into t values (1)").commit());
    EXPECT_TRUE(talk.complete().commit());
    EXPECT_FALSE(talk.ready().commit());
    EXPECT_TRUE(talk.run("insert into t values (1)").commit());
    EXPECT_FALSE(talk.sync().ready().commit());
    EXPECT_TRUE(talk.function_call().commit());
    EXPECT_FALSE(talk.ready().commit());
}

TEST(Tracker, InsideABlockOnlyCommitDoes) {
    Talk talk;
    EXPECT_FALSE(talk.query("begin").commit());
    talk.ready(in_block);
    EXPECT_FALSE(talk.query("insert into t values (1)").commit());
    talk.ready(in_block);
    EXPECT_FALSE(talk.run("insert into t values (2)").sync().commit());
    talk.ready(in_block);
    EXPECT_FALSE(talk.function_call().commit());
    talk.ready(in_block);
    EXPECT_FALSE(talk.query("select 1; select 2").commit());
    EXPECT_FALSE(talk.query("insert into t values (3)").commit());
    talk.ready(in_block).ready(in_block);
    EXPECT_FALSE(talk.query("rollback to s").commit());
    talk.ready(in_block);
    EXPECT_TRUE(talk.query("commit").commit());
    EXPECT_FALSE(talk.ready().commit());
}

TEST(Tracker, SeesEveryFormOfCommit) {
    for (const char* sql : {"commit", "END WORK;", "commit and chain", "prepare transaction 'x'",
                            "select 1; commit", "/* open", "rollback; insert into t values (1)"}) {
        Talk talk;
        talk.query("begin").ready(in_block).query(sql);
        EXPECT_TRUE(talk.commit()) << sql;
        EXPECT_FALSE(talk.ready(in_block).commit()) << sql;
    }
    Talk extended;
    extended.query("begin").ready(in_block).parse("c", "commit").sync();
    EXPECT_FALSE(extended.commit());  // parsed only
    extended.ready(in_block).bind("", "c").execute();
    EXPECT_TRUE(extended.commit());
    EXPECT_FALSE(extended.sync().ready().commit());
    extended.query("begin").ready(in_block).bind("p", "c").execute("p");
    EXPECT_TRUE(extended.commit());
}

TEST(Tracker, AfterTheBlocksEndItIsNoBlock) {
    for (const char* sql : {"commit", "rollback"}) {
        Talk talk;
        talk.query("begin").ready(in_block).query(sql).query("insert into t values (1)");
        talk.ready();
        EXPECT_TRUE(talk.commit()) << sql;
        EXPECT_FALSE(talk.ready().commit()) << sql;
    }
    // BEGIN not answered yet: it might have been cancelled.
    Talk talk;
    EXPECT_TRUE(talk.query("begin").query("insert into t values (1)").commit());
}

TEST(Tracker, ABeginInThePipelineIsABlockUpToSync) {
    Talk talk;
    talk.run("begin").run("insert into t values (1)").sync();  // as JDBC does
    EXPECT_FALSE(talk.commit());
    EXPECT_TRUE(talk.run("insert into t values (2)").commit());
    EXPECT_FALSE(talk.sync().ready(in_block).ready(in_block).commit());
    EXPECT_TRUE(talk.run("commit").commit());
    EXPECT_FALSE(talk.sync().ready().commit());
    talk.run("insert into t values (1)").run("begin").sync();
    EXPECT_TRUE(talk.commit());
}

TEST(Tracker, AfterAnErrorANameMayMeanSomethingElse) {
    Talk talk;
    talk.parse("s", "begin").sync().error().ready();  // the name was in use, say
    talk.bind("", "s").execute();
    EXPECT_TRUE(talk.commit());
    Talk reuse;
    reuse.query("begin").ready(in_block).parse("s", "commit").sync().ready(in_block);
    reuse.parse("s", "select 1").bind("", "s").execute();
    EXPECT_TRUE(reuse.commit());
}

TEST(Tracker, WhatItCanNotSeeWholeMayCommit) {
    Talk talk;
    talk.query("begin").ready(in_block);
    talk.tracker.client_sent(FrontendMessage::Query, "insert into t values ('aaaa", false);
    EXPECT_TRUE(talk.commit());
    Talk extended;
    extended.query("begin").ready(in_block);
    extended.tracker.client_sent(FrontendMessage::Parse, "s\0insert into"s, false);
    extended.bind("", "s").execute();
    EXPECT_TRUE(extended.commit());
    Talk cut;
    cut.query("begin").ready(in_block);
    cut.tracker.client_sent(FrontendMessage::Parse, "a long na"s, false);
    cut.bind("", "other").execute();
    EXPECT_TRUE(cut.commit());
    Talk garbage;
    garbage.query("begin").ready(in_block);
    garbage.tracker.client_sent(FrontendMessage::Execute, "no zero"s);
    EXPECT_TRUE(garbage.commit());
}

TEST(Tracker, RemembersABoundedNumberOfStatements) {
    Talk talk;
    for (int i = 0; i < 300; ++i) talk.parse("c" + std::to_string(i), "commit");
    talk.sync().ready().query("begin").ready(in_block).bind("", "never seen").execute();
    EXPECT_TRUE(talk.commit());
}

TEST(Tracker, ACopyThatFailsBeforeItReadsHasLeftItsSync) {
    Talk talk;
    talk.run("copy v from stdin").sync().copy_in().error();
    EXPECT_TRUE(talk.tracker.skipping_until_sync());
    talk.ready();
    EXPECT_FALSE(talk.tracker.skipping_until_sync());
    EXPECT_FALSE(talk.tracker.pipeline_open());
    EXPECT_FALSE(talk.commit());
}

TEST(Tracker, PipelinedCommitsEndWithTheirOwnAnswer) {
    Talk talk;
    talk.query("insert into t values (1)").query("insert into t values (2)").ready();
    EXPECT_TRUE(talk.commit());
    EXPECT_FALSE(talk.ready().commit());
}

TEST(Tracker, RemembersACancelledSyncWaitUntilReadyForQuery) {
    Talk talk;
    talk.query("insert into t values (1)").complete("INSERT 0 1").notice("SyncRepWaitForLSN");
    EXPECT_TRUE(talk.tracker.sync_wait_canceled());
    EXPECT_FALSE(talk.tracker.last_sync_wait_canceled());
    talk.ready();
    EXPECT_FALSE(talk.tracker.sync_wait_canceled());
    EXPECT_TRUE(talk.tracker.last_sync_wait_canceled());
    talk.query("insert into t values (2)").notice("exec_stmt_raise").ready();
    EXPECT_FALSE(talk.tracker.last_sync_wait_canceled());
}

}  // namespace
}  // namespace pgxc::wire
