// What a lost, silent or refusing server must not do to a client: leave it without an answer, or do what it
// said twice or under another one's settings.
#include <algorithm>
#include <thread>

#include "fakes/auto_routing_test.h"
#include "fakes/session_test.h"
#include "fakes/statement_server.h"

namespace pgxc::pooler {
namespace {

using fakes::Backend;
using fakes::Server;

std::ptrdiff_t times(const Server& server, const std::string& sql) {
    std::ptrdiff_t found = 0;
    for (const auto& backend : server.backends)
        found += std::count(backend->queries.begin(), backend->queries.end(), sql);
    return found;
}

/// An answer and the server's end, in one packet.
void answer_and_end(Backend& backend, const std::string& tag, char status) {
    wire::Buffer out;
    wire::put_command_complete(out, tag);
    wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(status));
    wire::put_error_response(out, wire::Severity::Fatal, {"57P01", "terminating connection"});
    backend.send(out);
    backend.hang_up();
}

TEST_F(SessionTest, AnAnswerThatComesTogetherWithTheLossIsGiven) {
    bool first = true;
    server->on_query = [&](Backend& backend, const std::string& sql) {
        if (sql != "begin read only" || !std::exchange(first, false)) return false;
        answer_and_end(backend, "BEGIN", 'T');
        return true;
    };
    start();
    auto client = login();
    run(*client, "begin read only");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
}

TEST_F(AutoRoutingTest, AReadsAnswerThatComesTogetherWithTheLossIsGiven) {
    start();
    auto client = login_known();
    slave.on_message = [](Backend& backend, const fakes::Message& message) {
        if (message.type == 'S') backend.hang_up();
    };
    bool first = true;
    slave.on_query = [&](Backend& backend, const std::string& sql) {
        if (sql != "select 1" || !std::exchange(first, false)) return false;
        wire::Buffer out;
        wire::put_parse_complete(out);
        wire::put_bind_complete(out);
        wire::put_command_complete(out, "BEGIN");
        backend.send(out);
        answer_and_end(backend, "SELECT 1", 'T');
        return true;
    };
    run(*client, "begin");
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "select 2");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
}

TEST_F(SessionTest, AConnectionThatAMoveGaveUpIsNotFailedByItsDeadlineToo) {
    Server silent{loop};
    silent.on_startup = [](Backend&) {};
    environment.settings_now.connect_timeout = Millis{300};
    show_master(silent);
    start();
    auto client = connect();
    client->start();
    ASSERT_TRUE(until([&] { return !silent.backends.empty() && silent.backends[0]->started; }));
    // Both are due when the loop looks again, the new view first.
    const net::Handle moves = loop.call_after(Millis{0}, [&] { show_master(*server, 2); });
    std::this_thread::sleep_for(Millis{350});
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << client->types();
}

TEST_F(SessionTest, WhatFollowsAReadOnlyBlockIsNotDoneTwice) {
    server->on_query = die_at("commit; insert");
    start();
    auto client = login();
    run(*client, "begin read only");
    run(*client, "commit; insert");
    EXPECT_EQ(client->sqlstate(), "08007");
    EXPECT_EQ(times(*server, "commit; insert"), 1);
    // The same in a pipeline.
    server->on_query = die_at("insert");
    auto other = login();
    for (const char* sql : {"begin read only", "select 1", "commit", "insert"}) other->query(sql);
    EXPECT_TRUE(until([&] { return other->count('Z') == 4; })) << other->types();
    EXPECT_EQ(times(*server, "insert"), 1);
    EXPECT_EQ(other->sqlstate(), "08007");
}

