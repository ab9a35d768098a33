#include "replication/rejoin_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "replication/promotion_rules.h"
#include "temporary_directory.h"

namespace pgxc::replication {
namespace {

namespace fs = std::filesystem;

// pg_controldata of PostgreSQL 15.20, shortened.
constexpr const char* control_text =
    "pg_control version number:            1300\n"
    "Database system identifier:           7575757575757575757\n"
    "Database cluster state:               in production\n"
    "Latest checkpoint location:           0/3000110\n"
    "Latest checkpoint's REDO location:    0/30000D8\n"
    "Latest checkpoint's REDO WAL file:    000000010000000000000003\n"
    "Latest checkpoint's TimeLineID:       1\n"
    "Latest checkpoint's PrevTimeLineID:   1\n"
    "Minimum recovery ending location:     0/0\n"
    "Min recovery ending loc's timeline:   0\n"
    "wal_log_hints setting:                on\n"
    "Bytes per WAL segment:                16777216\n"
    "Data page checksum version:           0\n";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    return text.replace(text.find(from), from.size(), to);
}

TEST(RejoinFiles, ReadsPgControldata) {
    const auto data = parse_control_data(control_text);
    ASSERT_TRUE(data.ok());
    EXPECT_FALSE(data->shut_down);
    EXPECT_EQ(data->checkpoint, Lsn{0x3000110});
    EXPECT_EQ(data->redo, Lsn{0x30000D8});
    EXPECT_EQ(data->timeline, 1U);
    EXPECT_FALSE(data->timeline_begun);
    EXPECT_TRUE(data->wal_log_hints);
    EXPECT_FALSE(data->checksums);
    EXPECT_EQ(data->segment_bytes, 16U * 1024 * 1024);
    EXPECT_TRUE(parse_control_data(replaced(control_text, "in production", "shut down"))->shut_down);
    // As a standby it ends wherever its stream ended.
    EXPECT_FALSE(
        parse_control_data(replaced(control_text, "in production", "shut down in recovery"))->shut_down);
    const auto promoted = parse_control_data(replaced(control_text, "timeline:   0", "timeline:   2"));
    EXPECT_EQ(promoted->timeline, 2U);
    EXPECT_TRUE(promoted->timeline_begun);
    EXPECT_FALSE(parse_control_data("").ok());
    EXPECT_FALSE(parse_control_data(replaced(control_text, "0/3000110", "nowhere")).ok());
}

TEST(RejoinFiles, FindsTheLastRecord) {
    EXPECT_EQ(
        last_valid_record("pg_waldump: error: error in WAL record at 0/30001C8: invalid record length at "
                          "0/3000200: wanted 24, got 0\n"),
        Lsn{0x30001C8});
    EXPECT_FALSE(last_valid_record("pg_waldump: error: could not find file \"000000010000000000000003\"\n"));
    EXPECT_FALSE(last_valid_record(""));
}

TEST(RejoinFiles, NamesWalFiles) {
    EXPECT_EQ(wal_file_suffix(Lsn{0x3000110}, 16U << 20), "0000000000000003");
    EXPECT_EQ(wal_file_suffix(*Lsn::parse("16/B374D848"), 16U << 20), "00000016000000B3");
    EXPECT_EQ(wal_file_suffix(*Lsn::parse("16/B374D848"), 1U << 30), "0000001600000002");
}

TEST(RejoinFiles, TheLastLineOfAHistoryFileIsWhereItsTimelineBegins) {
    EXPECT_EQ(last_switch_point("1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tx\n"),
              Lsn{0x5000000});
    EXPECT_FALSE(last_switch_point("\n"));
}

class RejoinFilesTest : public ::testing::Test {
  protected:
    void SetUp() override {
        fs::create_directories(data + "/conf.d");
        fs::create_directories(data + "/pg_tblspc");
        fs::create_directories(data + "/pg_wal");
        put("postgresql.conf", "port = 1\n");
        put("postgresql.auto.conf", "work_mem = '1MB'\n");
        put("pg_hba.conf", "local all all trust\n");
        put("server.key", "secret");
        put("conf.d/more.conf", "jit = off\n");
        put("PG_VERSION", "15\n");
        put("postmaster.opts", "/usr/lib/postgresql/15/bin/postgres \"-D\" \"x\"\n");
    }
    void put(const std::string& name, const std::string& text) { std::ofstream(data + "/" + name) << text; }
    static std::string get(const std::string& path) {
        std::ostringstream text;
        text << std::ifstream(path).rdbuf();
        return text.str();
    }

