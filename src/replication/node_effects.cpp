#include "replication/node_effects.h"

#include <algorithm>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/text.h"
#include "replication/conninfo.h"
#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

/// How often a state that the server can't announce is looked at.
constexpr Millis look_interval{2};
/// How often a reload is repeated while a process is awaited that may have missed its wake-up: each one wakes
/// it (F5).
constexpr Millis reload_interval{20};
/// A fence that takes longer than this meets a replay that is held up: then what holds it up is removed.
constexpr Millis escalate_after{60};

asio::awaitable<void> look_again_soon() {
    asio::steady_timer timer(co_await asio::this_coro::executor, look_interval);
    std::error_code ignored;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

std::string at(const LockSession& session) {
    return "node at " + session.address().to_string();
}

// GCC 12 miscompiles a braced list inside a coroutine (its array would have to live in the frame): lists are
// made here.
SettingChanges one_change(std::string name, std::string value) {
    SettingChanges changes;
    changes.emplace_back(std::move(name), std::move(value));
    return changes;
}

SettingChanges standby_names_to(std::string value) {
    return one_change("synchronous_standby_names", std::move(value));
}

Result<SettingChanges> stream_settings(const StreamPlan& plan) {
    auto keywords = conninfo_of(plan.master);
    keywords["application_name"] = plan.name;
    auto conninfo = conninfo_with(plan.conninfo, keywords);
    if (!conninfo.ok()) return conninfo.error();
    return SettingChanges{{"synchronous_standby_names", plan.nobody_names},
                          {"wal_retrieve_retry_interval", "100ms"},
                          {"primary_slot_name", plan.name},
                          {"primary_conninfo", *conninfo}};
}

/// A value for ALTER SYSTEM: it takes a literal, never an expression.
std::string assignment(const std::string& name, const std::optional<std::string>& value) {
    if (!value) return "ALTER SYSTEM RESET " + name;
    return "ALTER SYSTEM SET " + name + " = " + sql_literal(*value);
}

asio::awaitable<Status> write_settings(LockSession& server, SettingChanges settings,
                                       Millis patience = effect_timeout) {
    for (const auto& [name, value] : settings) {
        auto altered = co_await server.run(assignment(name, value), patience);
        if (!altered.ok()) co_return altered.error();
    }
    co_return Status{};
}

/// Waits until this session has been told of a reload, and so the postmaster has read its files: each new
/// session will begin with the value.
asio::awaitable<Status> see_setting(LockSession& server, std::string name, std::string value,
                                    Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    TimePoint reloaded = Clock::now();
    for (;;) {
        auto shown = co_await server.run(
            "SELECT setting, source FROM pg_catalog.pg_settings WHERE name = " + sql_literal(name),
            effect_timeout);
        if (!shown.ok()) co_return shown.error();
        if (shown->text(0) == value) co_return Status{};
        if (Clock::now() >= deadline || shown->text(1) == "command line")
            co_return Error{
                sqlstate::config_file_error,
                at(server) + ": \"" + name + "\" stays '" + shown->text(0) + "' (set by: " + shown->text(1) +
                    ") after ALTER SYSTEM and a reload",
                "Remove what beats ALTER SYSTEM: a -c on the server's command line, or a setting of the "
                "control user's role or database."};
        if (Clock::now() - reloaded >= reload_interval) {
            reloaded = Clock::now();
            if (Status again = co_await reload(server); !again.ok()) co_return again;
        }
        co_await look_again_soon();
    }
}

/// Opens sessions until one, begun after the postmaster has read its files, shows the value. Returns that
/// session.
asio::awaitable<Result<std::unique_ptr<NodeConnection>>> session_that_shows(LockSession& server,
                                                                            std::string name,
                                                                            std::string value,
                                                                            Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    for (;;) {
        auto session = co_await server.second_session(timeout);
        if (!session.ok()) co_return session.error();
        auto shown = co_await (*session)->query(
            "SELECT setting, source, coalesce(sourcefile, '') FROM pg_catalog.pg_settings WHERE name = " +
                sql_literal(name),
            effect_timeout);
        if (!shown.ok()) co_return shown.error().error;
        if (shown->text(0) == value) co_return std::move(*session);
        if (shown->text(1) == "command line")
            co_return Error{
                sqlstate::config_file_error,
                at(server) + ": \"" + name + "\" is set on the server's command line, which beats its files",
                "Remove the -c option and restart that server."};
        if (Clock::now() >= deadline)
            co_return Error{sqlstate::config_file_error,
                            at(server) + ": \"" + name + "\" stays '" + shown->text(0) + "' (set by " +
                                shown->text(1) + ") after ALTER SYSTEM and a reload",
                            "Look for a setting of that role or database, and at that server's log."};
        co_await look_again_soon();
    }
}

/// Ends the transactions that replay waits for. A startup process that waits in a recovery conflict reads no
/// new settings before the conflict is over (standby.c, WaitExceedsMaxStandbyDelay), so shortening its
/// patience is not enough.
asio::awaitable<Status> end_blocking_readers(LockSession& slave) {
    auto ended = co_await slave.run(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE backend_type = "
        "'client backend' AND xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() AND "
        "application_name NOT LIKE 'pgxc\\_ha%' AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity s WHERE "
        "s.backend_type = 'startup' AND (s.wait_event LIKE 'RecoveryConflict%' OR s.wait_event_type IN "
        "('Lock', "
        "'BufferPin')))",
        effect_timeout);
    if (!ended.ok()) co_return ended.error();
    co_return Status{};
}

/// An own commit begun, and seen by another session to wait for synchronous slaves.
asio::awaitable<Status> see_own_commit_wait(LockSession& master, Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    auto committer = co_await master.second_session(timeout);
    if (!committer.ok()) co_return committer.error();
    const std::string pid = std::to_string((*committer)->backend_pid());
    TimePoint reloaded = Clock::now();
    while (Clock::now() < deadline) {
        // Whether commits wait is for the checkpointer to switch, which may be slow to hear of a reload
        // (F13).
        if (Clock::now() - reloaded >= reload_interval) {
            reloaded = Clock::now();
            if (Status again = co_await reload(master); !again.ok()) co_return again;
        }
        if (!(*committer)->start("SELECT pg_catalog.pg_logical_emit_message(true, 'pgxc_ha', 'fence')"))
            co_return Error{sqlstate::connection_failure,
                            at(master) + ": the session for an own commit was lost"};
        // Either it is seen to wait, or it answers without having waited and must be tried again.
        while (!(*committer)->answered() && Clock::now() < deadline) {
            auto state = co_await master.run(
                "SELECT wait_event FROM pg_catalog.pg_stat_activity WHERE pid = " + pid, effect_timeout);
            if (!state.ok()) co_return state.error();
            if (state->text(0) == "SyncRep") {
                // The wait has served its purpose: end it. What it waited for is this message, of no
                // consequence.
                auto ended = co_await master.run("SELECT pg_catalog.pg_terminate_backend(" + pid + ")",
                                                 effect_timeout);
                if (!ended.ok()) co_return ended.error();
                co_return Status{};
            }
            co_await look_again_soon();
        }
        auto finished = co_await (*committer)->finish(effect_timeout);
        if (!finished.ok()) co_return finished.error().error;
    }
    co_return Error{sqlstate::object_not_in_prerequisite_state,
                    at(master) + ": commits don't wait for synchronous slaves although they are named",
                    "Is synchronous_commit off or local for the control user or database?"};
}

}  // namespace

