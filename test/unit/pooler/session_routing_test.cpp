// Clients of a pooler that reads what they send, in front of a scripted master and slaves.
#include <gtest/gtest.h>

#include <map>

#include "fakes/pooler_test.h"
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

class AutoRoutingTest : public PoolerTest {
  protected:
    void SetUp() override {
        auto& settings = environment.settings_now;
        settings.failover_hold = Millis{2000};
        settings.read_routing = ReadRouting::Auto;
        environment.classifier_now = &classifier;
        slave.in_recovery = true;
        show();
    }
    void show(bool paused = false, int epoch = 1) {
        NodeView of_master = master_at(master, epoch);
        of_master.paused = paused;
        PoolerTest::show({of_master, slave_at(slave)});
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

    FirstWord classifier;
    Server master{loop};
    Server slave{loop};
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

// --- Prepared statements ---

/// Servers that know what was prepared, and on which connection.
class PreparedRoutingTest : public AutoRoutingTest {
  protected:
    struct Kept {
        std::map<std::string, std::string> statements;
        std::string bound;
        bool skipping = false;
    };
    void SetUp() override {
        AutoRoutingTest::SetUp();
        for (Server* server : {&master, &slave}) {
            server->on_message = [this, server](fakes::Backend& backend, const fakes::Message& message) {
                answer(*server, backend, message);
            };
            server->on_query = [this](fakes::Backend& backend, const std::string&) {
                kept[&backend].statements.erase("");
                return false;
            };
        }
    }
    void answer(Server& server, fakes::Backend& backend, const fakes::Message& message) {
        Kept& here = kept[&backend];
        wire::BodyReader body{message.body};
        wire::Buffer out;
        const auto fail = [&](std::string_view state) {
            here.skipping = true;
            if (backend.status == 'T') backend.status = 'E';
            wire::put_error_response(out, wire::Severity::Error, {std::string{state}, "scripted error"});
        };
        if (message.type == 'S') {
            here.skipping = false;
            wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(backend.status));
        } else if (here.skipping) {
            return;
        } else if (message.type == 'P') {
            const std::string name{body.cstring()};
            if (!name.empty() && here.statements.count(name) != 0) {
                fail("42P05");
            } else {
                here.statements[name] = body.cstring();
                wire::put_parse_complete(out);
            }
        } else if (message.type == 'B') {
            (void)body.cstring();
            const auto found = here.statements.find(std::string{body.cstring()});
            if (found == here.statements.end()) {
                fail("26000");
            } else {
                here.bound = found->second;
                wire::put_bind_complete(out);
            }
        } else if (message.type == 'C') {
            (void)body.u8();
            here.statements.erase(std::string{body.cstring()});
            wire::put_close_complete(out);
        } else if (message.type == 'E') {
            backend.queries.push_back(here.bound);
            if (&server == &slave && here.bound == "select hidden write") {
                fail("25006");
            } else {
                if (here.bound == "begin") backend.status = 'T';
                if (here.bound == "commit") backend.status = 'I';
                wire::put_command_complete(out, "SELECT 1");
            }
        }
        backend.send(out);
    }
    void sync(Client& client, wire::Buffer out) {
        client.messages.clear();
        wire::put_sync(out);
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1 || client.ended(); })) << client.types();
    }
    void prepare(Client& client, const std::string& name, const std::string& sql) {
        wire::Buffer out;
        wire::put_parse(out, name, sql);
        sync(client, out);
        EXPECT_EQ(client.types(), "1Z");
    }
    void execute(Client& client, const std::vector<std::string>& names, const std::string& portal = {}) {
        wire::Buffer out;
        for (const auto& name : names) {
            wire::put_bind(out, portal, name);
            wire::put_execute(out, portal);
        }
        sync(client, out);
    }
    std::map<fakes::Backend*, Kept> kept;
};

TEST_F(PreparedRoutingTest, AStatementGoesWhereItsTextMayBeDoneWhereverItWasPrepared) {
    start();
    auto client = login();
    prepare(*client, "r", "select 1");
    prepare(*client, "w", "insert");
    prepare(*client, "u", "what is it");
    forget();
    for (const char* name : {"r", "w", "u", "r"}) {
        execute(*client, {name});
        EXPECT_EQ(client->types(), "2CZ") << name;
    }
    EXPECT_EQ(slave.queries(), (Queries{"select 1", "select 1"}));
    EXPECT_EQ(master.queries(), (Queries{"insert", "what is it"}));
    execute(*client, {"r", "w"});
    EXPECT_EQ(client->types(), "2C2CZ");
    EXPECT_EQ(master.queries(), (Queries{"insert", "what is it", "select 1", "insert"}));
    execute(*client, {"nobody's"});
    EXPECT_EQ(client->sqlstate(), "26000");
}

TEST_F(PreparedRoutingTest, TheUnnamedStatementIsBoundLaterWhereItMayBeDone) {
    start();
    auto client = login();
    for (const char* sql : {"select 1", "insert"}) {
        prepare(*client, "", sql);
        execute(*client, {""});
        EXPECT_EQ(client->types(), "2CZ");
    }
    EXPECT_EQ(slave.queries(), Queries{"select 1"});
    EXPECT_EQ(master.queries(), Queries{"insert"});
}

