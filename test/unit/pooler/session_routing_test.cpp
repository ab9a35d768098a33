// Clients of a pooler that reads what they send, in front of a scripted master and slaves.
#include <gtest/gtest.h>

#include "fakes/fake_environment.h"
#include "fakes/fake_peers.h"
#include "pooler/pooler.h"
#include "pooler/statement_class.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::Server;

/// Knows statements by their first word.
class FirstWord final : public StatementClassifier {
  public:
    Classification classify(std::string_view sql, const SqlDialect& dialect) override {
        ++asked;
        strings = dialect.standard_conforming_strings;
        if (sql.starts_with("select now")) return {StatementClass::ReadWithTime, "time"};
        if (sql.starts_with("select")) return {StatementClass::Read, "reads"};
        if (sql.starts_with("begin isolation")) return {StatementClass::MasterOnly, "strict"};
        if (sql.starts_with("begin")) return {StatementClass::Begin, "begins"};
        if (sql.starts_with("commit") || sql.starts_with("rollback")) return {StatementClass::End, "ends"};
        if (sql.starts_with("insert")) return {StatementClass::Write, "writes"};
        return {StatementClass::Unknown, "unknown"};
    }
    int asked = 0;
    bool strings = true;
};

using Queries = std::vector<std::string>;
constexpr NodeKey d1{NodeType::Datanode, NodeId{1}};

class AutoRoutingTest : public ::testing::Test {
  protected:
    void SetUp() override {
        auto& settings = environment.settings_now;
        settings.port = 0;
        settings.listen_addresses = {"127.0.0.1"};
        settings.failover_hold = Millis{2000};
        settings.read_routing = ReadRouting::Auto;
        settings.causal_reads = false;
        environment.classifier_now = &classifier;
        slave.in_recovery = true;
        show();
    }
    void show(bool paused = false, int epoch = 1) {
        NodeView of_master =
            FakeEnvironment::master(1, "127.0.0.1", static_cast<std::uint16_t>(master.port), epoch);
        of_master.paused = paused;
        environment.show(
            {of_master, FakeEnvironment::slave(2, 1, "127.0.0.1", static_cast<std::uint16_t>(slave.port))});
        if (pooler) pooler->view_changed();
    }
    void start() {
        auto made = Pooler::start(loop, environment);
        ASSERT_TRUE(made.ok()) << made.error().message;
        pooler = std::move(*made);
    }
    std::unique_ptr<Client> login() {
        auto client = std::make_unique<Client>(loop, pooler->port());
        client->start();
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << client->types();
        client->messages.clear();
        return client;
    }
    /// So that it is known what sessions begin with, and where the master is.
    std::unique_ptr<Client> login_known() {
        auto client = login();
        run(*client, "begin");
        run(*client, "rollback");
        EXPECT_TRUE(until([&] { return master.questions > 0; }));
        settle();
        forget();
        return client;
    }
    void forget() {
        for (Server* server : {&master, &slave})
            for (auto& backend : server->backends) backend->queries.clear();
    }
    bool until(const std::function<bool()>& condition) { return fakes::run_until(loop, condition); }
    void run(Client& client, const std::string& sql) {
        client.messages.clear();
        client.query(sql);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1 || client.ended(); }))
            << sql << ": " << client.types();
    }
    void settle() { (void)loop.run_for(Millis{20}); }

    net::Loop loop;
    FirstWord classifier;
    FakeEnvironment environment;
    Server master{loop};
    Server slave{loop};
    std::unique_ptr<Pooler> pooler;
};

TEST_F(AutoRoutingTest, ReadsGoToTheSlaveAndAllElseToTheMaster) {
    start();
    auto client = login();
    for (const char* sql : {"select 1", "insert", "what is it", "select now", "select 1"}) run(*client, sql);
    EXPECT_EQ(slave.queries(), (Queries{"select 1", "select now", "select 1"}));
    EXPECT_EQ(master.queries(), (Queries{"insert", "what is it"}));
    EXPECT_EQ(classifier.asked, 4);  // the same text again isn't parsed again
}

TEST_F(AutoRoutingTest, ExplicitDoesNotEvenLook) {
    environment.settings_now.read_routing = ReadRouting::Explicit;
    start();
    auto client = login();
    run(*client, "select 1");
    EXPECT_EQ(slave.queries(), Queries{});
    EXPECT_EQ(classifier.asked, 0);
    EXPECT_EQ(master.questions, 0U);
}

