#include "replication/record.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

using nlohmann::json;

json address_json(const HostPort& address) {
    return {{"host", address.host}, {"port", address.port}};
}

/// The library itself converts any number into any other: -1, 1.5 and 70000 would become ports.
template <class T>
T integer(const json& value, std::int64_t lowest = 0) {
    if (!value.is_number_integer()) throw std::invalid_argument(value.dump() + " is no whole number");
    const bool fits =
        value.is_number_unsigned()
            ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<T>::max())
            : value.get<std::int64_t>() >= lowest;
    if (!fits || (lowest > 0 && value.get<std::int64_t>() < lowest))
        throw std::out_of_range(value.dump() + " is out of range");
    return value.get<T>();
}

HostPort address_from(const json& value) {
    return {value.at("host").get<std::string>(), integer<std::uint16_t>(value.at("port"), 1)};
}

json configuration_json(const Configuration& configuration) {
    json slaves = json::array();
    for (const Member& member : configuration.slaves)
        slaves.push_back({{"name", member.name}, {"address", address_json(member.address)}});
    return {{"epoch", configuration.epoch.value()}, {"k", configuration.k}, {"slaves", slaves}};
}

Configuration configuration_from(const json& value) {
    Configuration configuration;
    configuration.epoch = Epoch{integer<std::int64_t>(value.at("epoch"))};
    configuration.k = integer<int>(value.at("k"));
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
    pending.promoted_id = NodeId{integer<std::int32_t>(value.at("promoted_id"), 1)};
    pending.listens_at = address_from(value.at("listens_at"));
    pending.old_master = address_from(value.at("old_master"));
    value.at("by_restart").get_to(pending.by_restart);
    value.at("former_alive").get_to(pending.former_alive);
    value.at("cause").get_to(pending.cause);
    value.at("decided_by").get_to(pending.decided_by);
    pending.started_at_us = integer<std::int64_t>(value.at("started_at_us"));
    value.at("detect_ms").get_to(pending.detect_ms);
    value.at("decide_ms").get_to(pending.decide_ms);
    value.at("fence_ms").get_to(pending.fence_ms);
    pending.lost_wal_bytes = integer<std::int64_t>(value.at("lost_wal_bytes"), -1);
    pending.old_timeline = integer<std::uint32_t>(value.at("old_timeline"));
    value.at("data_directory").get_to(pending.data_directory);
    value.at("config_file").get_to(pending.config_file);
    value.at("settings_to_restore").get_to(pending.settings_to_restore);
    return pending;
}

json place_json(const ServerPlace& place) {
    return {{"data_directory", place.data_directory},
            {"config_file", place.config_file},
            {"library", place.library}};
}

ServerPlace place_from(const json& value) {
    return {value.at("data_directory").get<std::string>(), value.at("config_file").get<std::string>(),
            value.value("library", false)};
}

json former_json(const FormerMaster& former) {
    return {{"id", former.id.value()},
            {"address", address_json(former.address)},
            {"replication", std::string(1, static_cast<char>(former.replication))},
            {"place", place_json(former.place)},
            {"timeline", former.timeline},
            {"keep_because", former.keep_because}};
}

FormerMaster former_from(const json& value) {
    FormerMaster former;
    former.id = NodeId{integer<std::int32_t>(value.at("id"), 1)};
    former.address = address_from(value.at("address"));
    const auto replication = value.at("replication").get<std::string>();
    if (replication != "s" && replication != "a") throw std::invalid_argument("no mode of replication");
    former.replication = static_cast<Replication>(replication[0]);
    former.place = place_from(value.at("place"));
    former.timeline = integer<std::uint32_t>(value.at("timeline"));
    value.at("keep_because").get_to(former.keep_because);
    return former;
}

bool plausible(const Configuration& configuration) {
    // Counting fences relies on each entry being another server.
    std::set<std::string> names;
    std::set<HostPort> addresses;
    for (const Member& member : configuration.slaves) {
        if (member.name.empty() || member.address.host.empty()) return false;
        if (!names.insert(member.name).second || !addresses.insert(member.address).second) return false;
    }
    if (configuration.slaves.empty()) return configuration.k == 0;
    return configuration.k >= 1 && configuration.k <= static_cast<int>(configuration.slaves.size());
}

