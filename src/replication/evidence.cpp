#include "replication/evidence.h"

#include <cctype>
#include <nlohmann/json.hpp>

namespace pgxc {
namespace {

using Json = nlohmann::ordered_json;

const char* to_text(Silence silence) {
    switch (silence) {
        case Silence::None:
            return "answers";
        case Silence::Refused:
            return "refused";
        case Silence::Lost:
            return "connection lost";
        case Silence::Timeout:
            return "no answer in time";
        case Silence::Other:
            return "not reached";
    }
    return "";
}

Json observed(const HostPort& address, const std::map<HostPort, Observation>& seen, TimePoint now) {
    Json json{{"address", address.to_string()}};
    const auto found = seen.find(address);
    if (found == seen.end()) {
        json["seen"] = "not asked yet";
        return json;
    }
    const Observation& observation = found->second;
    const auto age = [now](TimePoint then) { return std::chrono::duration_cast<Millis>(now - then).count(); };
    json["seen"] = to_text(observation.silence);
    if (observation.answered_at) json["answered_ms_ago"] = age(*observation.answered_at);
    if (observation.silent_since) {
        json["silent_ms"] = age(*observation.silent_since);
        json["failed_attempts"] = observation.failed_attempts;
    }
    if (observation.going_down_since) json["going_down_ms"] = age(*observation.going_down_since);
    if (observation.starting) json["starting"] = true;
    if (!observation.error.empty()) json["error"] = observation.error;
    if (const auto& facts = observation.facts) {
        json["in_recovery"] = facts->in_recovery;
        json["timeline"] = facts->timeline.value();
        if (facts->in_recovery) {
            json["receiver"] = facts->receiver_status.empty() ? "none" : facts->receiver_status;
            json["end_of_wal"] = facts->end_of_wal().to_string();
            json["receives_new_wal"] = observation.receives_new_wal;
        } else {
            json["flushed"] = facts->flushed.to_string();
        }
    }
    return json;
}

}  // namespace

std::string evidence_facts(const Record& record, const std::map<HostPort, Observation>& seen, TimePoint now) {
    Json slaves = Json::array();
    for (const Member& member : record.all_members()) slaves.push_back(observed(member.address, seen, now));
    const Json facts{{"master", observed(record.master, seen, now)}, {"slaves", std::move(slaves)}};
    // A server's message may be in any encoding: what isn't UTF-8 is replaced.
    return facts.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool same_but_for_figures(const std::string& one, const std::string& other) {
    const auto is_figure = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
    auto a = one.begin();
    auto b = other.begin();
    while (a != one.end() && b != other.end()) {
        if (is_figure(*a) && is_figure(*b)) {
            while (a != one.end() && is_figure(*a)) ++a;
            while (b != other.end() && is_figure(*b)) ++b;
        } else if (*a++ != *b++) {
            return false;
        }
    }
    return a == one.end() && b == other.end();
}

}  // namespace pgxc
