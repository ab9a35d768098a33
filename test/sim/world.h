#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

/// The abstract world that the failover protocol is played in: plain data without padding, so that a state
/// can be copied, compared and hashed as bytes. What happens in it is in model.h, who decides in decisions.h.
namespace pgxc::sim {

/// Whatever is counted in a state is small.
[[nodiscard]] constexpr std::uint8_t byte(int value) {
    return static_cast<std::uint8_t>(value);
}

/// Which part of the rules of FAILOVER_PROTOCOL is left out.
enum class Mutation : std::uint8_t {
    None,
    Cas,       // the record is written without compare-and-set
    Local,     // names are changed by a decider's own knowledge, without the arbiter
    Lock,      // a new session does not end that of another decider
    Check,     // the claim is not looked at after the lock was taken
    Follow,    // the same, only where slaves are pointed somewhere
    Count,     // fewer slaves fenced than enough_fenced() demands
    Order,     // positions are read before the streams are cut
    Any,       // some fenced slave is promoted, not the one that choose() names
    Lsn,       // positions are compared without their lines
    Shrink,    // a smaller configuration replaces the older ones at once
    Grow,      // a larger configuration replaces the older ones at once
    Keep,      // the record of a promotion forgets the older configurations
    Names,     // promoted before the names are in force; slaves carry none
    Epname,    // a slave's name doesn't tell the epoch
    Div,       // a slave is pointed at a master without the proof of being a prefix
    Needless,  // judge_master()'s "wait" is not heard
    Gate,      // the pooler opens a started master without proof
    Stale,     // the proof of being a prefix is made of an older observation, the stream not cut
    Listed,    // a slave that is listed doesn't get the line of the epoch with that
    Refollow,  // whoever continues a promotion points no slave at a master that is promoted already
    Promised,  // an asynchronous slave is promoted although somebody is still listed as synchronous
};
inline constexpr Mutation last_mutation = Mutation::Promised;
[[nodiscard]] const char* to_text(Mutation mutation);

inline constexpr int max_nodes = 6;
inline constexpr int max_deciders = 3;
inline constexpr int max_segments = 8;
inline constexpr int max_configurations = 6;
inline constexpr std::uint8_t none = 15;  // no node

using NodeSet = std::uint8_t;  // bit i: node i
using NameId = std::uint16_t;  // an interned text (decisions.h); 0 = ''
[[nodiscard]] inline bool has(NodeSet set, int node) {
    return (set >> node & 1) != 0;
}
[[nodiscard]] inline NodeSet only(int node) {
    return static_cast<NodeSet>(1 << node);
}

/// What one server wrote in one epoch. Two servers that write in one epoch write different things.
struct Segment {
    std::uint8_t epoch = 0;
    std::uint8_t writer = 0;
    std::uint8_t entries = 0;
    friend bool operator==(const Segment&, const Segment&) = default;
};

struct Wal {
    std::array<Segment, max_segments> segments{};
    std::uint8_t count = 0;

    [[nodiscard]] int length() const;
    [[nodiscard]] int line() const { return count == 0 ? 0 : segments[count - 1U].epoch; }
    [[nodiscard]] bool is_prefix_of(const Wal& other) const;
    [[nodiscard]] Wal first(int entries) const;
    [[nodiscard]] int common(const Wal& other) const;  // entries that both begin with
    /// One more entry of that writer; false: it is full.
    bool append(int epoch, int writer);
    friend bool operator==(const Wal&, const Wal&) = default;
};

/// (epoch, S, k).
struct Counting {
    std::uint8_t epoch = 0;
    NodeSet slaves = 0;
    std::uint8_t k = 0;
    friend bool operator==(const Counting&, const Counting&) = default;
};

/// The arbiter's record. Its generation is left out: each change is made by the newest claim's owner, so the
/// owner tells as much.
struct ArbiterRecord {
    std::uint8_t owner = 0;  // decider + 1
    std::uint8_t epoch = 0;
    std::uint8_t master = 0;
    std::uint8_t pending = 0;
    std::uint8_t count = 0;
    std::array<Counting, max_configurations> configurations{};
    std::array<std::uint8_t, max_nodes> lines{};

