#include "sim/decisions.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "replication/sync_standbys.h"

namespace pgxc::sim {
namespace {

constexpr NodeKey group{NodeType::Datanode, NodeId{100}};
constexpr std::uint16_t first_port = 5001;

/// An answer that the abstract world can't hold is a fault of the simulation or of the function: stop.
void must(bool truth, const char* what) {
    if (!truth) throw std::logic_error(what);
}

HostPort address_of(int node) {
    return {"n", static_cast<std::uint16_t>(first_port + node)};
}

int node_at(const HostPort& address) {
    return address.port - first_port;
}

NodeKey key_of(int node) {
    return {NodeType::Datanode, NodeId{node + 1}};
}

template <class... Parts>
std::string bytes_of(const Parts&... parts) {
    std::string key;
    (key.append(reinterpret_cast<const char*>(&parts), sizeof parts), ...);
    return key;
}

}  // namespace

Decisions::Decisions(int nodes, Mutation mutation) : nodes_(nodes), mutation_(mutation) {
    nobody_ = intern(nobody_standby_names("c1"));
    for (int node = 0; node < nodes; ++node)
        for (int epoch = 0; epoch < 16; ++epoch)
            standby_ids_[static_cast<unsigned>(node)][static_cast<unsigned>(epoch)] =
                intern(standby_text(node, epoch));
}

std::string Decisions::standby_text(int node, int epoch) const {
    return standby_name(key_of(node), Epoch{mutation_ == Mutation::Epname ? 0 : epoch});
}

NameId Decisions::intern(const std::string& text) {
    const auto known = ids_.find(text);
    if (known != ids_.end()) return known->second;
    must(texts_.size() < 65'535, "too many names");
    const auto id = static_cast<NameId>(texts_.size());
    texts_.push_back(text);
    ids_.emplace(text, id);
    Parsed parsed;
    if (text.rfind("ANY ", 0) == 0) {
        std::string list = text.substr(text.find('(') + 1);
        parsed.k = std::stoi(text.substr(4));
        for (char& letter : list)
            if (letter == ',' || letter == ')') letter = ' ';
        std::istringstream names(list);
        for (std::string name; names >> name;) parsed.names.push_back(intern(name));
    }
    parsed_.resize(texts_.size());
    parsed_[id] = parsed;
    return id;
}

NameId Decisions::name_of(int node, int epoch) {
    return standby_ids_[static_cast<unsigned>(node)][static_cast<unsigned>(epoch)];
}

NameId Decisions::nobody_names() {
    return nobody_;
}

NameId Decisions::names_of(const Counting& counting) {
    const std::string key = bytes_of(counting);
    const auto known = names_.find(key);
    if (known != names_.end()) return known->second;
    return names_[key] = intern(names_in_force(real(counting)));
}

int Decisions::acknowledged_by(NameId names, const std::array<Heard, max_nodes>& heard, int own_end) {
    const Parsed& rule = parsed_[names];
    if (rule.k == 0) return own_end;
    const auto listed = [&](const Heard& slave) {
        return slave.application != 0 &&
               std::find(rule.names.begin(), rule.names.end(), slave.application) != rule.names.end();
    };
    int end = 0;
    for (const Heard& slave : heard) {
        if (!listed(slave) || slave.position <= end) continue;
        const auto as_far = std::count_if(heard.begin(), heard.end(), [&](const Heard& other) {
            return listed(other) && other.position >= slave.position;
        });
        if (as_far >= rule.k) end = slave.position;
    }
    return std::min(own_end, end);
}

int Decisions::flushed_by(const Counting& counting, const std::array<Heard, max_nodes>& heard, int barrier) {
    int count = 0;
    for (int node = 0; node < nodes_; ++node) {
        const Heard& slave = heard[static_cast<unsigned>(node)];
        if (has(counting.slaves, node) && slave.application == name_of(node, counting.epoch) &&
            slave.position >= barrier)
            ++count;
    }
    return count;
}

Configuration Decisions::real(const Counting& counting) const {
    Configuration configuration{Epoch{counting.epoch}, {}, counting.k};
    for (int node = 0; node < nodes_; ++node)
        if (has(counting.slaves, node))
            configuration.slaves.push_back({standby_text(node, counting.epoch), address_of(node)});
    return configuration;
}

Counting Decisions::abstract(const Configuration& configuration) const {
    Counting counting{static_cast<std::uint8_t>(configuration.epoch.value()), 0,
                      static_cast<std::uint8_t>(configuration.k)};
    for (const Member& member : configuration.slaves) {
        const int node = node_at(member.address);
        must(mutation_ == Mutation::Epname || member.name == standby_text(node, counting.epoch),
             "a slave counts under a name of another epoch");
        counting.slaves |= only(node);
    }
    return counting;
}

Record Decisions::real(const ArbiterRecord& record) const {
    Record made = initial_record(address_of(record.master), Epoch{record.epoch}, "c1", "a1");
    made.configurations.clear();
    for (unsigned i = 0; i < record.count; ++i) made.configurations.push_back(real(record.configurations[i]));
    made.lines.clear();
    for (int node = 0; node < nodes_; ++node)
        made.lines[address_of(node).to_string()] = record.lines[static_cast<unsigned>(node)];
    return made;
}

Topology Decisions::topology(int master, NodeSet registered, int epoch) const {
    std::vector<Node> nodes;
    nodes.push_back({group, address_of(master), NodeId{}, Replication::None, Epoch{epoch}});
    for (int node = 0; node < nodes_; ++node)
        if (has(registered, node) && node != master)
            nodes.push_back({key_of(node), address_of(node), group.id, Replication::Synchronous, Epoch{}});
    return Topology{std::move(nodes)};
}

std::vector<FencedPosition> Decisions::real(const ArbiterRecord& record, NodeSet fenced,
                                            const std::array<std::uint8_t, max_nodes>& positions) const {
    std::vector<FencedPosition> made;
    for (int node = 0; node < nodes_; ++node) {
        const auto at = static_cast<unsigned>(node);
        if (has(fenced, node))
            made.push_back({address_of(node), record.lines[at], Lsn{positions[at] + 1ULL}});
    }
    return made;
}

bool Decisions::enough_fenced(const ArbiterRecord& record, NodeSet fenced) {
    const std::string key = bytes_of(record.configurations, record.count, fenced);
    const auto known = enough_.find(key);
    if (known != enough_.end()) return known->second;
    std::vector<HostPort> addresses;
    for (int node = 0; node < nodes_; ++node)
        if (has(fenced, node)) addresses.push_back(address_of(node));
    return enough_[key] = pgxc::enough_fenced(real(record), addresses).ok();
}

bool Decisions::asynchronous_allowed(const ArbiterRecord& record) {
    ArbiterRecord asked = record;
    // Left out: that it goes for each listed configuration, not for the wanted one only.
    if (mutation_ == Mutation::Promised) asked.only_configuration(record.wanted());
    const std::string key = bytes_of(asked.configurations, asked.count);
    const auto known = asynchronous_.find(key);
    if (known != asynchronous_.end()) return known->second;
    PolicySettings settings;
    settings.max_lost_wal_bytes = UINT64_MAX;
    return asynchronous_[key] = asynchronous_failover_allowed(real(asked), settings).ok();
}

int Decisions::choose_asynchronous(const ArbiterRecord& record, NodeSet fenced,
                                   const std::array<std::uint8_t, max_nodes>& positions) const {
    PolicySettings settings;
    settings.max_lost_wal_bytes = UINT64_MAX;
    const auto choice =
        pgxc::choose_asynchronous(real(record), real(record, fenced, positions), Lsn{UINT64_MAX}, settings);
    return choice.ok() ? node_at(choice->chosen.address) : none;
}

std::size_t Decisions::fences_needed(const Counting& counting) const {
    return real(counting).fences_needed();
}

int Decisions::choose(const ArbiterRecord& record, NodeSet fenced,
                      const std::array<std::uint8_t, max_nodes>& positions) const {
    auto candidates = real(record, fenced, positions);
    if (mutation_ == Mutation::Lsn)
        for (FencedPosition& candidate : candidates) candidate.line = 0;
    const FencedPosition* best = pgxc::choose(candidates);
    return best != nullptr ? node_at(best->address) : none;
}

std::optional<ArbiterRecord> Decisions::promotion(const ArbiterRecord& record, int chosen, NodeSet fenced,
                                                  const std::array<std::uint8_t, max_nodes>& positions,
                                                  NodeSet registered, bool degrade) {
    const std::string key = bytes_of(record, chosen, fenced, positions, registered, degrade);
    const auto known = promotions_.find(key);
    if (known != promotions_.end()) return known->second;
    // Random schedules hardly ask the same twice.
    if (promotions_.size() > 100'000) promotions_.clear();
    PolicySettings settings;
    settings.sync_degrade = degrade;
    const Record before = real(record);
    const auto candidates = real(record, fenced, positions);
    std::optional<ArbiterRecord> answer;
    auto configuration = configuration_after(before, address_of(chosen), candidates,
                                             topology(record.master, registered, record.epoch), settings);
    if (configuration.ok() && record.count < max_configurations) {
        const Record after =
            record_promotion(before, address_of(chosen), *configuration, candidates, PendingPromotion{});
        answer = record;
        answer->epoch = static_cast<std::uint8_t>(after.epoch.value());
        answer->master = static_cast<std::uint8_t>(node_at(after.master));
        answer->pending = after.pending ? 1 : 0;
        answer->count = 0;
        answer->configurations = {};
        for (const Configuration& each : after.configurations)
            answer->configurations[answer->count++] = abstract(each);
        for (int node = 0; node < nodes_; ++node)
            answer->lines[static_cast<unsigned>(node)] =
                static_cast<std::uint8_t>(after.line_of(address_of(node)));
    }
    return promotions_[key] = answer;
}

SyncAnswer Decisions::wanted_sync(const World& world, const SyncQuestion& question) {
    const ArbiterRecord& record = world.record;
    NodeSet prepared = 0;
    NodeSet streaming = 0;
    for (int node = 0; node < nodes_; ++node) {
        const Server& server = world.servers[static_cast<unsigned>(node)];
        if (server.file.application == name_of(node, record.epoch) && server.file.node != none)
            prepared |= only(node);
        const Heard& heard = world.heard[record.master][static_cast<unsigned>(node)];
        if (server.stream.node == record.master && heard.application == name_of(node, record.epoch))
            streaming |= only(node);
    }
    // With a constant name nothing tells that a configuration is of another epoch.
    const int epoch = mutation_ == Mutation::Epname ? 0 : record.epoch;
    Counting now_wanted = record.wanted();
    if (mutation_ == Mutation::Epname) now_wanted.epoch = 0;
    const std::string key = bytes_of(epoch, record.master, now_wanted, question, prepared, streaming);
    const auto known = wanted_.find(key);
    SyncAnswer answer;
    if (known != wanted_.end()) {
        answer = known->second;
    } else {
        Record asked = real(record);
        asked.epoch = Epoch{epoch};
        asked.configurations.assign(1, real(now_wanted));
        std::map<HostPort, Observation> seen;
        std::map<HostPort, TimePoint> missing_since;
        const TimePoint now{std::chrono::hours(1)};
        Observation master;
        master.answered_at = now;
        master.facts.emplace();
        for (int node = 0; node < nodes_; ++node) {
            if (node == record.master) continue;
            if (has(streaming, node))
                master.facts->standbys.push_back({standby_text(node, epoch), "streaming", {}, {}});
            if (has(question.gone, node)) missing_since[address_of(node)] = now - std::chrono::minutes(1);
            if (!has(question.answering, node)) continue;
            Observation& slave = seen[address_of(node)];
            slave.answered_at = now;
            slave.facts.emplace();
            slave.facts->in_recovery = true;
            if (has(prepared, node)) {
                slave.facts->primary_slot = standby_text(node, epoch);
                slave.facts->primary_conninfo = "host=n application_name=" + slave.facts->primary_slot;
            }
        }
        seen[address_of(record.master)] = master;
        PolicySettings settings;
        settings.sync_degrade = question.degrade;
        settings.sync_slaves = question.k;
        const WantedSync wanted =
            pgxc::wanted_sync(asked, topology(record.master, question.registered, epoch), group, seen,
                              missing_since, settings, now);
        answer.configuration = abstract(wanted.configuration);
        for (const Node& slave : wanted.to_prepare) answer.to_prepare |= only(node_at(slave.address));
        wanted_[key] = answer;
    }
    if (mutation_ == Mutation::Epname) answer.configuration.epoch = record.epoch;
    return answer;
}

Verdict Decisions::judge(const ArbiterRecord& record, NodeSet answering, NodeSet streaming,
                         NodeSet receiving) const {
    const TimePoint now{std::chrono::hours(1)};
    std::map<HostPort, Observation> seen;
    for (int node = 0; node < nodes_; ++node) {
        Observation& observation = seen[address_of(node)];
        if (node == record.master) {
            observation.answered_at = now - std::chrono::minutes(2);
            observation.silence = Silence::Timeout;
            observation.silent_since = now - std::chrono::minutes(1);
            observation.failed_attempts = 100;
        } else if (has(answering, node)) {
            observation.answered_at = now;
            observation.previous_answer_at = now - std::chrono::seconds(1);
            observation.facts.emplace();
            observation.facts->in_recovery = true;
            if (has(streaming, node)) observation.facts->receiver_status = "streaming";
            observation.receives_new_wal = has(receiving, node);
        }
    }
    return judge_master(real(record), seen, PolicySettings{}, now).verdict;
}

bool Decisions::publishes(const ArbiterRecord& record, NodeSet registered_before, int old_master) const {
    const Topology before =
        topology(old_master, static_cast<NodeSet>(registered_before | only(record.master)), record.epoch - 1);
    const Topology after = with_promotion(before, group, address_of(record.master), address_of(record.master),
                                          Epoch{record.epoch});
    const Node* master = after.find(group);
    return master != nullptr && master->address == address_of(record.master) &&
           master->epoch == Epoch{record.epoch} && after.find(key_of(record.master)) == nullptr;
}

}  // namespace pgxc::sim
