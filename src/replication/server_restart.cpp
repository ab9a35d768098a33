#include "replication/server_restart.h"

#include <asio/use_awaitable.hpp>

#include "replication/node_effects.h"
#include "replication/pg_ctl.h"
#include "replication/process_runner.h"
#include "replication/process_wait.h"
#include "replication/restart_promotion.h"

namespace pgxc {
namespace {

using namespace replication;

struct Inspected {
    ServerFiles files;
    PromotionPlan plan;
};

/// Looks at the files of a server and plans its restart. `facts` has what the server itself says, where it
/// runs.
Result<Inspected> look_at_files(const ServerPlace& place, PromotionFacts facts,
                                const std::string& system_identifier, bool runs) {
    auto files = inspect_server(place.data_directory, place.config_file);
    if (files.ok() && !system_identifier.empty() &&
        std::to_string(files->system_identifier) != system_identifier)
        files = Error{sqlstate::undefined_file,
                      place.data_directory + " on this host is another server's data directory"};
    if (files.ok() && runs && !files->postmaster)
        files = Error{sqlstate::undefined_file, place.data_directory + " on this host has no running server"};
    facts.files_reachable = files.ok();
    if (files.ok()) {
        if (facts.server_version_num == 0) facts.server_version_num = files->major_version * 10000;
        facts.systemd_unit = files->systemd_unit;
        for (const CommandLineSetting& setting : command_line_settings(files->arguments))
            facts.command_line_settings.push_back(setting.name);
    } else {
        facts.files_unreachable_because = files.error().message;
    }
    auto plan = plan_promotion(facts);
    if (!plan.ok()) return plan.error();
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

}  // namespace

asio::awaitable<Result<ServerPlace>> can_restart(LockSession& server, std::uint16_t port) {
    auto told = co_await ask(server, port);
    if (!told.ok()) co_return told.error();
    auto inspected = look_at_files(told->place, told->facts, told->system_identifier, true);
    if (!inspected.ok()) co_return inspected.error();
    const PostmasterPid& postmaster = *inspected->files.postmaster;
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
    auto inspected = look_at_files(told.place, told.facts, told.system_identifier, server != nullptr);
    if (!inspected.ok()) co_return inspected.error();
    RestartOptions options;
    options.intent = "promotion of the node at " + request.address.to_string();
    options.start_timeout = request.timeout;
    auto restart = RestartPromotion::prepare(std::move(inspected->files), inspected->plan, options);
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
