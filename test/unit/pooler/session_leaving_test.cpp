// Clients that go in the middle of something: what they were owed is done, and nothing of them stays.
#include <gtest/gtest.h>

#include "fakes/pooler_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::Server;

/// One server connection, so that whoever keeps it is noticed by the next client.
class LeavingTest : public PoolerTest {
  protected:
    void SetUp() override {
        environment.settings_now.max_pool_size = 1;
        show({master_at(*server)});
        start();
        client = login();
        other = login();
    }
    /// The server connection is free for others, or a new one is.
    void expect_gone() {
        server->on_query = nullptr;
        other->messages.clear();
        other->query("select 'other'");
        EXPECT_TRUE(until([&] { return other->count('Z') == 1; })) << "it is still there";
        EXPECT_EQ(server->open_backends(), 1U);
    }
    /// Lets queries wait; `waiting` is then who got the newest.
    void hold_queries() {
        server->on_query = [this](fakes::Backend& backend, const std::string&) {
            waiting = &backend;
            return true;
        };
    }
    /// A COPY fails at the server while half a message of its data has come.
    void fail_copy_in_the_middle() {
        hold_queries();
        client->query("copy t from stdin");
        ASSERT_TRUE(until([&] { return waiting != nullptr; }));
        waiting->send(ready_for_copy);
        client->send(std::string("d\0\0\0\x24half", 9));
        settle();
        waiting->fail("22P02");
    }
    static std::string front_of_long_query(std::size_t bytes) {
        wire::Buffer query;
        wire::put_query(query, "insert " + std::string(100'000, 'x'));
        return query.substr(0, bytes);
    }
    /// Parse and Sync-less Execute: nothing that is answered by ReadyForQuery.
    static std::string half_a_pipeline() {
        wire::Buffer out;
        wire::put_u8(out, 'P');
        wire::put_u32(out, 4 + 1 + 9 + 2);
        out += std::string("\0select 1\0\0\0", 12);
        return out;
    }

    const std::string ready_for_copy{"G\0\0\0\7\0\0\0", 8};
    std::unique_ptr<Server> server = std::make_unique<Server>(loop);
    std::unique_ptr<Client> client;
    std::unique_ptr<Client> other;
    fakes::Backend* waiting = nullptr;
};

TEST_F(LeavingTest, InTheMiddleOfALongStatement) {
    client->send(front_of_long_query(90'000));
    settle();
    client->hang_up();
    expect_gone();
    EXPECT_EQ(server->queries(), std::vector<std::string>{"select 'other'"});
}

TEST_F(LeavingTest, InTheMiddleOfALongStatementOfABlock) {
    run(*client, "begin");
    client->send(front_of_long_query(90'000));
    settle();
    client->hang_up();
    expect_gone();
}

TEST_F(LeavingTest, InTheMiddleOfALongStatementBehindOneThatRuns) {
    hold_queries();
    client->query("insert");
    ASSERT_TRUE(until([&] { return waiting != nullptr; }));
    client->send(front_of_long_query(90'000));
    settle();
    client->hang_up();
    settle();
    // What it had sent whole is done.
    ASSERT_FALSE(waiting->ended());
    waiting->complete("INSERT 0 1", 'I');
    expect_gone();
}

TEST_F(LeavingTest, WithAPipelineThatHasNoSync) {
    client->send(half_a_pipeline());
    settle();
    client->hang_up();
    expect_gone();
}

TEST_F(LeavingTest, WithAPipelineThatHasNoSyncBehindAStatementThatRuns) {
    hold_queries();
    client->query("insert");
    ASSERT_TRUE(until([&] { return waiting != nullptr; }));
    client->send(half_a_pipeline());
    settle();
    client->hang_up();
    settle();
    ASSERT_FALSE(waiting->ended());
    waiting->complete("INSERT 0 1", 'I');
    expect_gone();
}

TEST_F(LeavingTest, InTheMiddleOfASync) {
    // Cut before its last byte, and then politely ended: a length of 88 bytes.
    client->send(half_a_pipeline() + std::string("S\0\0\0X\0\0\0\4", 9));
    settle();
    client->hang_up();
    expect_gone();
}

TEST_F(LeavingTest, WithAStatementThatTheServerHasPerhapsSkipped) {
    server->on_message = [this](fakes::Backend& backend, const fakes::Message& message) {
        if (message.type == 'P') waiting = &backend;
    };
    hold_queries();
    wire::Buffer out = half_a_pipeline();
    wire::put_query(out, "select 1");
    client->send(out);
    ASSERT_TRUE(until([&] { return waiting != nullptr; }));
    client->hang_up();
    settle();
    // The Parse fails, so the Query is skipped: the server waits for a Sync.
    wire::Buffer error;
    wire::put_error_response(error, wire::Severity::Error, {"42601", "scripted error"});
    waiting->send(error);
    expect_gone();
}

TEST_F(LeavingTest, BeforeTheServerAsksForTheDataOfItsCopy) {
    hold_queries();
    client->query("copy t from stdin");
    ASSERT_TRUE(until([&] { return waiting != nullptr; }));
    client->hang_up();
    settle();
    waiting->send(ready_for_copy);
    expect_gone();
}

/// The server knows that a COPY has failed before its client does, which still sends data: a message that was
/// passed on in part has to be passed on whole before anybody else gets the server.
TEST_F(LeavingTest, ACopyThatFailsInTheMiddleOfAMessageKeepsItsServerUntilThatIsOver) {
    ASSERT_NO_FATAL_FAILURE(fail_copy_in_the_middle());
    ASSERT_TRUE(until([&] { return client->count('Z') == 1; }));
    server->on_query = nullptr;
    other->messages.clear();
    other->query("select 'other'");
    settle();
    EXPECT_EQ(other->count('Z'), 0U);
    // The rest of it, and what the client does next.
    wire::Buffer next(28, 'x');
    next += std::string("c\0\0\0\4", 5);
    wire::put_query(next, "select 'next'");
    client->send(next);
    EXPECT_TRUE(until([&] { return other->count('Z') == 1 && client->count('Z') == 2; }));
    ASSERT_EQ(server->backends.size(), 1U);
    EXPECT_EQ(waiting->types, "QdQQ");
}

TEST_F(LeavingTest, ACopyThatFailsInTheMiddleOfAMessageThatIsNeverOver) {
    ASSERT_NO_FATAL_FAILURE(fail_copy_in_the_middle());
    settle();
    client->hang_up();
    expect_gone();
    EXPECT_TRUE(waiting->ended());
}

TEST_F(LeavingTest, InTheMiddleOfTheEndOfACopy) {
    hold_queries();
    client->query("copy t from stdin");
    client->send(std::string("f\0\0\0\x40no more", 12));
    ASSERT_TRUE(until([&] { return waiting != nullptr; }));
    settle();
    client->hang_up();
    settle();
    waiting->send(ready_for_copy);
    expect_gone();
}

TEST_F(LeavingTest, AStatementThatRunsIsFinished) {
    hold_queries();
    client->query("insert");
    ASSERT_TRUE(until([&] { return waiting != nullptr; }));
    client->hang_up();
    other->messages.clear();
    other->query("select 'waits'");
    settle();
    ASSERT_FALSE(waiting->ended());
    EXPECT_EQ(other->count('Z'), 0U);
    server->on_query = nullptr;
    waiting->complete("INSERT 0 1", 'I');
    EXPECT_TRUE(until([&] { return other->count('Z') == 1; }));
}

}  // namespace
}  // namespace pgxc::pooler
