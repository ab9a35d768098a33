#include "replication/server_restart.h"

#include <unistd.h>

#include <asio/use_awaitable.hpp>
#include <utility>

#include "base/limits.h"
#include "replication/durable_file.h"
#include "replication/library_call.h"
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

/// What an answer may be late by, after a fast stop, an immediate one and a start have had their time.
constexpr Millis library_grace{25'000};

struct Inspected {
    ServerFiles files;
    PromotionPlan plan;
};

/// The files of a server, if they are within reach of this process and really its own.
Result<ServerFiles> files_within_reach(const ServerSays& says, bool runs) {
    auto files = inspect_server(says.place.data_directory, says.place.config_file);
    if (!files.ok()) return files;
    if (!says.system_identifier.empty() && std::to_string(files->system_identifier) != says.system_identifier)
        return Error{sqlstate::undefined_file,
                     says.place.data_directory + " on this host is another server's data directory"};
    if (runs && !files->postmaster)
        return Error{sqlstate::undefined_file,
                     says.place.data_directory + " on this host has no running server"};
    if (files->owner != ::geteuid())
        return Error{sqlstate::insufficient_privilege,
                     "\"" + files->data_directory +
                         "\" belongs to another operating system user, who alone can restart its server"};
    return files;
}

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

/// What the plan of a restart on that port needs; the files' part comes with look_at_files().
PromotionFacts restart_facts(const ServerSays& says, std::uint16_t port) {
    PromotionFacts facts;
    facts.node = "node at " + says.address.to_string();
    facts.method = PromotionMethod::Restart;
    facts.with_restart = true;
    facts.listens_on_port = says.listens_on_port != 0 ? says.listens_on_port : says.address.port;
    facts.wanted_port = port;
    facts.server_version_num = says.version_num;
    facts.has_restore_command = says.has_restore_command;
    facts.restore_command = says.restore_command;
    facts.has_recovery_target = says.has_recovery_target;
    facts.data_directory = says.place.data_directory;
    return facts;
}

/// Looks at the files of a server, and adds what they say to what it says itself.
Result<ServerFiles> look_at_files(const ServerSays& says, PromotionFacts& facts, bool runs) {
    auto files = files_within_reach(says, runs);
    facts.files_reachable = files.ok();
    if (!files.ok()) {
        facts.files_unreachable_because = files.error().message;
        return files;
    }
    if (facts.server_version_num == 0) facts.server_version_num = files->major_version * 10000;
    facts.systemd_unit = says.managed_by.empty() ? files->systemd_unit : says.managed_by;
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

Result<Inspected> look_for_promotion(const ServerSays& says, std::uint16_t port, bool runs) {
    PromotionFacts facts = restart_facts(says, port);
    auto files = look_at_files(says, facts, runs);
    auto plan = plan_promotion(facts);
    return inspected(std::move(files), std::move(plan));
}

/// A restart that it stays a slave in.
Result<Inspected> look_for_slave_restart(const ServerSays& says, const std::vector<StreamSetting>& settings,
                                         bool runs) {
    PromotionFacts facts = restart_facts(says, says.address.port);
    auto files = look_at_files(says, facts, runs);
    auto plan = plan_stream_restart(facts, settings);
    return inspected(std::move(files), std::move(plan));
}

/// With whatever settings: could it be had at all?
Status check_slave_restart(const ServerSays& says) {
    const std::vector<StreamSetting> settings{{"primary_conninfo", std::nullopt},
                                              {"primary_slot_name", std::nullopt}};
    auto found = look_for_slave_restart(says, settings, true);
    if (!found.ok()) return found.error();
    return check_restart(found->files, found->plan);
}

asio::awaitable<Result<ServerSays>> ask(LockSession& server) {
    auto told = co_await server.run(
        "SELECT current_setting('data_directory'), current_setting('config_file'), current_setting('port'), "
        "current_setting('restore_command', true), (SELECT count(*) FROM pg_catalog.pg_settings "
        "WHERE name LIKE 'recovery\\_target%' AND name NOT IN ('recovery_target_timeline', "
        "'recovery_target_action', "
        "'recovery_target_inclusive') AND setting <> ''), "
        "(SELECT system_identifier FROM pg_catalog.pg_control_system())",
        effect_timeout);
    if (!told.ok()) co_return told.error();
    ServerSays says;
    says.place.data_directory = told->text(0);
    says.place.config_file = told->text(1);
    says.address = server.address();
    says.version_num = server.server_version();
    says.listens_on_port = static_cast<std::uint16_t>(std::stoul("0" + told->text(2)));
    says.has_restore_command = !told->text(3).empty();
    says.has_recovery_target = told->text(4) != "0";
    says.system_identifier = told->text(5);
    co_return says;
}

/// Runs a restart to its end; the claim is checked directly before each pg_ctl.
asio::awaitable<Status> drive(Inspected inspected, RestartOptions options,
                              std::function<asio::awaitable<Status>()> claim_is_newest,
                              std::function<void()> before_stop) {
    auto restart = RestartPromotion::prepare(std::move(inspected.files), inspected.plan, std::move(options));
    if (!restart.ok()) co_return restart.error();
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
                    before_stop();
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

/// Is our library there, and needed, because the files are out of reach?
asio::awaitable<Result<bool>> needs_library(LockSession& server, ServerSays says) {
    if (files_within_reach(says, true).ok()) co_return false;
    co_return co_await has_library(server);
}

}  // namespace

Status can_restart_here(const ServerSays& says, std::uint16_t port) {
    auto found = look_for_promotion(says, port, true);
    if (!found.ok()) return found.error();
    if (Status can = check_restart(found->files, found->plan); !can.ok()) return can;
    const PostmasterPid& postmaster = *found->files.postmaster;
    if (port == postmaster.port) return {};
    return check_port_is_free(postmaster, port);
}

asio::awaitable<Result<ServerPlace>> can_restart(LockSession& server, std::uint16_t port) {
    auto says = co_await ask(server);
    if (!says.ok()) co_return says.error();
    auto by_library = co_await needs_library(server, *says);
    if (!by_library.ok()) co_return by_library.error();
    Status can;
    if (*by_library) {
        NodeRequest request;
        request.kind = NodeRequestKind::CanRestart;
        request.port = port;
        can = co_await send_to_library(server, request);
    } else {
        can = can_restart_here(*says, port);
    }
    if (!can.ok()) co_return can.error();
    co_return says->place;
}

asio::awaitable<Status> restart_server(std::unique_ptr<LockSession> server, RestartRequest request,
                                       std::function<asio::awaitable<Status>()> claim_is_newest) {
    ServerSays says;
    says.place = request.place;
    says.address = request.address;
    if (server) {
        auto told = co_await ask(*server);
        if (!told.ok()) co_return told.error();
        says = std::move(*told);
        auto by_library = co_await needs_library(*server, says);
        if (!by_library.ok()) co_return by_library.error();
        if (*by_library) {
            NodeRequest asked = request.library;
            asked.kind = NodeRequestKind::Restart;
            asked.port = request.port;
            asked.time_limit = request.timeout;
            if (Status begun = co_await send_to_library(*server, asked); !begun.ok()) co_return begun;
            ConnectTarget target = server->target();
            server.reset();
            std::vector<HostPort> addresses;
            addresses.push_back(request.address);
            if (request.port != request.address.port) {
                addresses.push_back(request.address);
                addresses.front().port = request.port;
            }
            co_return co_await await_library(std::move(target), std::move(addresses), asked.ticket,
                                             Clock::now() + request.timeout + library_grace);
        }
    }
    says.restore_command = request.restore_command;
    const bool runs = server != nullptr;
    // A fast stop waits for nobody, but a session of ours would be told by a FATAL: end it first.
    std::function<void()> before_stop = [&server] { server.reset(); };
    co_return co_await restart_server_here(std::move(says), runs, request.port, request.timeout,
                                           std::move(claim_is_newest), std::move(before_stop));
}

asio::awaitable<Status> restart_server_here(ServerSays says, bool runs, std::uint16_t port, Millis timeout,
                                            std::function<asio::awaitable<Status>()> claim_is_newest,
                                            std::function<void()> before_stop) {
    auto found = look_for_promotion(says, port, runs);
    if (!found.ok()) co_return found.error();
    RestartOptions options;
    options.intent = "promotion of the node at " + says.address.to_string();
    options.start_timeout = timeout;
    co_return co_await drive(std::move(*found), std::move(options), std::move(claim_is_newest),
                             std::move(before_stop));
}

asio::awaitable<Status> can_restart_slave(LockSession& slave) {
    auto says = co_await ask(slave);
    if (!says.ok()) co_return says.error();
    co_return check_slave_restart(*says);
}

Status can_restart_slave(const ServerPlace& place, const HostPort& address, int server_version_num,
                         std::uint64_t system_identifier) {
    ServerSays says;
    says.place = place;
    says.address = address;
    says.version_num = server_version_num;
    says.system_identifier = std::to_string(system_identifier);
    return check_slave_restart(says);
}

asio::awaitable<Status> restart_slave(std::unique_ptr<LockSession> slave, std::vector<StreamSetting> settings,
                                      Millis timeout,
                                      std::function<asio::awaitable<Status>(ServerPlace)> intent,
                                      std::function<asio::awaitable<Status>()> claim_is_newest) {
    auto says = co_await ask(*slave);
    if (!says.ok()) co_return says.error();
    auto found = look_for_slave_restart(*says, settings, true);
    if (!found.ok()) co_return found.error();
    if (Status can = check_restart(found->files, found->plan); !can.ok()) co_return can;
    if (Status intended = co_await intent(says->place); !intended.ok()) co_return intended;
    RestartOptions options;
    options.intent = "another stream of the node at " + says->address.to_string();
    options.start_timeout = timeout;
    // As in restart_server().
    std::function<void()> before_stop = [&slave] { slave.reset(); };
    co_return co_await drive(std::move(*found), std::move(options), std::move(claim_is_newest),
                             std::move(before_stop));
}

asio::awaitable<Status> start_stopped_slave(ServerPlace place, HostPort address,
                                            std::uint64_t system_identifier, Millis timeout,
                                            std::function<asio::awaitable<Status>()> claim_is_newest) {
    ServerSays says;
    says.place = std::move(place);
    says.address = address;
    says.system_identifier = std::to_string(system_identifier);
    const std::vector<StreamSetting> as_they_are;
    auto found = look_for_slave_restart(says, as_they_are, false);
    if (!found.ok()) co_return found.error();
    if (found->files.postmaster) co_return Status{};
    RestartOptions options;
    options.intent = "start of the node at " + address.to_string();
    options.start_timeout = timeout;
    std::function<void()> before_stop = [] {};
    co_return co_await drive(std::move(*found), std::move(options), std::move(claim_is_newest),
                             std::move(before_stop));
}

asio::awaitable<Status> promote_by_pg_ctl(LockSession& slave, Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    auto says = co_await ask(slave);
    if (!says.ok()) co_return says.error();
    auto files = files_within_reach(*says, true);
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

asio::awaitable<Status> can_stop(LockSession& server) {
    auto says = co_await ask(server);
    if (!says.ok()) co_return says.error();
    const auto files = files_within_reach(*says, true);
    if (files.ok()) co_return Status{};
    auto library = co_await has_library(server);
    if (!library.ok()) co_return library.error();
    if (*library) co_return Status{};
    co_return Error{
        sqlstate::object_not_in_prerequisite_state,
        "the server at " + server.address().to_string() +
            " can't be stopped from here: " + files.error().message,
        "Stop it on its host, then promote again: pg_ctl stop -D " + says->place.data_directory + " -m fast"};
}

asio::awaitable<Status> stop_server(std::unique_ptr<LockSession> server, Millis timeout, bool immediate,
                                    std::optional<NodeRequest> library) {
    auto says = co_await ask(*server);
    if (!says.ok()) co_return says.error();
    Status can = co_await can_stop(*server);
    if (!can.ok()) co_return can;
    if (!files_within_reach(*says, true).ok() && library) {
        NodeRequest request = *library;
        request.kind = NodeRequestKind::Stop;
        request.time_limit = timeout;
        if (Status begun = co_await send_to_library(*server, request); !begun.ok()) co_return begun;
        ConnectTarget target = server->target();
        server.reset();
        co_return co_await await_stopped(std::move(target), request.ticket, Clock::now() + timeout);
    }
    server.reset();
    co_return co_await stop_server_here(says->place, timeout, immediate);
}

asio::awaitable<Status> stop_server_here(ServerPlace place, Millis timeout, bool immediate) {
    auto files = inspect_server(place.data_directory, place.config_file);
    if (!files.ok()) co_return files.error();
    const std::string data_directory = files->data_directory;
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