    TemporaryDirectory directory;
    std::string data = directory.path() + "/data";
    RejoinFiles files{data};
};

TEST_F(RejoinFilesTest, RemembersHowFarItCame) {
    auto journal = files.read();
    ASSERT_TRUE(journal.ok());
    EXPECT_EQ(journal->stage, RejoinStage::None);
    for (const RejoinStage stage : {RejoinStage::Rewinding, RejoinStage::Rewound, RejoinStage::Broken,
                                    RejoinStage::Copied, RejoinStage::Prepared, RejoinStage::None}) {
        ASSERT_TRUE(files.write({stage, 7, "/var/log/x.log"}).ok());
        journal = files.read();
        ASSERT_TRUE(journal.ok());
        EXPECT_EQ(journal->stage, stage);
        EXPECT_EQ(journal->epoch, 7);
        EXPECT_EQ(journal->log_file, "/var/log/x.log");
    }
    std::ofstream(data + ".pgxc_rejoin/journal") << "{\"stage\": \"perhaps\"}";
    EXPECT_FALSE(files.read().ok());
    files.forget();
    EXPECT_FALSE(fs::exists(data + ".pgxc_rejoin"));
}

TEST_F(RejoinFilesTest, GivesTheSettingsBack) {
    ASSERT_TRUE(files.save_settings().ok());
    // As pg_rewind leaves it.
    put("postgresql.conf", "port = 2\n");
    put("PG_VERSION", "16\n");
    fs::remove_all(data + "/conf.d");
    fs::remove(data + "/server.key");
    fs::remove(data + "/postmaster.opts");
    files.restore_start_options();
    EXPECT_TRUE(fs::exists(data + "/postmaster.opts"));
    ASSERT_TRUE(files.restore_settings(data).ok());
    EXPECT_EQ(get(data + "/postgresql.conf"), "port = 1\n");
    EXPECT_EQ(get(data + "/conf.d/more.conf"), "jit = off\n");
    EXPECT_EQ(get(data + "/server.key"), "secret");
    EXPECT_EQ(get(data + "/PG_VERSION"), "16\n") << "that is the server's own";
}

TEST_F(RejoinFilesTest, MakesAStandby) {
    put("recovery.signal", "");
    ASSERT_TRUE(make_standby(data, {{"primary_conninfo", "host=x"}, {"port", "5433"}}).ok());
    EXPECT_EQ(get(data + "/postgresql.auto.conf"),
              "work_mem = '1MB'\nprimary_conninfo = 'host=x'\nport = 5433\n");
    EXPECT_TRUE(fs::exists(data + "/standby.signal"));
    EXPECT_FALSE(fs::exists(data + "/recovery.signal"));
}

TEST_F(RejoinFilesTest, PutsACopyInPlaceFromWhereverItStopped) {
    EXPECT_EQ(files.copy_impossible_because(), "");
    fs::create_directories(files.copy_directory());
    std::ofstream(files.copy_directory() + "/new") << "x";
    EXPECT_FALSE(files.copy_is_complete());
    ASSERT_TRUE(files.complete_copy().ok());
    ASSERT_TRUE(files.copy_is_complete());
    // Died between the two renames.
    fs::rename(data, files.old_directory());
    ASSERT_TRUE(files.put_copy_in_place().ok());
    EXPECT_TRUE(fs::exists(data + "/new"));
    EXPECT_TRUE(fs::exists(files.old_directory() + "/PG_VERSION")) << "what it replaced is kept";
    EXPECT_FALSE(files.copy_is_complete());
}

TEST_F(RejoinFilesTest, TellsWhyItCantBeCopied) {
    fs::create_directories(data + "/pg_tblspc/16400");
    EXPECT_NE(files.copy_impossible_because().find("tablespaces"), std::string::npos);
    fs::remove_all(data + "/pg_wal");
    fs::create_directory_symlink("/tmp", data + "/pg_wal");
    EXPECT_NE(files.copy_impossible_because().find("pg_wal"), std::string::npos);
}

}  // namespace
}  // namespace pgxc::replication