asio::awaitable<Status> reload(LockSession& server, Millis patience) {
    auto done = co_await server.run("SELECT pg_catalog.pg_reload_conf()", patience);
    if (!done.ok()) co_return done.error();
    co_return Status{};
}

std::string create_slot_sql(const std::string& name) {
    const std::string quoted = sql_literal(name);
    return "SELECT pg_catalog.pg_create_physical_replication_slot(" + quoted +
           ", true) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = " +
           quoted + ")";
}

asio::awaitable<Status> alter_system(LockSession& server, SettingChanges settings) {
    if (Status written = co_await write_settings(server, std::move(settings)); !written.ok())
        co_return written;
    co_return co_await reload(server);
}

asio::awaitable<Result<EndOfWal>> end_of_wal(LockSession& slave) {
    // The control file alone would tell too low a timeline: it learns of a switch at the next restartpoint
    // only. What was received is there as segments.
    auto end = co_await slave.run(
        "SELECT greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()), "
        "greatest((SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), "
        "(SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()), "
        "(SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_catalog.pg_ls_waldir() "
        "WHERE name ~ '^[0-9A-F]{24}$'))",
        effect_timeout);
    if (!end.ok()) co_return end.error();
    EndOfWal result;
    result.position = Lsn::parse(end->text(0)).value_or(Lsn{});
    result.timeline = TimelineId{static_cast<std::uint32_t>(std::stoul("0" + end->text(1)))};
    co_return result;
}

