#include "replication/rejoin.h"

#include <unistd.h>

#include <asio/use_awaitable.hpp>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "net/spawn.h"
#include "replication/conninfo.h"
#include "replication/durable_file.h"
#include "replication/library_call.h"
#include "replication/node_effects.h"
#include "replication/pg_ctl.h"
#include "replication/process_wait.h"
#include "replication/promotion_rules.h"
#include "replication/server_restart.h"
#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

using namespace replication;

/// A round takes fewer steps than this; more would be a decision that doesn't change with its effect.
constexpr int max_steps = 13;
constexpr Millis tool_timeout{600'000};  // pg_controldata; pg_waldump of the WAL behind one checkpoint

/// Who, other than pg_ctl, runs the server: it would lose one that is started by us.
std::string manager_of(const ServerFiles& server) {
    if (!server.systemd_unit.empty()) return "systemd as " + server.systemd_unit;
    if (server.config_file.starts_with("/etc/postgresql/")) return "pg_ctlcluster";
    return {};
}

/// Where a timeline begins, from its history file; 0/0 = can't be told.
Lsn begin_of_timeline(const std::string& data_directory, std::uint32_t timeline) {
    char name[24];
    std::snprintf(name, sizeof name, "%08X.history", timeline);
    auto history = read_file(data_directory + "/pg_wal/" + name, limits::max_settings_file_bytes);
    return history.ok() ? last_switch_point(*history).value_or(Lsn{}) : Lsn{};
}

/// The timeline history of the master.
asio::awaitable<Result<std::string>> read_history(NodeConnection& master) {
    auto history = co_await master.query(
        "SELECT CASE WHEN t.id > 1 THEN pg_catalog.pg_read_file('pg_wal/' || "
        "upper(lpad(to_hex(t.id), 8, '0')) || '.history') ELSE '' END FROM (SELECT ('x' || substr("
        "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int AS id) t",
        effect_timeout);
    if (!history.ok()) co_return history.error().error;
    co_return history->text();
}

std::string real_path_of(const std::string& path) {
    std::error_code error;
    const auto real = std::filesystem::canonical(path, error);
    return error ? path : real.string();
}

}  // namespace

Rejoin::Order rejoin_order(NodeKey group, const Record& record, const FormerMaster& former, NodeLogin login) {
    Rejoin::Order order;
    order.former = former;
    order.master = record.master;
    order.master_place = record.place;
    order.epoch = record.epoch;
    order.timeline = record.timeline;
    order.system_identifier = record.system_identifier;
    order.nobody_names = nobody_standby_names(record.cluster_id);
    order.conninfo = "user=" + login.user;
    order.login = std::move(login);
    order.slot = standby_name({group.type, former.id}, record.epoch);
    for (const Configuration& configuration : record.configurations)
        if (configuration.find(former.address) != nullptr) order.counted = true;
    order.library = node_request(NodeRequestKind::Rejoin, group, record);
    return order;
}

Rejoin::Rejoin(asio::any_io_executor executor, Order order,
               std::function<asio::awaitable<Status>()> claim_is_newest, std::function<void()> on_change)
    : executor_(std::move(executor)),
      order_(std::move(order)),
      claim_is_newest_(std::move(claim_is_newest)),
      on_change_(std::move(on_change)),
      files_(real_path_of(order_.former.place.data_directory)) {}

void Rejoin::start() {
    net::spawn(executor_, [self = shared_from_this()] { return self->run(); });
}

void Rejoin::stop() {
    stopped_ = true;
}

void Rejoin::say(std::string what) {
    if (stopped_ || what == doing_) return;
    doing_ = std::move(what);
    on_change_();
}

asio::awaitable<void> Rejoin::run() {
    std::string trouble;
    try {
        co_await take_steps();
    } catch (const std::exception& problem) {
        trouble = problem.what();
    }
    finished_ = true;
    if (stopped_) co_return;
    if (!trouble.empty()) doing_ = trouble;
    on_change_();
}

