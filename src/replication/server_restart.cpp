#include "replication/server_restart.h"

#include <asio/use_awaitable.hpp>

#include "base/limits.h"
#include "replication/durable_file.h"
#include "replication/node_effects.h"
#include "replication/pg_ctl.h"
#include "replication/process_runner.h"
#include "replication/process_wait.h"
#include "replication/restart_journal.h"
#include "replication/restart_promotion.h"
#include "replication/settings_file.h"

namespace pgxc {
namespace {

using namespace replication;

struct Inspected {
    ServerFiles files;
    PromotionPlan plan;
};

/// What recovery.conf, which no setting shows, says of the end of recovery.
Status read_recovery_conf(const ServerFiles& files, PromotionFacts& facts) {
    auto text = read_file(recovery_conf_path(files.data_directory), limits::max_settings_file_bytes);
    if (!text.ok()) return {};  // a master, or a slave that was just promoted
    auto settings = SettingsFile::parse(std::move(*text), recovery_conf_path(files.data_directory));
    if (!settings.ok()) return settings.error();
    if (settings->error() != nullptr) return *settings->error();
    const auto is_set = [&](std::string_view name) {
        const auto item = settings->get(name);
        return item && !item->value.empty();
    };
    facts.has_restore_command = is_set("restore_command");
    facts.has_recovery_target = is_set("recovery_target") || is_set("recovery_target_name") ||
                                is_set("recovery_target_time") || is_set("recovery_target_xid") ||
                                is_set("recovery_target_lsn");
    return {};
}

/// Looks at the files of a server. `facts` has what the server itself says, where it runs; the rest is added.
Result<ServerFiles> look_at_files(const ServerPlace& place, PromotionFacts& facts,
                                  const std::string& system_identifier, bool runs) {
    auto files = inspect_server(place.data_directory, place.config_file);
    if (files.ok() && !system_identifier.empty() &&
        std::to_string(files->system_identifier) != system_identifier)
        files = Error{sqlstate::undefined_file,
                      place.data_directory + " on this host is another server's data directory"};
    if (files.ok() && runs && !files->postmaster)
        files = Error{sqlstate::undefined_file, place.data_directory + " on this host has no running server"};
    facts.files_reachable = files.ok();
    if (!files.ok()) {
        facts.files_unreachable_because = files.error().message;
        return files;
    }
    if (facts.server_version_num == 0) facts.server_version_num = files->major_version * 10000;
    facts.systemd_unit = files->systemd_unit;
    for (const CommandLineSetting& setting : command_line_settings(files->arguments))
        facts.command_line_settings.push_back(setting.name);
    if (facts.server_version_num < first_without_recovery_conf) {
        if (Status read = read_recovery_conf(*files, facts); !read.ok()) return read.error();
    }
    return files;
}

/// A plan can be refused with the files out of reach, and then tells it better than they do.
Result<Inspected> inspected(Result<ServerFiles> files, Result<PromotionPlan> plan) {
    if (!plan.ok()) return plan.error();
    if (!files.ok()) return files.error();
    return Inspected{std::move(*files), std::move(*plan)};
}

PromotionFacts restart_facts(const HostPort& address, std::uint16_t port) {
    PromotionFacts facts;
    facts.node = "node at " + address.to_string();
    facts.method = PromotionMethod::Restart;
    facts.with_restart = true;
    facts.listens_on_port = address.port;
    facts.wanted_port = port;
    return facts;
}

struct Told {
    ServerPlace place;
    PromotionFacts facts;
    std::string system_identifier;
};

asio::awaitable<Result<Told>> ask(LockSession& server, std::uint16_t port) {
    auto told = co_await server.run(
        "SELECT current_setting('data_directory'), current_setting('config_file'), current_setting('port'), "
        "current_setting('restore_command', true), (SELECT count(*) FROM pg_catalog.pg_settings "
        "WHERE name LIKE 'recovery\\_target%' AND name NOT IN ('recovery_target_timeline', "
        "'recovery_target_action', "
        "'recovery_target_inclusive') AND setting <> ''), "
        "(SELECT system_identifier FROM pg_catalog.pg_control_system())",
        effect_timeout);
    if (!told.ok()) co_return told.error();
    Told answer;
    answer.place.data_directory = told->text(0);
    answer.place.config_file = told->text(1);
    answer.facts = restart_facts(server.address(), port);
    answer.facts.server_version_num = server.server_version();
    answer.facts.listens_on_port = static_cast<std::uint16_t>(std::stoul("0" + told->text(2)));
    answer.facts.has_restore_command = !told->text(3).empty();
    answer.facts.has_recovery_target = told->text(4) != "0";
    answer.system_identifier = told->text(5);
    co_return answer;
}

/// Runs a restart to its end; the claim is checked directly before each pg_ctl.
asio::awaitable<Status> drive(Inspected inspected, RestartOptions options,
                              std::unique_ptr<LockSession> server,
                              std::function<asio::awaitable<Status>()> claim_is_newest) {
    auto restart = RestartPromotion::prepare(std::move(inspected.files), inspected.plan, std::move(options));
    if (!restart.ok()) co_return restart.error();
    // A fast stop waits for nobody, but a session of ours would be told by a FATAL: end it first.
    using Phase = RestartPromotion::Phase;
    Status lost;
    for (;;) {
        switch (restart->phase()) {
            case Phase::ReadyToStop:
            case Phase::ReadyToStart: {
                lost = co_await claim_is_newest();
                if (!lost.ok()) {
                    restart->abandon(Clock::now());
                } else if (restart->phase() == Phase::ReadyToStop) {
                    server.reset();
                    restart->stop(Clock::now());
                } else {
                    restart->start(Clock::now());
                }
                break;
            }
            case Phase::Stopping:
            case Phase::Starting:
            case Phase::RollingBack:
                co_await wait_for_event_on(restart->event_fd(), restart->next_wakeup());
                restart->advance(Clock::now());
                break;
            case Phase::Done:
                co_return Status{};
            case Phase::Failed:
                co_return lost.ok() ? Status{restart->error()} : lost;
        }
    }
}

/// A restart as a slave: with whatever settings, for the question whether it can be had at all.
Result<Inspected> look_for_slave_restart(const ServerPlace& place, PromotionFacts facts,
                                         const std::string& system_identifier,
                                         const std::vector<StreamSetting>& settings) {
    auto files = look_at_files(place, facts, system_identifier, true);
    auto plan = plan_stream_restart(facts, settings);
    return inspected(std::move(files), std::move(plan));
}

Status check_slave_restart(const ServerPlace& place, const PromotionFacts& facts,
                           const std::string& system_identifier) {
    const std::vector<StreamSetting> settings{{"primary_conninfo", std::nullopt},
                                              {"primary_slot_name", std::nullopt}};
    auto found = look_for_slave_restart(place, facts, system_identifier, settings);
    if (!found.ok()) return found.error();
    return check_restart(found->files, found->plan);
}

}  // namespace

asio::awaitable<Result<ServerPlace>> can_restart(LockSession& server, std::uint16_t port) {
    auto told = co_await ask(server, port);
    if (!told.ok()) co_return told.error();
    auto files = look_at_files(told->place, told->facts, told->system_identifier, true);
    auto plan = plan_promotion(told->facts);
    auto found = inspected(std::move(files), std::move(plan));
    if (!found.ok()) co_return found.error();
    if (Status can = check_restart(found->files, found->plan); !can.ok()) co_return can.error();
    const PostmasterPid& postmaster = *found->files.postmaster;
    if (port != postmaster.port) {
        if (Status is_free = check_port_is_free(postmaster, port); !is_free.ok()) co_return is_free.error();
    }
    co_return told->place;
}

asio::awaitable<Status> restart_server(std::unique_ptr<LockSession> server, RestartRequest request,
                                       std::function<asio::awaitable<Status>()> claim_is_newest) {
    Told told;
    told.place = request.place;
    told.facts = restart_facts(request.address, request.port);
    if (server) {
        auto answer = co_await ask(*server, request.port);
        if (!answer.ok()) co_return answer.error();
        told = std::move(*answer);
    }
    told.facts.restore_command = request.restore_command;
    auto files = look_at_files(told.place, told.facts, told.system_identifier, server != nullptr);
    auto plan = plan_promotion(told.facts);
    auto found = inspected(std::move(files), std::move(plan));
    if (!found.ok()) co_return found.error();
    RestartOptions options;
    options.intent = "promotion of the node at " + request.address.to_string();
    options.start_timeout = request.timeout;
    co_return co_await drive(std::move(*found), std::move(options), std::move(server),
                             std::move(claim_is_newest));
}

asio::awaitable<Status> can_restart_slave(LockSession& slave) {
    auto told = co_await ask(slave, slave.address().port);
    if (!told.ok()) co_return told.error();
    co_return check_slave_restart(told->place, told->facts, told->system_identifier);
}

Status can_restart_slave(const ServerPlace& place, const HostPort& address, int server_version_num,
                         std::uint64_t system_identifier) {
    PromotionFacts facts = restart_facts(address, address.port);
    facts.server_version_num = server_version_num;
    return check_slave_restart(place, facts, std::to_string(system_identifier));
}

asio::awaitable<Status> restart_slave(std::unique_ptr<LockSession> slave, std::vector<StreamSetting> settings,
                                      Millis timeout,
                                      std::function<asio::awaitable<Status>(ServerPlace)> intent,
                                      std::function<asio::awaitable<Status>()> claim_is_newest) {
    auto told = co_await ask(*slave, slave->address().port);
    if (!told.ok()) co_return told.error();
    auto found = look_for_slave_restart(told->place, told->facts, told->system_identifier, settings);
    if (!found.ok()) co_return found.error();
    if (Status can = check_restart(found->files, found->plan); !can.ok()) co_return can;
    if (Status intended = co_await intent(told->place); !intended.ok()) co_return intended;
    RestartOptions options;
    options.intent = "another stream of the node at " + slave->address().to_string();
    options.start_timeout = timeout;
    co_return co_await drive(std::move(*found), std::move(options), std::move(slave),
                             std::move(claim_is_newest));
}

asio::awaitable<Status> start_stopped_slave(ServerPlace place, HostPort address,
                                            std::uint64_t system_identifier, Millis timeout,
                                            std::function<asio::awaitable<Status>()> claim_is_newest) {
    PromotionFacts facts = restart_facts(address, address.port);
    auto files = look_at_files(place, facts, std::to_string(system_identifier), false);
    const std::vector<StreamSetting> as_they_are;
    auto plan = plan_stream_restart(facts, as_they_are);
    auto found = inspected(std::move(files), std::move(plan));
    if (!found.ok()) co_return found.error();
    if (found->files.postmaster) co_return Status{};
    RestartOptions options;
    options.intent = "start of the node at " + address.to_string();
    options.start_timeout = timeout;
    co_return co_await drive(std::move(*found), std::move(options), nullptr, std::move(claim_is_newest));
}

asio::awaitable<Status> promote_by_pg_ctl(LockSession& slave, Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    auto told = co_await ask(slave, slave.address().port);
    if (!told.ok()) co_return told.error();
    auto files = look_at_files(told->place, told->facts, told->system_identifier, true);
    if (!files.ok())
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        "node at " + slave.address().to_string() +
                            " can't be promoted from here: " + files.error().message,
                        "Before PostgreSQL 12 only pg_ctl promotes: run \"pg_ctl promote\" on its host."};
    auto promote = ChildProcess::start(promote_command(*files), deadline);
    if (!promote.ok()) co_return promote.error();
    std::optional<ProcessResult> result;
    while (!(result = promote->poll(Clock::now())))
        co_await wait_for_event_on(promote->event_fd(), promote->next_wakeup());
    // "Server is not in standby mode" is no failure: it may have been asked before.
    Status promoted = co_await see_promoted(slave, deadline);
    if (!promoted.ok() && !result->succeeded())
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        "pg_ctl could not promote the node at " + slave.address().to_string(),
                        "Look at that server's log.", result->output};
    co_return promoted;
}

