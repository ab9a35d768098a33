#include "replication/promotion_plan.h"

#include <algorithm>

#include "replication/settings_file.h"

namespace pgxc::replication {
namespace {

constexpr int oldest_version = 100000;  // 10

PromotionStep step(PromotionStepKind kind, std::string reason) {
    PromotionStep result;
    result.kind = kind;
    result.reason = std::move(reason);
    return result;
}

PromotionStep edit(SettingsFileRole file, std::string name, std::string value, std::string reason) {
    PromotionStep result = step(PromotionStepKind::EditSetting, std::move(reason));
    result.file = file;
    result.name = std::move(name);
    result.value = std::move(value);
    return result;
}

PromotionStep with_port(PromotionStepKind kind, std::uint16_t port, std::string reason) {
    PromotionStep result = step(kind, std::move(reason));
    result.port = port;
    return result;
}

// Before PostgreSQL 12 a slave follows only its own timeline unless told otherwise (F2): neither another
// promoted master, nor its own former ones.
PromotionStep latest_timeline() {
    return edit(SettingsFileRole::RecoveryConf, "recovery_target_timeline", "latest",
                "before PostgreSQL 12 it would not leave its timeline otherwise");
}

bool on_command_line(const PromotionFacts& facts, std::string_view setting) {
    return std::any_of(facts.command_line_settings.begin(), facts.command_line_settings.end(),
                       [&](const std::string& name) { return same_setting(name, setting); });
}

Error cannot(const PromotionFacts& facts, std::string_view why, std::string hint, std::string detail = {}) {
    return {sqlstate::object_not_in_prerequisite_state,
            "cannot promote " + facts.node + ": " + std::string(why), std::move(hint), std::move(detail)};
}

// Ends the plan of a server that runs as a slave: make it the master.
void add_promotion(PromotionPlan& plan, const PromotionFacts& facts) {
    if (facts.server_version_num >= first_without_recovery_conf) {
        plan.steps.push_back(step(PromotionStepKind::PromoteBySql, "the server has pg_promote()"));
    } else {
        plan.steps.push_back(
            step(PromotionStepKind::PromoteByPgCtl, "before PostgreSQL 12 there is no pg_promote()"));
    }
    plan.steps.push_back(
        step(PromotionStepKind::WaitForPromotion, "success is what the server says, not an exit code"));
}

}  // namespace

std::string_view to_word(PromotionMethod method) {
    switch (method) {
        case PromotionMethod::Auto:
            return "auto";
        case PromotionMethod::Promote:
            return "promote";
        case PromotionMethod::Restart:
            return "restart";
    }
    return "";
}

std::string_view to_word(PromotionStepKind kind) {
    switch (kind) {
        case PromotionStepKind::EditSetting:
            return "edit setting";
        case PromotionStepKind::RemoveSetting:
            return "remove setting";
        case PromotionStepKind::ReplaceStandbySignal:
            return "replace standby.signal by recovery.signal";
        case PromotionStepKind::RestartServer:
            return "restart server";
        case PromotionStepKind::WaitForPort:
            return "wait for port";
        case PromotionStepKind::PromoteBySql:
            return "pg_promote()";
        case PromotionStepKind::PromoteByPgCtl:
            return "pg_ctl promote";
        case PromotionStepKind::WaitForPromotion:
            return "wait for promotion";
    }
    return "";
}

bool PromotionPlan::restarts() const {
    return std::any_of(steps.begin(), steps.end(),
                       [](const PromotionStep& s) { return s.kind == PromotionStepKind::RestartServer; });
}

std::vector<PromotionStep> PromotionPlan::file_steps() const {
    const auto restart = std::find_if(steps.begin(), steps.end(), [](const PromotionStep& s) {
        return s.kind == PromotionStepKind::RestartServer;
    });
    if (restart == steps.end()) return {};
    return {steps.begin(), restart + 1};
}

Result<PromotionPlan> plan_promotion(const PromotionFacts& facts) {
    const std::uint16_t port = facts.wanted_port == 0 ? facts.listens_on_port : facts.wanted_port;
    const bool port_changes = port != facts.listens_on_port;
    const bool has_recovery_conf = facts.server_version_num < first_without_recovery_conf;

    if (facts.server_version_num < oldest_version) {
        return Error(sqlstate::feature_not_supported,
                     "cannot promote " + facts.node + ": its server is older than PostgreSQL 10",
                     "Upgrade that server.");
    }
    // An administrator who excluded restarts by setting is overruled by a statement that asks for one by
    // name, but not by a port that happens to need one.
    if (port_changes && facts.method == PromotionMethod::Promote && !facts.with_restart) {
        return cannot(
            facts,
            "taking over port " + std::to_string(port) + " needs a restart, which pgxc.promotion excludes",
            "Say WITH RESTART, or leave out the port, or set pgxc.promotion to auto.");
    }
    const bool restart = facts.with_restart || port_changes || facts.method == PromotionMethod::Restart;

    PromotionPlan plan;
    if (!restart) {
        if (has_recovery_conf && !facts.files_reachable) {
            return cannot(facts, "before PostgreSQL 12 only pg_ctl on its own host promotes a server",
                          "Run \"pg_ctl promote\" there, or load pgxc_ha on that server.",
                          facts.files_unreachable_because);
        }
        add_promotion(plan, facts);
        return plan;
    }

    const std::string other_way =
        port_changes ? "Leave out the port and it can be promoted without a restart, or restart it by hand."
                     : "Promote it without a restart (pgxc.promotion = promote), or restart it by hand.";
    if (!facts.files_reachable) {
        const std::string directory = facts.data_directory.empty() ? "DATA_DIRECTORY" : facts.data_directory;
        return cannot(
            facts, "a restart needs its files, and they are not within reach",
            other_way + " On its host: " +
                (port_changes ? "set port = " + std::to_string(port) + " in its settings, then " : "") +
                "pg_ctl restart -D " + directory +
                ". With pgxc_ha loaded there as pgxc.role = datanode this is done by itself.",
            facts.files_unreachable_because);
    }
    if (!facts.systemd_unit.empty()) {
        // pg_ctl would move the server into our own control group: systemd would call its unit stopped, and
        // end the server together with us.
        return cannot(facts,
                      "its server is run by systemd (" + facts.systemd_unit + "), which must restart it",
                      other_way + " By hand: sudo systemctl restart " + facts.systemd_unit);
    }
    if (port_changes) {
        if (on_command_line(facts, "port")) {
            return cannot(facts, "its port is set on the command line of its server, which beats every file",
                          "Start that server without -p and -c port=..., with the port in postgresql.conf.");
        }
        plan.steps.push_back(edit(SettingsFileRole::WhereEffective, "port", std::to_string(port),
                                  "clients expect the master on port " + std::to_string(port)));
    }

    // F1: just leaving recovery by a restart stays on the old timeline, where nobody could tell the histories
    // apart. Archive recovery that ends takes a new one, but the server refuses it without a restore_command.
    const bool has_restore_command = facts.has_restore_command || !facts.restore_command.empty();
    const bool ends_by_itself = has_restore_command && !facts.has_recovery_target;
    if (has_recovery_conf) plan.steps.push_back(latest_timeline());
    if (ends_by_itself && !facts.restore_command.empty()) {
        plan.steps.push_back(
            edit(has_recovery_conf ? SettingsFileRole::RecoveryConf : SettingsFileRole::WhereEffective,
                 "restore_command", facts.restore_command, "the fence has taken it away"));
    }
    if (ends_by_itself && has_recovery_conf) {
        plan.steps.push_back(edit(SettingsFileRole::RecoveryConf, "standby_mode", "off",
                                  "with a restore_command recovery then ends on a new timeline"));
    } else if (ends_by_itself) {
        plan.steps.push_back(step(PromotionStepKind::ReplaceStandbySignal,
                                  "with a restore_command recovery then ends on a new timeline"));
    }
    plan.steps.push_back(with_port(PromotionStepKind::RestartServer, port,
                                   ends_by_itself ? "it comes up as the master" : "it comes up as a slave"));
    plan.steps.push_back(with_port(PromotionStepKind::WaitForPort, port, "the port is what clients need"));
    if (ends_by_itself) {
        plan.steps.push_back(
            step(PromotionStepKind::WaitForPromotion, "success is what the server says, not an exit code"));
    } else {
        add_promotion(plan, facts);
    }
    return plan;
}

Result<PromotionPlan> plan_stream_restart(const PromotionFacts& facts,
                                          const std::vector<StreamSetting>& settings) {
    const auto refuse = [&](std::string_view why, std::string hint, std::string detail = {}) {
        return Error(
            sqlstate::object_not_in_prerequisite_state,
            facts.node + " runs PostgreSQL " + std::to_string(facts.server_version_num / 10000) +
                ", which must be restarted to stream from elsewhere or not at all: " + std::string(why),
            std::move(hint), std::move(detail));
    };
    const bool has_recovery_conf = facts.server_version_num < first_without_recovery_conf;
    const std::string file = has_recovery_conf ? "recovery.conf" : "postgresql.auto.conf";
    if (!facts.files_reachable)
        return refuse("its files are not within reach",
                      "Change primary_conninfo and primary_slot_name in " + file +
                          " there by hand and restart it, or use PostgreSQL 13 or later.",
                      facts.files_unreachable_because);
    if (!facts.systemd_unit.empty())
        return refuse("systemd runs it (" + facts.systemd_unit + ") and must restart it",
                      "Change primary_conninfo and primary_slot_name in " + file +
                          " there by hand, then: sudo systemctl restart " + facts.systemd_unit);
    PromotionPlan plan;
    if (has_recovery_conf) plan.steps.push_back(latest_timeline());
    for (const StreamSetting& setting : settings) {
        if (!has_recovery_conf && on_command_line(facts, setting.name))
            return refuse(setting.name + " is set on its command line, which beats every file",
                          "Start that server without -c " + setting.name + "=...");
        // recovery.conf has no "empty": a primary_conninfo of '' would be a connection to the default port.
        const bool removed = !setting.value && has_recovery_conf;
        PromotionStep change = step(
            removed ? PromotionStepKind::RemoveSetting : PromotionStepKind::EditSetting, "read at its start");
        change.file = has_recovery_conf ? SettingsFileRole::RecoveryConf : SettingsFileRole::WhereEffective;
        change.name = setting.name;
        if (setting.value) change.value = *setting.value;
        plan.steps.push_back(std::move(change));
    }
    plan.steps.push_back(with_port(PromotionStepKind::RestartServer, facts.listens_on_port,
                                   "it comes up as a slave with these settings"));
    return plan;
}

}  // namespace pgxc::replication