asio::awaitable<void> Rejoin::take_steps() {
    const std::string who = "the former master at " + order_.former.address.to_string();
    std::optional<FileLock> lock;
    for (int steps = 0; steps < max_steps && !stopped_; ++steps) {
        RejoinFacts facts = co_await look();
        if (stopped_) co_return;
        const RejoinDecision decision = plan_rejoin(facts);
        switch (decision.step) {
            case RejoinStep::Done:
                succeeded_ = true;
                say(decision.reason);
                co_return;
            case RejoinStep::Wait:
                say(decision.reason);
                co_return;
            case RejoinStep::ByHand: {
                RejoinByHand by_hand;
                by_hand.data_directory = order_.former.place.data_directory;
                by_hand.master = order_.master;
                by_hand.user = order_.login.user;
                by_hand.database = order_.login.database;
                by_hand.copy = decision.only_copying_helps;
                left_to_somebody_ = true;
                say(decision.reason + "; on its host: " + rejoin_command(by_hand));
                co_return;
            }
            case RejoinStep::Stop:
            case RejoinStep::StopNow:
            case RejoinStep::Rewind:
            case RejoinStep::Copy:
            case RejoinStep::PutCopyInPlace:
            case RejoinStep::Prepare:
            case RejoinStep::Start:
            case RejoinStep::AskLibrary:
                break;
        }
        // One decider at a time works on the files, and only with the newest claim. What was seen before the
        // lock was taken may be another one's work in the middle.
        if (!lock && server_) {
            auto taken = FileLock::try_acquire(server_->data_directory);
            if (!taken.ok()) {
                say(taken.error().message);
                co_return;
            }
            lock.emplace(std::move(*taken));
            if (decision.step != RejoinStep::PutCopyInPlace) continue;
        }
        Status mine = co_await claim_is_newest_();
        if (stopped_) co_return;
        if (!mine.ok()) {
            say(mine.error().message);
            co_return;
        }
        log_info(who + ": " + decision.reason);
        Status taken = co_await take(decision.step);
        if (stopped_) co_return;
        if (!taken.ok()) {
            log_warning(who + ": " + taken.error().message);
            say(taken.error().message);
            co_return;
        }
        if (decision.step == RejoinStep::AskLibrary) {
            asked_library_ = true;
            say(decision.reason);
            co_return;
        }
        if (decision.step == RejoinStep::Start) {
            succeeded_ = true;
            say("it was started as a slave");
            co_return;
        }
        // It holds the inode that was moved aside.
        if (decision.step == RejoinStep::PutCopyInPlace) lock.reset();
    }
}

