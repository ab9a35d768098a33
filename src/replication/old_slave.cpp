#include "replication/old_slave.h"

#include <algorithm>
#include <array>
#include <asio/use_awaitable.hpp>

#include "replication/conninfo.h"
#include "replication/server_restart.h"
#include "replication/settings_file.h"

namespace pgxc {
namespace {

using replication::StreamSetting;

/// The settings of a slave's stream and of its replay, as its files have them.
struct StreamFacts {
    SlaveIdentity identity;
    bool replay_paused = false;
    bool changed_since_start = false;  // the files; what runs is what they said then
    bool has_receiver = false;
    std::map<std::string, std::string> settings;  // of read_at_start; those that are set

    [[nodiscard]] std::string get(const std::string& name) const {
        const auto found = settings.find(name);
        return found != settings.end() ? found->second : std::string{};
    }
};

constexpr std::array read_at_start{"primary_conninfo", "primary_slot_name", "restore_command",
                                   "recovery_min_apply_delay", "recovery_target_timeline"};

Result<StreamFacts> facts_from(Rows rows) {
    StreamFacts facts;
    facts.identity.in_recovery = rows.text(0) == "t";
    facts.identity.system_identifier = rows.text(1);
    facts.replay_paused = rows.text(2) == "t";
    facts.has_receiver = rows.text(3) == "t";
    facts.changed_since_start = rows.text(4) == "t";
    if (rows.rows.front().size() == 6) {
        auto file = replication::SettingsFile::parse(rows.text(5), "recovery.conf");
        if (!file.ok()) return file.error();
        if (file->error() != nullptr) return *file->error();
        for (const char* name : read_at_start)
            if (const auto item = file->get(name)) facts.settings[name] = item->value;
    } else {
        for (std::size_t i = 0; i < read_at_start.size(); ++i)
            facts.settings[read_at_start[i]] = rows.text(5 + i);
    }
    // Not set, both.
    std::erase_if(facts.settings, [](const auto& setting) {
        return setting.second.empty() ||
               (setting.first == "recovery_min_apply_delay" && setting.second == "0");
    });
    facts.identity.slot_name = facts.get("primary_slot_name");
    return facts;
}

asio::awaitable<Result<StreamFacts>> read_stream(LockSession& slave) {
    std::string sql =
        "SELECT pg_catalog.pg_is_in_recovery(), (SELECT system_identifier FROM "
        "pg_catalog.pg_control_system()), CASE WHEN pg_catalog.pg_is_in_recovery() THEN "
        "pg_catalog.pg_is_wal_replay_paused() END, EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE "
        "backend_type = 'walreceiver'), ";
    if (slave.server_version() < replication::first_without_recovery_conf) {
        sql +=
            "coalesce((SELECT modification > pg_catalog.pg_postmaster_start_time() FROM "
            "pg_catalog.pg_stat_file('recovery.conf', true)), false), "
            "pg_catalog.pg_read_file('recovery.conf', 0, 1000000, true)";
    } else {
        // What runs is what the session shows: these can't change while the server runs.
        sql += "false";
        for (const char* name : read_at_start) sql += std::string(", current_setting('") + name + "')";
    }
    auto rows = co_await slave.run(sql, effect_timeout);
    if (!rows.ok()) co_return rows.error();
    co_return facts_from(std::move(*rows));
}

/// What a fence takes away; `changed` gets the values that are to come back.
std::vector<StreamSetting> settings_of_fence(const StreamFacts& facts,
                                             std::map<std::string, std::string>& changed) {
    std::vector<StreamSetting> settings{{"primary_conninfo", std::nullopt}};
    for (const char* name : {"restore_command", "recovery_min_apply_delay"}) {
        if (facts.get(name).empty()) continue;
        changed[name] = facts.get(name);
        settings.push_back({name, std::string_view(name) == "recovery_min_apply_delay"
                                      ? std::optional<std::string>("0")
                                      : std::nullopt});
    }
    return settings;
}

Result<std::vector<StreamSetting>> settings_of_stream(const StreamPlan& plan,
                                                      const std::map<std::string, std::string>& restored) {
    auto keywords = conninfo_of(plan.master);
    keywords["application_name"] = plan.name;
    auto conninfo = conninfo_with(plan.conninfo, keywords);
    if (conninfo.ok()) conninfo = conninfo_for_old_slave(*conninfo);
    if (!conninfo.ok()) return conninfo.error();
    std::vector<StreamSetting> settings{{"primary_conninfo", *conninfo}, {"primary_slot_name", plan.name}};
    for (const auto& [name, value] : restored)
        if (std::find(read_at_start.begin(), read_at_start.end(), name) != read_at_start.end())
            settings.push_back({name, value});
    return settings;
}

bool all_in_force(const StreamFacts& facts, const std::vector<StreamSetting>& settings, int server_version) {
    if (facts.changed_since_start) return false;
    if (server_version < replication::first_without_recovery_conf &&
        facts.get("recovery_target_timeline") != "latest")
        return false;
    return std::all_of(settings.begin(), settings.end(), [&](const StreamSetting& setting) {
        return facts.get(setting.name) == setting.value.value_or("");
    });
}

/// Those that the server takes while it runs, from a fence's changes.
SettingChanges reloadable(const std::map<std::string, std::string>& settings) {
    SettingChanges changes;
    for (const auto& [name, value] : settings)
        if (std::find(read_at_start.begin(), read_at_start.end(), name) == read_at_start.end())
            changes.emplace_back(name, value);
    return changes;
}

SettingChanges settings_of_every_slave(const StreamPlan& plan) {
    SettingChanges changes;
    changes.emplace_back("synchronous_standby_names", plan.nobody_names);
    changes.emplace_back("wal_retrieve_retry_interval", "100ms");
    return changes;
}

}  // namespace

bool is_in_recovery_conf(int server_version_num, const std::string& setting) {
    return server_version_num < replication::first_without_recovery_conf &&
           std::find(read_at_start.begin(), read_at_start.end(), setting) != read_at_start.end();
}

Result<std::string> conninfo_for_old_slave(const std::string& conninfo) {
    auto values = conninfo_values(conninfo);
    if (!values.ok()) return values.error();
    static constexpr std::array known{"service",
                                      "user",
                                      "password",
                                      "passfile",
                                      "dbname",
                                      "connect_timeout",
                                      "host",
                                      "hostaddr",
                                      "port",
                                      "client_encoding",
                                      "options",
                                      "application_name",
                                      "keepalives",
                                      "keepalives_idle",
                                      "keepalives_interval",
                                      "keepalives_count",
                                      "sslmode",
                                      "sslcompression",
                                      "sslcert",
                                      "sslkey",
                                      "sslrootcert",
                                      "sslcrl",
                                      "requirepeer",
                                      "krbsrvname",
                                      "gsslib"};
    std::map<std::string, std::string> unknown;
    for (const auto& [name, value] : *values)
        if (std::find(known.begin(), known.end(), name) == known.end()) unknown[name] = "";
    return conninfo_with(conninfo, unknown);
}

asio::awaitable<Status> can_cut_stream(LockSession& slave) {
    if (!reads_stream_at_start(slave)) co_return Status{};
    co_return co_await can_restart_slave(slave);
}

asio::awaitable<Result<FenceResult>> fence_by_restart(SlaveHands slave,
                                                      std::vector<std::string> expected_names,
                                                      std::uint64_t system_identifier,
                                                      BeforeChange before_change, Millis timeout,
                                                      std::function<void(const FenceResult&)> on_cut) {
    const TimePoint deadline = Clock::now() + timeout;
    auto session = co_await slave.session();
    if (!session.ok()) co_return session.error();
    auto before = co_await read_stream(**session);
    if (!before.ok()) co_return before.error();
    if (Status same = check_identity(**session, before->identity, expected_names, system_identifier);
        !same.ok())
        co_return same.error();
    FenceResult result;
    result.conninfo = before->get("primary_conninfo");
    std::vector<StreamSetting> settings = settings_of_fence(*before, result.changed);
    if (Status kept = co_await before_change(result); !kept.ok()) co_return kept.error();
    if (!all_in_force(*before, settings, (*session)->server_version()) || before->has_receiver) {
        Status restarted = co_await slave.restart(std::move(settings));
        if (!restarted.ok()) co_return restarted.error();
        if (on_cut) on_cut(result);
        session = co_await slave.session();
        if (!session.ok()) co_return session.error();
        auto after = co_await read_stream(**session);
        if (!after.ok()) co_return after.error();
        if (!after->get("primary_conninfo").empty())
            co_return Error{sqlstate::config_file_error,
                            "node at " + slave.address.to_string() +
                                " has a primary_conninfo again after a restart without one",
                            "Look for who else manages that server."};
    } else if (before->replay_paused) {
        auto resumed = co_await (*session)->run("SELECT pg_catalog.pg_wal_replay_resume()", effect_timeout);
        if (!resumed.ok()) co_return resumed.error();
    }
    auto witness = co_await (*session)->second_session(timeout);
    if (!witness.ok()) co_return witness.error();
    co_return co_await prove_cut(**session, std::move(*witness), std::move(result), deadline,
                                 std::move(before_change), std::move(on_cut));
}

asio::awaitable<Status> unfence_by_restart(SlaveHands slave, std::string conninfo,
                                           std::map<std::string, std::string> settings) {
    auto session = co_await slave.session();
    if (!session.ok()) co_return session.error();
    if (Status eased = co_await alter_system(**session, reloadable(settings)); !eased.ok()) co_return eased;
    auto fitting = conninfo_for_old_slave(conninfo);
    if (!fitting.ok()) co_return fitting.error();
    std::vector<StreamSetting> changes;
    changes.push_back({"primary_conninfo", *fitting});
    for (const auto& [name, value] : settings)
        if (std::find(read_at_start.begin(), read_at_start.end(), name) != read_at_start.end())
            changes.push_back({name, value});
    co_return co_await slave.restart(std::move(changes));
}

asio::awaitable<Status> stream_by_restart(SlaveHands slave, StreamPlan plan,
                                          std::map<std::string, std::string> settings) {
    auto wanted = settings_of_stream(plan, settings);
    if (!wanted.ok()) co_return wanted.error();
    auto session = co_await slave.session();
    if (!session.ok()) co_return session.error();
    SettingChanges changes = settings_of_every_slave(plan);
    for (auto& change : reloadable(settings)) changes.push_back(std::move(change));
    if (Status altered = co_await alter_system(**session, std::move(changes)); !altered.ok())
        co_return altered;
    auto before = co_await read_stream(**session);
    if (!before.ok()) co_return before.error();
    if (all_in_force(*before, *wanted, (*session)->server_version())) co_return Status{};
    co_return co_await slave.restart(std::move(*wanted));
}

}  // namespace pgxc
