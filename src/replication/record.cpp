#include "replication/record.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

using nlohmann::json;

json address_json(const HostPort& address) {
    return {{"host", address.host}, {"port", address.port}};
}

HostPort address_from(const json& value) {
    return {value.at("host").get<std::string>(), value.at("port").get<std::uint16_t>()};
}

json configuration_json(const Configuration& configuration) {
    json slaves = json::array();
    for (const Member& member : configuration.slaves)
        slaves.push_back({{"name", member.name}, {"address", address_json(member.address)}});
    return {{"epoch", configuration.epoch.value()}, {"k", configuration.k}, {"slaves", slaves}};
}

Configuration configuration_from(const json& value) {
    Configuration configuration;
    configuration.epoch = Epoch{value.at("epoch").get<std::int64_t>()};
    configuration.k = value.at("k").get<int>();
    for (const json& slave : value.at("slaves"))
        configuration.slaves.push_back(
            {slave.at("name").get<std::string>(), address_from(slave.at("address"))});
    return configuration;
}

json pending_json(const PendingPromotion& pending) {
    return {{"promoted_id", pending.promoted_id.value()},
            {"listens_at", address_json(pending.listens_at)},
            {"old_master", address_json(pending.old_master)},
            {"by_restart", pending.by_restart},
            {"former_alive", pending.former_alive},
            {"cause", pending.cause},
            {"decided_by", pending.decided_by},
            {"started_at_us", pending.started_at_us},
            {"detect_ms", pending.detect_ms},
            {"decide_ms", pending.decide_ms},
            {"fence_ms", pending.fence_ms},
            {"lost_wal_bytes", pending.lost_wal_bytes},
            {"old_timeline", pending.old_timeline},
            {"data_directory", pending.data_directory},
            {"config_file", pending.config_file},
            {"settings_to_restore", pending.settings_to_restore}};
}

PendingPromotion pending_from(const json& value) {
    PendingPromotion pending;
    pending.promoted_id = NodeId{value.at("promoted_id").get<std::int32_t>()};
    pending.listens_at = address_from(value.at("listens_at"));
    pending.old_master = address_from(value.at("old_master"));
    value.at("by_restart").get_to(pending.by_restart);
    value.at("former_alive").get_to(pending.former_alive);
    value.at("cause").get_to(pending.cause);
    value.at("decided_by").get_to(pending.decided_by);
    value.at("started_at_us").get_to(pending.started_at_us);
    value.at("detect_ms").get_to(pending.detect_ms);
    value.at("decide_ms").get_to(pending.decide_ms);
    value.at("fence_ms").get_to(pending.fence_ms);
    value.at("lost_wal_bytes").get_to(pending.lost_wal_bytes);
    value.at("old_timeline").get_to(pending.old_timeline);
    value.at("data_directory").get_to(pending.data_directory);
    value.at("config_file").get_to(pending.config_file);
    value.at("settings_to_restore").get_to(pending.settings_to_restore);
    return pending;
}

bool plausible(const Record& record) {
    if (record.configurations.empty()) return false;
    return std::all_of(
        record.configurations.begin(), record.configurations.end(), [](const Configuration& c) {
            return c.slaves.empty() ? c.k == 0 : c.k >= 1 && c.k <= static_cast<int>(c.slaves.size());
        });
}

}  // namespace

std::vector<std::string> names_of(const Configuration& configuration) {
    std::vector<std::string> names;
    for (const Member& member : configuration.slaves) names.push_back(member.name);
    return names;
}

std::string names_in_force(const Configuration& configuration) {
    return synchronous_standby_names(configuration.k, names_of(configuration));
}

const Member* Configuration::find(const HostPort& address) const {
    const auto at = std::find_if(slaves.begin(), slaves.end(),
                                 [&](const Member& member) { return member.address == address; });
    return at != slaves.end() ? &*at : nullptr;
}

std::vector<std::string> Configuration::names() const {
    std::vector<std::string> names;
    names.reserve(slaves.size());
    for (const Member& member : slaves) names.push_back(member.name);
    return names;
}

std::vector<Member> Record::all_members() const {
    std::vector<Member> members;
    for (auto configuration = configurations.rbegin(); configuration != configurations.rend();
         ++configuration) {
        for (const Member& member : configuration->slaves) {
            const bool known = std::any_of(members.begin(), members.end(), [&](const Member& other) {
                return other.address == member.address;
            });
            if (!known) members.push_back(member);
        }
    }
    return members;
}

std::int64_t Record::line_of(const HostPort& address) const {
    const auto at = lines.find(address.to_string());
    return at != lines.end() ? at->second : epoch.value();
}

Record initial_record(const HostPort& master, Epoch epoch, std::string cluster_id, std::string arbiter_id) {
    Record record;
    record.generation = 1;
    record.cluster_id = std::move(cluster_id);
    record.arbiter_id = std::move(arbiter_id);
    record.epoch = epoch;
    record.master = master;
    record.configurations.push_back({epoch, {}, 0});
    record.lines[master.to_string()] = epoch.value();
    return record;
}

std::string to_json(const Record& record) {
    json configurations = json::array();
    for (const Configuration& configuration : record.configurations)
        configurations.push_back(configuration_json(configuration));
    const json value = {{"generation", record.generation},
                        {"claim", record.claim},
                        {"claim_owner", record.claim_owner},
                        {"cluster_id", record.cluster_id},
                        {"arbiter_id", record.arbiter_id},
                        {"epoch", record.epoch.value()},
                        {"master", address_json(record.master)},
                        // As text: 64 bits do not survive every reader of JSON as a number.
                        {"system_identifier", std::to_string(record.system_identifier)},
                        {"timeline", record.timeline},
                        {"configurations", configurations},
                        {"lines", record.lines},
                        {"pending", record.pending ? pending_json(*record.pending) : json(nullptr)}};
    return value.dump();
}

Result<Record> record_from_json(const std::string& text) {
    try {
        const json value = json::parse(text);
        Record record;
        value.at("generation").get_to(record.generation);
        value.at("claim").get_to(record.claim);
        value.at("claim_owner").get_to(record.claim_owner);
        value.at("cluster_id").get_to(record.cluster_id);
        value.at("arbiter_id").get_to(record.arbiter_id);
        record.epoch = Epoch{value.at("epoch").get<std::int64_t>()};
        record.master = address_from(value.at("master"));
        record.system_identifier = std::stoull(value.at("system_identifier").get<std::string>());
        value.at("timeline").get_to(record.timeline);
        for (const json& configuration : value.at("configurations"))
            record.configurations.push_back(configuration_from(configuration));
        value.at("lines").get_to(record.lines);
        if (!value.at("pending").is_null()) record.pending = pending_from(value.at("pending"));
        if (!plausible(record))
            return Error{"XX001", "the arbiter's record is damaged: its configurations make no sense"};
        return record;
    } catch (const std::exception& problem) {
        return Error{"XX001", std::string("the arbiter's record can't be read: ") + problem.what()};
    }
}

}  // namespace pgxc