asio::awaitable<RejoinFacts> Rejoin::look() {
    RejoinFacts facts;
    facts.enabled = order_.enabled;
    facts.keep_because = order_.former.keep_because;
    facts.counted = order_.counted;
    facts.stream_failed = order_.stream_failed;
    facts.recorded_timeline = order_.former.timeline;
    server_.reset();
    // Nothing will be done: then nothing need be known.
    if (!facts.enabled || !facts.keep_because.empty() || facts.counted) co_return facts;
    const ServerPlace& place = order_.former.place;
    facts.library_is_known = place.library && order_.may_ask_library;
    if (place.data_directory.empty()) {
        facts.files_unreachable_because = "the place of its files is not known";
        co_await look_for_library(facts);
        co_return facts;
    }
    auto journal = files_.read();
    if (!journal.ok()) {
        facts.files_unreachable_because = journal.error().message;
        co_await look_for_library(facts);
        co_return facts;
    }
    journal_ = *journal;
    facts.stage = journal_.stage;
    facts.stage_of_this_epoch = journal_.epoch == order_.epoch.value();
    files_.restore_start_options();
    auto inspected = inspect_server(place.data_directory, place.config_file);
    if (!inspected.ok()) {
        std::error_code ignored;
        facts.directory_missing =
            !std::filesystem::exists(place.data_directory, ignored) && files_.copy_is_complete();
        facts.files_unreachable_because = inspected.error().message;
        co_await look_for_library(facts);
        co_return facts;
    }
    server_ = std::move(*inspected);
    if (server_->owner != ::geteuid()) {
        facts.files_unreachable_because =
            "\"" + server_->data_directory + "\" belongs to another operating system user";
        server_.reset();
        co_await look_for_library(facts);
        co_return facts;
    }
    facts.files_reachable = true;
    facts.of_this_system = server_->system_identifier == order_.system_identifier;
    facts.is_the_masters = real_path_of(order_.master_place.data_directory) == server_->data_directory;
    facts.major_version = server_->major_version;
    facts.managed_by = manager_of(*server_);
    for (const CommandLineSetting& setting : command_line_settings(server_->arguments))
        if (setting.name == "port" && setting.value != std::to_string(order_.former.address.port))
            facts.port_fixed_by = "its command line";
    facts.standby_signal = ::access((server_->data_directory + "/standby.signal").c_str(), F_OK) == 0;
    facts.runs = server_->postmaster.has_value();
    if (!facts.of_this_system) co_return facts;
    if (facts.runs) {
        if (!server_->log_file.empty()) journal_.log_file = server_->log_file;
        if (!facts.standby_signal) co_await look_at_running(facts);
    } else {
        facts.processes_left = processes_work_in(server_->data_directory);
        if (!facts.processes_left) co_await look_at_stopped(facts);
    }
    co_return facts;
}

asio::awaitable<void> Rejoin::look_for_library(RejoinFacts& facts) {
    if (!order_.may_ask_library || facts.directory_missing) co_return;
    ConnectTarget target{order_.former.address, order_.login, "pgxc_ha rejoin"};
    auto opened = co_await NodeConnection::open(target, order_.probe_timeout);
    if (!opened.ok()) co_return;
    auto told = co_await (*opened)->query(
        "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), "
        "current_setting('data_directory'), current_setting('pgxc.node_answer', true) IS NOT NULL",
        effect_timeout);
    if (!told.ok() || told->text(0) != std::to_string(order_.system_identifier)) co_return;
    const std::string& known = order_.former.place.data_directory;
    facts.library_answers = (known.empty() || known == told->text(1)) && told->text(2) == "t";
}

asio::awaitable<Status> Rejoin::ask_library() {
    ConnectTarget target{order_.former.address, order_.login, "pgxc_ha control"};
    auto claim = claim_is_newest_;
    auto server = co_await LockSession::open(target, order_.probe_timeout, std::move(claim));
    if (!server.ok()) co_return server.error();
    NodeRequest request = order_.library;
    request.kind = NodeRequestKind::Rejoin;
    request.stream_failed = order_.stream_failed;
    co_return co_await send_to_library(**server, std::move(request));
}

asio::awaitable<Result<std::unique_ptr<LockSession>>> Rejoin::lock_session() {
    HostPort address = order_.former.address;
    // After a takeover of its port it may still run there, and nothing else can.
    address.port = server_->postmaster->port;
    ConnectTarget target{address, order_.login, "pgxc_ha control"};
    auto claim = claim_is_newest_;
    auto opened = co_await LockSession::open(target, order_.probe_timeout, std::move(claim));
    if (!opened.ok()) co_return opened.error();
    auto told = co_await (*opened)->run(
        "SELECT current_setting('data_directory'), (SELECT system_identifier FROM "
        "pg_catalog.pg_control_system())",
        effect_timeout);
    if (!told.ok()) co_return told.error();
    if (real_path_of(told->text(0)) != server_->data_directory ||
        told->text(1) != std::to_string(order_.system_identifier))
        co_return Error{
            sqlstate::object_not_in_prerequisite_state,
            "the server at " + address.to_string() + " is not the one in " + server_->data_directory};
    co_return std::move(*opened);
}

