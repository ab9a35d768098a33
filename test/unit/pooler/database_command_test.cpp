// Commands that want a database for themselves: the pooler's idle connections must not be in there.
#include "pooler/database_command.h"

#include <gtest/gtest.h>

#include "fakes/session_test.h"
#include "pooler/session_use.h"

namespace pgxc::pooler {
namespace {

TEST(DatabaseCommand, WhatIsWantedAlone) {
    const auto wanted = [](std::string_view sql) { return database_wanted_alone(sql).value_or("-"); };
    EXPECT_EQ(wanted("DROP DATABASE Shop"), "shop");
    EXPECT_EQ(wanted(" /* old */ drop database if exists \"Shop\" with (force);"), "Shop");
    EXPECT_EQ(wanted("drop database if"), "if");
    EXPECT_EQ(wanted("alter database a rename to b"), "a");
    EXPECT_EQ(wanted("alter database a set tablespace t"), "a");
    EXPECT_EQ(wanted("alter database a with tablespace t"), "a");
    EXPECT_EQ(wanted("create database b"), "template1");
    EXPECT_EQ(wanted("create database b template default;"), "template1");
    EXPECT_EQ(wanted("CREATE DATABASE b WITH OWNER = u CONNECTION LIMIT -1 TEMPLATE = \"A\" ENCODING 'UTF8'"),
              "A");
    EXPECT_EQ(wanted("create database b template 'a'"), "a");
    EXPECT_EQ(wanted("create database b owner template template Shop"), "shop");
    for (const char* other :
         {"", "drop table database", "alter database a set work_mem = 1", "alter database a owner to u",
          "create database b template \"a\"\"b\"", "drop database a; select 1", "drop database", "database",
          "create table database (i int)"})
        EXPECT_EQ(wanted(other), "-") << other;
}

TEST(DatabaseCommand, EveryOneIsLookedAt) {
    const auto looked_at = [](std::string_view sql) {
        return read_session_use(sql, true).has(SessionUse::OfDatabase);
    };
    EXPECT_TRUE(looked_at("drop Database a"));
    EXPECT_TRUE(looked_at("alter database a rename to b"));
    EXPECT_TRUE(looked_at("create database a"));
    EXPECT_FALSE(looked_at("drop table database"));
    EXPECT_FALSE(looked_at("alter table database add i int"));
    EXPECT_FALSE(looked_at("create table database (i int)"));
}

TEST_F(SessionTest, IdleConnectionsLeaveADatabaseThatANodeIsAskedToDrop) {
    start();
    const auto login_to = [&](const std::string& database) {
        auto client = connect();
        client->start({}, "u", database);
        EXPECT_TRUE(until([&] { return client->count('Z') == 1; })) << client->types();
        return client;
    };
    auto doomed = login_to("Doomed");
    auto other = login_to("other");
    run(*doomed, "select 1");
    run(*other, "select 1");
    auto client = login();
    EXPECT_EQ(server->open_backends(), 3U);
    run(*client, "drop database \"Doomed\"");
    EXPECT_TRUE(until([&] { return server->open_backends() == 2; }));
    EXPECT_EQ(environment.left, (std::vector<std::pair<NodeKey, std::string>>{{d1, "Doomed"}}));
    run(*doomed, "select 1");
    EXPECT_EQ(doomed->types(), "CZ");
    // In the extended protocol, too; and another worker's client may want it.
    wire::Buffer rename;
    wire::put_parse(rename, "", "alter database other rename to next");
    wire::put_sync(rename);
    client->send(rename);
    EXPECT_TRUE(until([&] { return server->open_backends() == 2; }));
    pooler->close_database(d1, "Doomed");
    EXPECT_TRUE(until([&] { return server->open_backends() == 1; }));
}

TEST_F(SessionTest, OfOnesOwnDatabasesTheLibraryTells) {
    environment.settings_now.own_server = {"127.0.0.1", static_cast<std::uint16_t>(server->port)};
    environment.show({});
    start();
    auto client = login();
    run(*client, "drop database d");
    (void)loop.run_for(Millis{600});
    EXPECT_EQ(server->open_backends(), 1U);
    EXPECT_TRUE(environment.left.empty());
}

}  // namespace
}  // namespace pgxc::pooler
