#include "pg/node_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "replication/durable_file.h"
#include "replication/node_agent.h"
#include "replication/process_runner.h"
#include "replication/rejoin_files.h"
#include "replication/server_files.h"
#include "replication/server_restart.h"

extern "C" {
#include "access/parallel.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"
}

namespace pgxc {
namespace {

using namespace replication;

char* node_request_value = nullptr;
char* node_answer_value = nullptr;

/// A setting's value as the files and this session have it.
std::string setting(const char* name) {
    const auto value = pg_call([name] { return GetConfigOption(name, true, false); });
    return value.ok() && *value != nullptr ? *value : "";
}

std::string real_path_of(const std::string& path) {
    std::error_code error;
    const auto real = std::filesystem::canonical(path, error);
    return error ? path : real.string();
}

/// Who, other than pg_ctl, runs this server: it would take a server that is stopped and started by us for one
/// that has ended, and end us together with it.
std::string manager(pid_t postmaster) {
    const std::string service = service_of_process(postmaster);
    if (service.empty()) return {};
    // A service that the server is just one process of (a test, a container) restarts nothing.
    const char* main_pid = std::getenv("SYSTEMD_EXEC_PID");
    const bool is_main = main_pid != nullptr && std::to_string(postmaster) == main_pid;
    return is_main || service.starts_with("postgres") ? service : std::string{};
}

/// The program beside this module.
std::string agent_program() {
    Dl_info info{};
    if (::dladdr(reinterpret_cast<void*>(&check_start_as_master), &info) == 0 || info.dli_fname == nullptr)
        return {};
    return (std::filesystem::path(info.dli_fname).parent_path() / "pgxc_ha_node").string();
}

/// Is the program there? A module that was copied without it can look, and do nothing.
Status find_agent(const std::string& program) {
    if (::access(program.c_str(), X_OK) == 0) return {};
    const int why = errno;
    return Error{
        sqlstate::object_not_in_prerequisite_state,
        "the program \"" + program +
            "\" of pgxc_ha can't be executed on this datanode: " + std::generic_category().message(why),
        "Install all of pgxc_ha on this host (cmake --install): the program belongs beside pgxc_ha.so."};
}

NodeTask own_task(NodeTask::Kind kind) {
    NodeTask task;
    task.kind = kind;
    task.server.data_directory = real_path_of(DataDir != nullptr ? DataDir : "");
    task.server.config_file = ConfigFileName != nullptr ? ConfigFileName : "";
    task.server.port = static_cast<std::uint16_t>(PostPortNumber);
    task.server.managed_by = manager(::PostmasterPid);
    for (const ListedNode& coordinator : guc::coordinators())
        task.coordinators.push_back(coordinator.address);
    task.node_login = {guc::node_user(), guc::node_database(), guc::node_conninfo()};
    task.coordinator_login = {guc::node_user(), guc::database(), guc::node_conninfo()};
    task.has_restore_command = !setting("restore_command").empty();
    constexpr std::array targets{"recovery_target", "recovery_target_lsn", "recovery_target_name",
                                 "recovery_target_time", "recovery_target_xid"};
    for (const char* target : targets)
        if (!setting(target).empty()) task.has_recovery_target = true;
    return task;
}

/// Starts the program; it goes on when this process, and the server, have ended.
Status send_agent(const NodeTask& task) {
    return start_detached(node_agent_command(agent_program(), task),
                          node_agent_log(task.server.data_directory));
}

Status can_restart_own(const NodeTask& task, std::uint16_t port) {
    ServerSays says;
    says.place.data_directory = task.server.data_directory;
    says.place.config_file = task.server.config_file;
    says.address = {"this host", task.server.port};
    says.listens_on_port = task.server.port;
    says.has_restore_command = task.has_restore_command;
    says.has_recovery_target = task.has_recovery_target;
    says.managed_by = task.server.managed_by;
    return can_restart_here(says, port);
}

/// The journal of a return that has come to its end.
Status forget(const std::string& data_directory) {
    const RejoinFiles files(data_directory);
    // Without the lock on the files: whoever has started this server may still hold it, and writes no more.
    auto journal = files.read();
    if (!journal.ok()) return journal.error();
    if (journal->stage != RejoinStage::None && journal->stage != RejoinStage::Prepared)
        return Error{sqlstate::object_not_in_prerequisite_state,
                     "the work on this server's files is not done"};
    files.forget();
    return {};
}

/// Takes a request. Those that look are answered at once; the others are begun.
Status take_request(const char* text) {
    auto request = node_request_from_json(text);
    if (!request.ok()) return request.error();
    NodeTask task = own_task(NodeTask::Kind::Request);
    task.request = *request;
    switch (request->kind) {
        case NodeRequestKind::CanRestart:
            if (Status can = can_restart_own(task, request->port); !can.ok()) return can;
            break;
        case NodeRequestKind::Forget:
            return forget(task.server.data_directory);
        case NodeRequestKind::Restart:
        case NodeRequestKind::Stop:
        case NodeRequestKind::Rejoin:
            break;
    }
    if (task.coordinators.empty())
        return Error{sqlstate::object_not_in_prerequisite_state,
                     "pgxc.coordinators names no coordinator on this datanode: what is asked for can't be "
                     "checked with one",
                     "Set it there, as on the coordinators."};
    if (!task.server.managed_by.empty())
        return Error{sqlstate::feature_not_supported,
                     "this server is run by systemd (" + task.server.managed_by + "), which must restart it",
                     "sudo systemctl restart " + task.server.managed_by};
    if (Status there = find_agent(agent_program()); !there.ok()) return there;
    if (request->kind == NodeRequestKind::CanRestart) return {};
    return send_agent(task);
}

/// Says why a value was refused: all of it, as an error of the statement.
bool refuse(const Error& error) {
    const char* state = error.sqlstate.c_str();
    GUC_check_errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]));
    GUC_check_errmsg("%s", error.message.c_str());
    if (!error.detail.empty()) GUC_check_errdetail("%s", error.detail.c_str());
    if (!error.hint.empty()) GUC_check_errhint("%s", error.hint.c_str());
    return false;
}

