// Pipelines: what an error of an earlier unit makes of those behind it that were sent without waiting, and
// simple queries behind extended messages without Sync. What counts is what a server says that has the client
// for its own.
#include <gtest/gtest.h>

#include <random>

#include "fakes/pooler_test.h"
#include "fakes/statement_server.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::put_run;
using fakes::StatementServer;
using wire::Buffer;

void put_describe(Buffer& out, const std::string& name) {
    wire::put_u8(out, 'D');
    wire::put_u32(out, static_cast<std::uint32_t>(4 + 1 + name.size() + 1));
    wire::put_u8(out, 'S');
    wire::put_cstring(out, name);
}
Buffer query_of(const std::string& sql) {
    Buffer out;
    wire::put_query(out, sql);
    return out;
}
/// A unit that fails at its first message.
void put_failure(Buffer& out) {
    wire::put_bind(out, "", "nobody's");
}

/// One server connection, which all clients share.
class PipelineTest : public PoolerTest {
  protected:
    void SetUp() override {
        environment.settings_now.max_pool_size = 1;
        show({master_at(master.server), slave_at(slave.server)});
        slave.server.in_recovery = true;
        start();
        client = login();
        other = login();
    }
    /// Sends all of it at once, and waits for so many ReadyForQuery: the types of the messages.
    std::string send(Client& who, const Buffer& out, std::size_t units) {
        who.messages.clear();
        who.send(out);
        EXPECT_TRUE(until([&] { return who.count('Z') == units || who.ended(); })) << who.types();
        settle();
        return who.types();
    }
    std::string parse(Client& who, const std::string& name, const std::string& sql) {
        Buffer out;
        wire::put_parse(out, name, sql);
        wire::put_sync(out);
        return send(who, out, 1);
    }
    /// Binds and executes it: the row, or the SQLSTATE.
    std::string execute(Client& who, const std::string& name) {
        Buffer out;
        put_run(out, name);
        wire::put_sync(out);
        return send(who, out, 1) == "2DCZ" ? row(who) : who.sqlstate();
    }
    /// The last row that came.
    static std::string row(const Client& who) {
        std::string last;
        for (const auto& message : who.messages)
            if (message.type == 'D') last = message.body.substr(6);
        return last;
    }
    /// All is over, and the connection belongs to nobody.
    void expect_free() {
        EXPECT_EQ(execute(*other, "nobody's either"), "26000");
        EXPECT_EQ(master.server.open_backends(), 1U);
    }

    StatementServer master{loop};
    StatementServer slave{loop};
    std::unique_ptr<Client> client;
    std::unique_ptr<Client> other;
};

TEST_F(PipelineTest, AParseThatWasSkippedDefinesNothing) {
    EXPECT_EQ(parse(*other, "theirs", "select n"), "1Z");
    Buffer out;
    put_failure(out);
    wire::put_parse(out, "n", "select n");
    wire::put_sync(out);
    put_run(out, "n");
    wire::put_sync(out);
    put_describe(out, "n");
    wire::put_sync(out);
    wire::put_parse(out, "n", "select n");
    wire::put_sync(out);
    put_run(out, "n");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 5), "EZEZEZ1Z2DCZ");
    EXPECT_EQ(client->sqlstate(), "26000");
    EXPECT_NE(client->error().message.find("\"n\""), std::string::npos) << client->error().message;
    EXPECT_EQ(execute(*other, "theirs"), "select n");
}

TEST_F(PipelineTest, AParseThatFailsDefinesNothing) {
    Buffer out;
    wire::put_parse(out, "n", "bad");
    wire::put_sync(out);
    put_run(out, "n");
    wire::put_sync(out);
    wire::put_parse(out, "n", "select n");
    wire::put_sync(out);
    wire::put_parse(out, "n", "select again");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 4), "EZEZ1ZEZ");
    EXPECT_EQ(client->sqlstate(), "42P05");
    EXPECT_EQ(execute(*client, "n"), "select n");
}

