#include "replication/observation.h"

#include <gtest/gtest.h>

namespace pgxc {
namespace {

using Cells = std::vector<std::optional<std::string>>;

Cells master_cells() {
    return {
        "f",
        "7394021846517216501",
        "3",
        "0/5000148",
        std::nullopt,
        std::nullopt,
        std::nullopt,
        "ANY 1 (pgxc_d_2_e0)",
        "",
        "",
        "2026-01-02 03:04:05.678+00",
        R"([{"application_name": "pgxc_d_2_e0", "state": "streaming", "flush_lsn": "0/5000148", "replay_lsn": "0/5000100"},
                {"application_name": "pg_basebackup", "state": "backup", "flush_lsn": null, "replay_lsn": null}])"};
}

Cells slave_cells() {
    return {
        "t",
        "7394021846517216501",
        "2",
        std::nullopt,
        "A/5000148",
        "A/5000100",
        R"({"pid": 1, "status": "streaming", "received_tli": 3, "sender_host": "10.0.0.1", "sender_port": 5433})",
        "ANY 1 (pgxc_nobody_0a1b2c3d)",
        "host=10.0.0.1 application_name=pgxc_d_2_e0",
        "pgxc_d_2_e0",
        "2026-01-02 03:04:05.678+00",
        std::nullopt};
}

Result<ServerFacts> read(const Cells& cells) {
    Rows rows;
    rows.rows = {cells};
    return facts_from(rows, 150020);
}

Cells with(Cells cells, std::size_t column, std::optional<std::string> value) {
    cells[column] = std::move(value);
    return cells;
}

TEST(FactsFrom, AMaster) {
    const auto facts = read(master_cells());
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_FALSE(facts->in_recovery);
    EXPECT_EQ(facts->system_identifier, 7'394'021'846'517'216'501U);
    EXPECT_EQ(facts->timeline, TimelineId{3});
    EXPECT_EQ(facts->flushed, Lsn{0x5000148});
    EXPECT_FALSE(facts->received.known());
    EXPECT_FALSE(facts->replayed.known());
    EXPECT_FALSE(facts->streaming());
    EXPECT_EQ(facts->standby_names, "ANY 1 (pgxc_d_2_e0)");
    EXPECT_EQ(facts->server_version, 150020);
    EXPECT_EQ(facts->started_at, "2026-01-02 03:04:05.678+00");
    ASSERT_EQ(facts->standbys.size(), 2U);
    EXPECT_EQ(facts->standbys[0], (StreamSeen{"pgxc_d_2_e0", "streaming", Lsn{0x5000148}, Lsn{0x5000100}}));
    EXPECT_EQ(facts->standbys[1], (StreamSeen{"pg_basebackup", "backup", Lsn{}, Lsn{}}));
    EXPECT_EQ(facts->find_standby("pgxc_d_2_e0"), facts->standbys.data());
    EXPECT_EQ(facts->find_standby("pgxc_d_2_e1"), nullptr);
}

TEST(FactsFrom, ASlave) {
    const auto facts = read(slave_cells());
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_TRUE(facts->in_recovery);
    EXPECT_TRUE(facts->streaming());
    EXPECT_EQ(facts->timeline, TimelineId{3}) << "the control file lags behind what is received";
    EXPECT_EQ(facts->received, Lsn{0xA'0500'0148});
    EXPECT_EQ(facts->replayed, Lsn{0xA'0500'0100});
    EXPECT_EQ(facts->end_of_wal(), Lsn{0xA'0500'0148});
    EXPECT_EQ(facts->sender_host, "10.0.0.1");
    EXPECT_EQ(facts->sender_port, 5433);
    EXPECT_EQ(facts->primary_slot, "pgxc_d_2_e0");
    EXPECT_TRUE(facts->standbys.empty());
}

TEST(FactsFrom, ASlaveWithoutReceiver) {
    const auto facts = read(with(with(slave_cells(), 6, std::nullopt), 4, std::nullopt));
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_FALSE(facts->streaming());
    EXPECT_EQ(facts->receiver_status, "");
    EXPECT_EQ(facts->timeline, TimelineId{2});
    EXPECT_EQ(facts->end_of_wal(), Lsn{0xA'0500'0100}) << "what is replayed is there, received or not";
}

TEST(FactsFrom, AReceiverThatWaitsHasNoTimelineOfItsOwn) {
    const auto facts = read(with(slave_cells(), 6, R"({"status": "waiting", "received_tli": 9})"));
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_FALSE(facts->streaming());
    EXPECT_EQ(facts->timeline, TimelineId{2});
}

TEST(FactsFrom, AServerBefore11HasNoSender) {
    const auto facts = read(with(slave_cells(), 6, R"({"status": "streaming", "received_tli": 3})"));
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_EQ(facts->sender_host, "");
    EXPECT_EQ(facts->sender_port, 0);
}

TEST(FactsFrom, ALoginThatMayNotSeeTheReceiver) {
    // Without pg_monitor all columns but the pid are NULL.
    const auto facts = read(with(slave_cells(), 6, R"({"pid": 1, "status": null, "received_tli": null})"));
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_FALSE(facts->streaming());
    EXPECT_EQ(facts->timeline, TimelineId{2});
}

TEST(FactsFrom, AnotherShapeIsAnError) {
    Rows none;
    EXPECT_FALSE(facts_from(none, 150020).ok());
    Rows two;
    two.rows = {master_cells(), master_cells()};
    EXPECT_FALSE(facts_from(two, 150020).ok());
    Cells cells = master_cells();
    cells.pop_back();
    EXPECT_FALSE(read(cells).ok());
    cells = master_cells();
    cells.emplace_back();
    EXPECT_FALSE(read(cells).ok());
    const auto nothing = read({});
    ASSERT_FALSE(nothing.ok());
    EXPECT_EQ(nothing.error().sqlstate, sqlstate::internal_error);
}

TEST(FactsFrom, DamagedValuesAreErrors) {
    // A wrong fact is worse than none: who is master, on which line, up to where.
    for (const char* text : {"", "x", "true", "T"})
        EXPECT_FALSE(read(with(master_cells(), 0, text)).ok()) << text;
    EXPECT_FALSE(read(with(master_cells(), 0, std::nullopt)).ok());
    for (const std::size_t column : {1U, 2U}) {
        for (const char* text : {"", "x", "12x", " 12", "-1", "99999999999999999999", "0"})
            EXPECT_FALSE(read(with(master_cells(), column, text)).ok()) << column << " '" << text << "'";
        EXPECT_FALSE(read(with(master_cells(), column, std::nullopt)).ok()) << column;
    }
    for (const char* text : {"", "x", "0/", "/0", "0/100000000", "0 / 1"})
        EXPECT_FALSE(read(with(master_cells(), 3, text)).ok()) << "'" << text << "'";
    for (const std::size_t column : {4U, 5U})
        EXPECT_FALSE(read(with(slave_cells(), column, "nonsense")).ok()) << column;
}

TEST(FactsFrom, DamagedJsonIsAnErrorAndNoException) {
    for (const std::size_t column : {6U, 11U}) {
        for (const char* text : {"", "{", "nonsense", "\xff", "[{]", "1", "\"text\"", "true"}) {
            const Cells cells = with(column == 6 ? slave_cells() : master_cells(), column, text);
            EXPECT_FALSE(read(cells).ok()) << column << " '" << text << "'";
        }
    }
    EXPECT_FALSE(read(with(slave_cells(), 6, "[]")).ok()) << "one row is an object";
    EXPECT_FALSE(read(with(master_cells(), 11, "{}")).ok()) << "many rows are an array";
    EXPECT_FALSE(read(with(master_cells(), 11, "[1]")).ok());
}

TEST(FactsFrom, NumbersInJsonThatDontFit) {
    for (const char* text : {R"({"status": "streaming", "received_tli": -2})",
                             R"({"status": "streaming", "received_tli": 4294967296})",
                             R"({"status": "streaming", "received_tli": 1.5})",
                             R"({"status": "streaming", "sender_port": 65536})",
                             R"({"status": "streaming", "sender_port": 1.5})"})
        EXPECT_FALSE(read(with(slave_cells(), 6, text)).ok()) << text;
    // -1: a unix socket (pg_stat_get_wal_receiver, sender_port).
    const auto socket = read(with(slave_cells(), 6, R"({"status": "streaming", "sender_port": -1})"));
    ASSERT_TRUE(socket.ok()) << socket.error().message;
    EXPECT_EQ(socket->sender_port, 0);
}

TEST(StreamProgress, StandsWhileTheMasterHasMore) {
    const auto at = [](int ms) { return TimePoint{std::chrono::hours(1)} + Millis(ms); };
    StreamProgress stream;
    stream.answered(Lsn{100}, Lsn{100}, at(0));
    stream.answered(Lsn{100}, Lsn{100}, at(200));
    EXPECT_FALSE(stream.stands_since()) << "there is nothing to send";
    stream.answered(Lsn{100}, Lsn{150}, at(400));
    EXPECT_FALSE(stream.stands_since()) << "it may be on its way";
    stream.answered(Lsn{100}, Lsn{150}, at(600));
    EXPECT_EQ(stream.stands_since(), at(400));
    stream.answered(Lsn{100}, Lsn{300}, at(60'000));
    EXPECT_EQ(stream.stands_since(), at(400));
    stream.answered(Lsn{120}, Lsn{400}, at(60'200));
    EXPECT_FALSE(stream.stands_since()) << "behind, and on the move";
    stream.answered(Lsn{140}, Lsn{600}, at(60'400));
    stream.answered(Lsn{160}, Lsn{800}, at(60'600));
    EXPECT_FALSE(stream.stands_since());
}

TEST(StreamProgress, ANewStreamHasTheTimeOfTwoAnswers) {
    const auto at = [](int ms) { return TimePoint{std::chrono::hours(1)} + Millis(ms); };
    StreamProgress stream;
    stream.answered(Lsn{}, Lsn{100}, at(0));
    stream.answered(Lsn{}, Lsn{100}, at(200));
    EXPECT_FALSE(stream.stands_since());
    stream.answered(Lsn{}, Lsn{100}, at(400));
    EXPECT_EQ(stream.stands_since(), at(200));
}

TEST(FactsFrom, ASlaveWithRecoveryConf) {
    const auto old = [](Cells cells) {
        Rows rows;
        rows.rows = {std::move(cells)};
        return facts_from(rows, 110022);
    };
    auto cells = with(slave_cells(), 9, std::nullopt);
    auto facts = old(with(cells, 8,
                          "standby_mode = on\nprimary_conninfo = 'host=10.0.0.1 application_name=n'\n"
                          "primary_slot_name 'n'\n"));
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_EQ(facts->primary_conninfo, "host=10.0.0.1 application_name=n");
    EXPECT_EQ(facts->primary_slot, "n");
    facts = old(with(cells, 8, "standby_mode = on\n"));
    EXPECT_EQ(facts->primary_conninfo, "") << "fenced";
    // A login that may not read it sees what the WAL receiver goes by.
    cells = with(cells, 8, std::nullopt);
    facts = old(with(cells, 6, R"({"pid": 1, "status": "streaming", "received_tli": 3, "slot_name": "n",
                                   "conninfo": "host=10.0.0.1"})"));
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    EXPECT_EQ(facts->primary_conninfo, "host=10.0.0.1");
    EXPECT_EQ(facts->primary_slot, "n");
}

TEST(ProbeSql, IsOneStatement) {
    for (const int version : {100023, 110022, 120022, 150020}) {
        for (const bool superuser : {false, true}) {
            const std::string sql = probe_sql(version, superuser);
            EXPECT_EQ(sql.find(';'), std::string::npos);
            EXPECT_EQ(sql.find("recovery.conf") != std::string::npos, superuser && version < 120000);
        }
    }
}

}  // namespace
}  // namespace pgxc
