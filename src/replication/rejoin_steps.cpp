#include <asio/use_awaitable.hpp>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "replication/conninfo.h"
#include "replication/durable_file.h"
#include "replication/node_effects.h"
#include "replication/pg_ctl.h"
#include "replication/process_wait.h"
#include "replication/rejoin.h"
#include "replication/server_restart.h"
#include "replication/sync_standbys.h"

// What a return does, step by step; rejoin.cpp looks and has it decided which.

namespace pgxc {
namespace {

using namespace replication;

constexpr Millis stop_timeout{60'000};
constexpr Millis start_timeout{60'000};  // pg_ctl gives up then, the server goes on
constexpr Millis checkpoint_timeout{600'000};
constexpr Millis look_interval{20};
constexpr Millis rewind_timeout{6 * 3'600'000};
constexpr Millis copy_timeout{48 * 3'600'000};
constexpr std::size_t told_of_output = 400;  // bytes of a program's last words

std::string tail_of(const std::string& output) {
    std::string tail =
        output.size() > told_of_output ? output.substr(output.size() - told_of_output) : output;
    while (!tail.empty() && (tail.back() == '\n' || tail.back() == ' ')) tail.pop_back();
    return tail;
}

Error program_failed(const std::string& program, const ProcessResult& result) {
    return Error{sqlstate::object_not_in_prerequisite_state,
                 program + (result.timed_out ? " took too long" : " failed") + ": " + tail_of(result.output)};
}

}  // namespace

asio::awaitable<Result<ProcessResult>> Rejoin::run_program(Command command, Millis time_limit) {
    std::function<bool()> cancelled = [this] { return stopped_; };
    co_return co_await run_process(std::move(command), time_limit, std::move(cancelled));
}

Status Rejoin::write(RejoinStage stage) {
    journal_.stage = stage;
    journal_.epoch = order_.epoch.value();
    return files_.write(journal_);
}

std::string Rejoin::source_conninfo() const {
    std::map<std::string, std::string> values;
    values["host"] = order_.master.host;
    values["port"] = std::to_string(order_.master.port);
    values["user"] = order_.login.user;
    values["dbname"] = order_.login.database;
    values["application_name"] = "pgxc_ha rejoin";
    auto conninfo = conninfo_with(order_.login.conninfo, values);
    return conninfo.ok() ? *conninfo : std::string{};
}

asio::awaitable<Status> Rejoin::take(RejoinStep step) {
    if (step == RejoinStep::Rewind || step == RejoinStep::Copy || step == RejoinStep::Prepare) {
        Status slot = co_await make_slot();
        if (!slot.ok()) co_return slot;
    }
    switch (step) {
        case RejoinStep::Stop:
            co_return co_await stop_it(false);
        case RejoinStep::StopNow:
            co_return co_await stop_it(true);
        case RejoinStep::Rewind:
            co_return co_await rewind();
        case RejoinStep::Copy:
            co_return co_await copy();
        case RejoinStep::PutCopyInPlace:
            co_return co_await put_copy_in_place();
        case RejoinStep::Prepare: {
            const std::string directory = server_->data_directory;
            if (journal_.stage == RejoinStage::Rewound)
                if (Status restored = files_.restore_settings(directory); !restored.ok()) co_return restored;
            if (Status prepared = prepare(directory); !prepared.ok()) co_return prepared;
            restarted_after_rewind_ = journal_.stage == RejoinStage::Rewound;
            co_return write(RejoinStage::Prepared);
        }
        case RejoinStep::Start:
            co_return co_await start_it();
        case RejoinStep::AskLibrary:
            co_return co_await ask_library();
        case RejoinStep::Wait:
        case RejoinStep::ByHand:
        case RejoinStep::Done:
            break;
    }
    co_return Status{};
}

asio::awaitable<Status> Rejoin::make_slot() {
    // Without the master's lock, which is the group's: a slot harms nobody, and one too many is tidied away.
    auto master = co_await master_session();
    if (!master.ok()) co_return master.error();
    auto made = co_await (*master)->query(create_slot_sql(order_.slot), effect_timeout);
    if (!made.ok()) co_return made.error().error;
    co_return Status{};
}

asio::awaitable<Status> Rejoin::stop_it(bool immediate) {
    // A slave that can't stream is of no use as it is, whatever becomes of the copy.
    if (order_.stream_failed) {
        if (Status written = write(RejoinStage::Broken); !written.ok()) co_return written;
        order_.stream_failed = false;
    } else if (!server_->log_file.empty() || journal_.stage != RejoinStage::None) {
        // Somebody started it as a master since: a rewind is undone by that, or was none.
        const bool rewound =
            journal_.stage == RejoinStage::Rewinding || journal_.stage == RejoinStage::Rewound;
        const bool copied = journal_.stage == RejoinStage::Copied || journal_.stage == RejoinStage::Broken;
        RejoinStage stage = copied ? journal_.stage : RejoinStage::None;
        if (rewound) stage = RejoinStage::Broken;
        if (Status written = write(stage); !written.ok()) co_return written;
    }
    auto session = co_await lock_session();
    if (!session.ok()) co_return session.error();
    co_return co_await stop_server(std::move(*session), stop_timeout, immediate);
}

asio::awaitable<Status> Rejoin::checkpoint(NodeConnection& master) {
    // Whoever is to do this for the next master waits for the lock on these files, and so for the end of
    // this.
    const TimePoint deadline = Clock::now() + checkpoint_timeout;
    if (!master.start("CHECKPOINT"))
        co_return Error{sqlstate::connection_failure, "the session to the new master was lost"};
    while (!master.answered() && Clock::now() < deadline) {
        if (stopped_) co_return Error{sqlstate::query_canceled, "no longer wanted"};
        co_await wait_for_event_on(-1, Clock::now() + look_interval);
    }
    auto done = co_await master.finish(effect_timeout);
    if (!done.ok()) co_return done.error().error;
    co_return Status{};
}

asio::awaitable<Status> Rejoin::rewind() {
    say("waits for a checkpoint of the new master, then runs pg_rewind");
    {
        auto master = co_await master_session();
        if (!master.ok()) co_return master.error();
        // pg_rewind compares timelines in the control files, and a promotion writes its own there at the
        // first checkpoint only (F3).
        if (Status done = co_await checkpoint(**master); !done.ok()) co_return done;
        auto told = co_await (*master)->query("SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()",
                                              effect_timeout);
        if (!told.ok()) co_return told.error().error;
        if (told->text() != std::to_string(order_.timeline))
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            "the new master's control file has timeline " + told->text() + ", not " +
                                std::to_string(order_.timeline)};
    }
    if (Status saved = files_.save_settings(); !saved.ok()) co_return saved;
    Status mine = co_await claim_is_newest_();
    if (!mine.ok()) co_return mine;
    if (Status begun = write(RejoinStage::Rewinding); !begun.ok()) co_return begun;
    auto result = co_await run_program(rewind_command(*server_, source_conninfo()), rewind_timeout);
    if (!result.ok()) co_return result.error();
    if (!result->succeeded()) {
        // What it has changed by then can't be told: the next look finds it begun and takes a copy.
        log_warning(program_failed("pg_rewind", *result).message);
        co_return Status{};
    }
    log_info("pg_rewind: " + tail_of(result->output));
    co_return write(RejoinStage::Rewound);
}

Status Rejoin::prepare(const std::string& directory) {
    std::map<std::string, std::string> values;
    values["host"] = order_.master.host;
    values["hostaddr"] = "";
    values["port"] = std::to_string(order_.master.port);
    // Not a name that counts: it gets one of this epoch when it is proven a beginning of this line (rule 9).
    values["application_name"] = "pgxc_rejoin";
    auto conninfo = conninfo_with(order_.conninfo, values);
    if (!conninfo.ok()) return conninfo.error();
    std::vector<std::pair<std::string, std::string>> settings{
        {"synchronous_standby_names", order_.nobody_names},
        {"wal_retrieve_retry_interval", "100ms"},
        {"primary_slot_name", order_.slot},
        {"primary_conninfo", *conninfo}};
    const std::string config_file =
        server_->config_file.starts_with(server_->data_directory + "/")
            ? directory + server_->config_file.substr(server_->data_directory.size())
            : server_->config_file;
    auto port = locate_setting(config_file, directory + "/postgresql.auto.conf", "port");
    if (!port.ok()) return port.error();
    const std::string wanted = std::to_string(order_.former.address.port);
    if ((*port ? (*port)->value : "5432") != wanted) settings.emplace_back("port", wanted);
    return make_standby(directory, settings);
}

asio::awaitable<Status> Rejoin::copy() {
    say("is being copied from the new master by pg_basebackup");
    // Of settings that pg_rewind may have replaced already only the saved ones are right.
    const bool saved = journal_.stage == RejoinStage::Rewinding || journal_.stage == RejoinStage::Rewound ||
                       journal_.stage == RejoinStage::Broken || journal_.stage == RejoinStage::Copied;
    if (!saved || !files_.has_saved_settings())
        if (Status kept = files_.save_settings(); !kept.ok()) co_return kept;
    if (Status begun = write(RejoinStage::Broken); !begun.ok()) co_return begun;
    // Not a braced list: GCC 12 gives it no place in the coroutine's frame.
    std::vector<std::string> leftovers;
    leftovers.push_back(files_.copy_directory());
    leftovers.push_back(files_.complete_directory());
    for (const std::string& directory : leftovers) {
        auto removed = co_await run_program(remove_command(directory), copy_timeout);
        if (!removed.ok()) co_return removed.error();
        if (!removed->succeeded()) co_return program_failed("rm", *removed);
    }
    const std::string copy = files_.copy_directory();
    Command command = basebackup_command(*server_, copy, source_conninfo(), order_.slot);
    auto result = co_await run_program(std::move(command), copy_timeout);
    if (!result.ok()) co_return result.error();
    if (!result->succeeded()) co_return program_failed("pg_basebackup", *result);
    if (Status restored = files_.restore_settings(copy); !restored.ok()) co_return restored;
    if (Status prepared = prepare(copy); !prepared.ok()) co_return prepared;
    if (Status complete = files_.complete_copy(); !complete.ok()) co_return complete;
    co_return write(RejoinStage::Copied);
}

asio::awaitable<Status> Rejoin::put_copy_in_place() {
    if (files_.copy_is_complete()) {
        // The directory that an earlier copy has replaced makes room for the one that this copy replaces.
        if (server_) {
            auto removed = co_await run_program(remove_command(files_.old_directory()), copy_timeout);
            if (!removed.ok()) co_return removed.error();
            if (!removed->succeeded()) co_return program_failed("rm", *removed);
            Status mine = co_await claim_is_newest_();
            if (!mine.ok()) co_return mine;
        }
        if (Status put = files_.put_copy_in_place(); !put.ok()) co_return put;
    }
    co_return write(RejoinStage::Prepared);
}

asio::awaitable<Status> Rejoin::start_it() {
    ServerFiles server = *server_;
    std::string log_file = journal_.log_file;
    if (log_file.empty() || ::access(log_file.c_str(), W_OK) != 0 || !is_safe_in_double_quotes(log_file))
        log_file = server.data_directory + "/pgxc_ha_server.log";
    for (const std::string& directory : socket_directories_of(server))
        clear_dead_socket_lock(directory, order_.former.address.port);
    auto result =
        co_await run_program(start_command(server, log_file, start_timeout), start_timeout + Millis(10'000));
    if (!result.ok()) co_return result.error();
    // A long recovery is no failure: it goes on without pg_ctl.
    if (result->succeeded() || running_postmaster(server.data_directory)) co_return Status{};
    if (std::exchange(restarted_after_rewind_, false))
        if (Status broken = write(RejoinStage::Broken); !broken.ok()) co_return broken;
    co_return Error{sqlstate::object_not_in_prerequisite_state,
                    "it does not start as a slave; see " + log_file + ": " + tail_of(result->output)};
}

}  // namespace pgxc
