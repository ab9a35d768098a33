// What the larger world has and the small one leaves out: crashes, late reloads, partitions, poolers.
#include <algorithm>

#include "sim/model.h"

namespace pgxc::sim {

void Model::crash_server(World& world, int node) const {
    Server& server = world.servers[static_cast<unsigned>(node)];
    server.running = false;
    server.wal = server.wal.first(server.flushed);
    for (Decider& decider : world.deciders) decider.sessions &= byte(~only(node));
    server.lock = 0;
    server.late_cut = false;
}

void Model::start_server(World& world, int node) const {
    Server& server = world.servers[static_cast<unsigned>(node)];
    server.running = true;
    server.names = server.names_file;
    server.clients_from = server.flushed;
    // Its connections have ended, the poolers' too: rule 12 opens it only after a proof.
    if (!mutated(Mutation::Gate))
        for (Decider& decider : world.deciders)
            if (decider.gate == node) decider.gate = none;
    if (!server.master) return connect(world, node, server.file);
    world.heard[static_cast<unsigned>(node)] = {};
    world.in_flight[static_cast<unsigned>(node)] = {};
    for (int other = 0; other < options_.nodes; ++other)
        if (world.servers[static_cast<unsigned>(other)].stream.node == node) tell(world, other);
}

/// pg_rewind to the recorded master, as an operator does it: the node counts for nothing then.
void Model::rejoin(World& world, int node) const {
    Server& server = world.servers[static_cast<unsigned>(node)];
    const Server& master = world.servers[world.record.master];
    crash_server(world, node);
    server.wal = server.wal.first(server.wal.common(master.wal));
    server.flushed = byte(server.wal.length());
    server.running = true;
    server.master = false;
    server.file = server.stream = server.stored = {};
    server.names = server.names_file = slave_names_;
    world.heard[static_cast<unsigned>(node)] = world.in_flight[static_cast<unsigned>(node)] = {};
    for (int other = 0; other < options_.nodes; ++other) {
        world.heard[static_cast<unsigned>(other)][static_cast<unsigned>(node)] = {};
        world.in_flight[static_cast<unsigned>(other)][static_cast<unsigned>(node)] = {};
    }
    for (Decider& decider : world.deciders)
        if (decider.gate == node) decider.gate = none;
    world.registered |= only(node);
}

bool Model::gate_proven(const World& world, int decider) {
    const ArbiterRecord& record = world.record;
    const Server& master = world.servers[record.master];
    if (!master.master || !reached(world, decider, record.master)) return false;
    if (mutated(Mutation::Gate)) return true;
    return record.owner == decider + 1 && record.pending == 0 && record.count == 1 && !master.disk_full &&
           master.names == decisions_.names_of(record.wanted()) &&
           (record.wanted().k == 0 || decisions_.flushed_by(record.wanted(), world.heard[record.master],
                                                            master.wal.length()) >= record.wanted().k);
}

void Model::enabled_decider_faults(const World& world, int decider, std::vector<Action>& actions) {
    const Decider& who = world.deciders[static_cast<unsigned>(decider)];
    const auto actor = byte(decider);
    const bool more = world.faults < options_.max_faults;
    actions.push_back({Act::Probe, actor, 0, 0});
    if (more) actions.push_back({Act::DeciderDies, actor, 0, 0});
    if (who.gate != none && !reached(world, decider, who.gate))
        actions.push_back({Act::CloseGate, actor, 0, 0});
    if (who.gate != world.record.master && gate_proven(world, decider))
        actions.push_back({Act::OpenGate, actor, 0, 0});
    for (int node = 0; node < options_.nodes; ++node)
        if (more || !has(world.reaches[static_cast<unsigned>(decider)], node))
            actions.push_back({Act::CutDecider, actor, byte(node), 0});
}

void Model::enabled_faults(const World& world, std::vector<Action>& actions) {
    const bool more = world.faults < options_.max_faults;
    for (int node = 0; node < options_.nodes; ++node) {
        const auto at = static_cast<unsigned>(node);
        const auto actor = byte(node);
        const Server& server = world.servers[at];
        if (!server.running) {
            actions.push_back({Act::Start, actor, 0, 0});
            if (server.master && more) actions.push_back({Act::OldSettings, actor, 0, 0});
            continue;
        }
        if (server.flushed < server.wal.length() && !server.disk_full)
            actions.push_back({Act::Flush, actor, 0, 0});
        if (server.names != server.names_file || (!server.master && server.stream != server.file))
            actions.push_back({Act::Reload, actor, 0, 0});
        if (more) actions.push_back({Act::Crash, actor, 0, 0});
        if (more || server.disk_full) actions.push_back({Act::FillDisk, actor, 0, 0});
        for (int slave = 0; slave < options_.nodes && server.master; ++slave) {
            const Heard& reply = world.in_flight[at][static_cast<unsigned>(slave)];
            const Heard& heard = world.heard[at][static_cast<unsigned>(slave)];
            if (reply.application != 0 &&
                (reply.application != heard.application || reply.position > heard.position))
                actions.push_back({Act::Reply, actor, byte(slave), 0});
            if (slave != node && (more || !has(world.sends[at], slave)))
                actions.push_back({Act::CutStream, actor, byte(slave), 0});
        }
        if (node == world.record.master) continue;
        const Server& master = world.servers[world.record.master];
        if (server.master && master.master && master.running && world.record.pending == 0 &&
            !has(world.record.members(), node))
            actions.push_back({Act::Rejoin, actor, 0, 0});
        if (!server.master && more) actions.push_back({Act::Register, actor, 0, 0});
    }
    for (int decider = 0; decider < options_.deciders; ++decider)
        enabled_decider_faults(world, decider, actions);
}

void Model::fault(World& world, const Action& action) {
    const auto at = static_cast<unsigned>(action.actor);
    // Of a node's or a decider's, as the action is; never both looked at.
    Server& server = world.servers[at];
    const auto toggle = [&](NodeSet& set, int node) {
        set ^= only(node);
        if (!has(set, node)) ++world.faults;
    };
    switch (action.act) {
        case Act::Flush:
            server.flushed = byte(server.wal.length());
            if (!server.master) tell(world, action.actor);
            break;
        case Act::Reply:
            world.heard[at][action.a] = world.in_flight[at][action.a];
            break;
        case Act::Reload:
            reload(world, action.actor);
            break;
        case Act::Crash:
            ++world.faults;
            crash_server(world, action.actor);
            break;
        case Act::OldSettings:
            ++world.faults;
            server.names_file = 0;
            start_server(world, action.actor);
            break;
        case Act::Start:
            start_server(world, action.actor);
            break;
        case Act::CutStream:
            toggle(world.sends[at], action.a);
            break;
        case Act::CutDecider:
            toggle(world.reaches[at], action.a);
            break;
        case Act::FillDisk:
            server.disk_full = !server.disk_full;
            if (server.disk_full) ++world.faults;
            break;
        case Act::Rejoin:
            rejoin(world, action.actor);
            break;
        case Act::Register:
            ++world.faults;
            world.registered ^= only(action.actor);
            break;
        case Act::DeciderDies: {
            ++world.faults;
            Decider fresh;
            fresh.claims = world.deciders[at].claims;
            world.deciders[at] = fresh;
            // Its next start has another random token: what it had claimed is nobody's.
            if (world.record.owner == action.actor + 1) world.record.owner = 0;
            for (Server& each : world.servers)
                if (each.lock == action.actor + 1) each.lock = 0;
            break;
        }
        case Act::Probe:
            for (int node = 0; node < options_.nodes; ++node)
                if (reached(world, action.actor, node))
                    world.seen_position[at][static_cast<unsigned>(node)] =
                        byte(world.servers[static_cast<unsigned>(node)].wal.length());
            break;
        case Act::OpenGate:
            world.deciders[at].gate = world.record.master;
            break;
        case Act::CloseGate:
            world.deciders[at].gate = none;
            break;
        default:
            break;
    }
}

/// Production's verdict on a master that doesn't answer this decider; its own look at who still receives.
const char* Model::judge(World& world, int decider) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    auto& seen = world.seen_position[static_cast<unsigned>(decider)];
    const Counting wanted = world.record.wanted();
    NodeSet answering = 0;
    NodeSet streaming = 0;
    NodeSet receiving = 0;
    int served = 0;
    for (int node = 0; node < options_.nodes; ++node) {
        const auto at = static_cast<unsigned>(node);
        const Server& slave = world.servers[at];
        if (node == world.record.master || slave.master || !reached(world, decider, node)) continue;
        answering |= only(node);
        if (slave.stream.node == world.record.master) streaming |= only(node);
        if (slave.wal.length() > seen[at]) receiving |= only(node);
        seen[at] = byte(slave.wal.length());
        if (has(wanted.slaves, node) && has(byte(streaming & receiving), node)) ++served;
    }
    const Verdict verdict = decisions_.judge(world.record, answering, streaming, receiving);
    if (verdict != Verdict::Dead && !mutated(Mutation::Needless)) {
        end_program(world, decider);
        return nullptr;
    }
    who.gate = none;
    if (wanted.k > 0 && served >= wanted.k) return "I6: a failover although k slaves still receive new WAL";
    return nullptr;
}

