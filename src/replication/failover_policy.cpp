#include "replication/failover_policy.h"

#include <algorithm>

#include "catalog/topology_rules.h"
#include "replication/sync_standbys.h"

namespace pgxc {
namespace {

std::string ms(Millis time) {
    return std::to_string(time.count()) + " ms";
}

const Observation* find(const std::map<HostPort, Observation>& seen, const HostPort& address) {
    const auto at = seen.find(address);
    return at != seen.end() ? &at->second : nullptr;
}

Millis since(TimePoint start, TimePoint now) {
    return std::chrono::duration_cast<Millis>(now - start);
}

/// Has a slave received WAL that its master sent since then, within the last `lately`?
bool has_received(const Observation& slave, TimePoint then, Millis lately, TimePoint now) {
    return slave.new_wal_at && slave.new_wal_after && *slave.new_wal_after > then &&
           since(*slave.new_wal_at, now) < lately;
}

}  // namespace

StateAndReason classify(const Node& node, const Observation& seen, const PolicySettings& settings,
                        TimePoint now) {
    if (seen.starting) return {NodeState::Starting, seen.error};
    switch (seen.silence) {
        case Silence::None:
            break;
        case Silence::Refused:
            return {NodeState::Down, seen.error};
        case Silence::Lost:
            return {NodeState::Suspect, seen.error};
        case Silence::Timeout:
        case Silence::Other: {
            const bool long_enough = seen.failed_attempts > settings.probe_retries && seen.silent_since &&
                                     since(*seen.silent_since, now) >= settings.detection_time();
            return {long_enough ? NodeState::Down : NodeState::Suspect, seen.error};
        }
    }
    if (seen.refuses_us) return {NodeState::Wrong, seen.error};
    if (!seen.facts) return {NodeState::Unknown, "not asked yet"};
    if (node.is_master() && seen.facts->in_recovery)
        return {NodeState::Wrong, "is in recovery: a slave, but registered as a master"};
    if (!node.is_master() && !seen.facts->in_recovery)
        return {NodeState::Wrong, "is a master, but registered as a slave"};
    if (!node.is_master() && !seen.facts->streaming())
        return {NodeState::Up, "doesn't stream: its WAL receiver has no connection to its master"};
    return {NodeState::Up, {}};
}

Judgement judge_master(const Record& record, const std::map<HostPort, Observation>& seen,
                       const PolicySettings& settings, TimePoint now,
                       const std::vector<HostPort>& asynchronous) {
    const Observation* master = find(seen, record.master);
    if (master == nullptr) return {Verdict::Wait, "the master has not been asked yet", {}};

    if (master->silence == Silence::None) {
        if (!master->starting) {
            if (!master->facts && !master->refuses_us)
                return {Verdict::Wait, "the master has not been asked yet", {}};
            return {Verdict::Alive, {}, {}};
        }
        const TimePoint from = master->going_down_since.value_or(now);
        if (since(from, now) < settings.restart_grace)
            return {Verdict::Wait,
                    "the master says: " + master->error + "; restart_grace of " + ms(settings.restart_grace) +
                        " runs since " + ms(since(from, now)),
                    {}};
        return {Verdict::Dead,
                "the master has been starting or stopping for longer than restart_grace (" +
                    ms(settings.restart_grace) + ")",
                {}};
    }
    const TimePoint silent_since = master->silent_since.value_or(now);
    // This monitor has never seen it alive: it may be starting together with us.
    const Millis first_look = std::max(settings.restart_grace, settings.detection_time());
    if (!master->answered_at && since(silent_since, now) < first_look)
        return {Verdict::Wait,
                "the master has not answered once since this monitor started, " +
                    ms(since(silent_since, now)) + " ago: " + master->error,
                {}};
    if (master->going_down_since && since(*master->going_down_since, now) < settings.restart_grace)
        return {Verdict::Wait,
                "the master was shut down or restarted in good order: restart_grace of " +
                    ms(settings.restart_grace) + " runs",
                {}};
    std::string cause;
    switch (master->silence) {
        case Silence::None:
            break;
        case Silence::Refused:
            cause = "the master's address refuses connections";
            break;
        case Silence::Lost:
            return {Verdict::Wait, "the connection to the master was lost; asking again", {}};
        case Silence::Timeout:
        case Silence::Other:
            if (master->failed_attempts <= settings.probe_retries ||
                since(silent_since, now) < settings.detection_time())
                return {Verdict::Wait,
                        "no answer of the master for " + ms(since(silent_since, now)) + " (" +
                            std::to_string(master->failed_attempts) + " attempts)",
                        {}};
            cause = "no answer of the master to " + std::to_string(master->failed_attempts) +
                    " attempts within " + ms(since(silent_since, now));
            break;
    }

    // What the slaves' WAL receivers see: a master that still feeds k of them serves somebody. Behind a
    // closed port only what comes now counts; a silence lasts long enough for the pauses of those who write.
    const bool closed = master->silence == Silence::Refused;
    const Configuration& wanted = record.wanted();
    const bool nobody_counts = wanted.slaves.empty();
    std::vector<HostPort> witnesses;
    for (const Member& member : wanted.slaves) witnesses.push_back(member.address);
    if (nobody_counts) witnesses = asynchronous;
    const std::size_t answers_needed = nobody_counts ? 1 : wanted.fences_needed();
    Judgement judgement{Verdict::Wait, {}, {}};
    std::size_t fresh = 0;
    std::size_t heard_long = 0;
    int receiving = 0;
    for (const HostPort& address : witnesses) {
        const Observation* slave = find(seen, address);
        if (slave == nullptr || slave->silence != Silence::None || !slave->facts || !slave->answered_at)
            continue;
        if (*slave->answered_at <= silent_since) {
            judgement.ask.push_back(address);
            continue;
        }
        // Whoever was silent, too, until a moment ago tells of our own isolation or pause: the master may
        // need one more attempt.
        if (closed || !slave->answers_since || since(*slave->answers_since, now) >= settings.detection_time())
            ++heard_long;
        if (!slave->facts->streaming()) {
            ++fresh;
            continue;
        }
        // The receiver holds a connection: only two answers since the silence tell whether WAL still comes.
        if (!slave->previous_answer_at || *slave->previous_answer_at <= silent_since) {
            judgement.ask.push_back(address);
            continue;
        }
        ++fresh;
        if (slave->receives_new_wal ||
            (!closed && has_received(*slave, silent_since, settings.probe_timeout, now)))
            ++receiving;
    }
    if (receiving > 0 && receiving >= wanted.k) {
        judgement.reason =
            cause + ", but " + std::to_string(receiving) + " of its slaves still receive new WAL from it";
        if (closed) judgement.ask = witnesses;
        return judgement;
    }
    if (!witnesses.empty() && fresh < answers_needed) {
        judgement.reason = cause + "; waiting for an answer of " + std::to_string(answers_needed) +
                           (nobody_counts ? " asynchronous" : " synchronous") + " slaves, have " +
                           std::to_string(fresh);
        return judgement;
    }
    if (!wanted.slaves.empty() && heard_long < wanted.fences_needed()) {
        judgement.reason = cause + ", but all were silent: waiting until " +
                           std::to_string(wanted.fences_needed()) +
                           " synchronous slaves have answered throughout " + ms(settings.detection_time());
        return judgement;
    }
    return {Verdict::Dead, cause, {}};
}

Status enough_fenced(const Record& record, const std::vector<HostPort>& fenced) {
    for (const Configuration& configuration : record.configurations) {
        const std::string which = "the configuration of epoch " + std::to_string(configuration.epoch.value());
        if (configuration.slaves.empty())
            return Error{
                sqlstate::object_not_in_prerequisite_state,
                which + " has no synchronous slave: nobody is known to have every acknowledged commit",
                "Promote a slave by hand with FORCE if losing commits is acceptable."};
        std::size_t count = 0;
        for (const Member& member : configuration.slaves)
            if (std::find(fenced.begin(), fenced.end(), member.address) != fenced.end()) ++count;
        if (count < configuration.fences_needed())
            return Error{sqlstate::object_not_in_prerequisite_state,
                         which + " needs " + std::to_string(configuration.fences_needed()) + " of its " +
                             std::to_string(configuration.slaves.size()) +
                             " synchronous slaves fenced, have " + std::to_string(count),
                         "Bring its synchronous slaves back, or promote by hand with FORCE."};
    }
    return {};
}

const FencedPosition* choose(const std::vector<FencedPosition>& fenced) {
    const auto best = std::max_element(fenced.begin(), fenced.end(), [](const auto& a, const auto& b) {
        if (a.line != b.line) return a.line < b.line;
        if (a.position != b.position) return a.position < b.position;
        return b.address < a.address;
    });
    return best != fenced.end() ? &*best : nullptr;
}

std::vector<HostPort> addresses_of(const std::vector<FencedPosition>& fenced) {
    std::vector<HostPort> addresses;
    addresses.reserve(fenced.size());
    for (const FencedPosition& slave : fenced) addresses.push_back(slave.address);
    return addresses;
}

Enough enough_to_go_on(const Record& record, const std::vector<FencedPosition>& fenced,
                       const std::optional<HostPort>& chosen, const Topology& topology,
                       const PolicySettings& settings) {
    const std::vector<HostPort> addresses = addresses_of(fenced);
    if (!enough_fenced(record, addresses).ok()) return Enough::No;
    const HostPort head = chosen.value_or(choose(fenced)->address);
    if (std::find(addresses.begin(), addresses.end(), head) == addresses.end()) return Enough::No;
    const auto after = configuration_after(record, head, fenced, topology, settings);
    if (!after.ok()) return Enough::No;
    return after->slaves.empty() ? Enough::ButNobodyLeft : Enough::Yes;
}

Status asynchronous_failover_allowed(const Record& record, const PolicySettings& settings) {
    // That it was caught up when it was last looked at is no bound: with 0 never (FAILOVER_PROTOCOL, traps).
    if (settings.max_lost_wal_bytes == 0)
        return Error{sqlstate::object_not_in_prerequisite_state,
                     "pgxc.max_lost_wal is 0: an asynchronous slave is never promoted by itself",
                     "Promote a slave by hand with FORCE if losing commits is acceptable, or set "
                     "pgxc.max_lost_wal."};
    for (const Configuration& configuration : record.configurations)
        if (!configuration.slaves.empty())
            return Error{sqlstate::object_not_in_prerequisite_state,
                         "the configuration of epoch " + std::to_string(configuration.epoch.value()) +
                             " lists synchronous slaves: an asynchronous one is not promoted past them",
                         "Bring its synchronous slaves back, or promote by hand with FORCE."};
    return {};
}

std::vector<Node> asynchronous_candidates(const Record& record, const Topology& topology, NodeKey group) {
    std::vector<Node> candidates;
    for (const Node* slave : topology.slaves_of(group))
        if (slave->replication == Replication::Asynchronous &&
            record.line_of(slave->address) == record.epoch.value())
            candidates.push_back(*slave);
    return candidates;
}

Result<Lsn> last_known_end(const Record& record, const std::map<HostPort, Observation>& seen,
                           const PolicySettings& settings, TimePoint silent_since) {
    const auto unknown = [&](const std::string& why) {
        return Error{sqlstate::object_not_in_prerequisite_state,
                     "what an asynchronous slave lacks can't be told: " + why,
                     "Promote a slave by hand with FORCE if losing commits is acceptable."};
    };
    const Observation* master = find(seen, record.master);
    if (master == nullptr || !master->facts || !master->answered_at)
        return unknown("the master at " + record.master.to_string() + " has not answered this monitor once");
    const ServerFacts& facts = *master->facts;
    if (facts.in_recovery || facts.system_identifier != record.system_identifier ||
        facts.timeline.value() != record.timeline || !facts.flushed.known())
        return unknown("what answered last at " + record.master.to_string() + " was not the recorded master");
    // After a pause of our own, or of the network, the last answer tells nothing of the end.
    const Millis oldest = settings.probe_interval * 2 + settings.probe_timeout;
    const Millis age = since(*master->answered_at, silent_since);
    if (age > oldest)
        return unknown("the master's last answer was " + ms(age) + " old when the silence began");
    return facts.flushed;
}

Result<AsynchronousChoice> choose_asynchronous(const Record& record,
                                               const std::vector<FencedPosition>& fenced, Lsn master_end,
                                               const PolicySettings& settings) {
    std::vector<FencedPosition> on_line;
    for (const FencedPosition& slave : fenced)
        if (slave.line == record.epoch.value() && slave.position.known()) on_line.push_back(slave);
    const FencedPosition* best = choose(on_line);
    if (best == nullptr)
        return Error{
            sqlstate::object_not_in_prerequisite_state,
            "no asynchronous slave of the master could be cut off from it and asked for its position",
            "See the coordinator's log for the reason."};
    AsynchronousChoice choice{*best, 0};
    if (master_end > best->position) choice.missing_bytes = master_end.bytes() - best->position.bytes();
    if (choice.missing_bytes > settings.max_lost_wal_bytes)
        return Error{sqlstate::object_not_in_prerequisite_state,
                     "the furthest asynchronous slave, " + best->address.to_string() + " at " +
                         best->position.to_string() + ", lacks " + std::to_string(choice.missing_bytes) +
                         " bytes up to the master's last known position " + master_end.to_string() +
                         ": more than pgxc.max_lost_wal",
                     "Promote it by hand with FORCE if losing commits is acceptable."};
    return choice;
}

Result<Configuration> configuration_after(const Record& record, const HostPort& chosen,
                                          const std::vector<FencedPosition>& fenced, const Topology& topology,
                                          const PolicySettings& settings) {
    const Epoch epoch{record.epoch.value() + 1};
    Configuration next{epoch, {}, 0};
    const auto head = std::find_if(fenced.begin(), fenced.end(),
                                   [&](const FencedPosition& slave) { return slave.address == chosen; });
    for (const FencedPosition& slave : fenced) {
        if (slave.address == chosen) continue;
        // Only a prefix of the chosen's WAL can follow it (rule 9); after FORCE another slave may be further.
        if (head == fenced.end() || slave.line != head->line || slave.position > head->position) continue;
        const Node* node = topology.find(slave.address);
        if (node == nullptr || node->replication != Replication::Synchronous) continue;
        next.slaves.push_back({standby_name(node->key, epoch), slave.address});
    }
    next.k = std::min(std::max(record.wanted().k, 1), static_cast<int>(next.slaves.size()));
    // Where nobody counted there is nothing to degrade.
    const bool degrades = next.slaves.empty() && !record.wanted().slaves.empty();
    if (degrades && !settings.sync_degrade)
        return Error{
            sqlstate::object_not_in_prerequisite_state,
            "no synchronous slave would be left for " + chosen.to_string() + " and pgxc.sync_degrade is off",
            "Set pgxc.sync_degrade = on, or bring another synchronous slave back."};
    return next;
}

Record record_promotion(const Record& record, const HostPort& new_master, Configuration configuration,
                        const std::vector<FencedPosition>& fenced, PendingPromotion pending) {
    Record next = record;
    ++next.generation;
    // Whoever isn't told otherwise belongs to the line that ends here.
    for (const Member& member : record.all_members())
        next.lines.try_emplace(member.address.to_string(), record.epoch.value());
    next.lines.try_emplace(record.master.to_string(), record.epoch.value());
    for (const FencedPosition& slave : fenced) next.lines[slave.address.to_string()] = slave.line;
    next.epoch = configuration.epoch;
    next.timeline = 0;
    next.master = new_master;
    next.configurations.push_back(std::move(configuration));
    next.pending = std::move(pending);
    return next;
}

Topology with_promotion(const Topology& topology, NodeKey group, const HostPort& listened_at,
                        const HostPort& address, Epoch epoch) {
    Topology changed = topology;
    const Node* slave = topology.find(listened_at);
    if (slave != nullptr && !slave->is_master() && topology.top_master_of(slave->key) != nullptr &&
        topology.top_master_of(slave->key)->key == group) {
        auto promoted = promote(topology, slave->key, address);
        if (promoted.ok()) changed = std::move(*promoted);
    }
    std::vector<Node> nodes = changed.nodes();
    for (Node& node : nodes) {
        if (node.key != group) continue;
        node.address = address;
        node.epoch = epoch;
    }
    return Topology{std::move(nodes)};
}

WantedSync wanted_sync(const Record& record, const Topology& topology, NodeKey group,
                       const std::map<HostPort, Observation>& seen,
                       const std::map<HostPort, TimePoint>& missing_since, const PolicySettings& settings,
                       TimePoint now) {
    WantedSync wanted{{record.epoch, {}, 0}, {}, {}};
    const Observation* master = find(seen, record.master);
    const ServerFacts* master_facts = master != nullptr && master->facts ? &*master->facts : nullptr;
    int registered = 0;
    for (const Node* slave : topology.slaves_of(group)) {
        if (slave->replication != Replication::Synchronous) continue;
        ++registered;
        const std::string name = standby_name(slave->key, record.epoch);
        const Observation* observation = find(seen, slave->address);
        const Member* counts = record.wanted().find(slave->address);
        if (counts != nullptr && counts->name == name) {
            const auto missing = missing_since.find(slave->address);
            const bool gone =
                missing != missing_since.end() && since(missing->second, now) >= settings.detection_time();
            if (!gone || !settings.sync_degrade) {
                wanted.configuration.slaves.push_back(*counts);
                // Left fenced by a decider that did not come to its end: it still counts, and must stream
                // again.
                const bool there = observation != nullptr && observation->facts &&
                                   observation->silence == Silence::None && observation->facts->in_recovery;
                if (there && (observation->facts->primary_conninfo.find(name) == std::string::npos ||
                              observation->facts->primary_slot != name))
                    wanted.to_prepare.push_back(*slave);
                continue;
            }
            const StreamSeen* stands = master_facts != nullptr ? master_facts->find_standby(name) : nullptr;
            wanted.why = slave->key.to_string() +
                         (stands != nullptr && stands->state == "streaming"
                              ? " has flushed nothing of its master's WAL for "
                              : " has had no stream from its master for ") +
                         ms(since(missing->second, now)) + ": it does not count until it streams again";
            continue;
        }
        const bool answers =
            observation != nullptr && observation->facts && observation->silence == Silence::None;
        if (!answers || !observation->facts->in_recovery) {
            wanted.why = slave->key.to_string() + " doesn't count yet: it isn't there as a slave";
            continue;
        }
        const StreamSeen* stream = master_facts != nullptr ? master_facts->find_standby(name) : nullptr;
        const bool prepared = observation->facts->primary_slot == name &&
                              observation->facts->primary_conninfo.find(name) != std::string::npos;
        if (!prepared) {
            wanted.to_prepare.push_back(*slave);
            wanted.why = slave->key.to_string() + " is being prepared to count";
        } else if (stream == nullptr || stream->state != "streaming") {
            wanted.why = slave->key.to_string() + " doesn't count yet: it doesn't stream under its name";
        } else if (missing_since.contains(slave->address)) {
            wanted.why = slave->key.to_string() + " doesn't count yet: its stream stands still";
        } else {
            wanted.configuration.slaves.push_back({name, slave->address});
        }
    }
    wanted.configuration.k =
        std::min(std::max(settings.sync_slaves, 1), static_cast<int>(wanted.configuration.slaves.size()));
    // The strict choice: never let commits through unprotected because a slave that counted can't any more.
    if (!settings.sync_degrade && registered > 0 && wanted.configuration.slaves.empty() &&
        !record.wanted().slaves.empty())
        wanted.configuration = record.wanted();
    return wanted;
}

}  // namespace pgxc
