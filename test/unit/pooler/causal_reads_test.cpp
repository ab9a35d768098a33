// Reads at slaves that must see all commits before them.
#include <gtest/gtest.h>

#include <algorithm>

#include "fakes/auto_routing_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;

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

TEST_F(CausalReadsTest, ASlaveThatDoesNotShowWhatItHasReplayedGetsNoReadAndATransactionThatEnds) {
    start();
    auto writer = login();
    auto reader = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    forget();
    master.xmax = "701";
    const TimePoint began = Clock::now();
    run(*writer, "insert");
    settle();
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader));
    const std::string empty_commit = "SELECT pg_catalog.txid_current()";
    const auto empty_commits = [&] {
        const auto queries = master.queries();
        return std::count(queries.begin(), queries.end(), empty_commit);
    };
    EXPECT_TRUE(until([&] { return empty_commits() >= 1; }));
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader));
    EXPECT_LE(empty_commits(), 1 + std::chrono::floor<std::chrono::seconds>(Clock::now() - began).count())
        << "one in a second";
    slave.xmax = "702";
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
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

TEST_F(CausalReadsTest, ACommitCountsWhenItIsAnsweredAndNotWhenItsPipelineIs) {
    start();
    auto writer = login();
    auto reader = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    fakes::Backend* slow = nullptr;
    master.on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (sql != "insert slowly") return false;
        slow = &backend;
        return true;
    };
    master.position = master.inserted = "0/7D0";
    writer->messages.clear();
    writer->query("insert");
    writer->query("insert slowly");
    ASSERT_TRUE(until([&] { return slow != nullptr && writer->count('Z') == 1; }));
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader));
    slow->complete("INSERT 0 1", 'I');
    EXPECT_TRUE(until([&] { return writer->count('Z') == 2; }));
    slave.position = "0/7D0";
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
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

TEST_F(CausalReadsTest, AStatementOfTheCoordinatorsDoesNotMakeForgetWhatWasSeenAtTheMaster) {
    fakes::Server coordinator{loop};
    environment.settings_now.own_server = {"127.0.0.1", static_cast<std::uint16_t>(coordinator.port)};
    start();
    auto writer = login();
    auto reader = login();
    // The master's tickets are well ahead of the coordinator's.
    for (int i = 0; i < 5; ++i) run(*writer, "insert");
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    fakes::Backend* committing = nullptr;
    master.on_query = [&](fakes::Backend& backend, const std::string& sql) {
        if (sql != "insert slowly") return false;
        committing = &backend;
        return true;
    };
    writer->query("insert slowly");
    ASSERT_TRUE(until([&] { return committing != nullptr; }));
    run(*reader, "insert");  // it looks at the master
    run(*reader, "call pgxc.resume('7')");
    ASSERT_EQ(coordinator.queries().size(), 1U);
    settle();
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader));
}

TEST_F(CausalReadsTest, SlavesOfOtherGroupsAreNotAskedHowFarTheyAre) {
    fakes::Server other_slave{loop};
    other_slave.in_recovery = true;
    const auto port = [](const fakes::Server& server) { return static_cast<std::uint16_t>(server.port); };
    PoolerTest::show({master_at(master), slave_at(slave),
                      FakeEnvironment::master(3, "127.0.0.1", port(master)),
                      FakeEnvironment::slave(4, 3, "127.0.0.1", port(other_slave))});
    start();
    auto client = login({{"options", "-c pgxc.node=1"}});
    EXPECT_TRUE(until([&] { return reads_at_slave(*client); }));
    EXPECT_TRUE(other_slave.backends.empty());
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

TEST_F(CausalReadsTest, AGroupThatIsRegisteredAnewBeginsAnew) {
    const auto register_as = [&](std::uint32_t registration, int epoch) {
        NodeView of_master = master_at(master, epoch);
        of_master.registration = Registration{registration};
        PoolerTest::show({of_master, slave_at(slave)});
    };
    register_as(9, 2);
    start();
    auto reader = login();
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }));
    register_as(4, 0);
    EXPECT_TRUE(until([&] { return reads_at_slave(*reader); }))
        << "its epochs are lower than the ones before";
    master.answers_questions = false;
    register_as(5, 0);
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reads_at_slave(*reader)) << "what was before says nothing";
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

}  // namespace
}  // namespace pgxc::pooler
