#include "replication/server_restart.h"

#include <unistd.h>

#include <asio/use_awaitable.hpp>
#include <utility>

#include "replication/library_call.h"
#include "replication/node_effects.h"
#include "replication/pg_ctl.h"
#include "replication/process_runner.h"
#include "replication/process_wait.h"
#include "replication/restart_promotion.h"

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

/// Looks at the files of a server and plans its restart.
Result<Inspected> look_at_files(const ServerSays& says, std::uint16_t port, bool runs) {
    PromotionFacts facts;
    facts.node = "node at " + says.address.to_string();
    facts.method = PromotionMethod::Restart;
    facts.with_restart = true;
    facts.listens_on_port = says.listens_on_port != 0 ? says.listens_on_port : says.address.port;
    facts.wanted_port = port;
    facts.server_version_num = says.version_num;
    facts.has_restore_command = says.has_restore_command;
    facts.has_recovery_target = says.has_recovery_target;
    facts.data_directory = says.place.data_directory;
    auto files = files_within_reach(says, runs);
    facts.files_reachable = files.ok();
    if (files.ok()) {
        if (facts.server_version_num == 0) facts.server_version_num = files->major_version * 10000;
        facts.systemd_unit = says.managed_by.empty() ? files->systemd_unit : says.managed_by;
        for (const CommandLineSetting& setting : command_line_settings(files->arguments))
            facts.command_line_settings.push_back(setting.name);
    } else {
        facts.files_unreachable_because = files.error().message;
    }
    auto plan = plan_promotion(facts);
    if (!plan.ok()) return plan.error();
    return Inspected{std::move(*files), std::move(*plan)};
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

/// Is our library there, and needed, because the files are out of reach?
asio::awaitable<Result<bool>> needs_library(LockSession& server, ServerSays says) {
    if (files_within_reach(says, true).ok()) co_return false;
    co_return co_await has_library(server);
}

}  // namespace

Status can_restart_here(const ServerSays& says, std::uint16_t port) {
    auto inspected = look_at_files(says, port, true);
    if (!inspected.ok()) return inspected.error();
    const PostmasterPid& postmaster = *inspected->files.postmaster;
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
    const bool runs = server != nullptr;
    // A fast stop waits for nobody, but a session of ours would be told by a FATAL: end it first.
    std::function<void()> before_stop = [&server] { server.reset(); };
    co_return co_await restart_server_here(std::move(says), runs, request.port, request.timeout,
                                           std::move(claim_is_newest), std::move(before_stop));
}

asio::awaitable<Status> restart_server_here(ServerSays says, bool runs, std::uint16_t port, Millis timeout,
                                            std::function<asio::awaitable<Status>()> claim_is_newest,
                                            std::function<void()> before_stop) {
    auto inspected = look_at_files(says, port, runs);
    if (!inspected.ok()) co_return inspected.error();
    RestartOptions options;
    options.intent = "promotion of the node at " + says.address.to_string();
    options.start_timeout = timeout;
    auto restart = RestartPromotion::prepare(std::move(inspected->files), inspected->plan, options);
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