bool plausible(const Record& record) {
    if (record.configurations.empty() || record.master.host.empty()) return false;
    return std::all_of(record.configurations.begin(), record.configurations.end(),
                       [](const Configuration& configuration) { return plausible(configuration); });
}

}  // namespace

std::string names_in_force(const Configuration& configuration) {
    return synchronous_standby_names(configuration.k, configuration.names());
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

Registration Record::registration() const {
    std::uint32_t number = 0;
    const char* const end = cluster_id.data() + cluster_id.size();
    const auto read = std::from_chars(cluster_id.data(), end, number, 16);
    return read.ec == std::errc{} && read.ptr == end ? Registration{number} : Registration{};
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
    json formers = json::array();
    for (const FormerMaster& former : record.formers) formers.push_back(former_json(former));
    json restarting = json::object();
    for (const auto& [address, place] : record.restarting) restarting[address] = place_json(place);
    json to_give_back = json::object();
    for (const auto& [address, settings] : record.to_give_back) {
        json& values = to_give_back[address] = json::object();
        for (const auto& [name, value] : settings) values[name] = value ? json(*value) : json(nullptr);
    }
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
                        {"pending", record.pending ? pending_json(*record.pending) : json(nullptr)},
                        {"place", place_json(record.place)},
                        {"formers", formers},
                        {"restarting", restarting},
                        {"to_give_back", to_give_back}};
    // Causes and settings quote what servers say, which an SQL_ASCII database sends in any encoding: a
    // character that is replaced does less harm than a record that can't be written.
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<Record> record_from_json(const std::string& text) {
    try {
        const json value = json::parse(text);
        Record record;
        record.generation = integer<std::uint64_t>(value.at("generation"));
        record.claim = integer<std::uint64_t>(value.at("claim"));
        value.at("claim_owner").get_to(record.claim_owner);
        value.at("cluster_id").get_to(record.cluster_id);
        value.at("arbiter_id").get_to(record.arbiter_id);
        record.epoch = Epoch{integer<std::int64_t>(value.at("epoch"))};
        record.master = address_from(value.at("master"));
        const auto identifier = value.at("system_identifier").get<std::string>();
        const auto* end = identifier.data() + identifier.size();
        const auto parsed = std::from_chars(identifier.data(), end, record.system_identifier);
        if (parsed.ec != std::errc{} || parsed.ptr != end)
            return Error{"XX001", "the arbiter's record is damaged: its system identifier is no number"};
        record.timeline = integer<std::uint32_t>(value.at("timeline"));
        for (const json& configuration : value.at("configurations"))
            record.configurations.push_back(configuration_from(configuration));
        for (const auto& [address, line] : value.at("lines").get_ref<const json::object_t&>())
            record.lines[address] = integer<std::int64_t>(line);
        if (!value.at("pending").is_null()) record.pending = pending_from(value.at("pending"));
        record.place = place_from(value.at("place"));
        for (const json& former : value.at("formers").get_ref<const json::array_t&>())
            record.formers.push_back(former_from(former));
        for (const auto& [address, place] : value.at("restarting").get_ref<const json::object_t&>())
            record.restarting[address] = place_from(place);
        // Not in a record of an earlier version.
        if (const auto back = value.find("to_give_back"); back != value.end())
            for (const auto& [address, settings] : back->get_ref<const json::object_t&>())
                for (const auto& [name, was] : settings.get_ref<const json::object_t&>())
                    record.to_give_back[address][name] =
                        was.is_null() ? std::nullopt : std::optional(was.get<std::string>());
        if (!plausible(record))
            return Error{"XX001", "the arbiter's record is damaged: its configurations make no sense"};
        return record;
    } catch (const std::exception& problem) {
        return Error{"XX001", std::string("the arbiter's record can't be read: ") + problem.what()};
    }
}

}  // namespace pgxc