asio::awaitable<Result<FenceResult>> fence(LockSession& slave, std::vector<std::string> expected_names,
                                           std::uint64_t system_identifier, BeforeChange before_change,
                                           Millis timeout, std::function<void(const FenceResult&)> on_cut) {
    const TimePoint deadline = Clock::now() + timeout;
    if (slave.server_version() < 130000)
        co_return Error{sqlstate::internal_error,
                        at(slave) + " reads a changed stream at its start only: a reload can't cut it"};
    auto before = co_await slave.run(
        "SELECT pg_catalog.pg_is_in_recovery(), (SELECT system_identifier FROM "
        "pg_catalog.pg_control_system()), "
        "current_setting('primary_conninfo'), current_setting('recovery_min_apply_delay'), "
        "current_setting('restore_command'), CASE WHEN pg_catalog.pg_is_in_recovery() THEN "
        "pg_catalog.pg_is_wal_replay_paused() END, current_setting('primary_slot_name')",
        effect_timeout);
    if (!before.ok()) co_return before.error();
    SlaveIdentity found;
    found.in_recovery = before->text(0) == "t";
    found.system_identifier = before->text(1);
    found.slot_name = before->text(6);
    if (Status same = check_identity(slave, found, expected_names, system_identifier); !same.ok())
        co_return same.error();

    FenceResult result;
    result.conninfo = before->text(2);
    SettingChanges settings = one_change("primary_conninfo", "");
    if (before->text(3) != "0") {
        result.changed["recovery_min_apply_delay"] = before->text(3);
        settings.emplace_back("recovery_min_apply_delay", "0");
    }
    if (!before->text(4).empty()) {
        result.changed["restore_command"] = before->text(4);
        settings.emplace_back("restore_command", "");
    }
    if (Status kept = co_await before_change(result); !kept.ok()) co_return kept.error();
    if (Status cut = co_await alter_system(slave, settings); !cut.ok()) co_return cut.error();
    if (on_cut) on_cut(result);
    if (before->text(5) == "t") {
        auto resumed = co_await slave.run("SELECT pg_catalog.pg_wal_replay_resume()", effect_timeout);
        if (!resumed.ok()) co_return resumed.error();
    }

    auto witness = co_await session_that_shows(slave, "primary_conninfo", "", timeout);
    if (!witness.ok()) co_return witness.error();
    co_return co_await prove_cut(slave, std::move(*witness), std::move(result), deadline,
                                 std::move(before_change), std::move(on_cut));
}

Status check_identity(const LockSession& slave, const SlaveIdentity& found,
                      const std::vector<std::string>& expected_names, std::uint64_t system_identifier) {
    if (!found.in_recovery)
        return Error{sqlstate::object_not_in_prerequisite_state,
                     at(slave) + " is not in recovery: it is no slave"};
    if (std::stoull("0" + found.system_identifier) != system_identifier)
        return Error{sqlstate::object_not_in_prerequisite_state, at(slave) + " belongs to another cluster"};
    if (!expected_names.empty() &&
        std::find(expected_names.begin(), expected_names.end(), found.slot_name) == expected_names.end())
        return Error{sqlstate::object_not_in_prerequisite_state,
                     at(slave) + " is known to itself as \"" + found.slot_name + "\", not as \"" +
                         expected_names.front() + "\": it can't stand for that slave"};
    return {};
}

