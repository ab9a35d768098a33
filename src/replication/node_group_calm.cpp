#include <asio/ip/address.hpp>
#include <asio/use_awaitable.hpp>
#include <set>

#include "base/log.h"
#include "replication/conninfo.h"
#include "replication/node_group.h"
#include "replication/promotion_rules.h"
#include "replication/sync_standbys.h"

// What a group does while its master lives: the gate, the slaves that count, and those that only follow.

namespace pgxc {
namespace {

/// How often slots that nobody uses any more are looked for: they hold back WAL on the master's disk.
constexpr Millis tidy_interval{10'000};
/// How long a slave that was told to stream is watched before other work goes on.
constexpr Millis stream_patience{3'000};

/// Does a slave stream, or try to, from another server than the one it is registered under? A host may have
/// many names and a slave may know another one than we: only a different port, or two different numeric
/// addresses, are certain.
bool streams_from_elsewhere(const std::string& primary_conninfo, const HostPort& upstream) {
    if (primary_conninfo.empty()) return false;
    const auto values = conninfo_values(primary_conninfo);
    if (!values.ok()) return false;
    const auto port = values->find("port");
    if (port != values->end() && port->second != std::to_string(upstream.port)) return true;
    const auto host = values->find("host");
    const auto numeric = [](const std::string& name) {
        std::error_code not_numeric;
        (void)asio::ip::make_address(name, not_numeric);
        return !not_numeric;
    };
    return host != values->end() && numeric(host->second) && numeric(upstream.host) &&
           host->second != upstream.host;
}

}  // namespace

void NodeGroup::note_missing_streams(const std::map<HostPort, Observation>& seen) {
    const Observation& master = seen.at(record_->master);
    const auto now = Clock::now();
    // Between two answers nothing can be seen to move.
    const bool new_answer = master.answered_at != streams_read_at_;
    streams_read_at_ = master.answered_at;
    std::map<HostPort, std::string> names;
    for (const Node* slave : surroundings_.topology().slaves_of(key_))
        if (slave->replication == Replication::Synchronous)
            names[slave->address] = standby_name(slave->key, record_->epoch);
    for (const Member& member : record_->wanted().slaves) names[member.address] = member.name;
    for (const auto& [address, name] : names) {
        const StreamSeen* stream = master.facts->find_standby(name);
        const bool streams = stream != nullptr && stream->state == "streaming";
        StreamProgress& progress = progress_[address];
        if (!streams)
            progress = StreamProgress{};
        else if (new_answer && master.answered_at)
            progress.answered(stream->flush, master.facts->flushed, *master.answered_at);
        if (const auto stands = progress.stands_since())
            missing_since_.try_emplace(address, *stands);
        else if (!streams && record_->wanted().find(address) != nullptr)
            missing_since_.try_emplace(address, now);
        else
            missing_since_.erase(address);
    }
    const auto is_none_of_them = [&](const auto& entry) { return !names.contains(entry.first); };
    std::erase_if(missing_since_, is_none_of_them);
    std::erase_if(progress_, is_none_of_them);
}

void NodeGroup::miss_no_streams() {
    missing_since_.clear();
    progress_.clear();
}

asio::awaitable<Status> NodeGroup::open_gate() {
    const auto now = Clock::now();
    if (gate_tried_ && now - *gate_tried_ < retry_interval && !missing_since_.empty())
        co_return Error{sqlstate::object_not_in_prerequisite_state, why_};
    gate_tried_ = now;
    auto master = co_await session(record_->master);
    if (!master.ok()) {
        hold(master.error().message);
        co_return master.error();
    }
    const auto seen = surroundings_.observations(key_);
    const auto observation = seen.find(record_->master);
    if (observation == seen.end() || !observation->second.facts) co_return Status{};
    const ServerFacts facts = *observation->second.facts;
    const GateExpectation expected = gate_expectation(record_->wanted());
    if (facts.standby_names != expected.names) {
        Status set =
            co_await set_standby_names(**master, expected.names, nobody_standby_names(record_->cluster_id));
        if (!set.ok()) {
            hold(set.error().message);
            co_return set;
        }
    }
    // Shorter than the detection time: if a slave is what is missing, degrading must not wait behind this.
    auto proven = co_await prove_gate(**master, expected, policy().probe_timeout);
    if (!proven.ok()) {
        hold(proven.error().message);
        co_return proven.error();
    }
    if (record_->system_identifier == 0 || record_->timeline == 0) {
        Record next = *record_;
        ++next.generation;
        next.system_identifier = facts.system_identifier;
        next.timeline = proven->value();
        if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return kept;
    }
    environment_.crash_point("master proven");
    proven_start_ = facts.started_at;
    if (facts.standby_names != expected.names) co_await observe_anew(record_->master);
    co_await note_place();
    gate_ = Gate::Open;
    log_info(key_.to_string() + ": " + record_->master.to_string() + " is proven the master of epoch " +
             std::to_string(record_->epoch.value()) + "; open for transactions");
    set_why({});
    surroundings_.view_changed();
    co_return Status{};
}

GateExpectation NodeGroup::gate_expectation(const Configuration& configuration) const {
    GateExpectation expected;
    expected.slaves = configuration.names();
    expected.names = names_in_force(configuration);
    expected.k = configuration.k;
    expected.system_identifier = record_->system_identifier;
    expected.timeline = record_->timeline;
    return expected;
}

asio::awaitable<void> NodeGroup::tidy_slots() {
    const auto now = Clock::now();
    if (tidied_at_ && now - *tidied_at_ < tidy_interval) co_return;
    tidied_at_ = now;
    auto master = co_await session(record_->master);
    if (!master.ok()) co_return;
    std::vector<std::string> keep = record_->wanted().names();
    for (std::string& name : slots_of_formers()) keep.push_back(std::move(name));
    for (const Node& node : surroundings_.topology().nodes())
        if (!node.is_master()) keep.push_back(standby_name(node.key, record_->epoch));
    if (Status dropped = co_await drop_stale_slots(**master, keep); !dropped.ok())
        log_warning(key_.to_string() + ": stale slots are left: " + dropped.error().message);
}

asio::awaitable<Status> NodeGroup::keep_synchronous() {
    const auto judge = [this] {
        return wanted_sync(*record_, surroundings_.topology(), key_, surroundings_.observations(key_),
                           missing_since_, policy(), Clock::now());
    };
    const auto in_force = [this](const WantedSync& wanted) {
        return record_->configurations.size() == 1 && record_->wanted() == wanted.configuration;
    };
    WantedSync wanted = judge();
    // What failed a moment ago would fail again, and is still the reason: a node's state has to change first.
    const bool to_do = !in_force(wanted) || !wanted.to_prepare.empty();
    if (to_do && sync_tried_ && Clock::now() - *sync_tried_ < retry_interval) co_return Status{};
    sync_why_ = wanted.why;
    if (!wanted.to_prepare.empty()) {
        // One that can't be prepared holds up neither the others nor what is due because of them: degrading.
        std::string failed;
        for (const Node& slave : wanted.to_prepare) {
            Status prepared = co_await prepare(slave, record_->master);
            if (!prepared.ok())
                failed = slave.key.to_string() + " can't be made synchronous: " + prepared.error().message;
        }
        // What was wanted was judged before that.
        wanted = judge();
        sync_why_ = failed.empty() ? wanted.why : failed;
        if (!failed.empty()) {
            sync_tried_ = Clock::now();
            set_why(sync_why_);
        }
    }
    if (in_force(wanted)) co_return Status{};
    if (Status changed = co_await change_configuration(wanted.configuration); !changed.ok()) {
        sync_tried_ = Clock::now();
        sync_why_ = changed.error().message;
        co_return changed;
    }
    co_return Status{};
}

asio::awaitable<Status> NodeGroup::prepare(Node slave, HostPort upstream) {
    const auto seen = surroundings_.observations(key_);
    const auto observation = seen.find(slave.address);
    if (observation == seen.end() || !observation->second.facts)
        co_return Error{sqlstate::object_not_in_prerequisite_state, "it has not answered yet"};
    const ServerFacts facts = *observation->second.facts;
    auto stored = environment_.stored_conninfo(slave.address);
    if (!stored.ok()) co_return stored.error();
    std::string conninfo = facts.primary_conninfo;
    if (!stored->has_value() && !conninfo.empty()) {
        if (Status kept = environment_.store_conninfo(slave.address, conninfo); !kept.ok()) co_return kept;
    } else if (conninfo.empty()) {
        conninfo = stored->value_or("user=" + environment_.settings().login.user);
    }
    if (upstream == record_->master && record_->line_of(slave.address) < record_->epoch.value()) {
        std::vector<std::string> any_name;
        auto cut = co_await cut_stream(slave.address, std::move(any_name), policy().probe_timeout);
        if (!cut.ok()) co_return cut.error();
        auto on_master = co_await session(upstream);
        if (!on_master.ok()) co_return on_master.error();
        Status prefix = co_await prove_prefix(**on_master, cut->end);
        if (!prefix.ok()) co_return prefix;
        environment_.crash_point("prefix proven");
    }
    StreamPlan plan{standby_name(slave.key, record_->epoch), conninfo, upstream,
                    nobody_standby_names(record_->cluster_id)};
    // Some of what a fence has changed is read at the start only.
    std::map<std::string, std::string> changed = changed_on(slave.address);
    Status prepared =
        co_await give_stream(slave.address, upstream, plan, std::move(changed), stream_patience);
    if (!prepared.ok()) co_return prepared;
    environment_.crash_point("slave streams");
    log_info(key_.to_string() + ": " + slave.key.to_string() + " at " + slave.address.to_string() +
             " streams from now on as " + plan.name);
    if (upstream == record_->master && record_->line_of(slave.address) < record_->epoch.value()) {
        Record next = *record_;
        ++next.generation;
        next.lines[slave.address.to_string()] = record_->epoch.value();
        if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return kept;
    }
    co_await observe_anew(slave.address);
    co_await observe_anew(upstream);
    co_return Status{};
}

asio::awaitable<void> NodeGroup::observe_anew(HostPort address) {
    const TimePoint asked = Clock::now();
    surroundings_.kick(address);
    // An attempt may be under way, which tells of what was before, and so may its failure: the one that
    // counts comes after it.
    while (!stopped_ && Clock::now() - asked < 2 * policy().probe_timeout) {
        const auto seen = surroundings_.observations(key_);
        const auto observation = seen.find(address);
        if (observation == seen.end()) break;
        const auto& attempted = observation->second.attempted_at;
        if (attempted && *attempted >= asked) break;
        co_await wait_for_event(Millis(5));
    }
}

asio::awaitable<Status> NodeGroup::change_configuration(Configuration next_configuration) {
    if (record_->wanted() != next_configuration) {
        // Beside the old one first: rule 7.
        Record next = *record_;
        ++next.generation;
        next.configurations.push_back(next_configuration);
        // They stream under this epoch's names, so they were proven; a failover before this settles must
        // know.
        for (const Member& member : next_configuration.slaves)
            next.lines[member.address.to_string()] = record_->epoch.value();
        if (Status recorded = co_await replace_record(std::move(next)); !recorded.ok()) co_return recorded;
    }
    environment_.crash_point("configuration listed");
    const GateExpectation expected = gate_expectation(next_configuration);
    auto master = co_await session(record_->master);
    if (!master.ok()) co_return master.error();
    Status set =
        co_await set_standby_names(**master, expected.names, nobody_standby_names(record_->cluster_id));
    if (!set.ok()) co_return set;
    environment_.crash_point("names changed");
    auto proven = co_await prove_gate(**master, expected, policy().probe_timeout);
    if (!proven.ok()) co_return proven.error();
    environment_.crash_point("names proven");
    Record next = *record_;
    ++next.generation;
    next.configurations.assign(1, next_configuration);
    for (const Member& member : next_configuration.slaves)
        next.lines[member.address.to_string()] = record_->epoch.value();
    if (Status recorded = co_await replace_record(std::move(next)); !recorded.ok()) co_return recorded;
    environment_.crash_point("older ones left");
    log_info(key_.to_string() + ": synchronous_standby_names = '" + expected.names + "' is in force");
    note(decision_synchronous,
         "'" + expected.names + "' is in force" + (sync_why_.empty() ? "" : ": " + sync_why_));
    tidied_at_.reset();
    // What was seen of the master so far has the old names: nobody must judge by that.
    co_await observe_anew(record_->master);
    co_return Status{};
}

bool NodeGroup::is_astray(const HostPort& slave, const std::string& primary_conninfo,
                          const HostPort& upstream) {
    Source& known = sources_[slave];
    if (!known.looked_at || known.conninfo != primary_conninfo || known.upstream != upstream) {
        known = {true, primary_conninfo, upstream, streams_from_elsewhere(primary_conninfo, upstream)};
        if (primary_conninfo.empty()) {
            // Left cut off by a decider that did not come to its end: before that it was taken down.
            const auto stored = environment_.stored_conninfo(slave);
            known.astray = stored.ok() && stored->has_value();
        }
    }
    return known.astray;
}

asio::awaitable<Status> NodeGroup::follow() {
    if (follow_tried_ && Clock::now() - *follow_tried_ < retry_interval) co_return Status{};
    follow_tried_.reset();
    // A list first: in calm times it is empty, and nothing is copied.
    std::vector<std::pair<Node, Node>> astray;
    const auto seen = surroundings_.observations(key_);
    const Topology& topology = surroundings_.topology();
    if (sources_.size() > topology.nodes().size()) sources_.clear();
    for (const Node& slave : topology.nodes()) {
        if (slave.is_master()) continue;
        const Node* top = topology.top_master_of(slave.key);
        if (top == nullptr || top->key != key_) continue;
        const auto observation = seen.find(slave.address);
        if (observation == seen.end() || observation->second.silence != Silence::None ||
            !observation->second.facts || !observation->second.facts->in_recovery)
            continue;
        const Node* upstream = topology.find({slave.key.type, slave.master_id});
        const bool direct = upstream->is_master();
        const bool old_line = direct && record_->line_of(slave.address) < record_->epoch.value();
        if (!old_line &&
            !is_astray(slave.address, observation->second.facts->primary_conninfo, upstream->address))
            continue;
        astray.emplace_back(slave, *upstream);
    }
    std::string failed;
    for (const auto& [slave, upstream] : astray) {
        // One that can't doesn't hold up the others.
        if (Status followed = co_await prepare(slave, upstream.address); !followed.ok())
            failed = slave.key.to_string() + " can't follow " + upstream.key.to_string() + ": " +
                     followed.error().message;
    }
    if (!failed.empty()) follow_tried_ = Clock::now();
    follow_why_ = failed;
    co_return Status{};
}

}  // namespace pgxc
