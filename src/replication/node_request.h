#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "replication/node_login.h"
#include "replication/record.h"

/// What a coordinator asks of our library on a datanode (DESIGN 6.5), what that answers, and what a server
/// that starts there is told. Pure: texts and decisions.
///
/// The request comes as the value of the setting pgxc.node_request in the coordinator's lock session: no
/// catalog is needed, which a standby could not have got. What outlives the server is done by a program of
/// its own, pgxc_ha_node (node_agent.h), which asks a coordinator for the record before each effect and
/// believes nothing of the request that the record does not say, too.
namespace pgxc {

enum class NodeRequestKind : std::uint8_t {
    CanRestart,  // could the server be restarted on that port? Looks, changes nothing
    Restart,     // the recorded promotion's: rewrite the files, restart on that port
    Stop,        // the replaced master that is in the way of the recorded promotion
    Rejoin,      // make a slave of this replaced master
    Forget,      // it is registered: the journal of its return is not needed any more
};

struct NodeRequest {
    NodeRequestKind kind = NodeRequestKind::CanRestart;
    std::string ticket;  // the answer has it, too
    NodeKey group;
    std::string cluster_id;
    std::uint64_t claim = 0;  // of whoever asks
    std::string claim_owner;
    Epoch epoch;
    std::uint16_t port = 0;      // CanRestart, Restart: where it is to listen
    bool stream_failed = false;  // Rejoin: it runs as a slave, and finds no stream
    Millis time_limit{60'000};   // Restart, Stop: nothing is begun after that
    friend bool operator==(const NodeRequest&, const NodeRequest&) = default;
};

/// A request of a kind for a group, under the claim that its record has. Draws the ticket.
[[nodiscard]] NodeRequest node_request(NodeRequestKind kind, NodeKey group, const Record& record);

[[nodiscard]] std::string to_json(const NodeRequest& request);
/// Text that is no request is an Error (22023), never an exception.
[[nodiscard]] Result<NodeRequest> node_request_from_json(std::string_view text);

/// What became of a request: pgxc.node_answer, kept in the data directory.
struct NodeAnswer {
    std::string ticket;
    bool done = false;
    Error error;  // where it isn't
    friend bool operator==(const NodeAnswer&, const NodeAnswer&) = default;
};
[[nodiscard]] std::string to_json(const NodeAnswer& answer);
/// Nothing: the text is no answer.
[[nodiscard]] std::optional<NodeAnswer> node_answer_from_json(std::string_view text);
/// Below the data directory.
inline constexpr const char* node_answer_file = "/pgxc_ha.answer";

/// The server that the library is loaded in, as it is known there.
struct OwnServer {
    std::string data_directory;
    std::string config_file;
    std::uint16_t port = 0;
    std::uint64_t system_identifier = 0;
    std::uint32_t timeline = 0;  // of its newest WAL; 0 = not known
    std::string managed_by;      // not empty: who would lose it if pg_ctl restarted it
    friend bool operator==(const OwnServer&, const OwnServer&) = default;
};

/// What the program pgxc_ha_node is to do; comes by its standard input, because a login may hold a password.
struct NodeTask {
    enum class Kind : std::uint8_t {
        CheckStart,  // may this server start as a master? The verdict goes to standard output
        Rejoin,      // a replaced master was started: make a slave of it
        Request,     // carry out `request`
    };
    Kind kind = Kind::CheckStart;
    NodeRequest request;
    OwnServer server;
    bool has_restore_command = false;
    bool has_recovery_target = false;
    std::vector<HostPort> coordinators;
    NodeLogin coordinator_login;  // the database is that of the extension
    NodeLogin node_login;
};
[[nodiscard]] std::string to_json(const NodeTask& task);
[[nodiscard]] Result<NodeTask> node_task_from_json(std::string_view text);

/// Does a request (not CanRestart, not Forget) still stand, by the newest record? Asked directly before each
/// effect.
[[nodiscard]] Status request_stands(const NodeRequest& request, const OwnServer& own, const Record& record);

/// The entry of the record that this server is. `is_local` tells whether a host leads to this machine.
using IsLocal = bool (*)(const std::string& host);
[[nodiscard]] std::optional<FormerMaster> own_entry(const OwnServer& own, const Record& record,
                                                    IsLocal is_local);

/// May a server that has no signal file, and so would be a master, start?
struct StartVerdict {
    bool replaced = false;
    NodeKey group;
    Epoch epoch;      // since which
    HostPort master;  // who it is instead
    std::string because;
    bool returns = false;  // it is waited for: the library makes a slave of it
    std::string command;   // where somebody has to do that; empty = not known
    friend bool operator==(const StartVerdict&, const StartVerdict&) = default;
};
[[nodiscard]] StartVerdict judge_start(const OwnServer& own,
                                       const std::vector<std::pair<NodeKey, Record>>& records,
                                       IsLocal is_local);
[[nodiscard]] std::string to_json(const StartVerdict& verdict);
[[nodiscard]] Result<StartVerdict> start_verdict_from_json(std::string_view text);

}  // namespace pgxc