TEST_F(SessionTest, ALargeMessageGoesOnBehindWhatThePoolerHasAnswered) {
    fakes::StatementServer statements{loop};
    environment.settings_now.max_pool_size = 1;
    show_master(statements.server);
    start();
    const auto parse = [](wire::Buffer& out) { wire::put_parse(out, "s", "select $1"); };
    auto first = login();
    wire::Buffer prepare;
    parse(prepare);
    wire::put_sync(prepare);
    first->send(prepare);
    ASSERT_TRUE(until([&] { return first->count('Z') == 1; }));
    auto second = login();
    statements.server.backends.back()->read_on(false);
    wire::Buffer large;
    parse(large);
    std::string value;
    value.resize(32'000'000, 'x');
    const std::vector<std::optional<std::string_view>> parameters{value};
    wire::put_bind(large, {}, "s", parameters);
    wire::put_execute(large, {});
    wire::put_sync(large);
    second->send(large);
    settle();
    statements.server.backends.back()->read_on(true);
    EXPECT_TRUE(until([&] { return second->count('Z') == 1; })) << second->types();
}

TEST_F(SessionTest, ANoticeKeepsItsPlaceBehindWhatIsHeldBack) {
    Server slave{loop};
    environment.show({master_at(*server), slave_at(slave)});
    slave.on_query = [](Backend& backend, const std::string& sql) {
        if (sql != "select f") return false;
        wire::Buffer out;
        wire::put_u8(out, 'T');
        wire::put_u32(out, 6);
        wire::put_u16(out, 0);
        wire::put_u8(out, 'N');
        wire::put_u32(out, 5);
        wire::put_u8(out, 0);
        backend.send(out);
        backend.fail("40001");
        return true;
    };
    start();
    auto client = login();
    run(*client, "begin read only");
    run(*client, "select f");
    EXPECT_EQ(client->types(), "CZ") << "nothing of what the slave had said";
    EXPECT_EQ(times(*server, "select f"), 1);
}

TEST_F(SessionTest, NothingIsDoneUnderAnotherOnesSettings) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login({{"timezone", "Asia/Tokyo"}});
    auto second = login({{"timezone", "Europe/Rome"}});
    run(*first, "select 1");
    bool refused = false;
    server->on_query = [&](Backend& backend, const std::string& sql) {
        if (sql.find("set_config") == std::string::npos || std::exchange(refused, true)) return false;
        backend.fail("57014");
        return true;
    };
    run(*second, "insert");
    EXPECT_TRUE(refused);
    EXPECT_EQ(second->sqlstate(), "08007");
    run(*second, "insert");
    EXPECT_EQ(second->types(), "CZ");
}

TEST_F(AutoRoutingTest, ABlockThatNeedsTheMasterGetsItInASmartShutdown) {
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "select 1");
    pooler->begin_shutdown(ShutdownMode::Smart);
    run(*client, "insert");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "commit");
    EXPECT_TRUE(until([&] { return client->ended(); }));
    EXPECT_EQ(client->sqlstate(), "57P01");
    EXPECT_TRUE(until([&] { return pooler->drained(); }));
}

TEST_F(SessionTest, WhoseTurnItWasIsFirstAgainWhenItsConnectionIsOfNoUse) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto busy = login();
    auto first = login({{"default_tablespace", "a"}});
    auto second = login();
    run(*busy, "begin");
    bool lost = false;
    server->on_query = [&](Backend& backend, const std::string& sql) {
        if (sql.find("set_config") == std::string::npos || std::exchange(lost, true)) return false;
        backend.hang_up(true);
        return true;
    };
    for (auto* client : {first.get(), second.get()}) {
        client->messages.clear();
        client->query(client == first.get() ? "select first" : "select second");
        settle();
    }
    run(*busy, "commit");
    EXPECT_TRUE(until([&] { return first->count('Z') == 1 && second->count('Z') == 1; }));
    EXPECT_TRUE(lost);
    const auto& queries = server->backends.back()->queries;
    const auto at = [&](const char* sql) { return std::find(queries.begin(), queries.end(), sql); };
    EXPECT_LT(at("select first"), at("select second"));
}