    [[nodiscard]] const Counting& wanted() const { return configurations[count - 1U]; }
    [[nodiscard]] NodeSet members() const;
    void only_configuration(Counting configuration);
    /// As the last one. Production may have it twice, which counts for no more than once.
    void list(Counting configuration);
    friend bool operator==(const ArbiterRecord&, const ArbiterRecord&) = default;
};

/// A conninfo: where to stream from, and as whom.
struct Upstream {
    std::uint16_t node = none;  // none: primary_conninfo is empty
    NameId application = 0;
    friend bool operator==(const Upstream&, const Upstream&) = default;
};

struct Server {
    Wal wal;
    std::uint8_t flushed = 0;  // so many of its entries survive a crash
    bool master = false;
    bool running = true;
    bool disk_full = false;
    std::uint8_t lock = 0;          // decider + 1 whose session holds it
    std::uint8_t clients_from = 0;  // no client waits for an entry before this one: their connections ended
    bool late_cut =
        false;        // one was sent in a session that was given up, and takes effect when it hangs no more
    Upstream file;    // what its settings file says
    Upstream stream;  // what its WAL receiver does
    Upstream stored;  // what the monitors have stored of it at a fence
    NameId names_file = 0;
    NameId names = 0;  // synchronous_standby_names in force
};

/// What a master has heard of a slave's stream.
struct Heard {
    std::uint16_t position = 0;
    NameId application = 0;
};

/// What is true of a decider at each step; the order is production's (node_group_failover.cpp,
/// node_group.cpp).
enum class Pc : std::uint8_t {
    Idle,
    FenceTake,    // a session on `node` is to be opened
    FenceCheck,   // it holds the lock; is the claim still ours?
    FenceCut,     // primary_conninfo is to be cleared
    FenceProve,   // cleared; is the receiver gone?
    Decide,       // all that could be fenced is
    Record,       // chosen; the record is to be changed
    NamesTake,    // recorded: a session on the chosen (or the master)
    NamesCheck,   //
    NamesSet,     // names are to be set
    NamesSeen,    // written; in force yet?
    PointTake,    // a slave of the new configuration is to be pointed at the chosen
    PointCheck,   //
    PointSet,     //
    Promote,      // names in force: promote
    LateNames,    // only with Mutation::Names
    GateBegin,    // an own commit on the master
    GateSee,      // flushed by k of S?
    Publish,      // the catalog's copy is to be written
    Settle,       // proven: older configurations leave the record
    PrepareTake,  // a slave is to stream under the epoch's name
    PrepareCheck,
    PrepareCut,  // of an older line: its end is to be known for certain
    PrepareGone,
    PrepareProve,
    PreparePoint,
    PrepareRecord,
    ChangeRecord,  // a new configuration is to be listed beside the older ones
    UndoCheck,     // too few fenced
    Undo,
    UndoLock,  // a session that was lost is taken anew; is the claim still ours?
};

struct Decider {
    Pc pc = Pc::Idle;
    std::uint8_t node = 0;
    std::uint8_t chosen = 0;
    NodeSet fenced = 0;
    NodeSet sessions = 0;  // nodes whose lock it believes to hold
    std::uint8_t epoch = 0;
    Counting wanted;
    bool promoting = false;  // a promotion is being finished, not a change of configuration
    std::uint8_t barrier = 0;
    std::array<std::uint8_t, max_nodes> positions{};
    std::uint8_t claims = 0;                   // it may claim so many times more
    std::array<Upstream, max_nodes> before{};  // conninfo of each fenced slave, as it was
    std::uint8_t programs = 0;                 // it may begin so many programs more under the present claim
    std::uint8_t gate = none;                  // the server that its pooler sends transactions to
    ArbiterRecord view;                        // only with Mutation::Cas: the record as last read
    NodeSet begun = 0;                         // slaves whose fence was given up in the middle
};

struct World {
    std::array<Server, max_nodes> servers{};
    std::array<std::array<Heard, max_nodes>, max_nodes> heard{};      // [master][slave]
    std::array<std::array<Heard, max_nodes>, max_nodes> in_flight{};  // replies not yet delivered
    std::array<NodeSet, max_nodes> sends{};       // [master]: to whom its WAL gets through
    std::array<NodeSet, max_deciders> reaches{};  // [decider]: whom it reaches
    std::array<std::array<std::uint8_t, max_nodes>, max_deciders> seen_position{};  // at its last probe
    ArbiterRecord record;
    std::array<Decider, max_deciders> deciders{};
    Wal acknowledged;
    NodeSet registered = 0;      // as synchronous slaves, besides the master
    std::uint8_t published = 0;  // the epoch that the catalog has
    std::uint8_t writes = 0;
    std::uint8_t faults = 0;
    /// The epoch that began with an asynchronous slave: what is acknowledged on older lines was promised to
    /// nobody.
    std::uint8_t excused = 0;
};
static_assert(std::is_trivially_copyable_v<World>);
static_assert(std::has_unique_object_representations_v<World>);

[[nodiscard]] std::string to_text(NodeSet set);  // {BC}
[[nodiscard]] std::string node_name(int node);   // A, B, ...
[[nodiscard]] std::string to_text(const World& world, int nodes);

}  // namespace pgxc::sim
