#include "replication/node_request.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>

namespace pgxc {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<NodeRequestKind, const char*>, 5> kind_words{{
    {NodeRequestKind::CanRestart, "can restart"},
    {NodeRequestKind::Restart, "restart"},
    {NodeRequestKind::Stop, "stop"},
    {NodeRequestKind::Rejoin, "rejoin"},
    {NodeRequestKind::Forget, "forget"},
}};

std::string dump(const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json address_json(const HostPort& address) {
    return {{"host", address.host}, {"port", address.port}};
}

/// The library casts a number that is too large to fit; a wrong port is worse than none.
std::uint16_t port_from(const json& value) {
    const auto port = value.get<std::int64_t>();
    if (port < 0 || port > 65535) throw std::invalid_argument(std::to_string(port) + " is no port");
    return static_cast<std::uint16_t>(port);
}

HostPort address_from(const json& value) {
    return {value.at("host").get<std::string>(), port_from(value.at("port"))};
}

json key_json(const NodeKey& key) {
    return {{"type", std::string(1, static_cast<char>(key.type))}, {"id", key.id.value()}};
}

NodeKey key_from(const json& value) {
    const auto type = value.at("type").get<std::string>();
    if (type != "C" && type != "D") throw std::invalid_argument("no type of node");
    const auto id = value.at("id").get<std::int32_t>();
    if (id < 0) throw std::invalid_argument("no id of a node");
    return {static_cast<NodeType>(type[0]), NodeId{id}};
}

json request_json(const NodeRequest& request) {
    const auto* word = std::find_if(kind_words.begin(), kind_words.end(),
                                    [&](const auto& entry) { return entry.first == request.kind; });
    return {{"request", word->second},
            {"ticket", request.ticket},
            {"group", key_json(request.group)},
            {"cluster_id", request.cluster_id},
            {"claim", request.claim},
            {"claim_owner", request.claim_owner},
            {"epoch", request.epoch.value()},
            {"port", request.port},
            {"stream_failed", request.stream_failed},
            {"time_limit_ms", request.time_limit.count()}};
}

NodeRequest request_from(const json& value) {
    NodeRequest request;
    const auto word = value.at("request").get<std::string>();
    const auto* kind = std::find_if(kind_words.begin(), kind_words.end(),
                                    [&](const auto& entry) { return entry.second == word; });
    if (kind == kind_words.end()) throw std::invalid_argument("\"" + word + "\" is no request");
    request.kind = kind->first;
    value.at("ticket").get_to(request.ticket);
    request.group = key_from(value.at("group"));
    value.at("cluster_id").get_to(request.cluster_id);
    value.at("claim").get_to(request.claim);
    value.at("claim_owner").get_to(request.claim_owner);
    request.epoch = Epoch{value.at("epoch").get<std::int64_t>()};
    request.port = port_from(value.at("port"));
    value.at("stream_failed").get_to(request.stream_failed);
    request.time_limit = Millis{value.at("time_limit_ms").get<std::int64_t>()};
    if (request.time_limit < Millis(0)) throw std::invalid_argument("a time limit in the past");
    return request;
}

json login_json(const NodeLogin& login) {
    return {{"user", login.user}, {"database", login.database}, {"conninfo", login.conninfo}};
}

NodeLogin login_from(const json& value) {
    return {value.at("user").get<std::string>(), value.at("database").get<std::string>(),
            value.at("conninfo").get<std::string>()};
}

/// Reads a text by `read`, whose exceptions are about the text.
template <class Read>
auto reading(std::string_view text, const char* what, Read read) -> Result<decltype(read(json()))> {
    try {
        return read(json::parse(text));
    } catch (const std::exception& problem) {
        return Error{sqlstate::invalid_parameter_value,
                     std::string("this is no ") + what + ": " + problem.what()};
    }
}

Error stale(const NodeRequest& request, const std::string& why) {
    return Error{sqlstate::object_not_in_prerequisite_state, request.group.to_string() + ": " + why};
}

}  // namespace

NodeRequest node_request(NodeRequestKind kind, NodeKey group, const Record& record) {
    NodeRequest request;
    request.kind = kind;
    // Only to tell an answer from an older one: the claim is what a request stands on.
    std::random_device source;
    request.ticket = std::to_string(source()) + "." + std::to_string(source());
    request.group = group;
    request.cluster_id = record.cluster_id;
    request.claim = record.claim;
    request.claim_owner = record.claim_owner;
    request.epoch = record.epoch;
    return request;
}

std::string to_json(const NodeRequest& request) {
    return dump(request_json(request));
}

Result<NodeRequest> node_request_from_json(std::string_view text) {
    return reading(text, "request", [](const json& value) { return request_from(value); });
}

std::string to_json(const NodeAnswer& answer) {
    json value = {{"ticket", answer.ticket}, {"done", answer.done}};
    if (!answer.done)
        value["error"] = {{"sqlstate", answer.error.sqlstate},
                          {"message", answer.error.message},
                          {"detail", answer.error.detail},
                          {"hint", answer.error.hint}};
    return dump(value);
}

std::optional<NodeAnswer> node_answer_from_json(std::string_view text) {
    auto answer = reading(text, "answer", [](const json& value) {
        NodeAnswer read;
        value.at("ticket").get_to(read.ticket);
        value.at("done").get_to(read.done);
        if (!read.done) {
            const json& error = value.at("error");
            error.at("sqlstate").get_to(read.error.sqlstate);
            error.at("message").get_to(read.error.message);
            error.at("detail").get_to(read.error.detail);
            error.at("hint").get_to(read.error.hint);
        }
        return read;
    });
    if (!answer.ok()) return std::nullopt;
    return *answer;
}

std::string to_json(const NodeTask& task) {
    json coordinators = json::array();
    for (const HostPort& coordinator : task.coordinators) coordinators.push_back(address_json(coordinator));
    return dump({{"kind", static_cast<int>(task.kind)},
                 {"request", request_json(task.request)},
                 {"server",
                  {{"data_directory", task.server.data_directory},
                   {"config_file", task.server.config_file},
                   {"port", task.server.port},
                   {"system_identifier", task.server.system_identifier},
                   {"managed_by", task.server.managed_by}}},
                 {"has_restore_command", task.has_restore_command},
                 {"has_recovery_target", task.has_recovery_target},
                 {"coordinators", coordinators},
                 {"coordinator_login", login_json(task.coordinator_login)},
                 {"node_login", login_json(task.node_login)}});
}

Result<NodeTask> node_task_from_json(std::string_view text) {
    return reading(text, "task", [](const json& value) {
        NodeTask task;
        const int kind = value.at("kind").get<int>();
        if (kind < 0 || kind > static_cast<int>(NodeTask::Kind::Request))
            throw std::invalid_argument("no kind of task");
        task.kind = static_cast<NodeTask::Kind>(kind);
        task.request = request_from(value.at("request"));
        const json& server = value.at("server");
        server.at("data_directory").get_to(task.server.data_directory);
        server.at("config_file").get_to(task.server.config_file);
        task.server.port = port_from(server.at("port"));
        server.at("system_identifier").get_to(task.server.system_identifier);
        server.at("managed_by").get_to(task.server.managed_by);
        value.at("has_restore_command").get_to(task.has_restore_command);
        value.at("has_recovery_target").get_to(task.has_recovery_target);
        for (const json& coordinator : value.at("coordinators"))
            task.coordinators.push_back(address_from(coordinator));
        task.coordinator_login = login_from(value.at("coordinator_login"));
        task.node_login = login_from(value.at("node_login"));
        return task;
    });
}

Status request_stands(const NodeRequest& request, const OwnServer& own, const Record& record) {
    if (record.cluster_id != request.cluster_id)
        return stale(request, "the coordinator's record is of another cluster than the request");
    if (record.claim != request.claim || record.claim_owner != request.claim_owner)
        return stale(request, "the group has been claimed anew");
    if (record.epoch != request.epoch)
        return stale(request, "epoch " + std::to_string(record.epoch.value()) +
                                  " has begun, the request is of " + std::to_string(request.epoch.value()));
    if (record.system_identifier != own.system_identifier)
        return stale(request, "this server belongs to another group");
    switch (request.kind) {
        case NodeRequestKind::Restart:
            if (!record.pending || !record.pending->by_restart)
                return stale(request, "no promotion by a restart is recorded");
            if (record.pending->listens_at.port != own.port && record.master.port != own.port)
                return stale(request, "another server is recorded as the one that is restarted");
            if (record.master.port != request.port)
                return stale(request, "the record has port " + std::to_string(record.master.port) +
                                          " for the new master");
            return {};
        case NodeRequestKind::Stop:
            if (!record.pending || !record.pending->former_alive ||
                record.pending->old_master.port != own.port)
                return stale(request, "no promotion is recorded that this server is in the way of");
            return {};
        case NodeRequestKind::Rejoin:
            if (record.pending) return stale(request, "a promotion is under way");
            return {};
        case NodeRequestKind::CanRestart:
        case NodeRequestKind::Forget:
            break;
    }
    return {};
}

std::optional<FormerMaster> own_entry(const OwnServer& own, const Record& record, IsLocal is_local) {
    if (record.system_identifier != own.system_identifier) return std::nullopt;
    for (const FormerMaster& former : record.formers) {
        // A former master whose port was taken over still has that in its files.
        const bool port = own.port == former.address.port || own.port == record.master.port;
        const std::string& directory = former.place.data_directory;
        if (!port || (!directory.empty() && directory != own.data_directory)) continue;
        // The same path is the usual thing on all hosts.
        if (is_local(former.address.host)) return former;
    }
    return std::nullopt;
}

StartVerdict judge_start(const OwnServer& own, const std::vector<std::pair<NodeKey, Record>>& records,
                         IsLocal is_local) {
    StartVerdict verdict;
    for (const auto& [group, record] : records) {
        if (record.system_identifier != own.system_identifier || own.system_identifier == 0) continue;
        const auto former = own_entry(own, record, is_local);
        const bool is_chosen =
            record.pending && is_local(record.pending->listens_at.host) &&
            (record.pending->data_directory.empty() ? own.port == record.pending->listens_at.port
                                                    : own.data_directory == record.pending->data_directory);
        // By its entry it is known even while the promotion is under way. It may have taken the new master's
        // place since: that one's line is what tells.
        const bool listed =
            former && !is_chosen &&
            (record.timeline == 0 || own.timeline == 0 || own.timeline < record.timeline || record.pending);
        const bool older =
            !record.pending && record.timeline != 0 && own.timeline != 0 && own.timeline < record.timeline;
        if (!listed && !older) continue;
        verdict.replaced = true;
        verdict.group = group;
        verdict.epoch = record.epoch;
        verdict.master = record.master;
        verdict.because = "Its WAL ends on timeline " + std::to_string(own.timeline) + ", ";
        if (record.timeline != 0)
            verdict.because += "the master writes timeline " + std::to_string(record.timeline) + ".";
        else
            verdict.because += "the new master is being promoted.";
        if (former && !former->keep_because.empty())
            verdict.because += " Of this one is recorded: " + former->keep_because + ".";
        verdict.returns = former && former->keep_because.empty();
        return verdict;
    }
    return verdict;
}

std::string to_json(const StartVerdict& verdict) {
    return dump({{"replaced", verdict.replaced},
                 {"group", key_json(verdict.group)},
                 {"epoch", verdict.epoch.value()},
                 {"master", address_json(verdict.master)},
                 {"because", verdict.because},
                 {"returns", verdict.returns},
                 {"command", verdict.command}});
}

Result<StartVerdict> start_verdict_from_json(std::string_view text) {
    return reading(text, "verdict", [](const json& value) {
        StartVerdict verdict;
        value.at("replaced").get_to(verdict.replaced);
        verdict.group = key_from(value.at("group"));
        verdict.epoch = Epoch{value.at("epoch").get<std::int64_t>()};
        verdict.master = address_from(value.at("master"));
        value.at("because").get_to(verdict.because);
        value.at("returns").get_to(verdict.returns);
        value.at("command").get_to(verdict.command);
        return verdict;
    });
}

}  // namespace pgxc