const char* Model::stuck(World world, std::vector<std::string>* trace) {
    const NodeSet all = byte((1 << options_.nodes) - 1);
    for (int node = 0; node < options_.nodes; ++node) {
        const auto at = static_cast<unsigned>(node);
        Server& server = world.servers[at];
        world.sends[at] = all;
        server.disk_full = false;
        if (!server.running) start_server(world, node);
    }
    world.faults = byte(options_.max_faults);
    for (int decider = 0; decider < options_.deciders; ++decider) {
        world.reaches[static_cast<unsigned>(decider)] = all;
        world.deciders[static_cast<unsigned>(decider)] = {};
    }
    for (Server& server : world.servers) server.lock = 0;
    world.record.owner = 1;
    world.deciders[0].programs = 255;
    std::vector<Action> actions;
    std::size_t begun = 0;
    for (int turn = 0; turn < 600; ++turn) {
        actions.clear();
        enabled(world, actions);
        // What servers do by themselves comes first, then the program that runs, then the next one. In turns:
        // one that can't come to its end must not keep the others from it.
        const Action* by_servers = nullptr;
        const Action* goes_on = nullptr;
        std::vector<const Action*> begins;
        for (const Action& action : actions) {
            switch (action.act) {
                case Act::LateCut:
                case Act::Receive:
                case Act::Flush:
                case Act::Reply:
                case Act::Reload:
                case Act::Rejoin:
                case Act::OpenGate:
                    if (action.act != Act::OpenGate || action.actor == 0) by_servers = &action;
                    break;
                case Act::FailOver:
                case Act::FinishPending:
                case Act::Change:
                case Act::Prepare:
                    if (action.actor == 0) begins.push_back(&action);
                    break;
                case Act::Step:
                    if (goes_on == nullptr || action.a != 1) goes_on = &action;
                    break;
                default:
                    break;
            }
        }
        const Action* chosen = by_servers != nullptr ? by_servers : goes_on;
        if (chosen == nullptr && !begins.empty()) chosen = begins[begun++ % begins.size()];
        const Server& master = world.servers[world.record.master];
        if (world.record.pending == 0 && world.record.count == 1 && master.master &&
            world.deciders[0].gate == world.record.master &&
            master.names == decisions_.names_of(world.record.wanted()))
            return nullptr;
        if (chosen == nullptr) break;
        const Action action = *chosen;
        if (trace != nullptr) trace->push_back(describe(world, action));
        if (const char* broken = apply(world, action)) return broken;
    }
    // A record that is full here is one that production would make longer.
    if (world.record.count == max_configurations) return nullptr;
    return "I3: stuck although everything is there";
}

}  // namespace pgxc::sim