TEST_F(AutoRoutingTest, AReadThatASlaveHasNotBegunWhenItIsDroppedGoesToTheMasterAtOnce) {
    environment.settings_now.failover_hold = Millis{60'000};
    start();
    auto client = login({{"timezone", "Asia/Tokyo"}});
    Backend* asked = nullptr;
    slave.on_query = [&](Backend& backend, const std::string& sql) {
        if (sql.find("set_config") != std::string::npos) asked = &backend;
        return asked != nullptr;
    };
    client->messages.clear();
    client->query("select 1");
    ASSERT_TRUE(until([&] { return asked != nullptr; }));
    PoolerTest::show({master_at(master)});
    asked->hang_up(true);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << client->types();
    EXPECT_EQ(master.queries().back(), "select 1");
}

TEST_F(SessionTest, NoTransactionOfAPinnedClientBeginsInAPauseBehindWhatThePoolerSentForIt) {
    Backend* asked = nullptr;
    server->on_query = [&](Backend& backend, const std::string& sql) {
        if (sql.starts_with(question)) {
            backend.tell_what_is_left({{"s", "client_min_messages", "error"}, {"k", "", ""}});
            return true;
        }
        if (sql.find("set_config") != std::string::npos) asked = &backend;
        return asked != nullptr && sql != "insert";
    };
    start();
    auto client = login();
    run(*client, "select pg_advisory_lock(1)");
    ASSERT_TRUE(until([&] { return asked != nullptr; }));
    auto view = master_at(*server);
    view.paused = true;
    show({view});
    client->messages.clear();
    client->query("insert");
    settle();
    EXPECT_EQ(times(*server, "insert"), 0);
    asked->complete("SELECT 1", 'I');
    settle();
    EXPECT_EQ(times(*server, "insert"), 0);
    EXPECT_EQ(environment.in_use[d1], 0U);
    show_master(*server);
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(times(*server, "insert"), 1);
}

TEST_F(SessionTest, NoTransactionBeginsInAPauseBehindItsSettings) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto first = login({{"default_tablespace", "a"}});
    auto second = login({{"default_tablespace", "b"}});
    run(*first, "select 1");
    Backend* asked = nullptr;
    server->on_query = [&](Backend& backend, const std::string& sql) {
        if (sql.find("set_config") == std::string::npos || asked != nullptr) return false;
        asked = &backend;
        return true;
    };
    second->query("insert");
    ASSERT_TRUE(until([&] { return asked != nullptr; }));
    auto view = master_at(*server);
    view.paused = true;
    show({view});
    asked->complete("SELECT 1", 'I');
    settle();
    EXPECT_EQ(times(*server, "insert"), 0);
    show_master(*server);
    EXPECT_TRUE(until([&] { return second->count('Z') == 1; }));
    EXPECT_EQ(times(*server, "insert"), 1);
}

TEST_F(AutoRoutingTest, AConnectionThatCannotTellIsNotAskedForEver) {
    environment.settings_now.causal_reads = true;
    start();
    auto writer = login({{"synchronous_commit", "off"}});
    auto reader = login_known();
    for (int i = 0; i < 5; ++i) {
        run(*writer, "insert");
        run(*reader, "select 1");
        settle();
    }
    EXPECT_LT(master.questions, 40U);
}

TEST_F(AutoRoutingTest, ANewMasterIsAskedThoughTheOldOneNeverAnswers) {
    environment.settings_now.max_pool_size = 1;
    start();
    auto client = login();
    master.answers_questions = false;
    // It asks what sessions begin with, on the only connection that there may be.
    client->query("begin");
    EXPECT_TRUE(until([&] { return master.questions > 0; }));
    Server next{loop};
    PoolerTest::show({master_at(next, 2), slave_at(slave)});
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    run(*client, "insert");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(times(next, "insert"), 1);
    run(*client, "commit");
    run(*client, "begin");
    run(*client, "rollback");
    EXPECT_TRUE(until([&] { return next.questions > 0; }));
}