TEST_F(PipelineTest, AStatementWhoseCloseWasSkippedIsThereAndTheOneInItsPlaceIsNot) {
    EXPECT_EQ(parse(*client, "s", "select old"), "1Z");
    EXPECT_EQ(parse(*other, "theirs", "select new"), "1Z");
    Buffer out;
    put_failure(out);
    wire::put_close_statement(out, "s");
    wire::put_parse(out, "s", "select new");
    wire::put_sync(out);
    put_run(out, "s");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 2), "EZ2DCZ");
    EXPECT_EQ(row(*client), "select old");
    EXPECT_EQ(execute(*client, "s"), "select old");
}

TEST_F(PipelineTest, WhatWasToBeBroughtInAUnitThatFailedIsBroughtAgain) {
    EXPECT_EQ(parse(*client, "s", "select s"), "1Z");
    StatementServer next{loop};
    master.server.die();
    show({master_at(next.server, 2)});
    Buffer out;
    put_failure(out);
    put_run(out, "s");
    wire::put_sync(out);
    put_run(out, "s");
    wire::put_sync(out);
    put_run(out, "s");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 3), "EZ2DCZ2DCZ");
    EXPECT_EQ(next.only().parses, 1U);
    pooler.reset();
}

TEST_F(PipelineTest, AnUnnamedStatementThatWasSkippedIsNeverAnothers) {
    EXPECT_EQ(parse(*other, "", "select theirs"), "1Z");
    Buffer out;
    put_failure(out);
    wire::put_parse(out, "", "select mine");
    wire::put_sync(out);
    put_run(out, "");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 2), "EZEZ");
    EXPECT_EQ(client->sqlstate(), "26000");
    EXPECT_EQ(execute(*client, ""), "26000");
    EXPECT_EQ(execute(*other, ""), "select theirs");
    // Nor is it later, when the client comes back to that connection.
    EXPECT_EQ(parse(*other, "", "select theirs"), "1Z");
    out.clear();
    put_failure(out);
    wire::put_parse(out, "", "select mine");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 1), "EZ");
    EXPECT_EQ(execute(*client, ""), "26000");
    // One that stands behind the failure, and is read.
    out.clear();
    put_failure(out);
    wire::put_parse(out, "", "select skipped");
    wire::put_sync(out);
    wire::put_parse(out, "", "select read");
    put_run(out, "");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 2), "EZ12DCZ");
    EXPECT_EQ(execute(*client, ""), "select read");
}

TEST_F(PipelineTest, WhatIsKnownIsNotWaitedFor) {
    EXPECT_EQ(parse(*client, "s", "select s"), "1Z");
    fakes::Backend& backend = *master.server.backends.front();
    backend.types.clear();
    master.silent = true;
    Buffer out;
    for (int i = 0; i < 3; ++i) {
        put_run(out, "s");
        wire::put_sync(out);
    }
    for (int i = 0; i < 2; ++i) {
        wire::put_parse(out, "", "select unnamed");
        put_run(out, "");
        wire::put_sync(out);
    }
    wire::put_parse(out, "n", "select n");
    put_run(out, "n");
    wire::put_sync(out);
    put_run(out, "s");
    wire::put_sync(out);
    wire::put_query(out, "select 1");
    client->send(out);
    EXPECT_TRUE(until([&] { return backend.types == "BESBESBESPBESPBESPBESBESQ"; })) << backend.types;
}

TEST_F(PipelineTest, AClientThatGoesHasWhatItSentDoneAllTheSame) {
    Buffer out;
    wire::put_parse(out, "s", "select s");
    wire::put_sync(out);
    put_run(out, "s");
    wire::put_sync(out);
    client->send(out);
    client->hang_up();
    fakes::Backend& backend = *master.server.backends.front();
    EXPECT_TRUE(until([&] { return backend.types == "PSBES"; })) << backend.types;
}

// --- A simple query behind extended messages without Sync ---

