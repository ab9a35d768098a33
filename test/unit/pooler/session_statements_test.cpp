// Prepared statements of clients that share server connections, in front of servers that keep statements.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/limits.h"
#include "fakes/pooler_test.h"

namespace pgxc::pooler {
namespace {

using fakes::Client;
using fakes::Message;

/// A server of which each connection has prepared statements as PostgreSQL has. Executing one gives a row
/// with its text; a text that begins with "bad" can't be prepared, one that begins with "div" fails when it
/// runs.
class StatementServer {
  public:
    explicit StatementServer(net::Loop& loop) : server(loop) {
        server.on_message = [this](fakes::Backend& backend, const Message& message) {
            take(backend, message);
        };
        server.on_query = [this](fakes::Backend& backend, const std::string&) {
            state_of(backend).statements.erase("");
            return false;
        };
    }

    struct State {
        std::map<std::string, std::string> statements;
        std::string bound;
        bool skipping = false;
        wire::Buffer out;  // until Sync
        std::size_t parses = 0;
    };
    State& state_of(const fakes::Backend& backend) { return states[&backend]; }
    State& only() {
        EXPECT_EQ(server.backends.size(), 1U);
        return state_of(*server.backends.front());
    }

    fakes::Server server;
    std::map<const fakes::Backend*, State> states;

  private:
    void fail(fakes::Backend& backend, const char* sqlstate, const std::string& message) {
        State& state = state_of(backend);
        wire::put_error_response(state.out, wire::Severity::Error, {sqlstate, message});
        state.skipping = true;
    }

    void take(fakes::Backend& backend, const Message& message) {
        State& state = state_of(backend);
        wire::Buffer& out = state.out;
        if (message.type == 'S') {
            state.skipping = false;
            wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(backend.status));
            backend.send(std::exchange(out, {}));
            return;
        }
        if (state.skipping) return;
        switch (message.type) {
            case 'P': {
                const auto parse = wire::parse_parse(message.body);
                const std::string name{parse->statement};
                ++state.parses;
                if (!name.empty() && state.statements.contains(name))
                    return fail(backend, "42P05", "prepared statement \"" + name + "\" already exists");
                if (parse->sql.starts_with("bad")) return fail(backend, "42601", "syntax error");
                state.statements[name] = parse->sql;
                wire::put_parse_complete(out);
                break;
            }
            case 'B': {
                const std::string name{wire::parse_bind_names(message.body)->statement};
                const auto at = state.statements.find(name);
                if (at == state.statements.end())
                    return fail(backend, "26000", "prepared statement \"" + name + "\" does not exist");
                state.bound = at->second;
                wire::put_bind_complete(out);
                break;
            }
            case 'E':
                if (state.bound.starts_with("div")) return fail(backend, "22012", "division by zero");
                wire::put_u8(out, 'D');
                wire::put_u32(out, static_cast<std::uint32_t>(4 + 2 + 4 + state.bound.size()));
                wire::put_u16(out, 1);
                wire::put_u32(out, static_cast<std::uint32_t>(state.bound.size()));
                out += state.bound;
                wire::put_command_complete(out, "SELECT 1");
                break;
            case 'C':
                state.statements.erase(std::string{wire::parse_describe_or_close(message.body)->name});
                wire::put_close_complete(out);
                break;
            default:
                break;
        }
    }
};

class SessionStatementsTest : public PoolerTest {
  protected:
    void SetUp() override {
        environment.settings_now.max_pool_size = 1;
        show_master(one, 1);
        start();
    }
    void show_master(const StatementServer& at, int epoch) { show({master_at(at.server, epoch)}); }
    /// Sends that with a Sync, and waits for its answer: the types of the messages.
    std::string send(Client& client, wire::Buffer out) {
        wire::put_sync(out);
        client.messages.clear();
        client.send(out);
        EXPECT_TRUE(until([&] { return client.count('Z') == 1 || client.ended(); }));
        return client.types();
    }
    std::string parse(Client& client, const std::string& name, const std::string& sql) {
        wire::Buffer out;
        wire::put_parse(out, name, sql);
        return send(client, out);
    }
    static void put_run(wire::Buffer& out, const std::string& name) {
        wire::put_bind(out, "", name);
        wire::put_execute(out, "");
    }
    /// Binds and executes it: the row, or the SQLSTATE.
    std::string run(Client& client, const std::string& name) {
        wire::Buffer out;
        put_run(out, name);
        const std::string types = send(client, out);
        if (types == "EZ") return client.sqlstate();
        EXPECT_EQ(types, "2DCZ");
        return client.messages.size() < 2 ? types : client.messages[1].body.substr(6);
    }
    std::string query(Client& client, const std::string& sql) {
        PoolerTest::run(client, sql);
        return client.types();
    }