TEST_F(SessionTest, ReadsLeaveASlaveThatStandsStill) {
    Server slave{loop};
    slave.on_query = [](Backend&, const std::string& sql) { return sql == "select 1"; };
    environment.show({master_at(*server), slave_at(slave)});
    start();
    auto client = login();
    run(*client, "begin read only");
    client->messages.clear();
    client->query("select 1");
    settle();
    EXPECT_EQ(client->types(), "");
    auto down = slave_at(slave);
    down.state = NodeState::Down;
    down.may_read = false;
    show({master_at(*server), down});
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(times(*server, "select 1"), 1);
}

/// A slave that is told of a new view before its master, by its lower number.
class SlaveFirstTest : public SessionTest {
  protected:
    void SetUp() override {
        SessionTest::SetUp();
        slave.on_query = [](Backend&, const std::string& sql) { return sql == "select 1"; };
        show({master5(*server), slave2()});
    }
    static NodeView master5(const Server& at, int epoch = 1, Gate gate = Gate::Open) {
        return FakeEnvironment::master(5, "127.0.0.1", static_cast<std::uint16_t>(at.port), epoch, gate);
    }
    NodeView slave2(bool down = false) const {
        auto node = FakeEnvironment::slave(2, 5, "127.0.0.1", static_cast<std::uint16_t>(slave.port));
        if (down) node.state = NodeState::Down;
        node.may_read = !down;
        return node;
    }
    void show(std::vector<NodeView> nodes) {
        std::sort(nodes.begin(), nodes.end(),
                  [](const NodeView& a, const NodeView& b) { return a.node.key < b.node.key; });
        SessionTest::show(std::move(nodes));
    }
    /// It reads at the slave and gets no answer; the master has an idle connection.
    std::unique_ptr<fakes::Client> reading() {
        auto client = login();
        run(*client, "begin");
        run(*client, "rollback");
        run(*client, "begin read only");
        client->messages.clear();
        client->query("select 1");
        EXPECT_TRUE(until([&] { return times(slave, "select 1") == 1; }));
        return client;
    }

    Server slave{loop};
};

TEST_F(SlaveFirstTest, AReadThatLeavesItWaitsForTheMasterThatTheSameViewHolds) {
    start();
    auto client = reading();
    show({master5(*server, 1, Gate::Held), slave2(true)});
    settle();
    EXPECT_EQ(times(*server, "begin read only"), 0);
    EXPECT_EQ(client->types(), "");
    show({master5(*server), slave2(true)});
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(times(*server, "select 1"), 1);
}

TEST_F(SlaveFirstTest, WhoWaitsForItWaitsForTheMasterThatTheSameViewHolds) {
    slave.on_startup = [](Backend&) {};
    start();
    auto client = login();
    run(*client, "begin");
    run(*client, "rollback");
    client->messages.clear();
    client->query("begin read only");
    ASSERT_TRUE(until([&] { return !slave.backends.empty() && slave.backends[0]->started; }));
    show({master5(*server, 1, Gate::Held), slave2(true)});
    settle();
    EXPECT_EQ(times(*server, "begin read only"), 0);
    EXPECT_EQ(client->types(), "");
    show({master5(*server), slave2(true)});
    EXPECT_TRUE(until([&] { return client->count('Z') == 1; }));
    EXPECT_EQ(client->types(), "CZ");
}

TEST_F(SlaveFirstTest, AReadThatLeavesItGoesToTheNewMasterOfTheSameView) {
    for (const bool down : {true, false}) {
        Server elsewhere{loop};
        Server next{loop};
        show({master5(*server), slave2()});
        slave.backends.clear();
        start();
        auto client = reading();
        auto moved = slave2(down);
        if (!down) moved.node.address.port = static_cast<std::uint16_t>(elsewhere.port);
        moved.may_read = false;
        show({master5(next, 2), moved});
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << down;
        EXPECT_EQ(client->types(), "CZ");
        EXPECT_EQ(times(*server, "begin read only"), 0) << down;
        EXPECT_EQ(times(next, "select 1"), 1) << down;
        client.reset();
        pooler.reset();
    }
}

}  // namespace
}  // namespace pgxc::pooler