TEST_F(PreparedRoutingTest, ABlockOfPreparedStatementsMovesToTheMaster) {
    start();
    auto client = login_known();
    prepare(*client, "b", "begin");
    prepare(*client, "r", "select 1");
    prepare(*client, "w", "insert");
    prepare(*client, "c", "commit");
    forget();
    execute(*client, {"b", "r"});
    EXPECT_EQ(client->types(), "2C2CZ");
    EXPECT_EQ(client->status(), 'T');
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1"}));
    for (const char* name : {"r", "w", "r"}) {
        execute(*client, {name});
        EXPECT_EQ(client->types(), "2CZ") << name;
        EXPECT_EQ(client->status(), 'T');
    }
    execute(*client, {"c"});
    EXPECT_EQ(client->status(), 'I');
    settle();
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "select 1", "ROLLBACK"}));
    EXPECT_EQ(master.queries(), (Queries{"begin", "insert", "select 1", "commit"}));
    forget();
    // All of it at a slave, the end too, also in one pipeline.
    execute(*client, {"b", "r"});
    execute(*client, {"c"});
    execute(*client, {"b", "r", "c"});
    EXPECT_EQ(client->types(), "2C2C2CZ");
    EXPECT_EQ(client->status(), 'I');
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1", "commit", "begin", "select 1", "commit"}));
    EXPECT_EQ(master.queries(), Queries{});
}

TEST_F(PreparedRoutingTest, WhatASessionHasUnnamedOutlivesTheMoveOfItsBlock) {
    start();
    auto client = login_known();
    run(*client, "begin");
    prepare(*client, "", "select 1");
    execute(*client, {""});
    EXPECT_EQ(slave.queries(), (Queries{"begin", "select 1"}));
    prepare(*client, "w", "insert");  // that moves it
    execute(*client, {""});
    EXPECT_EQ(client->types(), "2CZ");
    run(*client, "commit");
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
    // A Query drops it.
    execute(*client, {""});
    EXPECT_EQ(client->sqlstate(), "26000");
}

TEST_F(PreparedRoutingTest, APortalThatMayBeGoneOnWithKeepsItsBlockAtTheMaster) {
    start();
    auto client = login_known();
    prepare(*client, "r", "select 1");
    forget();
    run(*client, "begin");
    execute(*client, {"r"}, "portal");
    EXPECT_EQ(client->types(), "2CZ");
    run(*client, "commit");
    EXPECT_EQ(slave.queries(), Queries{});
    EXPECT_EQ(master.queries(), (Queries{"begin", "select 1", "commit"}));
    // Outside of a block it is gone with the Sync.
    execute(*client, {"r"}, "portal");
    EXPECT_EQ(slave.queries(), Queries{"select 1"});
}

TEST_F(PreparedRoutingTest, WhatASlaveRefusedIsPreparedAndDoneAtTheMaster) {
    start();
    auto client = login();
    wire::Buffer out;
    wire::put_parse(out, "h", "select hidden write");
    wire::put_bind(out, "", "h");
    wire::put_execute(out, "");
    sync(*client, out);
    EXPECT_EQ(client->types(), "12CZ");
    execute(*client, {"h"});
    EXPECT_EQ(client->types(), "2CZ");
    // The second time it is known.
    EXPECT_EQ(slave.queries(), Queries{"select hidden write"});
    EXPECT_EQ(master.queries(), (Queries{"select hidden write", "select hidden write"}));
}

TEST_F(PreparedRoutingTest, WhoAsksForAPartOfTheAnswerGetsIt) {
    environment.settings_now.read_routing = ReadRouting::Explicit;
    start();
    auto client = login();
    run(*client, "begin read only");
    client->messages.clear();
    wire::Buffer out;
    wire::put_parse(out, "r", "select 1");
    wire::put_flush(out);
    client->send(out);
    EXPECT_TRUE(until([&] { return client->count('1') == 1; }));
    execute(*client, {"r"});
    EXPECT_EQ(client->types(), "2CZ");
    EXPECT_EQ(slave.queries(), (Queries{"begin read only", "select 1"}));
}

TEST_F(PreparedRoutingTest, ACommitOfAPreparedStatementIsOneThatReadsMustSee) {
    environment.settings_now.causal_reads = true;
    start();
    auto client = login();
    prepare(*client, "r", "select 1");
    prepare(*client, "w", "insert");
    const auto reads_at_slave = [&] {
        const std::size_t before = slave.queries().size();
        execute(*client, {"r"});
        return slave.queries().size() > before;
    };
    EXPECT_TRUE(until(reads_at_slave));
    master.position = master.inserted = "0/7D0";
    execute(*client, {"w"});
    settle();
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(reads_at_slave());
    slave.position = "0/7D0";
    EXPECT_TRUE(until(reads_at_slave));
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
