#include "sim/model.h"

#include <algorithm>

namespace pgxc::sim {

Model::Model(Options options) : options_(options), decisions_(options.nodes, options.mutation) {
    // Rule 8: a slave that somebody else promotes acknowledges nothing.
    slave_names_ = mutated(Mutation::Names) ? NameId{0} : decisions_.nobody_names();
}

World Model::start() {
    World world;
    const NodeSet all = byte((1 << options_.nodes) - 1);
    const Counting counting{0, byte(all & ~1), byte(options_.k)};
    world.registered = counting.slaves;
    world.record.only_configuration(counting);
    for (int node = 0; node < options_.nodes; ++node) {
        world.sends[static_cast<unsigned>(node)] = all;
        Server& server = world.servers[static_cast<unsigned>(node)];
        server.master = node == 0;
        set_names(world, node, node == 0 ? decisions_.names_of(counting) : slave_names_);
        server.names = server.names_file;
        if (node != 0) server.file = server.stream = {0, decisions_.name_of(node, 0)};
        tell(world, node);
    }
    for (int each = 0; each < options_.deciders; ++each) {
        const auto at = static_cast<unsigned>(each);
        world.deciders[at].claims = byte(options_.claims[at]);
        world.reaches[at] = all;
        if (options_.faults) world.deciders[at].gate = 0;
    }
    return world;
}

World Model::diverged_start(bool listed) {
    World world = start();
    const Counting counting{1, only(2), 1};
    world.record.epoch = world.record.lines[1] = world.record.lines[2] = world.published = 1;
    world.record.master = 1;
    world.record.only_configuration(counting);
    if (listed) {
        world.record.configurations[world.record.count++] = counting;
        world.record.configurations[0] = {1, byte(only(2) | only(3)), 2};
    }
    for (int node = 0; node < options_.nodes; ++node) {
        Server& server = world.servers[static_cast<unsigned>(node)];
        server.file = server.stream = {};
        if (node == 1) server.wal.append(1, 1);
        // What A had written last and nobody had acknowledged.
        if (node == 0 || node == 3) server.wal = {{{{0, 0, 2}}}, 1};
        if (node == 2) server.file = server.stream = {1, decisions_.name_of(2, 1)};
        server.flushed = byte(server.wal.length());
    }
    world.servers[0].running = false;
    world.servers[1].master = true;
    world.servers[2].wal = world.acknowledged = world.servers[1].wal;
    world.servers[2].flushed = 1;
    set_names(world, 0, 0);
    set_names(world, 1, decisions_.names_of(counting));
    world.heard = {};
    tell(world, 2);
    return world;
}

World Model::fed_start() {
    World world = diverged_start(false);
    Server& old_master = world.servers[0];
    old_master.running = true;
    set_names(world, 0, decisions_.names_of({0, byte(only(1) | only(2) | only(3)), 2}));
    old_master.names = old_master.names_file;
    world.sends[0] = only(3);
    Server& fed = world.servers[3];
    fed.wal = {};
    fed.flushed = 0;
    fed.file = fed.stream = {0, decisions_.name_of(3, 0)};
    tell(world, 3);
    return world;
}

World Model::asynchronous_start() {
    World world = start();
    world.registered = 0;
    const Counting nobody{};
    world.record.only_configuration(nobody);
    set_names(world, 0, decisions_.names_of(nobody));
    world.servers[0].names = world.servers[0].names_file;
    return world;
}

ArbiterRecord& Model::known(World& world, int decider) const {
    return mutated(Mutation::Cas) ? world.deciders[static_cast<unsigned>(decider)].view : world.record;
}

const ArbiterRecord& Model::known(const World& world, int decider) const {
    return mutated(Mutation::Cas) ? world.deciders[static_cast<unsigned>(decider)].view : world.record;
}

bool Model::write_record(World& world, int decider, const ArbiterRecord& next) const {
    if (mutated(Mutation::Cas)) {
        const auto owner = world.record.owner;
        world.record = known(world, decider) = next;
        world.record.owner = owner;
        return true;
    }
    if (world.record.owner != decider + 1) return false;
    world.record = next;
    return true;
}

bool Model::reached(const World& world, int decider, int node) const {
    const Server& server = world.servers[static_cast<unsigned>(node)];
    return server.running && has(world.reaches[static_cast<unsigned>(decider)], node);
}

// --- The servers

void Model::set_upstream(World& world, int node, Upstream upstream) const {
    Server& server = world.servers[static_cast<unsigned>(node)];
    server.file = upstream;
    // With faults it is for the server to read its file, whenever that is.
    if (!options_.faults) connect(world, node, upstream);
}

void Model::set_names(World& world, int node, NameId names) const {
    Server& server = world.servers[static_cast<unsigned>(node)];
    server.names_file = names;
    if (!options_.faults) server.names = names;
}

void Model::connect(World& world, int node, Upstream upstream) const {
    world.servers[static_cast<unsigned>(node)].stream = upstream;
    tell(world, node);
}

/// A slave tells its master how far it has flushed: at once when it connects, whatever its WAL holds.
void Model::tell(World& world, int node) const {
    const Server& slave = world.servers[static_cast<unsigned>(node)];
    const int from = slave.stream.node;
    if (from == none || from == node || !slave.running || slave.master) return;
    const Server& master = world.servers[static_cast<unsigned>(from)];
    if (!master.master || !master.running) return;
    auto& inbox = options_.faults ? world.in_flight : world.heard;
    inbox[static_cast<unsigned>(from)][static_cast<unsigned>(node)] = {slave.flushed,
                                                                       slave.stream.application};
}

void Model::reload(World& world, int node) const {
    Server& server = world.servers[static_cast<unsigned>(node)];
    server.names = server.names_file;
    if (server.master || server.stream == server.file) return;
    // A WAL receiver that ends flushes what it has received.
    server.flushed = byte(server.wal.length());
    connect(world, node, server.file);
}

void Model::receive(World& world, int node) const {
    Server& slave = world.servers[static_cast<unsigned>(node)];
    const Server& master = world.servers[slave.stream.node];
    slave.wal = master.wal.first(slave.wal.length() + 1);
    if (options_.faults) return;
    slave.flushed = byte(slave.wal.length());
    tell(world, node);
}

const char* Model::acknowledge(World& world, int node) {
    const Server& server = world.servers[static_cast<unsigned>(node)];
    const Wal told = server.wal.first(
        decisions_.acknowledged_by(server.names, world.heard[static_cast<unsigned>(node)], server.flushed));
    if (told.line() < world.excused) return nullptr;
    if (!world.acknowledged.is_prefix_of(told)) return "I2: two masters acknowledge different histories";
    if (told.line() < world.acknowledged.line()) return "I4: the bound of a read goes back";
    world.acknowledged = told;
    return nullptr;
}

const char* Model::apply(World& world, const Action& action) {
    const auto at = static_cast<unsigned>(action.actor);
    const char* broken = nullptr;
    switch (action.act) {
        case Act::Write: {
            Server& server = world.servers[at];
            server.wal.append(server.wal.line(), action.actor);
            if (!options_.faults) server.flushed = byte(server.wal.length());
            ++world.writes;
            break;
        }
        case Act::Acknowledge:
            broken = acknowledge(world, action.actor);
            break;
        case Act::Receive:
            receive(world, action.actor);
            break;
        case Act::LateCut:
            world.servers[at].late_cut = false;
            if (!world.servers[at].master) set_upstream(world, action.actor, {});
            break;
        case Act::TakeOver: {
            Server& slave = world.servers[at];
            slave.file.node = world.record.master;
            slave.flushed = byte(slave.wal.length());
            connect(world, action.actor, {world.record.master, slave.stream.application});
            break;
        }
        case Act::Flush:
        case Act::Reply:
        case Act::Reload:
        case Act::Crash:
        case Act::Start:
        case Act::OldSettings:
        case Act::CutStream:
        case Act::CutDecider:
        case Act::FillDisk:
        case Act::Rejoin:
        case Act::Register:
        case Act::DeciderDies:
        case Act::Probe:
        case Act::OpenGate:
        case Act::CloseGate:
            fault(world, action);
            break;
        case Act::FailOver:
        case Act::FinishPending:
        case Act::Change:
        case Act::Prepare:
            broken = begin(world, action);
            break;
        case Act::Step: {
            const int published = world.published;
            const Pc pc = world.deciders[at].pc;
            if (pc == Pc::Decide)
                decide(world, action.actor, action.a);
            else
                broken = step(world, action.actor, action.a == 1);
            if (world.published < published) broken = "I5: the published copy went back";
            break;
        }
    }
    tidy(world);
    return broken != nullptr ? broken : invariants(world);
}

/// What a decider that has stopped still holds in memory would tell equal states apart.
void Model::tidy(World& world) const {
    if (options_.faults) return;
    for (int each = 0; each < options_.deciders; ++each) {
        Decider& decider = world.deciders[static_cast<unsigned>(each)];
        if (decider.pc != Pc::Idle) continue;
        const ArbiterRecord view = decider.view;
        const auto claims = decider.claims;
        const auto programs = decider.programs;
        const auto sessions = decider.sessions;
        decider = {};
        decider.claims = claims;
        if (world.record.owner != each + 1) {
            for (Server& server : world.servers)
                if (server.lock == each + 1) server.lock = 0;
            continue;
        }
        decider.programs = programs;
        decider.sessions = sessions;
        decider.view = view;
        if (programs != 0) continue;
        decider.sessions = 0;
        decider.view = {};
        for (Server& server : world.servers)
            if (server.lock == each + 1) server.lock = 0;
    }
}

const char* Model::invariants(const World& world) const {
    const Server& master = world.servers[world.record.master];
    // Before that epoch's promotion its master is a slave, or is still to write.
    if (master.master && master.wal.count > 0 && master.wal.line() <= world.record.epoch &&
        !world.acknowledged.is_prefix_of(master.wal))
        return "I1: an acknowledged commit is missing on the recorded, promoted master";
    return nullptr;
}

// --- What may happen

void Model::enabled_servers(const World& world, std::vector<Action>& actions) {
    for (int node = 0; node < options_.nodes; ++node) {
        const auto at = static_cast<unsigned>(node);
        const Server& server = world.servers[at];
        if (!server.running) continue;
        if (server.late_cut && !server.disk_full) actions.push_back({Act::LateCut, byte(node), 0, 0});
        if (server.master) {
            bool open = !options_.faults;
            for (const Decider& decider : world.deciders) open = open || decider.gate == node;
            if (open && world.writes < options_.writes && !server.disk_full)
                actions.push_back({Act::Write, byte(node), 0, 0});
            const int end = decisions_.acknowledged_by(server.names, world.heard[at], server.flushed);
            if (world.acknowledged.common(server.wal) < end && end > server.clients_from)
                actions.push_back({Act::Acknowledge, byte(node), 0, 0});
            continue;
        }
        const int from = server.stream.node;
        if (from == none || from == node) continue;
        const Server& upstream = world.servers[static_cast<unsigned>(from)];
        if (upstream.master && upstream.running && has(world.sends[static_cast<unsigned>(from)], node) &&
            !server.disk_full && server.wal.length() < upstream.flushed &&
            server.wal.is_prefix_of(upstream.wal))
            actions.push_back({Act::Receive, byte(node), 0, 0});
        const Server& master = world.servers[world.record.master];
        if (from != world.record.master && node != world.record.master && master.master && master.running)
            actions.push_back({Act::TakeOver, byte(node), 0, 0});
    }
}

void Model::enabled(const World& world, std::vector<Action>& actions) {
    enabled_servers(world, actions);
    if (options_.faults) enabled_faults(world, actions);
    for (int decider = 0; decider < options_.deciders; ++decider) {
        if (world.deciders[static_cast<unsigned>(decider)].pc == Pc::Idle)
            enabled_begin(world, decider, actions);
        else
            enabled_step(world, decider, actions);
    }
}

void Model::enabled_begin(const World& world, int decider, std::vector<Action>& actions) {
    const Decider& who = world.deciders[static_cast<unsigned>(decider)];
    const bool owns = world.record.owner == decider + 1;
    if (owns ? who.programs == 0 && who.claims == 0 : who.claims == 0) return;
    const ArbiterRecord& record = world.record;  // it is read when a program begins
    const auto actor = byte(decider);
    if (record.pending != 0) {
        actions.push_back({Act::FinishPending, actor, 0, 0});
        if (!options_.over_pending) return;
    }
    const NodeSet reaches = world.reaches[static_cast<unsigned>(decider)];
    const Server& master = world.servers[record.master];
    const bool sees_master = reached(world, decider, record.master);
    if (record.epoch < max_segments - 2 && (!options_.faults || !sees_master))
        actions.push_back({Act::FailOver, actor, 0, 0});
    if (!master.master || !sees_master || record.pending != 0) return;

    NodeSet there = 0;
    for (int node = 0; node < options_.nodes; ++node)
        if (node != record.master && reached(world, decider, node) &&
            !world.servers[static_cast<unsigned>(node)].master)
            there |= only(node);
    // With faults one view of the world, else every catalog and every slave's stream missing or not.
    NodeSet to_prepare = 0;
    std::vector<Counting> wanted;
    const auto ask = [&](const SyncQuestion& question) {
        const SyncAnswer answer = decisions_.wanted_sync(world, question);
        to_prepare |= answer.to_prepare;
        // Where the abstract record is full, what it wants already comes first.
        const bool full = record.count == max_configurations;
        const Counting next = full ? record.wanted() : answer.configuration;
        if (record.count == 1 && record.wanted() == next) return;
        if (std::find(wanted.begin(), wanted.end(), next) == wanted.end()) wanted.push_back(next);
    };
    const NodeSet slaves = byte(((1 << options_.nodes) - 1) & ~only(record.master));
    if (options_.faults) {
        SyncQuestion question{world.registered, there, 0, byte(options_.k), options_.degrade};
        for (int node = 0; node < options_.nodes; ++node) {
            const Server& slave = world.servers[static_cast<unsigned>(node)];
            const bool streams =
                slave.running && slave.stream.node == record.master && has(world.sends[record.master], node);
            if (has(record.wanted().slaves, node) && !streams) question.gone |= only(node);
        }
        ask(question);
        // open_gate() brings back what somebody else has changed.
        if (wanted.empty() && master.names_file != decisions_.names_of(record.wanted()))
            wanted.push_back(record.wanted());
    } else {
        for (int k = 1; k <= 2; ++k)
            for (NodeSet registered = slaves;; registered = byte((registered - 1) & slaves)) {
                ask({registered, there, 0, byte(k), true});
                if (registered == 0) break;
            }
        for (NodeSet gone = record.wanted().slaves; gone != 0;
             gone = byte((gone - 1) & record.wanted().slaves))
            ask({slaves, there, gone, byte(options_.k), true});
    }
    for (const Counting& each : wanted) actions.push_back({Act::Change, actor, each.slaves, each.k});
    for (int node = 0; node < options_.nodes; ++node)
        if (has(there, node) &&
            (has(to_prepare, node) || record.lines[static_cast<unsigned>(node)] < record.epoch) &&
            has(reaches, node))
            actions.push_back({Act::Prepare, actor, byte(node), 0});
}

}  // namespace pgxc::sim
