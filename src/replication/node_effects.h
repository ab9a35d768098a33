#pragma once

#include <map>
#include <string>
#include <vector>

#include "replication/lock_session.h"

/// What is done to nodes, each step repeatable, each in a session that holds the node's lock. Nothing here
/// decides.
namespace pgxc {

/// One statement on a node may take this long before the node counts as unresponsive.
inline constexpr Millis effect_timeout{5'000};

/// Where a slave's WAL ends, received or replayed, and on which timeline.
struct EndOfWal {
    Lsn position;
    TimelineId timeline;
};
[[nodiscard]] asio::awaitable<Result<EndOfWal>> end_of_wal(LockSession& slave);

/// How long a fence may take before the slave counts as one that can't be fenced.
inline constexpr Millis fence_timeout{5'000};

struct FenceResult {
    EndOfWal end;          // of valid WAL, read after the fence held
    std::string conninfo;  // primary_conninfo as it was; may hold a password
    std::map<std::string, std::string>
        changed;  // other settings that had to be changed, with their old values
};

/// Called with what is about to be changed, as it is: keeps that durably for whoever puts it back, who may
/// know nothing else. Nothing is changed where it fails.
using BeforeChange = std::function<asio::awaitable<Status>(const FenceResult&)>;

/// Cuts a slave's WAL stream and proves that it is cut (rule 4, F9): cleared primary_conninfo durable; a
/// session begun later sees it; the startup process has read it and waits for WAL; no WAL receiver exists.
/// `expected_names`: the slave must know itself by one of them (empty: any), so that two addresses never
/// count as two servers. `on_cut`, where given, is called once the stream's settings are changed, before
/// anything is proven: with what has to be put back.
[[nodiscard]] asio::awaitable<Result<FenceResult>> fence(LockSession& slave,
                                                         std::vector<std::string> expected_names,
                                                         std::uint64_t system_identifier,
                                                         BeforeChange before_change, Millis timeout,
                                                         std::function<void(const FenceResult&)> on_cut = {});

/// The end of each way to cut a stream: waits until the startup process has replayed all WAL and waits for
/// more, and no WAL receiver exists; removes what holds up replay, of which both are told. `witness` was
/// begun after the slave has read that it streams from nowhere.
[[nodiscard]] asio::awaitable<Result<FenceResult>> prove_cut(LockSession& slave,
                                                             std::unique_ptr<NodeConnection> witness,
                                                             FenceResult result, TimePoint deadline,
                                                             BeforeChange before_change,
                                                             std::function<void(const FenceResult&)> on_cut);

/// May a server be counted as this slave, and as fenced once it is cut off? It is in recovery, belongs to the
/// cluster and knows itself by one of the names (empty: any).
struct SlaveIdentity {
    bool in_recovery = false;
    std::string system_identifier;
    std::string slot_name;
};
[[nodiscard]] Status check_identity(const LockSession& slave, const SlaveIdentity& found,
                                    const std::vector<std::string>& expected_names,
                                    std::uint64_t system_identifier);

/// Undoes a fence: the slave streams again, from where `conninfo` says.
[[nodiscard]] asio::awaitable<Status> unfence(LockSession& slave, std::string conninfo,
                                              std::map<std::string, std::string> settings);

/// How a slave is to stream from the master of an epoch.
struct StreamPlan {
    std::string name;      // application_name and slot
    std::string conninfo;  // of the slave as stored; host, port and application_name are replaced
    HostPort master;
    std::string nobody_names;  // what it carries in synchronous_standby_names while it is a slave (rule 8)
};

/// Makes a physical slot that holds back WAL from now on, unless it is there.
[[nodiscard]] std::string create_slot_sql(const std::string& name);

/// Writes down that the slave is to stream so, through the slot of its name; also keeps
/// wal_retrieve_retry_interval low for quick re-streaming. In force with the next reload, for which the slot
/// must be there. Each statement may take up to `patience`.
[[nodiscard]] asio::awaitable<Status> write_stream(LockSession& slave, StreamPlan plan,
                                                   Millis patience = effect_timeout);

/// Makes the slot on the master, and the slave stream through it under its name. Waits up to `patience` until
/// the master has the stream; that it doesn't come is no error here.
[[nodiscard]] asio::awaitable<Status> prepare_slave(LockSession& slave, LockSession& master, StreamPlan plan,
                                                    Millis patience);

/// Waits up to `patience` until the master has a stream of that name, waking the slave; that it doesn't come
/// is no error here.
[[nodiscard]] asio::awaitable<Status> wait_for_stream(LockSession& slave, LockSession& master,
                                                      std::string name, Millis patience);

/// ALTER SYSTEM + reload of synchronous_standby_names, seen by a session begun later. On a running master
/// where none were set before, the nobody name goes first and an own commit is seen waiting, so that it is
/// certain that commits wait (F13); then the real names.
[[nodiscard]] asio::awaitable<Status> set_standby_names(LockSession& server, std::string names,
                                                        std::string nobody_names);

/// What a gate must find (rule 12).
struct GateExpectation {
    std::string names;  // synchronous_standby_names in force
    int k = 0;          // so many of these must have flushed the own commit
    std::vector<std::string> slaves;
    std::uint64_t system_identifier = 0;  // 0 = any
    std::uint32_t timeline = 0;           // just this one; 0 = any
    std::uint32_t above_timeline = 0;     // a later one than this
};

/// An own commit on a master, flushed by k of the named slaves. Gives the timeline that it was made on.
/// `committer`: a second session, where there is one already; else it is begun now.
[[nodiscard]] asio::awaitable<Result<TimelineId>> prove_gate(
    LockSession& master, GateExpectation expected, Millis timeout,
    std::unique_ptr<NodeConnection> committer = nullptr);

/// pg_promote() without waiting; nothing where the server is out of recovery.
[[nodiscard]] asio::awaitable<Status> ask_promotion(LockSession& server);

/// Watches until the server is out of recovery (F5: reloads wake a startup process that missed its wake-up).
[[nodiscard]] asio::awaitable<Status> see_promoted(LockSession& server, TimePoint deadline);

/// Makes a live master acknowledge nothing any more, for a planned promotion: nobody's name, and the end of
/// the sessions of clients. Its own commit is seen to wait.
[[nodiscard]] asio::awaitable<Status> silence_master(LockSession& master, std::string nobody_names);

/// Settings to set, or, where the value is nullopt, to reset.
using SettingChanges = std::vector<std::pair<std::string, std::optional<std::string>>>;

[[nodiscard]] asio::awaitable<Status> reload(LockSession& server, Millis patience = effect_timeout);

/// Changes settings by ALTER SYSTEM, then reloads.
[[nodiscard]] asio::awaitable<Status> alter_system(LockSession& server, SettingChanges settings);

/// Waits until a slave has received all that the master, which acknowledges nothing any more, has written.
[[nodiscard]] asio::awaitable<Status> wait_for_slave(LockSession& master, LockSession& slave, Millis timeout);

/// Drops the slots of ours on a master that nobody uses and that are not listed.
[[nodiscard]] asio::awaitable<Status> drop_stale_slots(LockSession& master, std::vector<std::string> keep);

/// Waits, bounded, until no client's transaction runs on the master. Not all ended in time is no error.
[[nodiscard]] asio::awaitable<Status> wait_for_transactions(LockSession& master, Millis timeout);

}  // namespace pgxc
