#include "replication/promotion_plan.h"

#include <gtest/gtest.h>

namespace pgxc::replication {
namespace {

using Kind = PromotionStepKind;

PromotionFacts facts_of(int version) {
    PromotionFacts facts;
    facts.node = "datanode 3";
    facts.server_version_num = version;
    facts.listens_on_port = 5433;
    facts.files_reachable = true;
    return facts;
}

// The plan in one line, for tables.
std::string text_of(const Result<PromotionPlan>& plan) {
    if (!plan) return "error " + plan.error().sqlstate;
    std::string text;
    for (const auto& step : plan->steps) {
        EXPECT_FALSE(step.reason.empty());
        if (!text.empty()) text += ", ";
        switch (step.kind) {
            case Kind::EditSetting:
                text += (step.file == SettingsFileRole::RecoveryConf ? "recovery.conf:" : "") + step.name +
                        "=" + step.value;
                break;
            case Kind::RemoveSetting:
                text += (step.file == SettingsFileRole::RecoveryConf ? "recovery.conf:-" : "-") + step.name;
                break;
            case Kind::ReplaceStandbySignal:
                text += "signal";
                break;
            case Kind::RestartServer:
                text += "restart:" + std::to_string(step.port);
                break;
            case Kind::WaitForPort:
                text += "wait:" + std::to_string(step.port);
                break;
            case Kind::PromoteBySql:
                text += "sql";
                break;
            case Kind::PromoteByPgCtl:
                text += "pg_ctl";
                break;
            case Kind::WaitForPromotion:
                text += "promoted";
                break;
        }
    }
    return text;
}

std::string plan_text(const PromotionFacts& facts) {
    return text_of(plan_promotion(facts));
}

struct Row {
    int version;
    PromotionMethod method;
    bool with_restart;
    bool port_changes;
    bool restore_command;
    const char* expected;
};

constexpr auto automatic = PromotionMethod::Auto;
constexpr auto promote = PromotionMethod::Promote;
constexpr auto restart = PromotionMethod::Restart;

const Row rows[] = {
    // version, method, WITH RESTART, port changes, restore_command
    {150000, automatic, false, false, false, "sql, promoted"},
    {150000, automatic, false, false, true, "sql, promoted"},
    {150000, automatic, false, true, false, "port=5432, restart:5432, wait:5432, sql, promoted"},
    {150000, automatic, false, true, true, "port=5432, signal, restart:5432, wait:5432, promoted"},
    {150000, automatic, true, false, false, "restart:5433, wait:5433, sql, promoted"},
    {150000, automatic, true, false, true, "signal, restart:5433, wait:5433, promoted"},
    {150000, automatic, true, true, false, "port=5432, restart:5432, wait:5432, sql, promoted"},
    {150000, automatic, true, true, true, "port=5432, signal, restart:5432, wait:5432, promoted"},
    {150000, promote, false, false, false, "sql, promoted"},
    {150000, promote, false, false, true, "sql, promoted"},
    {150000, promote, false, true, false, "error 55000"},
    {150000, promote, false, true, true, "error 55000"},
    {150000, promote, true, false, false, "restart:5433, wait:5433, sql, promoted"},
    {150000, promote, true, false, true, "signal, restart:5433, wait:5433, promoted"},
    {150000, promote, true, true, false, "port=5432, restart:5432, wait:5432, sql, promoted"},
    {150000, promote, true, true, true, "port=5432, signal, restart:5432, wait:5432, promoted"},
    {150000, restart, false, false, false, "restart:5433, wait:5433, sql, promoted"},
    {150000, restart, false, false, true, "signal, restart:5433, wait:5433, promoted"},
    {150000, restart, false, true, false, "port=5432, restart:5432, wait:5432, sql, promoted"},
    {150000, restart, false, true, true, "port=5432, signal, restart:5432, wait:5432, promoted"},
    {150000, restart, true, false, false, "restart:5433, wait:5433, sql, promoted"},
    {150000, restart, true, true, true, "port=5432, signal, restart:5432, wait:5432, promoted"},
    {110000, automatic, false, false, false, "pg_ctl, promoted"},
    {110000, automatic, false, false, true, "pg_ctl, promoted"},
    {110000, automatic, false, true, false,
     "port=5432, recovery.conf:recovery_target_timeline=latest, restart:5432, "
     "wait:5432, pg_ctl, promoted"},
    {110000, automatic, false, true, true,
     "port=5432, recovery.conf:recovery_target_timeline=latest, "
     "recovery.conf:standby_mode=off, restart:5432, wait:5432, promoted"},
    {110000, automatic, true, false, false,
     "recovery.conf:recovery_target_timeline=latest, restart:5433, wait:5433, pg_ctl, promoted"},
    {110000, automatic, true, false, true,
     "recovery.conf:recovery_target_timeline=latest, recovery.conf:standby_mode=off, "
     "restart:5433, wait:5433, promoted"},
    {110000, promote, false, false, true, "pg_ctl, promoted"},
    {110000, promote, false, true, true, "error 55000"},
    {110000, restart, false, false, false,
     "recovery.conf:recovery_target_timeline=latest, restart:5433, wait:5433, pg_ctl, promoted"},
    {110000, restart, false, false, true,
     "recovery.conf:recovery_target_timeline=latest, recovery.conf:standby_mode=off, "
     "restart:5433, wait:5433, promoted"},
    {120000, automatic, false, false, false, "sql, promoted"},
    {120000, restart, false, false, true, "signal, restart:5433, wait:5433, promoted"},
    {100000, automatic, false, false, false, "pg_ctl, promoted"},
    {90624, automatic, false, false, false, "error 0A000"},
};

TEST(PromotionPlanTest, Table) {
    for (const auto& row : rows) {
        auto facts = facts_of(row.version);
        facts.method = row.method;
        facts.with_restart = row.with_restart;
        facts.wanted_port = row.port_changes ? 5432 : 0;
        facts.has_restore_command = row.restore_command;
        EXPECT_EQ(plan_text(facts), row.expected)
            << row.version << " " << to_word(row.method) << " " << row.with_restart << row.port_changes
            << row.restore_command;
        if (!row.port_changes) {
            facts.wanted_port = facts.listens_on_port;  // naming the port it has changes nothing
            EXPECT_EQ(plan_text(facts), row.expected);
        }
        // A restart never is the whole promotion without a restore_command: F1.
        if (const auto plan = plan_promotion(facts); plan) {
            EXPECT_EQ(plan->steps.back().kind, Kind::WaitForPromotion);
        }
    }
}

TEST(PromotionPlanTest, EveryCombinationEndsOnANewTimeline) {
    for (const int version : {100000, 110022, 120000, 130000, 150018, 180000}) {
        for (int bits = 0; bits < 256; ++bits) {
            auto facts = facts_of(version);
            facts.method = static_cast<PromotionMethod>(bits % 3);
            facts.with_restart = (bits & 1) != 0;
            facts.wanted_port = (bits & 2) != 0 ? 5432 : 0;
            facts.has_restore_command = (bits & 4) != 0;
            facts.has_recovery_target = (bits & 8) != 0;
            facts.files_reachable = (bits & 16) != 0;
            if ((bits & 32) != 0) facts.command_line_settings = {"PORT"};
            if ((bits & 64) != 0) facts.systemd_unit = "postgresql@15-main.service";
            const auto plan = plan_promotion(facts);
            if (!plan) {
                EXPECT_FALSE(plan.error().hint.empty());
                EXPECT_NE(plan.error().message.find("datanode 3"), std::string::npos);
                continue;
            }
            int promoters = 0;
            bool edits_after_restart = false;
            bool restarted = false;
            for (const auto& step : plan->steps) {
                const bool by_end_of_recovery =
                    step.kind == Kind::ReplaceStandbySignal ||
                    (step.kind == Kind::EditSetting && step.name == "standby_mode");
                if (by_end_of_recovery) {
                    EXPECT_TRUE(facts.has_restore_command && !facts.has_recovery_target);
                }
                if (by_end_of_recovery || step.kind == Kind::PromoteBySql ||
                    step.kind == Kind::PromoteByPgCtl) {
                    ++promoters;
                }
                if (step.kind == Kind::PromoteBySql) {
                    EXPECT_GE(version, 120000);
                }
                if (step.kind == Kind::RestartServer) restarted = true;
                if (restarted && step.kind == Kind::EditSetting) edits_after_restart = true;
            }
            EXPECT_EQ(promoters, 1);
            EXPECT_FALSE(edits_after_restart);
            EXPECT_EQ(plan->restarts(), restarted);
            EXPECT_EQ(plan->file_steps().empty(), !restarted);
            if (restarted) {
                EXPECT_EQ(plan->file_steps().back().kind, Kind::RestartServer);
                EXPECT_TRUE(facts.files_reachable);
                EXPECT_TRUE(facts.systemd_unit.empty());
            }
        }
    }
}

TEST(PromotionPlanTest, SaysWhyNot) {
    auto facts = facts_of(150000);
    facts.wanted_port = 5432;
    facts.command_line_settings = {"listen_addresses", "Port"};
    auto plan = plan_promotion(facts);
    ASSERT_FALSE(plan.ok());
    EXPECT_NE(plan.error().message.find("command line"), std::string::npos);

    facts = facts_of(150000);
    facts.method = PromotionMethod::Restart;
    facts.command_line_settings = {"port"};  // stays, so the command line doesn't matter
    EXPECT_EQ(plan_text(facts), "restart:5433, wait:5433, sql, promoted");

    facts.files_reachable = false;
    facts.files_unreachable_because = "It is on another host.";
    plan = plan_promotion(facts);
    ASSERT_FALSE(plan.ok());
    EXPECT_EQ(plan.error().detail, "It is on another host.");
    EXPECT_NE(plan.error().hint.find("pgxc.promotion"), std::string::npos);

    facts = facts_of(150000);
    facts.method = PromotionMethod::Restart;
    facts.systemd_unit = "postgresql@15-main.service";
    plan = plan_promotion(facts);
    ASSERT_FALSE(plan.ok());
    EXPECT_NE(plan.error().hint.find("systemctl restart postgresql@15-main.service"), std::string::npos);

    facts = facts_of(110000);
    facts.files_reachable = false;
    EXPECT_EQ(plan_text(facts), "error 55000");
    facts = facts_of(120000);
    facts.files_reachable = false;
    EXPECT_EQ(plan_text(facts), "sql, promoted");
}

TEST(PromotionPlanTest, ARecoveryTargetKeepsItAStandby) {
    auto facts = facts_of(150000);
    facts.with_restart = true;
    facts.has_restore_command = true;
    facts.has_recovery_target = true;
    EXPECT_EQ(plan_text(facts), "restart:5433, wait:5433, sql, promoted");
}

TEST(PromotionPlanTest, PutsBackTheRestoreCommandThatTheFenceTookAway) {
    auto facts = facts_of(110022);
    facts.with_restart = true;
    facts.restore_command = "cp /archive/%f %p";
    EXPECT_EQ(plan_text(facts),
              "recovery.conf:recovery_target_timeline=latest, "
              "recovery.conf:restore_command=cp /archive/%f %p, recovery.conf:standby_mode=off, "
              "restart:5433, wait:5433, promoted");
    facts.server_version_num = 150000;
    EXPECT_EQ(plan_text(facts),
              "restore_command=cp /archive/%f %p, signal, restart:5433, wait:5433, promoted");
    facts.has_recovery_target = true;
    EXPECT_EQ(plan_text(facts), "restart:5433, wait:5433, sql, promoted");
}

TEST(StreamRestartTest, OfEachRelease) {
    const std::vector<StreamSetting> cut{{"primary_conninfo", std::nullopt},
                                         {"recovery_min_apply_delay", "0"}};
    EXPECT_EQ(text_of(plan_stream_restart(facts_of(110022), cut)),
              "recovery.conf:recovery_target_timeline=latest, recovery.conf:-primary_conninfo, "
              "recovery.conf:recovery_min_apply_delay=0, restart:5433");
    EXPECT_EQ(text_of(plan_stream_restart(facts_of(120022), cut)),
              "primary_conninfo=, recovery_min_apply_delay=0, restart:5433");
}

TEST(StreamRestartTest, SaysWhyNot) {
    const std::vector<StreamSetting> cut{{"primary_conninfo", std::nullopt}};
    auto facts = facts_of(110022);
    facts.files_reachable = false;
    facts.files_unreachable_because = "It is on another host.";
    auto plan = plan_stream_restart(facts, cut);
    ASSERT_FALSE(plan.ok());
    EXPECT_EQ(plan.error().detail, "It is on another host.");
    EXPECT_NE(plan.error().message.find("datanode 3 runs PostgreSQL 11"), std::string::npos);
    EXPECT_NE(plan.error().hint.find("recovery.conf"), std::string::npos);

    facts = facts_of(120022);
    facts.systemd_unit = "postgresql@12-main.service";
    plan = plan_stream_restart(facts, cut);
    ASSERT_FALSE(plan.ok());
    EXPECT_NE(plan.error().hint.find("systemctl restart postgresql@12-main.service"), std::string::npos);

    facts = facts_of(120022);
    facts.command_line_settings = {"primary_conninfo"};
    plan = plan_stream_restart(facts, cut);
    ASSERT_FALSE(plan.ok());
    EXPECT_NE(plan.error().message.find("command line"), std::string::npos);
    facts.server_version_num = 110022;  // which has no such setting
    EXPECT_TRUE(plan_stream_restart(facts, cut).ok());
}

}  // namespace
}  // namespace pgxc::replication