TEST_F(AutoRoutingTest, ABlockBeginsWhereItsFirstStatementGoes) {
    start();
    auto client = login_known();
    run(*client, "begin");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    settle();
    EXPECT_EQ(master.queries(), Queries{});
    run(*client, "select 1");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    run(*client, "commit");
    EXPECT_EQ(client->status(), 'I');
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "commit"}));

    run(*client, "begin");
    run(*client, "insert");
    EXPECT_EQ(client->types(), "CZ");
    run(*client, "commit");
    EXPECT_EQ(master.queries(), (Queries{"begin", "insert", "commit"}));
}

TEST_F(AutoRoutingTest, ABlockThatBeganWithReadsMovesToTheMasterAtItsFirstWrite) {
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "select 2", "insert", "select 3"}) {
        run(*client, sql);
        EXPECT_EQ(client->types(), "CZ") << sql;
        EXPECT_EQ(client->status(), 'T');
    }
    run(*client, "commit");
    EXPECT_EQ(client->status(), 'I');
    settle();
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "select 2", "ROLLBACK"}));
    EXPECT_EQ(master.queries(), (Queries{"begin", "insert", "select 3", "commit"}));
    // The slave's connection is as good as before.
    const std::size_t connections = slave.backends.size();
    run(*client, "select 4");
    EXPECT_EQ(slave.backends.size(), connections);
    EXPECT_EQ(slave.queries().back(), "select 4");
}

TEST_F(AutoRoutingTest, TheTimeOfATransactionDoesNotMove) {
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "select now", "commit"}) run(*client, sql);
    EXPECT_EQ(master.queries(), (Queries{"begin", "select now", "commit"}));
}

TEST_F(AutoRoutingTest, StrictIsolationStaysAtTheMaster) {
    master.isolation = "repeatable read";
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "commit"}) run(*client, sql);
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
    forget();
    for (const char* sql : {"begin isolation level serializable", "select 1", "commit"}) run(*client, sql);
    EXPECT_EQ(master.queries().size(), 3U);
}

TEST_F(AutoRoutingTest, APipelineGoesWhereAllOfItCanBeDone) {
    start();
    auto client = login_known();
    for (Server* server : {&master, &slave})
        server->on_message = [](fakes::Backend& backend, const fakes::Message& message) {
            wire::Buffer out;
            if (message.type == 'P') wire::put_parse_complete(out);
            if (message.type == 'B') wire::put_bind_complete(out);
            if (message.type == 'E') wire::put_command_complete(out, "SELECT 1");
            if (message.type == 'S') wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
            backend.send(out);
        };
    const auto pipeline = [&](const std::vector<std::string>& statements) {
        client->messages.clear();
        for (auto& server : {&master, &slave})
            for (auto& backend : server->backends) backend->types.clear();
        wire::Buffer out;
        for (const auto& sql : statements) {
            wire::put_parse(out, "", sql);
            wire::put_bind(out, "", "");
            wire::put_execute(out, "");
        }
        wire::put_sync(out);
        // In two pieces: nothing may be sent before the end is seen.
        client->send(out.substr(0, out.size() - 3));
        settle();
        client->send(out.substr(out.size() - 3));
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << client->types();
        std::string at_slave;
        for (auto& backend : slave.backends) at_slave += backend->types;
        return !at_slave.empty();
    };
    EXPECT_TRUE(pipeline({"select 1"}));
    EXPECT_EQ(client->types(), "12CZ");
    EXPECT_TRUE(pipeline({"select 1", "select 2"}));
    EXPECT_EQ(client->types(), "12C12CZ");
    EXPECT_FALSE(pipeline({"select 1", "insert"}));
    EXPECT_FALSE(pipeline({"insert", "select 1"}));
}

TEST_F(AutoRoutingTest, AnErrorOfASlaveIsNoAnswer) {
    for (const std::string state : {"25006", "0A000", "40001", "40P01", "55000", "57P01", "08006"}) {
        slave.on_query = [&](fakes::Backend& backend, const std::string& sql) {
            if (!sql.starts_with("select and")) return false;
            // What it announces first is held back.
            backend.send(std::string{"T\0\0\0\6\0\0", 7});
            backend.fail(state, state == "57P01");
            return true;
        };
        if (!pooler) start();
        auto client = login();
        run(*client, "select and fail with " + state);
        EXPECT_EQ(client->types(), "CZ") << state;
        EXPECT_EQ(master.queries().back(), "select and fail with " + state);
    }
}

