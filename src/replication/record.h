#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "catalog/node.h"

/// The arbiter's record of one node group: the only truth that a decider uses (FAILOVER_PROTOCOL rule 1).
namespace pgxc {

/// A synchronous slave that counts, under the name that its stream carries.
struct Member {
    std::string name;  // standby_name(); distinct within a configuration
    HostPort address;  // where it listens
    friend bool operator==(const Member&, const Member&) = default;
};

/// (epoch, S, k): k of these slaves must acknowledge a commit. k = 0 with an empty S: nobody has to.
struct Configuration {
    Epoch epoch;
    std::vector<Member> slaves;
    int k = 0;
    [[nodiscard]] const Member* find(const HostPort& address) const;
    [[nodiscard]] std::vector<std::string> names() const;
    /// Distinct servers to fence so that no k of S can acknowledge any more: |S| - k + 1 (rule 3).
    [[nodiscard]] std::size_t fences_needed() const {
        return slaves.size() - static_cast<std::size_t>(k) + 1;
    }
    friend bool operator==(const Configuration&, const Configuration&) = default;
};

/// synchronous_standby_names for a configuration.
[[nodiscard]] std::string names_in_force(const Configuration& configuration);

/// A promotion that is recorded (so: decided) and not yet finished. Holds all that another monitor needs to
/// finish.
struct PendingPromotion {
    NodeId promoted_id;         // the id it had as a slave
    HostPort listens_at;        // where the chosen listened when it was chosen
    HostPort old_master;        // the address of the master it replaces
    bool by_restart = false;    // files and pg_ctl; listens_at -> Record::master may differ in the port
    bool former_alive = false;  // the old master was alive when this was decided (planned)
    std::string cause;
    std::string decided_by;
    std::int64_t started_at_us = 0;  // wall clock, microseconds since 1970: when the outage was first noticed
    double detect_ms = 0;            // phases so far
    double decide_ms = 0;
    double fence_ms = 0;
    std::int64_t lost_wal_bytes = 0;  // 0 in synchronous mode; -1 = not known (FORCE)
    std::uint32_t old_timeline = 0;   // the promoted one must be on a higher one
    /// Where the chosen's files are, if it is to be restarted: enough to start it should it be found stopped.
    std::string data_directory;
    std::string config_file;
    /// Settings that the fence changed on the chosen beside primary_conninfo, with the values they had.
    std::map<std::string, std::string> settings_to_restore;
    friend bool operator==(const PendingPromotion&, const PendingPromotion&) = default;
};

/// Where a server's files are on its host, as it told; empty = not known.
struct ServerPlace {
    std::string data_directory;
    std::string config_file;
    bool library = false;  // ours is loaded there (DESIGN 6.5)
    friend bool operator==(const ServerPlace&, const ServerPlace&) = default;
};

/// A replaced master that is to come back as a slave (DESIGN 6.4). Listed with the promotion that replaces
/// it, so that whoever goes on knows of it; leaves the record when it is registered again.
struct FormerMaster {
    NodeId id;  // that it is to get: the promoted slave's former one
    HostPort
        address;  // where it is to listen: where it did, or, if that was taken over, where its successor did
    Replication replication = Replication::Asynchronous;  // the promoted slave's former one
    ServerPlace place;
    std::uint32_t timeline = 0;  // that it wrote as the master; 0 = not known
    std::string keep_because;    // not empty: it may hold what nobody else has, and is left alone
    friend bool operator==(const FormerMaster&, const FormerMaster&) = default;
};

struct Record {
    std::uint64_t generation = 0;  // grows by one with every compare-and-set
    std::uint64_t claim = 0;       // the ballot: grows with every claim
    std::string claim_owner;  // random per monitor start; only the newest claim's owner may change the record
    std::string cluster_id;   // 8 hex digits, made with the record: part of the nobody name
    std::string arbiter_id;   // which arbiter keeps it: a decider that finds another one's stops
    Epoch epoch;
    HostPort master;                      // of that epoch
    std::uint64_t system_identifier = 0;  // 0 until the master has been seen once
    /// The timeline that the master of this epoch writes; 0 until its gate has been proven once. A server at
    /// its address on a lower one is a former master; on a higher one it was promoted without a record.
    std::uint32_t timeline = 0;
    std::vector<Configuration> configurations;  // oldest first; the last is the one wanted. Never empty.
    std::map<std::string, std::int64_t>
        lines;  // address -> the epoch whose history that node's WAL belongs to
    std::optional<PendingPromotion> pending;
    ServerPlace place;  // of the master's files
    std::vector<FormerMaster> formers;
    /// address -> where the files are of a slave whose restart was begun: who finds it stopped starts it.
    std::map<std::string, ServerPlace> restarting;
    /// address -> settings that a fence, or having been a slave, has left changed there, with the values that
    /// are to come back; nullopt = none.
    std::map<std::string, std::map<std::string, std::optional<std::string>>> to_give_back;

    /// What tells this group from one that had its name before.
    [[nodiscard]] Registration registration() const;
    [[nodiscard]] const Configuration& wanted() const { return configurations.back(); }
    /// Every slave that some listed configuration counts, each address once.
    [[nodiscard]] std::vector<Member> all_members() const;
    /// The line of a node: what is recorded of it, else the current epoch (it was registered in it).
    [[nodiscard]] std::int64_t line_of(const HostPort& address) const;
    friend bool operator==(const Record&, const Record&) = default;
};

/// The record with which a group begins: no slave counts yet.
[[nodiscard]] Record initial_record(const HostPort& master, Epoch epoch, std::string cluster_id,
                                    std::string arbiter_id);

[[nodiscard]] std::string to_json(const Record& record);
/// XX001-like trouble (a record that someone edited) is an Error, never an exception.
[[nodiscard]] Result<Record> record_from_json(const std::string& text);

}  // namespace pgxc