    StatementServer one{loop};
    StatementServer two{loop};
};

TEST_F(SessionStatementsTest, NamesAreTheClientsOwnAndTextsAreShared) {
    auto a = login();
    auto b = login();
    auto c = login();
    EXPECT_EQ(parse(*a, "s", "select a"), "1Z");
    EXPECT_EQ(parse(*b, "s", "select b"), "1Z");
    EXPECT_EQ(parse(*c, "other", "select a"), "1Z");
    EXPECT_EQ(one.only().parses, 2U);
    EXPECT_EQ(run(*a, "s"), "select a");
    EXPECT_EQ(run(*b, "s"), "select b");
    EXPECT_EQ(run(*c, "other"), "select a");
    EXPECT_EQ(run(*c, "s"), "26000");
    EXPECT_EQ(parse(*a, "s", "select again"), "EZ");
    EXPECT_EQ(a->sqlstate(), "42P05");
    EXPECT_EQ(run(*a, "s"), "select a");
}

TEST_F(SessionStatementsTest, AreBroughtToTheNextMaster) {
    auto client = login();
    EXPECT_EQ(parse(*client, "s", "select a"), "1Z");
    EXPECT_EQ(parse(*client, "", "select unnamed"), "1Z");
    one.server.die();
    show_master(two, 2);
    EXPECT_EQ(run(*client, "s"), "select a");
    EXPECT_EQ(run(*client, ""), "select unnamed");
    EXPECT_EQ(run(*client, "never"), "26000");
}

TEST_F(SessionStatementsTest, AServerConnectionKeepsNoMoreThanItsLimit) {
    auto client = login();
    const std::size_t count = limits::max_server_statements + 50;
    for (std::size_t i = 0; i < count; ++i)
        EXPECT_EQ(parse(*client, std::to_string(i), "select " + std::to_string(i)), "1Z");
    for (std::size_t i = 0; i < count; ++i)
        EXPECT_EQ(run(*client, std::to_string(i)), "select " + std::to_string(i));
    EXPECT_LE(one.only().statements.size(), limits::max_server_statements);
}

TEST_F(SessionStatementsTest, WhatAnErrorSkippedIsNotThere) {
    auto client = login();
    EXPECT_EQ(parse(*client, "d", "div"), "1Z");
    EXPECT_EQ(parse(*client, "b", "bad"), "EZ");
    EXPECT_EQ(run(*client, "b"), "26000");
    wire::Buffer out;
    put_run(out, "d");
    wire::put_parse(out, "n", "select n");
    wire::put_close_statement(out, "d");
    EXPECT_EQ(send(*client, out), "2EZ");
    EXPECT_EQ(run(*client, "n"), "26000");
    EXPECT_EQ(parse(*client, "n", "select n"), "1Z");
    EXPECT_EQ(run(*client, "n"), "select n");
    EXPECT_EQ(parse(*client, "d", "select d"), "EZ") << "its Close was skipped, too";
}

TEST_F(SessionStatementsTest, DeallocateTakesNothingFromOthers) {
    auto a = login();
    auto b = login();
    EXPECT_EQ(parse(*a, "s", "select 1"), "1Z");
    EXPECT_EQ(parse(*a, "t", "select 2"), "1Z");
    EXPECT_EQ(parse(*b, "s", "select 1"), "1Z");
    EXPECT_EQ(query(*a, "deallocate s"), "CZ");
    EXPECT_EQ(run(*a, "s"), "26000");
    EXPECT_EQ(run(*a, "t"), "select 2");
    EXPECT_EQ(query(*a, "DEALLOCATE ALL;"), "CZ");
    EXPECT_EQ(run(*a, "t"), "26000");
    EXPECT_EQ(run(*b, "s"), "select 1");
    EXPECT_EQ(one.only().parses, 2U);
}

TEST_F(SessionStatementsTest, AnUnnamedOneThatWasTooLargeIsNeverAnothers) {
    auto a = login();
    auto b = login();
    wire::Buffer out;
    wire::put_parse(out, "", "select " + std::string(limits::max_unnamed_bytes, 'x'));
    put_run(out, "");
    EXPECT_EQ(send(*a, out), "12DCZ");
    EXPECT_EQ(parse(*b, "", "select b"), "1Z");
    EXPECT_EQ(run(*a, ""), "26000");
    EXPECT_EQ(run(*b, ""), "select b");
}

TEST_F(SessionStatementsTest, RandomClientsSeeTheirOwnOnly) {
    environment.settings_now.max_pool_size = 2;
    for (const unsigned seed : {1U, 2U, 3U, 4U}) {
        std::mt19937 random{seed};
        const auto pick = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
        struct Known {
            std::unique_ptr<Client> client;
            std::map<std::string, std::string> statements;
        };
        std::vector<Known> clients(5);
        for (auto& known : clients) known.client = login();
        for (int step = 0; step < 300; ++step) {
            SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(step));
            auto& [client, statements] = clients[pick(5)];
            // The name "" is the unnamed one: it may be prepared again, and a simple query ends it.
            const std::string name = pick(4) == 0 ? "" : "n" + std::to_string(pick(3));
            const std::string text = "select " + std::to_string(pick(6));
            switch (pick(6)) {
                case 0:
                case 1: {
                    const bool taken = !name.empty() && statements.contains(name);
                    EXPECT_EQ(parse(*client, name, text), taken ? "EZ" : "1Z");
                    if (!taken) statements[name] = text;
                    break;
                }
                case 2: {
                    wire::Buffer out;
                    wire::put_close_statement(out, name);
                    EXPECT_EQ(send(*client, out), "3Z");
                    statements.erase(name);
                    break;
                }
                case 3: {
                    // What stands behind the failure is as if it had not been sent.
                    wire::Buffer out;
                    wire::put_parse(out, "", "div");
                    put_run(out, "");
                    wire::put_close_statement(out, "n1");
                    wire::put_parse(out, "n2", text);
                    EXPECT_EQ(send(*client, out), "12EZ");
                    statements[""] = "div";
                    break;
                }
                case 4:
                    if (pick(3) > 0) break;
                    EXPECT_EQ(query(*client, "select 1"), "CZ");
                    statements.erase("");
                    break;
                default: {
                    const auto known = statements.find(name);
                    const std::string expected = known == statements.end() ? "26000" : known->second;
                    if (expected == "div") break;
                    EXPECT_EQ(run(*client, name), expected);
                    break;
                }
            }
            if (HasFailure()) return;
        }
        for (auto& known : clients) known.client->hang_up();
    }
    EXPECT_GE(one.server.backends.size(), 1U);
}

}  // namespace
}  // namespace pgxc::pooler