asio::awaitable<Result<FenceResult>> prove_cut(LockSession& slave, std::unique_ptr<NodeConnection> witness,
                                               FenceResult result, TimePoint deadline,
                                               BeforeChange before_change,
                                               std::function<void(const FenceResult&)> on_cut) {
    // The name that this wait had before 13 was given to nothing else there.
    const std::string waits_for_wal =
        slave.server_version() < 130000 ? "RecoveryWalStream" : "RecoveryRetrieveRetryInterval";
    const TimePoint began = Clock::now();
    TimePoint reloaded = began;
    bool escalated = false;
    for (;;) {
        // The startup process waits for WAL only after it has replayed all that it has, and whatever it does
        // after the signal that the witness' birth proves was sent, it does with the new settings.
        auto state = co_await witness->query(
            "SELECT coalesce((SELECT wait_event FROM pg_catalog.pg_stat_activity WHERE backend_type = "
            "'startup'), ''), "
            "EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walreceiver')",
            effect_timeout);
        if (!state.ok()) co_return state.error().error;
        if (state->text(0) == waits_for_wal && state->text(1) == "f") {
            auto end = co_await end_of_wal(slave);
            if (!end.ok()) co_return end.error();
            // One whose position isn't known must not be counted and then passed over (rule 5).
            if (!end->position.known())
                co_return Error{sqlstate::object_not_in_prerequisite_state,
                                at(slave) + " doesn't tell where its WAL ends"};
            result.end = *end;
            co_return result;
        }
        const TimePoint now = Clock::now();
        if (now >= deadline)
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            at(slave) +
                                ": its WAL stream could not be proven cut in time (startup process: " +
                                state->text(0) + ")",
                            "Look for what holds up its replay."};
        if (!escalated && now - began >= escalate_after) {
            escalated = true;
            auto old = co_await slave.run(
                "SELECT current_setting('max_standby_streaming_delay'), "
                "current_setting('max_standby_archive_delay')",
                effect_timeout);
            if (!old.ok()) co_return old.error();
            result.changed["max_standby_streaming_delay"] = old->text(0);
            result.changed["max_standby_archive_delay"] = old->text(1);
            if (Status kept = co_await before_change(result); !kept.ok()) co_return kept.error();
            if (on_cut) on_cut(result);
            SettingChanges easing = one_change("max_standby_streaming_delay", "0");
            easing.emplace_back("max_standby_archive_delay", "0");
            if (Status eased = co_await alter_system(slave, easing); !eased.ok()) co_return eased.error();
        } else if (now - reloaded >= reload_interval) {
            reloaded = now;
            if (Status woken = co_await reload(slave); !woken.ok()) co_return woken.error();
            if (escalated) {
                if (Status ended = co_await end_blocking_readers(slave); !ended.ok()) co_return ended.error();
            }
        }
        co_await look_again_soon();
    }
}

asio::awaitable<Status> unfence(LockSession& slave, std::string conninfo,
                                std::map<std::string, std::string> settings) {
    SettingChanges changes;
    for (const auto& [name, value] : settings) changes.emplace_back(name, value);
    changes.emplace_back("primary_conninfo", conninfo);
    co_return co_await alter_system(slave, changes);
}

asio::awaitable<Status> write_stream(LockSession& slave, StreamPlan plan, Millis patience) {
    auto changes = stream_settings(plan);
    if (!changes.ok()) co_return changes.error();
    // Each ALTER SYSTEM waits for the disk several times, and half of this every prepared slave has already.
    auto written = co_await slave.run(
        "SELECT DISTINCT ON (name) name, setting FROM pg_catalog.pg_file_settings WHERE sourcefile = "
        "current_setting('data_directory') || '/postgresql.auto.conf' ORDER BY name, seqno DESC",
        patience);
    if (!written.ok()) {
        // One that may not be asked is told all of it.
        if (co_await slave.lost()) co_return written.error();
    } else {
        for (std::size_t row = 0; row < written->rows.size(); ++row)
            std::erase_if(*changes, [&](const auto& change) {
                return change.first == written->text(0, row) && change.second == written->text(1, row);
            });
    }
    co_return co_await write_settings(slave, *changes, patience);
}

asio::awaitable<Status> prepare_slave(LockSession& slave, LockSession& master, StreamPlan plan,
                                      Millis patience) {
    auto slot = co_await master.run(create_slot_sql(plan.name), effect_timeout);
    if (!slot.ok()) co_return slot.error();
    if (Status written = co_await write_stream(slave, plan); !written.ok()) co_return written;
    if (Status read = co_await reload(slave); !read.ok()) co_return read;
    co_return co_await wait_for_stream(slave, master, plan.name, patience);
}

asio::awaitable<Status> wait_for_stream(LockSession& slave, LockSession& master, std::string name,
                                        Millis patience) {
    const TimePoint deadline = Clock::now() + patience;
    TimePoint reloaded = Clock::now();
    while (Clock::now() < deadline) {
        auto streams = co_await master.run(
            "SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE state = 'streaming' AND "
            "application_name = " +
                sql_literal(name),
            effect_timeout);
        if (!streams.ok()) co_return streams.error();
        if (streams->text() != "0") break;
        // The startup process may sleep out its old retry interval of 5 s; each reload wakes it (F5).
        if (Clock::now() - reloaded >= reload_interval) {
            reloaded = Clock::now();
            if (Status woken = co_await reload(slave); !woken.ok()) co_return woken;
        }
        co_await look_again_soon();
    }
    co_return Status{};
}

