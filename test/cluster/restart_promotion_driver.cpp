// Does the file and pg_ctl part of a restart promotion on a real server, for restart_promotion_test.py:
//   restart_promotion_driver plan DATA_DIRECTORY CONFIG_FILE LISTENS_ON WANTED_PORT [restore_command]
//   [restart]
// prints the plan's steps and the milliseconds; exit 1 and the error's parts on failure.
//   restart_promotion_driver promote DATA_DIRECTORY      pg_ctl promote (servers before 12)
//   restart_promotion_driver unfinished|undo DATA_DIRECTORY
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/clock.h"
#include "replication/pg_ctl.h"
#include "replication/process_runner.h"
#include "replication/promotion_plan.h"
#include "replication/restart_journal.h"
#include "replication/restart_promotion.h"
#include "replication/server_files.h"

namespace {

using namespace pgxc;
using namespace pgxc::replication;

int fail(const Error& error) {
    std::printf("ERROR %s: %s\nDETAIL: %s\nHINT: %s\n", error.sqlstate.c_str(), error.message.c_str(),
                error.detail.c_str(), error.hint.c_str());
    return 1;
}

double milliseconds_since(TimePoint start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

int restart(const std::vector<std::string>& arguments) {
    const TimePoint begin = Clock::now();
    auto server = inspect_server(arguments[1], arguments[2]);
    if (!server) return fail(server.error());
    PromotionFacts facts;
    facts.node = "datanode 2";
    facts.server_version_num = server->major_version * 10000;
    facts.listens_on_port = static_cast<std::uint16_t>(std::atoi(arguments[3].c_str()));
    facts.wanted_port = static_cast<std::uint16_t>(std::atoi(arguments[4].c_str()));
    facts.files_reachable = true;
    facts.systemd_unit = server->systemd_unit;
    for (const auto& setting : command_line_settings(server->arguments)) {
        facts.command_line_settings.push_back(setting.name);
    }
    for (std::size_t i = 5; i < arguments.size(); ++i) {
        if (arguments[i] == "restore_command") facts.has_restore_command = true;
        if (arguments[i] == "restart") facts.with_restart = true;
    }
    const auto plan = plan_promotion(facts);
    if (!plan) return fail(plan.error());
    for (const auto& step : plan->steps) {
        std::printf("step %s %s: %s\n", std::string(to_word(step.kind)).c_str(), step.value.c_str(),
                    step.reason.c_str());
    }
    RestartOptions options;
    options.intent = "test";
    int asked = 0;
    double prepared = 0;
    double stopped = 0;
    const auto done = run_restart_promotion(*server, *plan, options, [&] {
        (++asked == 1 ? prepared : stopped) = milliseconds_since(begin);
        return Status{};
    });
    const double all = milliseconds_since(begin);
    if (!done) return fail(done.error());
    std::printf("ms prepare %.0f stop %.0f start %.0f all %.0f\n", prepared, stopped - prepared,
                all - stopped, all);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() >= 5 && arguments[0] == "plan") return restart(arguments);
    if (arguments.size() == 2 && arguments[0] == "unfinished") {
        const auto intent = unfinished_restart(arguments[1]);
        if (!intent) return fail(intent.error());
        std::printf("%s\n", *intent ? (*intent)->c_str() : "(none)");
        return 0;
    }
    if (arguments.size() == 2 && arguments[0] == "undo") {
        const auto undone = undo_unfinished_restart(arguments[1]);
        return undone ? 0 : fail(undone.error());
    }
    if (arguments.size() == 2 && arguments[0] == "promote") {
        const auto server = inspect_server(arguments[1], "");
        if (!server) return fail(server.error());
        const auto result = run(promote_command(*server), Millis{30000});
        if (!result) return fail(result.error());
        std::printf("%s", result->output.c_str());
        return result->exit_status;
    }
    std::fprintf(stderr, "usage: see the head of restart_promotion_driver.cpp\n");
    return 2;
}
