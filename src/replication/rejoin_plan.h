#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/ids.h"
#include "catalog/node.h"

/// How a replaced master becomes a slave of its successor (DESIGN 6.4). Pure: the facts are gathered by
/// rejoin.cpp, which also does what is decided here, one step at a time, and then asks again.
namespace pgxc::replication {

/// How far the work on a former master's files has come. Kept beside its data directory (rejoin_files.h), so
/// that another monitor can go on.
enum class RejoinStage : std::uint8_t {
    None,       // nothing was done to them
    Rewinding,  // pg_rewind was begun and has not come to its end: only a copy makes a sound slave now
    Rewound,    // pg_rewind ended well; the settings are still the new master's
    Broken,     // no slave came of these files: copy
    Copied,     // a complete copy lies beside, not in its place yet
    Prepared,   // they are a slave's
};

struct RejoinFacts {
    bool enabled = true;       // pgxc.rejoin
    std::string keep_because;  // not empty: it may hold what nobody else has
    bool counted = false;      // some listed configuration counts it: its WAL is evidence (rule 11)

    bool files_reachable = false;
    std::string files_unreachable_because;
    bool library_answers = false;    // ours runs in the server, and may be asked
    bool library_is_known = false;   // it ran there when that was the master
    bool directory_missing = false;  // nothing is at the place of its data directory
    bool of_this_system = false;     // the control file has the group's system identifier
    bool is_the_masters = false;     // it is the recorded master's own data directory
    int major_version = 0;
    std::string managed_by;  // not empty: systemd or another manager that would lose a server started by us
    std::string port_fixed_by;  // not empty: it is to move to another port, and this keeps it where it is
    bool standby_signal = false;

    bool runs = false;
    bool answers = false;        // takes the control login
    bool within_line = false;    // runs, and has written nothing behind the point where the new line left
    bool stream_failed = false;  // runs as a slave and has had no stream for too long

    // Of a server that doesn't run.
    bool processes_left = false;  // the postmaster is gone, others still end
    bool master_answers = false;  // the new master does, and is the recorded one
    RejoinStage stage = RejoinStage::None;
    bool stage_of_this_epoch = false;
    std::uint32_t timeline = 0;           // of its newest WAL; 0 = can't be told
    std::uint32_t recorded_timeline = 0;  // that it wrote as the master; 0 = not known
    std::optional<Lsn> last_record;       // where its last valid record begins; nothing: can't be told
    std::optional<Lsn> fork;  // where the new master's line left that timeline; nothing: it didn't
    bool wal_there =
        false;  // the new master still has WAL from last_record or the fork on, whichever is lower
    bool can_rewind = false;  // wal_log_hints or checksums, and the program
    std::string copy_impossible_because;
};

enum class RejoinStep : std::uint8_t {
    Wait,     // for what the reason says
    ByHand,   // somebody has to do it; the reason says why
    Stop,     // runs as a master: fast, with a checkpoint
    StopNow,  // the same, without a checkpoint, which would be WAL that the new line lacks
    Rewind,
    Copy,
    PutCopyInPlace,
    Prepare,  // its settings back, and those of a slave
    Start,
    AskLibrary,  // the one on its host does the rest
    Done,        // it runs as a slave
};

struct RejoinDecision {
    RejoinStep step = RejoinStep::Wait;
    std::string reason;
    bool only_copying_helps = false;  // ByHand: pg_rewind would not do
    friend bool operator==(const RejoinDecision&, const RejoinDecision&) = default;
};

[[nodiscard]] RejoinDecision plan_rejoin(const RejoinFacts& facts);

/// What to type on that host, as the user who owns the files. `data_directory` may be empty: not known.
struct RejoinByHand {
    std::string data_directory;
    HostPort master;
    std::string user;
    std::string database;
    bool copy = false;  // pg_rewind can't do it
};
[[nodiscard]] std::string rejoin_command(const RejoinByHand& by_hand);

}  // namespace pgxc::replication