asio::awaitable<Status> stop_server(std::unique_ptr<LockSession> server, Millis timeout, bool immediate) {
    auto told = co_await server->run(
        "SELECT current_setting('data_directory'), current_setting('config_file')", effect_timeout);
    if (!told.ok()) co_return told.error();
    auto files = inspect_server(told->text(0), told->text(1));
    if (!files.ok())
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        "the server at " + server->address().to_string() +
                            " can't be stopped from here: " + files.error().message,
                        "Stop it on its host, then promote again."};
    const std::string data_directory = files->data_directory;
    server.reset();
    const TimePoint deadline = Clock::now() + timeout;
    auto stop = ChildProcess::start(stop_command(*files, immediate), deadline);
    if (!stop.ok()) co_return stop.error();
    std::optional<ProcessResult> result;
    while (!(result = stop->poll(Clock::now())))
        co_await wait_for_event_on(stop->event_fd(), stop->next_wakeup());
    // pg_ctl was asked not to wait: its own waiting looks only every tenth of a second.
    while (running_postmaster(data_directory)) {
        if (Clock::now() >= deadline)
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            "the server in " + data_directory + " does not stop: " + result->output};
        co_await wait_for_event_on(-1, Clock::now() + Millis(5));
    }
    co_return Status{};
}

}  // namespace pgxc
