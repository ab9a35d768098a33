#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "catalog/cluster_view.h"
#include "replication/node_answer.h"

namespace pgxc {

/// A row of a master's pg_stat_replication.
struct StreamSeen {
    std::string name;   // application_name
    std::string state;  // "streaming", "catchup", ...
    Lsn flush;
    Lsn replay;
    friend bool operator==(const StreamSeen&, const StreamSeen&) = default;
};

/// Whether a stream moves, from one answer of the master to the next. A slave that hangs, or a line that is
/// cut without a word, stays "streaming" until wal_sender_timeout, a minute, and commits may wait for it as
/// long.
class StreamProgress {
  public:
    void answered(Lsn flush, Lsn master_flushed, TimePoint at);
    /// Since when the slave has flushed nothing though the master had more: seen in two answers in a row,
    /// since the first one may just have been early.
    [[nodiscard]] std::optional<TimePoint> stands_since() const { return stands_since_; }

  private:
    std::optional<Lsn> flush_;
    std::optional<TimePoint> first_;
    std::optional<TimePoint> stands_since_;
};

/// What a server says of itself: one answer to probe_sql().
struct ServerFacts {
    bool in_recovery = false;
    std::uint64_t system_identifier = 0;
    TimelineId timeline;
    Lsn flushed;   // of a master
    Lsn received;  // of a slave; reset to a segment's start when streaming is requested anew
    Lsn replayed;  // of a slave
    std::string
        receiver_status;  // "streaming", "waiting", ...; empty = no WAL receiver, or one that connects
    std::string sender_host;
    std::uint16_t sender_port = 0;
    std::string standby_names;  // synchronous_standby_names
    std::string primary_conninfo;
    std::string primary_slot;
    std::string started_at;  // pg_postmaster_start_time()
    int server_version = 0;
    std::vector<StreamSeen> standbys;
    [[nodiscard]] bool streaming() const { return receiver_status == "streaming"; }
    /// How far a slave has valid WAL for certain: the end of what it received or replayed.
    [[nodiscard]] Lsn end_of_wal() const { return std::max(received, replayed); }
    [[nodiscard]] const StreamSeen* find_standby(const std::string& name) const;
    friend bool operator==(const ServerFacts&, const ServerFacts&) = default;
};

/// The one statement that a probe runs, for PostgreSQL 10 and later. Before 12 a slave's settings are in
/// recovery.conf, which superusers can read.
[[nodiscard]] std::string probe_sql(int server_version, bool superuser);
[[nodiscard]] Result<ServerFacts> facts_from(Rows& rows, int server_version);

/// All that the monitor knows of one node: the newest answer, and the silence or refusal since then.
struct Observation {
    std::optional<ServerFacts> facts;      // of the newest answer to a probe
    std::optional<TimePoint> answered_at;  // when that came
    std::optional<WallTime> last_seen;     // any sign of life, wall clock
    /// Between the last two answers, both later than `previous_answer_at`, the received position has grown.
    std::optional<TimePoint> previous_answer_at;
    bool receives_new_wal = false;
    /// The last two answers in a row between which it had grown. Asked again and again within milliseconds,
    /// even a busy slave has nothing new in between.
    std::optional<TimePoint> new_wal_after;
    std::optional<TimePoint> new_wal_at;

    /// The first of its answers in a row: it has been heard without a break since then.
    std::optional<TimePoint> answers_since;

    /// When the newest of the attempts that have ended began.
    std::optional<TimePoint> attempted_at;
    Silence silence = Silence::None;        // None: the newest attempt met a living server
    std::optional<TimePoint> silent_since;  // the first of the failed attempts in a row
    int failed_attempts = 0;                // in a row
    /// The server said that it shuts down, starts or recovers (57P01, 57P02, 57P03) since its last good
    /// answer.
    std::optional<TimePoint> going_down_since;
    bool starting = false;    // the newest attempt was answered so
    bool refuses_us = false;  // the newest attempt was answered by another error (login, ...)
    std::string error;        // of the newest attempt; empty = it went well
};

/// Do two observations of a node differ in nothing but positions and times?
[[nodiscard]] bool same_but_for_positions(const Observation& one, const Observation& other);

}  // namespace pgxc
