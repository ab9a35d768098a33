#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fakes/fake_environment.h"
#include "fakes/fake_peers.h"
#include "pooler/pooler.h"

namespace pgxc::pooler {

inline constexpr NodeKey d1{NodeType::Datanode, NodeId{1}};

/// Clients of a pooler in front of scripted servers, all on one loop. Causal reads are off.
class PoolerTest : public ::testing::Test {
  protected:
    PoolerTest() {
        environment.settings_now.port = 0;
        environment.settings_now.listen_addresses = {"127.0.0.1"};
        environment.settings_now.causal_reads = false;
    }
    /// Before the servers, which are the derived class's.
    void TearDown() override { pooler.reset(); }

    void show(std::vector<NodeView> nodes) {
        environment.show(std::move(nodes));
        if (pooler) pooler->view_changed();
    }
    static NodeView master_at(const fakes::Server& at, int epoch = 1, Gate gate = Gate::Open) {
        return FakeEnvironment::master(1, "127.0.0.1", static_cast<std::uint16_t>(at.port), epoch, gate);
    }
    static NodeView slave_at(const fakes::Server& at, int id = 2) {
        return FakeEnvironment::slave(id, 1, "127.0.0.1", static_cast<std::uint16_t>(at.port));
    }
    void start() {
        auto made = Pooler::start(loop, environment);
        ASSERT_TRUE(made.ok()) << made.error().message;
        pooler = std::move(*made);
    }
    std::unique_ptr<fakes::Client> connect() { return std::make_unique<fakes::Client>(loop, pooler->port()); }
    std::unique_ptr<fakes::Client> login(std::vector<wire::Setting> settings = {},
                                         const std::string& user = "u") {
        auto client = connect();
        client->start(std::move(settings), user);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << client->types();
        client->messages.clear();
        return client;
    }
    bool until(const std::function<bool()>& condition) { return fakes::run_until(loop, condition); }
    /// Sends a query and waits for its ReadyForQuery.
    void run(fakes::Client& client, const std::string& sql) {
        client.messages.clear();
        client.query(sql);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1 || client.ended(); }))
            << sql << ": " << client.types();
    }
    /// Lets what is under way go on for a while: many turns, however long this machine stands still.
    void settle() {
        for (int turn = 0; turn < 20; ++turn) (void)loop.run_for(Millis{1});
    }

    net::Loop loop;
    FakeEnvironment environment;
    std::unique_ptr<Pooler> pooler;
};

}  // namespace pgxc::pooler