TEST_F(AutoRoutingTest, OtherErrorsAreTheClientsAnswer) {
    slave.on_query = [](fakes::Backend& backend, const std::string&) {
        backend.fail("22012");
        return true;
    };
    start();
    auto client = login();
    run(*client, "select 1/0");
    EXPECT_EQ(client->types(), "EZ");
    EXPECT_EQ(client->sqlstate(), "22012");
    EXPECT_EQ(master.queries(), Queries{});
}

TEST_F(AutoRoutingTest, WhatASlaveRefusedToWriteIsRemembered) {
    slave.on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "select hidden write") return false;
        backend.fail("25006");
        return true;
    };
    start();
    auto client = login();
    run(*client, "select hidden write");
    run(*client, "select hidden write");
    EXPECT_EQ(slave.queries(), Queries{"select hidden write"});
    EXPECT_EQ(master.queries(), (Queries{"select hidden write", "select hidden write"}));
}

TEST_F(AutoRoutingTest, AHiddenWriteInABlockMovesItToo) {
    slave.on_query = [](fakes::Backend& backend, const std::string& sql) {
        if (sql != "select hidden write") return false;
        backend.fail("25006");
        return true;
    };
    start();
    auto client = login_known();
    for (const char* sql : {"begin", "select 1", "select hidden write", "commit"}) {
        run(*client, sql);
        EXPECT_EQ(client->types(), "CZ") << sql;
    }
    EXPECT_EQ(master.queries(), (Queries{"begin", "select hidden write", "commit"}));
}

TEST_F(AutoRoutingTest, ALostSlaveIsNotNoticedBetweenTheStatementsOfABlock) {
    start();
    auto client = login_known();
    run(*client, "begin");
    run(*client, "select 1");
    slave.die();
    settle();
    run(*client, "select 2");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(client->status(), 'T');
    run(*client, "commit");
    EXPECT_EQ(client->types(), "CZ");
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 2", "commit"}));
}

TEST_F(AutoRoutingTest, ADeadSlaveLeavesTheRotationAndComesBackByItself) {
    start();
    auto client = login();
    run(*client, "select 1");
    EXPECT_EQ(slave.queries(), Queries{"select 1"});
    slave.die();
    for (int i = 0; i < 20; ++i) {
        run(*client, "select 1");
        EXPECT_EQ(client->types(), "CZ");
    }
    Server again{loop};
    again.in_recovery = true;
    // The same node at the same address would be the real thing: another address stands in for it here.
    environment.show({environment.view->nodes[0],
                      FakeEnvironment::slave(2, 1, "127.0.0.1", static_cast<std::uint16_t>(again.port))});
    pooler->view_changed();
    EXPECT_TRUE(until([&] {
        run(*client, "select 1");
        return !again.queries().empty();
    }));
}

// --- Causal reads ---

class CausalReadsTest : public AutoRoutingTest {
  protected:
    void SetUp() override {
        AutoRoutingTest::SetUp();
        environment.settings_now.causal_reads = true;
    }
    bool reads_at_slave(Client& client) {
        const std::size_t before = slave.queries().size();
        run(client, "select 1");
        return slave.queries().size() > before;
    }
};

TEST_F(CausalReadsTest, AReadGoesToASlaveOnceThatHasReplayedTheLastCommit) {
    start();
    auto writer = login();
    auto reader = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    master.position = master.inserted = "0/7D0";
    run(*writer, "insert");
    settle();
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader));
    slave.position = "0/7CF";
    settle();
    EXPECT_FALSE(reads_at_slave(*reader));
    slave.position = "0/7D0";
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    // Reads at the master, and known as such, were no commits.
    EXPECT_TRUE(reads_at_slave(*reader));
}

TEST_F(CausalReadsTest, NothingIsReadAtASlaveWhileThePositionOfACommitIsNotKnown) {
    start();
    auto writer = login();
    auto reader = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    master.answers_questions = false;
    run(*writer, "insert");
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader));
}

TEST_F(CausalReadsTest, WhoSawARunningCommitAtTheMasterReadsOnThere) {
    start();
    auto writer = login();
    auto reader = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    fakes::Backend* committing = nullptr;
    master.on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (sql != "insert slowly") return false;
        committing = &backend;
        return true;
    };
    writer->query("insert slowly");
    ASSERT_TRUE(until([&] { return committing != nullptr; }));
    EXPECT_TRUE(reads_at_slave(*reader));
    run(*reader, "insert");  // it looks at the master
    settle();
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader));
    committing->complete("INSERT 0 1", 'I');
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
}