asio::awaitable<Status> set_standby_names(LockSession& server, std::string names, std::string nobody_names) {
    auto before = co_await server.run(
        "SELECT current_setting('synchronous_standby_names'), pg_catalog.pg_is_in_recovery()",
        effect_timeout);
    if (!before.ok()) co_return before.error();
    const bool from_empty = before->text(0).empty() && before->text(1) == "f" && !names.empty();
    if (from_empty || (before->text(0) == nobody_names && before->text(1) == "f" && names != nobody_names &&
                       !names.empty())) {
        if (Status set = co_await alter_system(server, standby_names_to(nobody_names)); !set.ok())
            co_return set;
        // What beats ALTER SYSTEM is told as that, at once.
        Status shown =
            co_await see_setting(server, "synchronous_standby_names", nobody_names, effect_timeout);
        if (!shown.ok()) {
            (void)co_await alter_system(server, standby_names_to(before->text(0)));
            co_return shown;
        }
        if (Status waits = co_await see_own_commit_wait(server, effect_timeout); !waits.ok()) {
            // Commits hang on a name that nobody carries: never leave that behind.
            (void)co_await alter_system(server, standby_names_to(before->text(0)));
            co_return waits;
        }
    }
    if (Status set = co_await alter_system(server, standby_names_to(names)); !set.ok()) co_return set;
    co_return co_await see_setting(server, "synchronous_standby_names", names, effect_timeout);
}

asio::awaitable<Result<TimelineId>> prove_gate(LockSession& master, GateExpectation expected, Millis timeout,
                                               std::unique_ptr<NodeConnection> committer) {
    const TimePoint deadline = Clock::now() + timeout;
    if (committer == nullptr) {
        auto opened = co_await master.second_session(timeout);
        if (!opened.ok()) co_return opened.error();
        committer = std::move(*opened);
    }
    auto facts = co_await committer->query(
        "SELECT pg_catalog.pg_is_in_recovery(), current_setting('synchronous_standby_names'), "
        "(SELECT system_identifier FROM pg_catalog.pg_control_system()), "
        "CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0 ELSE ('x' || substr("
        "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int END",
        effect_timeout);
    if (!facts.ok()) co_return facts.error().error;
    if (facts->text(0) != "f")
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        at(master) + " is in recovery: no master"};
    if (expected.system_identifier != 0 && facts->text(2) != std::to_string(expected.system_identifier))
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        at(master) + " belongs to another cluster"};
    const TimelineId timeline{static_cast<std::uint32_t>(std::stoul("0" + facts->text(3)))};
    if (timeline.value() <= expected.above_timeline)
        co_return Error{
            sqlstate::object_not_in_prerequisite_state,
            at(master) + " is on timeline " + facts->text(3) + ", the one that its promotion had to leave"};
    if (expected.timeline != 0 && timeline.value() != expected.timeline)
        co_return Error{
            sqlstate::object_not_in_prerequisite_state,
            at(master) + " writes timeline " + facts->text(3) + " where the recorded master writes " +
                std::to_string(expected.timeline) +
                (timeline.value() < expected.timeline ? ": it is a former master"
                                                      : ": it was promoted without the arbiter's record")};
    if (facts->text(1) != expected.names)
        co_return Error{sqlstate::config_file_error, at(master) + ": synchronous_standby_names is '" +
                                                         facts->text(1) + "' where '" + expected.names +
                                                         "' is recorded"};

    auto committed = co_await committer->query(
        "SELECT pg_catalog.pg_logical_emit_message(true, 'pgxc_ha', 'gate')", timeout);
    if (!committed.ok()) {
        // A commit that waits on must not pile up with each repetition.
        (void)co_await master.run(
            "SELECT pg_catalog.pg_terminate_backend(" + std::to_string(committer->backend_pid()) + ")",
            effect_timeout);
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        at(master) + ": an own commit was not acknowledged by " + std::to_string(expected.k) +
                            " synchronous slaves: " + committed.error().error.message};
    }
    for (const ServerNotice& notice : committed->notices)
        if (notice.routine == "SyncRepWaitForLSN")
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            at(master) + ": an own commit's wait for synchronous slaves was cancelled"};
    if (expected.k == 0) co_return timeline;

    std::string list;
    for (const std::string& name : expected.slaves) list += (list.empty() ? "" : ", ") + sql_literal(name);
    auto barrier = co_await committer->query("SELECT pg_catalog.pg_current_wal_flush_lsn()", effect_timeout);
    if (!barrier.ok()) co_return barrier.error().error;
    for (;;) {
        auto flushed = co_await committer->query(
            "SELECT count(DISTINCT application_name) FROM pg_catalog.pg_stat_replication "
            "WHERE state = 'streaming' AND "
            "application_name IN (" +
                list + ") AND flush_lsn >= " + sql_literal(barrier->text()) + "::pg_lsn",
            effect_timeout);
        if (!flushed.ok()) co_return flushed.error().error;
        if (std::stoi("0" + flushed->text()) >= expected.k) co_return timeline;
        if (Clock::now() >= deadline)
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            at(master) + ": only " + flushed->text() + " of " + std::to_string(expected.k) +
                                " synchronous slaves have flushed an own commit"};
        co_await look_again_soon();
    }
}