asio::awaitable<void> Rejoin::look_at_running(RejoinFacts& facts) {
    auto session = co_await lock_session();
    if (!session.ok()) co_return;
    auto told = co_await (*session)->run(
        "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE "
        "pg_catalog.pg_current_wal_insert_lsn() END, CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE "
        "('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int "
        "END",
        effect_timeout);
    if (!told.ok() || told->text(0) != "f") co_return;
    facts.answers = true;
    const auto end = Lsn::parse(told->text(1));
    const TimelineId timeline{static_cast<std::uint32_t>(std::stoul("0" + told->text(2)))};
    auto master = co_await master_session();
    if (!master.ok()) co_return;
    auto history = co_await read_history(**master);
    if (!history.ok()) co_return;
    const auto fork = switch_point(*history, timeline);
    facts.within_line = end && fork && *end <= *fork;
}

asio::awaitable<void> Rejoin::look_at_stopped(RejoinFacts& facts) {
    clear_dead_pid_file(server_->data_directory);
    facts.copy_impossible_because = files_.copy_impossible_because();
    if (server_->bin_directory.empty()) {
        facts.files_reachable = false;
        facts.files_unreachable_because = "its programs can't be found: it has no postmaster.opts";
        co_return;
    }
    auto told = co_await run_program(controldata_command(*server_), tool_timeout);
    Result<ControlData> control = Error{sqlstate::internal_error, "pg_controldata failed"};
    if (told.ok() && told->succeeded()) control = parse_control_data(told->output);
    if (!control.ok()) {
        facts.files_reachable = false;
        facts.files_unreachable_because = control.error().message;
        co_return;
    }
    facts.timeline = control->timeline;
    facts.can_rewind = (control->wal_log_hints || control->checksums) &&
                       ::access((server_->bin_directory + "/pg_rewind").c_str(), X_OK) == 0;
    if (control->shut_down) {
        facts.last_record = control->checkpoint;
    } else {
        Lsn from = control->redo;
        // No checkpoint since it was promoted itself: its timeline begins where that left the one before.
        if (control->timeline_begun) from = begin_of_timeline(server_->data_directory, control->timeline);
        auto dumped = co_await run_program(waldump_command(*server_, from, control->timeline), tool_timeout);
        if (dumped.ok()) facts.last_record = last_valid_record(dumped->output);
    }
    auto master = co_await master_session();
    if (!master.ok()) co_return;
    auto history = co_await read_history(**master);
    if (!history.ok()) co_return;
    facts.master_answers = true;
    facts.fork = switch_point(*history, TimelineId{control->timeline});
    // What it will ask for first: rewound, it replays its own WAL up to the fork.
    std::optional<Lsn> first = facts.last_record;
    if (facts.fork && (!first || *facts.fork < *first)) first = facts.fork;
    if (!first) co_return;
    auto there = co_await (*master)->query(
        "SELECT count(*) FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND substr(name, 9) "
        "= " +
            sql_literal(wal_file_suffix(*first, control->segment_bytes)),
        effect_timeout);
    facts.wal_there = there.ok() && there->text() != "0";
}

asio::awaitable<Result<std::unique_ptr<NodeConnection>>> Rejoin::master_session() {
    ConnectTarget target{order_.master, order_.login, "pgxc_ha rejoin"};
    auto opened = co_await NodeConnection::open(target, order_.probe_timeout);
    if (!opened.ok()) co_return opened.error().error;
    auto told = co_await (*opened)->query(
        "SELECT pg_catalog.pg_is_in_recovery(), (SELECT system_identifier FROM "
        "pg_catalog.pg_control_system()), CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0 ELSE ('x' || "
        "substr("
        "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int END",
        effect_timeout);
    if (!told.ok()) co_return told.error().error;
    if (told->text(0) != "f" || told->text(1) != std::to_string(order_.system_identifier) ||
        told->text(2) != std::to_string(order_.timeline))
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        "the server at " + order_.master.to_string() + " is not the recorded master"};
    co_return std::move(*opened);
}

}  // namespace pgxc