TEST_F(CausalReadsTest, AConnectionThatIsLostTakesThePositionAlong) {
    start();
    auto client = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*client); }));
    // It comes back behind what it had told.
    slave.position = "0/1";
    for (auto& backend : slave.backends) backend->hang_up(true);
    settle();
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*client));
    slave.position = "0/3E8";
    EXPECT_TRUE(until([&] { return reads_at_slave(*client); }));
}

TEST_F(CausalReadsTest, ANewMastersPositionIsAskedAnew) {
    start();
    auto client = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*client); }));
    master.answers_questions = false;
    show(false, 2);
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(reads_at_slave(*client));
}

TEST_F(CausalReadsTest, DeclaredReadsAreCausalInExplicitModeToo) {
    environment.settings_now.read_routing = ReadRouting::Explicit;
    start();
    auto writer = login();
    auto reader = login();
    const auto declared_at_slave = [&] {
        const std::size_t before = slave.queries().size();
        for (const char* sql : {"begin read only", "select 1", "commit"}) run(*reader, sql);
        return slave.queries().size() > before;
    };
    EXPECT_TRUE(until(declared_at_slave));
    master.position = master.inserted = "0/7D0";
    run(*writer, "insert");
    settle();
    EXPECT_FALSE(declared_at_slave());
    slave.position = "0/7D0";
    EXPECT_TRUE(until(declared_at_slave));
}

TEST_F(CausalReadsTest, AReadOnlyTransactionThatIsMadeToWriteIsACommit) {
    environment.settings_now.read_routing = ReadRouting::Explicit;
    start();
    auto client = login();
    // At the master, since the position isn't known yet.
    for (const char* sql : {"begin read only", "set transaction read write", "insert"}) run(*client, sql);
    master.answers_questions = false;
    settle();
    run(*client, "commit");
    run(*client, "begin read only");
    EXPECT_EQ(slave.queries(), Queries{});
}

// --- Pauses ---

TEST_F(AutoRoutingTest, APauseHoldsNewTransactionsAndCountsThoseThatRun) {
    start();
    auto running = login();
    auto waiting = login();
    run(*running, "begin");
    run(*running, "insert");
    show(true);
    EXPECT_EQ(environment.in_use[d1], 1U);
    waiting->query("select 1");
    settle();
    EXPECT_EQ(waiting->types(), "");
    run(*running, "commit");
    EXPECT_EQ(running->types(), "CZ");
    EXPECT_EQ(environment.in_use[d1], 0U);
    running->messages.clear();
    running->query("insert");
    // Longer than pgxc.failover_hold would let them wait.
    environment.settings_now.failover_hold = Millis{1};
    (void)loop.run_for(Millis{600});
    EXPECT_EQ(waiting->types() + running->types(), "");
    show(false);
    EXPECT_TRUE(until([&] { return waiting->count('Z') == 1 && running->count('Z') == 1; }));
}

TEST_F(AutoRoutingTest, APauseHoldsPinnedClientsTooAndDoesNotWaitForThemWhileTheyAreIdle) {
    start();
    auto pinned = login();
    run(*pinned, "select pg_advisory_lock(1)");
    run(*pinned, "set work_mem = 1");
    show(true);
    EXPECT_EQ(environment.in_use[d1], 0U);
    pinned->messages.clear();
    pinned->query("insert");
    settle();
    EXPECT_EQ(pinned->types(), "");
    show(false);
    EXPECT_TRUE(until([&] { return pinned->count('Z') == 1; }));
    EXPECT_EQ(pinned->types(), "CZ");
}

// --- The cache ---

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

TEST(ClassifierCache, KnowsEncodingsByAllTheirNames) {
    for (const char* name : {"SJIS", "shift_jis", "GBK", "WIN936", "big5", "UHC", "GB18030", "JOHAB",
                             "SHIFT_JIS_2004", "Windows-949"})
        EXPECT_TRUE(encoding_hides_quotes(name)) << name;
    for (const char* name : {"UTF8", "utf-8", "LATIN1", "EUC_JP", "SQL_ASCII", "WIN1252"})
        EXPECT_FALSE(encoding_hides_quotes(name)) << name;
}

}  // namespace
}  // namespace pgxc::pooler
