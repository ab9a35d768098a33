#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

/// How a slave becomes the master (DESIGN 6.3): facts in, steps with their reasons out. Pure.
namespace pgxc::replication {

/// pgxc.promotion
enum class PromotionMethod : std::uint8_t { Auto, Promote, Restart };
[[nodiscard]] std::string_view to_word(PromotionMethod method);  // "auto", "promote", "restart"

/// What is known of the slave that is to be promoted.
struct PromotionFacts {
    std::string node;            // for messages: "datanode 3"
    int server_version_num = 0;  // 150018
    PromotionMethod method = PromotionMethod::Auto;
    bool with_restart = false;  // the statement says WITH RESTART
    std::uint16_t listens_on_port = 0;
    std::uint16_t wanted_port = 0;  // 0: stays as it is
    /// restore_command is effective now. (Fencing clears it, F9: then it is not.)
    bool has_restore_command = false;
    /// The restore_command that the fence has taken away, to be put back with the restart that ends recovery;
    /// it counts as has_restore_command. Empty: none.
    std::string restore_command;
    /// Any recovery_target* is set: recovery would stop there instead of at the end of WAL.
    bool has_recovery_target = false;
    bool files_reachable = false;  // on this host, readable, and of the same OS user
    std::string files_unreachable_because;
    std::string data_directory;                      // as the server told; empty: not known
    std::vector<std::string> command_line_settings;  // names that the server's command line sets
    std::string systemd_unit;                        // not empty: another systemd unit than ours runs it
};

enum class PromotionStepKind : std::uint8_t {
    EditSetting,           // set `name` to `value` in `file`
    RemoveSetting,         // no line of `name` in `file`
    ReplaceStandbySignal,  // recovery.signal in the place of standby.signal
    RestartServer,         // pg_ctl, mode fast; it will listen on `port`
    WaitForPort,           // until the server answers on `port`
    PromoteBySql,          // SELECT pg_promote(false), F5
    PromoteByPgCtl,        // pg_ctl promote
    WaitForPromotion,      // until it is not in recovery and on a new timeline
};
[[nodiscard]] std::string_view to_word(PromotionStepKind kind);

/// In which file a setting is changed.
enum class SettingsFileRole : std::uint8_t {
    WhereEffective,  // postgresql.conf, an included file or postgresql.auto.conf: the line that decides now
    RecoveryConf,    // recovery.conf of PostgreSQL < 12
};

struct PromotionStep {
    PromotionStepKind kind = PromotionStepKind::WaitForPromotion;
    SettingsFileRole file = SettingsFileRole::WhereEffective;  // EditSetting, RemoveSetting
    std::string name;                                          // EditSetting, RemoveSetting
    std::string value;                                         // EditSetting
    std::uint16_t port = 0;                                    // RestartServer, WaitForPort
    std::string reason;
    friend bool operator==(const PromotionStep&, const PromotionStep&) = default;
};

struct PromotionPlan {
    std::vector<PromotionStep> steps;
    [[nodiscard]] bool restarts() const;
    /// The steps that restart_promotion does: everything before and including RestartServer. Empty without
    /// one.
    [[nodiscard]] std::vector<PromotionStep> file_steps() const;
};

/// Decides. Every plan ends on a new timeline (F1). Errors: 0A000 too old; 55000 can't be done so, with a
/// HINT that tells what can.
[[nodiscard]] Result<PromotionPlan> plan_promotion(const PromotionFacts& facts);

/// Releases before this one read where they stream from only when they start; before 12 from recovery.conf.
inline constexpr int first_with_reloadable_stream = 130000;
inline constexpr int first_without_recovery_conf = 120000;

/// A setting of a slave's stream and its value; nullopt: not set at all.
struct StreamSetting {
    std::string name;
    std::optional<std::string> value;
};
/// The restart by which a slave before PostgreSQL 13 learns other settings of its stream. It stays a slave on
/// its port. Before 12 recovery_target_timeline = 'latest' is among them, without which it could not follow a
/// promoted master. Errors as of plan_promotion.
[[nodiscard]] Result<PromotionPlan> plan_stream_restart(const PromotionFacts& facts,
                                                        const std::vector<StreamSetting>& settings);

}  // namespace pgxc::replication