bool check_node_request(char** newval, void** /*extra*/, GucSource source) {
    if (*newval == nullptr || **newval == '\0') return true;
    try {
        if (!InitializingParallelWorker) {
            // Not in a file, of a role, or of a function's definition: it is something that is done, once.
            if (source != PGC_S_SESSION || !IsTransactionState())
                return refuse(
                    Error{sqlstate::invalid_parameter_value,
                          "pgxc.node_request is a request: it can only be made by SET in a session"});
            const auto super = pg_call([] { return superuser(); });
            if (!super.ok() || !*super)
                return refuse(Error{sqlstate::insufficient_privilege,
                                    "only a superuser may make a request of the library"});
            if (Status taken = take_request(*newval); !taken.ok()) return refuse(taken.error());
        }
        // Nothing of it stays.
        **newval = '\0';
        return true;
    } catch (const std::exception& problem) {
        return refuse(Error{sqlstate::internal_error, problem.what()});
    }
}

/// What the newest request has come to.
const char* show_node_answer() {
    std::string text;
    try {
        auto read = read_file(std::string(DataDir) + node_answer_file, limits::max_settings_file_bytes);
        if (read.ok()) text = std::move(*read);
    } catch (const std::exception&) {
        text.clear();
    }
    const char* from = text.c_str();
    const auto copied = pg_call([from] { return pstrdup(from); });
    return copied.ok() ? *copied : "";
}

/// What the postmaster says and does, in memory that an ereport may leave behind.
struct StartDecision {
    bool refuse = false;
    std::array<char, 512> message{};
    std::array<char, 1024> detail{};
    std::array<char, 2048> hint{};
};

void put(char* to, std::size_t size, const std::string& text) {
    strlcpy(to, text.c_str(), size);
}

/// Nobody answers what would keep the server from starting.
void warn(StartDecision& decision, const std::string& why, const std::string& hint = {}) {
    put(decision.message.data(), decision.message.size(),
        "no coordinator tells whether this server is still a master: it starts");
    put(decision.detail.data(), decision.detail.size(), why);
    put(decision.hint.data(), decision.hint.size(), hint);
}