/// What stands ahead of the query has failed, and the client sends its Sync at once, later, or behind a
/// Flush.
TEST_F(PipelineTest, AQueryBehindAFailureIsSkippedWithAllUpToSync) {
    const auto begin = [] {
        Buffer out;
        wire::put_parse(out, "", "bad");
        return out;
    };
    for (const bool flush : {false, true}) {
        Buffer out = begin();
        if (flush) wire::put_flush(out);
        wire::put_query(out, "select 1");
        wire::put_sync(out);
        wire::put_query(out, "select 2");
        EXPECT_EQ(send(*client, out, 2), "EZCZ");
        expect_free();
        // It waits to see what becomes of it.
        out = begin();
        if (flush) wire::put_flush(out);
        wire::put_query(out, "select 3");
        client->messages.clear();
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('E') == 1; }));
        out.clear();
        wire::put_query(out, "select skipped");
        wire::put_parse(out, "n", "select n");
        client->send(out);
        settle();
        EXPECT_EQ(client->types(), "E");
        out.clear();
        wire::put_sync(out);
        put_run(out, "n");
        wire::put_sync(out);
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('Z') == 2; })) << client->types();
        EXPECT_EQ(client->types(), "EZEZ");
        EXPECT_EQ(client->sqlstate(), "26000");
        expect_free();
    }
}

TEST_F(PipelineTest, AQueryThatFailsItselfSkipsNothing) {
    Buffer out;
    wire::put_parse(out, "n", "select n");
    put_describe(out, "n");
    put_run(out, "n");
    wire::put_close_statement(out, "nobody's");
    wire::put_query(out, "div");
    put_run(out, "n");
    wire::put_query(out, "select 1");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 3), "1tn2DC3EZ2DCCZZ");
    expect_free();
    EXPECT_EQ(execute(*client, "n"), "select n");
}

TEST_F(PipelineTest, AQueryThatWasSkippedHasDroppedNoUnnamedStatement) {
    EXPECT_EQ(parse(*client, "", "select mine"), "1Z");
    Buffer out;
    put_failure(out);
    wire::put_query(out, "select 1");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 1), "EZ");
    EXPECT_EQ(execute(*other, ""), "26000");
    EXPECT_EQ(execute(*client, ""), "select mine");
}

TEST_F(PipelineTest, NorDoesItBringBackAnUnnamedStatementThatFailedBeforeIt) {
    Buffer out;
    wire::put_parse(out, "", "bad");
    wire::put_sync(out);
    put_failure(out);
    wire::put_query(out, "select 1");
    wire::put_sync(out);
    EXPECT_EQ(send(*client, out, 2), "EZEZ");
    EXPECT_EQ(execute(*client, ""), "26000");
}

TEST_F(PipelineTest, AQueryBehindAFailureAtASlave) {
    for (const bool sync_at_once : {true, false}) {
        EXPECT_EQ(send(*client, query_of("begin read only"), 1), "CZ");
        Buffer out;
        wire::put_parse(out, "", "bad");
        wire::put_query(out, "select 1");
        if (sync_at_once) wire::put_sync(out);
        client->messages.clear();
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('E') == 1; }));
        out.clear();
        if (!sync_at_once) wire::put_sync(out);
        wire::put_query(out, "rollback");
        client->send(out);
        EXPECT_TRUE(until([&] { return client->count('Z') == 2; })) << client->types();
        EXPECT_EQ(client->types(), "EZCZ");
        EXPECT_EQ(client->status(), 'I');
    }
    EXPECT_EQ(slave.server.queries(), (std::vector<std::string>{"begin read only", "select 1", "rollback",
                                                                "begin read only", "select 1", "rollback"}));
    EXPECT_EQ(slave.server.open_backends(), 1U);
    EXPECT_EQ(master.server.queries(), std::vector<std::string>{});
}