asio::awaitable<Status> ask_promotion(LockSession& server) {
    auto asked = co_await server.run(
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_promote(false) ELSE true END",
        effect_timeout);
    if (!asked.ok()) co_return asked.error();
    co_return Status{};
}

asio::awaitable<Status> see_promoted(LockSession& server, TimePoint deadline) {
    TimePoint reloaded = Clock::now();
    for (;;) {
        auto state = co_await server.run("SELECT pg_catalog.pg_is_in_recovery()", effect_timeout);
        if (!state.ok()) co_return state.error();
        if (state->text() == "f") co_return Status{};
        const TimePoint now = Clock::now();
        if (now >= deadline)
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            at(server) + " is still in recovery after its promotion",
                            "Look at that server's log."};
        if (now - reloaded >= reload_interval) {
            reloaded = now;
            if (Status woken = co_await reload(server); !woken.ok()) co_return woken;
        }
        co_await look_again_soon();
    }
}

asio::awaitable<Status> silence_master(LockSession& master, std::string nobody_names) {
    if (Status set = co_await alter_system(master, standby_names_to(nobody_names)); !set.ok()) co_return set;
    Status shown = co_await see_setting(master, "synchronous_standby_names", nobody_names, effect_timeout);
    if (!shown.ok()) co_return shown;
    auto ended = co_await master.run(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE backend_type = "
        "'client backend' AND pid <> pg_catalog.pg_backend_pid() AND application_name NOT LIKE 'pgxc\\_ha%'",
        effect_timeout);
    if (!ended.ok()) co_return ended.error();
    co_return co_await see_own_commit_wait(master, effect_timeout);
}

asio::awaitable<Status> wait_for_slave(LockSession& master, LockSession& slave, Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    auto target = co_await master.run("SELECT pg_catalog.pg_current_wal_flush_lsn()", effect_timeout);
    if (!target.ok()) co_return target.error();
    for (;;) {
        auto reached = co_await slave.run(
            "SELECT pg_catalog.pg_last_wal_receive_lsn() >= " + sql_literal(target->text()) + "::pg_lsn",
            effect_timeout);
        if (!reached.ok()) co_return reached.error();
        if (reached->text() == "t") co_return Status{};
        if (Clock::now() >= deadline)
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            at(slave) + " has not received all WAL of its master up to " + target->text(),
                            "Look at its replication, or add FORCE and accept the loss."};
        co_await look_again_soon();
    }
}

asio::awaitable<Status> drop_stale_slots(LockSession& master, std::vector<std::string> keep) {
    std::string list = "''";
    for (const std::string& name : keep) list += ", " + sql_literal(name);
    auto dropped = co_await master.run(
        "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots "
        "WHERE NOT active AND slot_type = 'physical' AND slot_name ~ '^pgxc_[cd]_[0-9]+_e[0-9]+$' AND "
        "slot_name NOT IN (" +
            list + ")",
        effect_timeout);
    if (!dropped.ok()) co_return dropped.error();
    co_return Status{};
}

asio::awaitable<Status> wait_for_transactions(LockSession& master, Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    constexpr int looks_until_calm = 5;
    int calm_looks = 0;
    for (;;) {
        auto running = co_await master.run(
            "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' AND "
            "xact_start IS "
            "NOT NULL AND pid <> pg_catalog.pg_backend_pid() AND application_name NOT LIKE 'pgxc\\_ha%'",
            effect_timeout);
        if (!running.ok()) co_return running.error();
        // What a pooler sent a moment ago may not have begun at the server yet.
        calm_looks = running->text() == "0" ? calm_looks + 1 : 0;
        if (calm_looks > looks_until_calm || Clock::now() >= deadline) co_return Status{};
        co_await look_again_soon();
    }
}

}  // namespace pgxc