/// pg_rewind has left a mixture of two servers' files, which is nobody's data.
bool is_half_rewound(const std::string& data_directory) {
    auto journal = RejoinFiles(data_directory).read();
    return journal.ok() && journal->stage == RejoinStage::Rewinding;
}

void refuse_start(StartDecision& decision, const StartVerdict& verdict, NodeTask task) {
    decision.refuse = true;
    std::string message = "this server may not start as a master now";
    if (!verdict.master.host.empty())
        message = "this server has been replaced as the master of " + verdict.group.to_string() +
                  ": since epoch " + std::to_string(verdict.epoch.value()) + " it is the one at " +
                  verdict.master.to_string();
    std::string hint;
    if (verdict.returns) {
        task.kind = NodeTask::Kind::Rejoin;
        const Status sent = send_agent(task);
        if (sent.ok())
            hint = "It is made a slave and started as one by itself: see \"" +
                   node_agent_log(task.server.data_directory) + "\".";
        else
            hint = sent.error().message + ". ";
    }
    if (hint.empty() || !hint.ends_with("\"."))
        hint +=
            "Make a slave of it" + (verdict.command.empty() ? std::string{} : ": " + verdict.command) +
            ". To start it as it is, to look at what it has, set pgxc.coordinators to '' in its own file.";
    put(decision.message.data(), decision.message.size(), message);
    put(decision.detail.data(), decision.detail.size(), verdict.because);
    put(decision.hint.data(), decision.hint.size(), hint);
}

void decide_start(StartDecision& decision) {
    try {
        const NodeTask task = own_task(NodeTask::Kind::CheckStart);
        if (task.coordinators.empty()) return;
        const auto unanswered = [&](const std::string& why, const std::string& hint = {}) {
            if (!is_half_rewound(task.server.data_directory)) return warn(decision, why, hint);
            StartVerdict verdict;
            verdict.because = "pg_rewind was begun on its files and has not come to its end. " + why;
            refuse_start(decision, verdict, task);
        };
        const std::string program = agent_program();
        if (Status there = find_agent(program); !there.ok())
            return unanswered(there.error().message, there.error().hint);
        auto told = run(node_agent_command(program, task), start_check_timeout);
        if (!told.ok()) return unanswered(told.error().message);
        if (told->timed_out) return unanswered("They don't answer in time.");
        auto verdict = start_verdict_from_json(told->output);
        if (!told->succeeded() || !verdict.ok()) return unanswered(told->output);
        if (verdict->replaced) refuse_start(decision, *verdict, task);
    } catch (const std::exception& problem) {
        warn(decision, problem.what());
    }
}

bool exists(const char* name) {
    return ::access(name, F_OK) == 0;
}

}  // namespace

void define_node_requests() {
    constexpr int hidden =
        GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE | GUC_SUPERUSER_ONLY;
    DefineCustomStringVariable(
        "pgxc.node_request", "A coordinator's request of the library on this datanode.", nullptr,
        &node_request_value, "", PGC_SUSET, hidden, check_node_request, nullptr, nullptr);
    DefineCustomStringVariable("pgxc.node_answer", "What has become of the newest request.", nullptr,
                               &node_answer_value, "", PGC_INTERNAL, hidden, nullptr, nullptr,
                               show_node_answer);
}

void check_start_as_master() {
    // The data directory is the current one. What starts as a standby, or to end an archive recovery, is no
    // master yet, and whoever promotes it answers for that.
    if (exists("standby.signal") || exists("recovery.signal")) return;
    static StartDecision decision;
    decide_start(decision);
    if (decision.message[0] == '\0') return;
    if (decision.refuse)
        ereport(FATAL,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg_internal("%s", decision.message.data()),
                 errdetail_internal("%s", decision.detail.data()), errhint("%s", decision.hint.data())));
    ereport(WARNING, (errcode(ERRCODE_CONNECTION_EXCEPTION), errmsg_internal("%s", decision.message.data()),
                      errdetail_internal("%s", decision.detail.data()),
                      decision.hint[0] != '\0' ? errhint("%s", decision.hint.data()) : 0));
}

}  // namespace pgxc