TEST_F(PipelineTest, AQueryInAPipelineAtASlave) {
    EXPECT_EQ(send(*client, query_of("begin read only"), 1), "CZ");
    Buffer out;
    wire::put_parse(out, "n", "select n");
    wire::put_query(out, "select 1");
    put_run(out, "n");
    wire::put_query(out, "div");
    wire::put_sync(out);
    wire::put_query(out, "rollback");
    EXPECT_EQ(send(*client, out, 4), "1CZ2DCEZZCZ");
    EXPECT_EQ(master.server.queries(), std::vector<std::string>{});
}

// --- Anything ---

/// Clients that share a server connection say at random what others say to a server of their own: both hear
/// the same.
TEST_F(PipelineTest, RandomPipelinesAreAnsweredAsByAServerOfOnesOwn) {
    StatementServer alone{loop};
    std::mt19937 random{20251128};
    const auto pick = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
    struct Pair {
        std::unique_ptr<Client> pooled;
        std::unique_ptr<Client> direct;
    };
    std::vector<Pair> pairs(3);
    const auto text = [](const Client& who) {
        std::string all;
        for (const auto& message : who.messages) all += message.type + message.body + "|";
        return all;
    };
    const auto ended = [](const Client& who) {
        return who.types().ends_with("DCZ") && row(who) == "select end";
    };
    for (Pair& pair : pairs) {
        pair.pooled = login();
        pair.direct = std::make_unique<Client>(loop, alone.server.port);
        pair.direct->start();
        ASSERT_TRUE(until([&] { return pair.direct->count('Z') == 1; }));
        for (Client* who : {pair.pooled.get(), pair.direct.get()})
            ASSERT_EQ(parse(*who, "end", "select end"), "1Z");
    }
    for (int step = 0; step < 500; ++step) {
        Pair& pair = pairs[pick(3)];
        Buffer out;
        std::vector<std::size_t> ends;
        std::string what;
        bool first = true;  // of its unit, and read whatever failed before
        for (unsigned left = 1 + pick(14); left > 0; --left) {
            const std::string name = "n" + std::to_string(pick(3));
            const std::string sql = (pick(8) == 0   ? "bad "
                                     : pick(8) == 0 ? "div "
                                                    : "select ") +
                                    std::to_string(pick(4));
            const unsigned kind = pick(16);
            if (kind < 3) {
                wire::put_parse(out, name, sql);
            } else if (kind < 6) {
                put_run(out, name);
            } else if (kind < 8) {
                wire::put_close_statement(out, name);
            } else if (kind == 8) {
                put_describe(out, name);
            } else if (kind == 9) {
                wire::put_query(out, sql);
            } else if (kind == 10) {
                put_run(out, "");
            } else if (kind == 11) {
                wire::put_flush(out);
            } else if (kind == 12 && first) {
                // Of one that is skipped the pooler doesn't know the one before.
                wire::put_parse(out, "", sql);
            } else {
                wire::put_sync(out);
            }
            first = out[ends.empty() ? 0 : ends.back()] == 'S';
            what += out[ends.empty() ? 0 : ends.back()];
            ends.push_back(out.size());
        }
        wire::put_sync(out);
        put_run(out, "end");
        wire::put_sync(out);
        SCOPED_TRACE("step " + std::to_string(step) + ": " + what);
        for (Client* who : {pair.pooled.get(), pair.direct.get()}) who->messages.clear();
        pair.direct->send(out);
        const std::size_t cut = pick(3) == 0 ? ends[pick(static_cast<unsigned>(ends.size()))] : 0;
        pair.pooled->send(out.substr(0, cut));
        if (cut > 0) (void)loop.run_for(Millis{1});
        pair.pooled->send(out.substr(cut));
        ASSERT_TRUE(until([&] { return ended(*pair.direct); })) << pair.direct->types();
        ASSERT_TRUE(until([&] { return ended(*pair.pooled) || pair.pooled->ended(); }))
            << pair.pooled->types() << " for " << pair.direct->types();
        ASSERT_EQ(text(*pair.pooled), text(*pair.direct));
    }
    pairs.clear();
    pooler.reset();
}

}  // namespace
}  // namespace pgxc::pooler
