// The deciders' programs: production's order of effects, each step on its own.
#include <algorithm>

#include "sim/model.h"

namespace pgxc::sim {

bool Model::claim(World& world, int decider) const {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    if (world.record.owner != decider + 1 || who.programs == 0) {
        if (who.claims == 0) return false;
        --who.claims;
        world.record.owner = byte(decider + 1);
        who.programs = byte(options_.programs[static_cast<unsigned>(decider)]);
        // Sessions from before the claim were taken for another ballot.
        who.sessions = 0;
        for (Server& server : world.servers)
            if (server.lock == decider + 1) server.lock = 0;
    }
    --who.programs;
    if (mutated(Mutation::Cas)) who.view = world.record;
    return true;
}

void Model::end_program(World& world, int decider) const {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    who.pc = Pc::Idle;
    who.fenced = 0;
    who.begun = 0;
    who.promoting = false;
}

void Model::give_up(World& world, int decider) const {
    end_program(world, decider);
}

void Model::take_lock(World& world, int decider, int node) const {
    Server& server = world.servers[static_cast<unsigned>(node)];
    if (!mutated(Mutation::Lock) && server.lock != 0 && server.lock != decider + 1)
        world.deciders[server.lock - 1U].sessions &= byte(~only(node));
    server.lock = byte(decider + 1);
    // Whoever held it has ended before, and with it what was sent to it.
    if (!mutated(Mutation::Lock)) server.late_cut = false;
    world.deciders[static_cast<unsigned>(decider)].sessions |= only(node);
}

bool Model::holds(const World& world, int decider, int node) const {
    return has(world.deciders[static_cast<unsigned>(decider)].sessions, node) &&
           reached(world, decider, node);
}

const char* Model::begin(World& world, const Action& action) {
    const int decider = action.actor;
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    if (!claim(world, decider)) return nullptr;
    const ArbiterRecord& record = known(world, decider);
    who.node = 0;
    who.fenced = 0;
    who.begun = 0;
    who.positions = {};
    who.before = {};
    who.epoch = record.epoch;
    who.chosen = record.master;
    who.wanted = record.wanted();
    who.promoting = false;
    switch (action.act) {
        case Act::FailOver:
            who.gate = none;
            who.pc = Pc::FenceTake;
            return options_.faults ? judge(world, decider) : nullptr;
        case Act::FinishPending:
            who.promoting = true;
            who.pc = Pc::NamesTake;
            return nullptr;
        case Act::Change:
            who.wanted = {record.epoch, action.a, action.b};
            who.pc = record.wanted() == who.wanted ? Pc::NamesTake : Pc::ChangeRecord;
            return nullptr;
        default:
            who.node = action.a;
            who.positions[who.node] = byte(world.servers[who.node].wal.length());
            who.pc = Pc::PrepareTake;
            return nullptr;
    }
}

void Model::enabled_step(const World& world, int decider, std::vector<Action>& actions) {
    const Decider& who = world.deciders[static_cast<unsigned>(decider)];
    const auto actor = byte(decider);
    const auto go = [&](int a) { actions.push_back({Act::Step, actor, byte(a), 0}); };
    // In the small world any node is unreachable at any step; in the large one it is known which are.
    const auto session = [&](int node) {
        const bool there = reached(world, decider, node);
        if (there) go(0);
        if (!options_.faults || !there) go(1);
    };
    switch (who.pc) {
        case Pc::Idle:
            return;
        case Pc::FenceTake:
        case Pc::PrepareTake:
        case Pc::PointTake:
            session(who.node);
            return;
        case Pc::NamesTake:
            session(who.chosen);
            return;
        case Pc::Undo:
        case Pc::UndoLock: {
            const bool lost = has(who.fenced, who.node) && !reached(world, decider, who.node);
            go(lost ? 1 : 0);
            return;
        }
        case Pc::FenceCut:
            // It hangs: the others may be enough without it.
            go(0);
            if (options_.faults || options_.hangs) go(1);
            return;
        case Pc::FenceProve:
        case Pc::PrepareGone: {
            const Server& slave = world.servers[who.node];
            if (slave.stream.node == none && slave.file.node == none) go(0);
            if (options_.faults) go(1);
            return;
        }
        case Pc::NamesSeen: {
            const Server& server = world.servers[who.chosen];
            if (server.names == server.names_file) go(0);
            if (options_.faults) go(1);
            return;
        }
        case Pc::GateSee: {
            const auto& heard = world.heard[who.chosen];
            if (who.wanted.k == 0 || decisions_.flushed_by(who.wanted, heard, who.barrier) >= who.wanted.k)
                go(0);
            go(1);
            return;
        }
        case Pc::Decide:
            if (mutated(Mutation::Any)) {
                for (int node = 0; node < options_.nodes; ++node)
                    if (has(who.fenced, node)) go(node);
                if (who.fenced == 0) go(none);
            } else {
                go(none);
            }
            return;
        default:
            go(0);
    }
}

const char* Model::step(World& world, int decider, bool refused) {
    switch (world.deciders[static_cast<unsigned>(decider)].pc) {
        case Pc::Idle:
        case Pc::Decide:
            break;
        case Pc::FenceTake:
        case Pc::FenceCheck:
        case Pc::FenceCut:
        case Pc::FenceProve:
            fence_step(world, decider, refused);
            break;
        case Pc::Record:
        case Pc::ChangeRecord:
            record_step(world, decider);
            break;
        case Pc::NamesTake:
        case Pc::NamesCheck:
        case Pc::NamesSet:
        case Pc::NamesSeen:
        case Pc::PointTake:
        case Pc::PointCheck:
        case Pc::PointSet:
        case Pc::Promote:
        case Pc::LateNames:
            promote_step(world, decider, refused);
            break;
        case Pc::GateBegin:
        case Pc::GateSee:
        case Pc::Publish:
        case Pc::Settle:
            return settle_step(world, decider, refused);
        case Pc::PrepareTake:
        case Pc::PrepareCheck:
        case Pc::PrepareCut:
        case Pc::PrepareGone:
        case Pc::PrepareProve:
        case Pc::PreparePoint:
        case Pc::PrepareRecord:
            prepare_step(world, decider, refused);
            break;
        case Pc::UndoCheck:
        case Pc::Undo:
        case Pc::UndoLock:
            undo_step(world, decider, refused);
            break;
    }
    return nullptr;
}

bool Model::asynchronous(const ArbiterRecord& record) {
    return options_.asynchronous && decisions_.asynchronous_allowed(record);
}

NodeSet Model::fences_wanted(const ArbiterRecord& record) {
    if (!asynchronous(record)) return record.members();
    // asynchronous_candidates(): whoever belongs to the master's line.
    NodeSet candidates = 0;
    for (int node = 0; node < options_.nodes; ++node)
        if (node != record.master && record.lines[static_cast<unsigned>(node)] == record.epoch)
            candidates |= only(node);
    return candidates;
}

void Model::fence_step(World& world, int decider, bool refused) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    const ArbiterRecord& record = known(world, decider);
    Server& slave = world.servers[who.node];
    const NodeSet to_fence = fences_wanted(record);
    // On to the next member of the listed configurations.
    const auto next = [&] {
        who.pc = Pc::FenceTake;
        do ++who.node;
        while (who.node < options_.nodes && !has(to_fence, who.node));
        if (who.node >= options_.nodes) who.pc = Pc::Decide;
    };
    switch (who.pc) {
        case Pc::FenceTake:
            if (refused || !has(to_fence, who.node)) return next();
            take_lock(world, decider, who.node);
            if (mutated(Mutation::Order)) who.positions[who.node] = byte(slave.wal.length());
            who.pc = mutated(Mutation::Check) ? Pc::FenceCut : Pc::FenceCheck;
            return;
        case Pc::FenceCheck:
            if (world.record.owner != decider + 1) return give_up(world, decider);
            who.pc = Pc::FenceCut;
            return;
        case Pc::FenceCut:
            if (!holds(world, decider, who.node) || slave.master || slave.disk_full) return next();
            who.before[who.node] = slave.file;
            if (slave.file.node != none) slave.stored = slave.file;
            if (refused) {
                slave.late_cut = true;
                who.sessions &= byte(~only(who.node));
                who.begun |= only(who.node);
                return next();
            }
            set_upstream(world, who.node, {});
            who.pc = Pc::FenceProve;
            if (options_.faults) return;
            [[fallthrough]];
        default:
            if (refused) who.begun |= only(who.node);
            if (refused || !holds(world, decider, who.node)) return next();
            if (!mutated(Mutation::Order)) who.positions[who.node] = byte(slave.wal.length());
            who.fenced |= only(who.node);
            return next();
    }
}

void Model::decide(World& world, int decider, int any) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    const ArbiterRecord& record = known(world, decider);
    who.node = 0;
    who.pc = Pc::UndoCheck;
    const bool alone = asynchronous(record);
    const bool enough = alone || decisions_.enough_fenced(record, who.fenced) ||
                        (mutated(Mutation::Count) && who.fenced != 0);
    if (!enough) return;
    int best = any;
    if (best == none)
        best = alone ? decisions_.choose_asynchronous(record, who.fenced, who.positions)
                     : decisions_.choose(record, who.fenced, who.positions);
    if (best == none) return;
    const auto after = decisions_.promotion(record, best, who.fenced, who.positions,
                                            alone ? NodeSet{0} : world.registered, options_.degrade);
    if (!after) return;
    who.chosen = byte(best);
    who.wanted = after->wanted();
    who.pc = Pc::Record;
}

void Model::record_step(World& world, int decider) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    ArbiterRecord next = known(world, decider);
    if (who.pc == Pc::Record) {
        const bool alone = asynchronous(next);
        const bool promised = next.members() != 0;
        const auto after = decisions_.promotion(next, who.chosen, who.fenced, who.positions,
                                                alone ? NodeSet{0} : world.registered, options_.degrade);
        // The catalog may have changed since it was decided: configuration_after() is asked once, before.
        if (!after || after->wanted() != who.wanted) return give_up(world, decider);
        next = *after;
        if (mutated(Mutation::Keep)) next.only_configuration(who.wanted);
        if (!write_record(world, decider, next)) return give_up(world, decider);
        who.epoch = next.epoch;
        if (alone && !promised) {
            // What nobody had to acknowledge may be lost, and may go on being acknowledged there.
            world.acknowledged =
                world.acknowledged.first(world.acknowledged.common(world.servers[who.chosen].wal));
            world.excused = next.epoch;
        }
        who.promoting = true;
        world.registered &= byte(~only(who.chosen));
        who.pc = Pc::NamesTake;
        return;
    }
    who.pc = Pc::NamesTake;
    if (mutated(Mutation::Local)) return;
    if (next.count == max_configurations) return give_up(world, decider);
    const Counting& old = next.wanted();
    const bool shrinks = (old.slaves & ~who.wanted.slaves) != 0 || who.wanted.k < old.k;
    if (mutated(Mutation::Shrink) ? shrinks : mutated(Mutation::Grow) && !shrinks)
        next.only_configuration(who.wanted);
    else
        next.list(who.wanted);
    // They stream under this epoch's names, so they were proven, whether or not that was recorded.
    for (int node = 0; node < options_.nodes; ++node)
        if (has(who.wanted.slaves, node) && !mutated(Mutation::Listed))
            next.lines[static_cast<unsigned>(node)] = who.epoch;
    if (!write_record(world, decider, next)) give_up(world, decider);
}

void Model::promote_step(World& world, int decider, bool refused) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    Server& chosen = world.servers[who.chosen];
    const auto next_follower = [&](int from) {
        who.node = byte(from);
        while (who.node < options_.nodes && !has(who.wanted.slaves, who.node)) ++who.node;
        who.pc = who.node < options_.nodes ? Pc::PointTake : Pc::Promote;
    };
    switch (who.pc) {
        case Pc::NamesTake:
            if (refused) return end_program(world, decider);
            take_lock(world, decider, who.chosen);
            who.pc = mutated(Mutation::Check) ? Pc::NamesSet : Pc::NamesCheck;
            return;
        case Pc::NamesCheck:
            if (world.record.owner != decider + 1 && !mutated(Mutation::Local))
                return give_up(world, decider);
            who.pc = Pc::NamesSet;
            return;
        case Pc::NamesSet:
            if (!holds(world, decider, who.chosen) || chosen.disk_full) return give_up(world, decider);
            // Promoted already by whom this continues: its names are looked at by the gate.
            if (who.promoting && chosen.master) {
                if (!mutated(Mutation::Refollow)) return next_follower(0);
                who.pc = Pc::GateBegin;
                return;
            }
            if (!who.promoting && !chosen.master) return give_up(world, decider);
            if (who.promoting && mutated(Mutation::Names)) return next_follower(0);
            set_names(world, who.chosen, decisions_.names_of(who.wanted));
            who.pc = Pc::NamesSeen;
            if (options_.faults) return;
            [[fallthrough]];
        case Pc::NamesSeen:
            if (refused || !holds(world, decider, who.chosen)) return give_up(world, decider);
            if (who.promoting) return next_follower(0);
            who.pc = Pc::GateBegin;
            return;
        case Pc::PointTake:
            if (refused) return next_follower(who.node + 1);
            take_lock(world, decider, who.node);
            who.pc = mutated(Mutation::Check) || mutated(Mutation::Follow) ? Pc::PointSet : Pc::PointCheck;
            return;
        case Pc::PointCheck:
            if (world.record.owner != decider + 1) return give_up(world, decider);
            who.pc = Pc::PointSet;
            return;
        case Pc::PointSet:
            if (holds(world, decider, who.node) && !world.servers[who.node].master &&
                !world.servers[who.node].disk_full) {
                set_upstream(world, who.node, {who.chosen, decisions_.name_of(who.node, who.epoch)});
                set_names(world, who.node, slave_names_);
            }
            return next_follower(who.node + 1);
        case Pc::Promote:
            if (!holds(world, decider, who.chosen) || chosen.disk_full) return give_up(world, decider);
            if (!chosen.master) {
                if (!chosen.wal.append(who.epoch, who.chosen)) return give_up(world, decider);
                chosen.master = true;
                chosen.stream = {};
                // Its end-of-recovery record is flushed, and it is a master before its first commit.
                chosen.flushed = byte(chosen.wal.length());
                chosen.names = chosen.names_file;
                if (options_.faults) chosen.clients_from = chosen.flushed;
                for (int node = 0; node < options_.nodes; ++node)
                    if (world.servers[static_cast<unsigned>(node)].stream.node == who.chosen)
                        tell(world, node);
            }
            who.pc = mutated(Mutation::Names) ? Pc::LateNames : Pc::GateBegin;
            return;
        default:
            if (!holds(world, decider, who.chosen)) return give_up(world, decider);
            set_names(world, who.chosen, decisions_.names_of(who.wanted));
            who.pc = Pc::GateBegin;
    }
}

const char* Model::settle_step(World& world, int decider, bool refused) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    const Server& master = world.servers[who.chosen];
    switch (who.pc) {
        case Pc::GateBegin:
            if (!holds(world, decider, who.chosen) || !master.master ||
                master.names != decisions_.names_of(who.wanted)) {
                give_up(world, decider);
                break;
            }
            who.barrier = byte(master.wal.length());
            who.pc = Pc::GateSee;
            break;
        case Pc::GateSee:
            if (refused || !holds(world, decider, who.chosen)) {
                end_program(world, decider);
                break;
            }
            if (options_.faults) who.gate = who.chosen;
            who.pc = who.promoting ? Pc::Publish : Pc::Settle;
            break;
        case Pc::Publish: {
            // monitor_host.cpp: a catalog that has this epoch or a later one is left alone.
            if (world.published < who.epoch) world.published = who.epoch;
            who.pc = Pc::Settle;
            break;
        }
        default: {
            ArbiterRecord next = known(world, decider);
            next.only_configuration(who.wanted);
            next.pending = 0;
            next.lines[who.chosen] = who.epoch;
            for (int node = 0; node < options_.nodes; ++node)
                if (has(who.wanted.slaves, node)) next.lines[static_cast<unsigned>(node)] = who.epoch;
            if (write_record(world, decider, next))
                end_program(world, decider);
            else
                give_up(world, decider);
        }
    }
    return nullptr;
}

void Model::prepare_step(World& world, int decider, bool refused) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    Server& slave = world.servers[who.node];
    const bool old_line = known(world, decider).lines[who.node] < who.epoch;
    switch (who.pc) {
        case Pc::PrepareTake:
            if (refused) return end_program(world, decider);
            take_lock(world, decider, who.node);
            who.pc =
                mutated(Mutation::Check) || mutated(Mutation::Follow) ? Pc::PrepareCut : Pc::PrepareCheck;
            return;
        case Pc::PrepareCheck:
            if (world.record.owner != decider + 1) return give_up(world, decider);
            who.pc = Pc::PrepareCut;
            return;
        case Pc::PrepareCut:
            who.pc = Pc::PrepareProve;
            if (!old_line || mutated(Mutation::Div) || mutated(Mutation::Stale)) return;
            if (!holds(world, decider, who.node) || slave.master || slave.disk_full)
                return end_program(world, decider);
            if (slave.file.node != none) slave.stored = slave.file;
            set_upstream(world, who.node, {});
            who.pc = Pc::PrepareGone;
            return;
        case Pc::PrepareGone:
            if (refused || !holds(world, decider, who.node)) return end_program(world, decider);
            who.positions[who.node] = byte(slave.wal.length());
            who.pc = Pc::PrepareProve;
            return;
        case Pc::PrepareProve: {
            const Server& master = world.servers[who.chosen];
            const Wal seen = slave.wal.first(who.positions[who.node]);
            if (old_line && !mutated(Mutation::Div) && !seen.is_prefix_of(master.wal))
                return end_program(world, decider);
            who.pc = Pc::PreparePoint;
            return;
        }
        case Pc::PreparePoint:
            if (!holds(world, decider, who.node) || slave.master || slave.disk_full)
                return end_program(world, decider);
            set_upstream(world, who.node, {who.chosen, decisions_.name_of(who.node, who.epoch)});
            set_names(world, who.node, slave_names_);
            if (!old_line) return end_program(world, decider);
            who.pc = Pc::PrepareRecord;
            return;
        default: {
            ArbiterRecord next = known(world, decider);
            next.lines[who.node] = who.epoch;
            (void)write_record(world, decider, next);
            return end_program(world, decider);
        }
    }
}

void Model::undo_step(World& world, int decider, bool refused) {
    Decider& who = world.deciders[static_cast<unsigned>(decider)];
    if (who.pc == Pc::UndoCheck) {
        who.fenced |= who.begun;
        if (refused || world.record.owner != decider + 1) return give_up(world, decider);
        const ArbiterRecord& record = known(world, decider);
        if (record.pending != 0 || record.epoch != who.epoch) return give_up(world, decider);
        who.pc = Pc::Undo;
        who.node = 0;
        return;
    }
    while (who.node < options_.nodes && !has(who.fenced, who.node)) ++who.node;
    if (who.node >= options_.nodes) return end_program(world, decider);
    Server& slave = world.servers[who.node];
    const bool unchecked = mutated(Mutation::Check) || mutated(Mutation::Follow);
    if (!holds(world, decider, who.node)) {
        // Only a session that is lost is taken anew, and the claim looked at.
        who.fenced &= refused ? byte(~only(who.node)) : who.fenced;
        if (refused) return;
        take_lock(world, decider, who.node);
        if (!unchecked) who.pc = Pc::UndoLock;
        return;
    }
    if (who.pc == Pc::UndoLock && world.record.owner != decider + 1) return give_up(world, decider);
    who.pc = Pc::Undo;
    // Only towards the record's master, whatever it streamed from before (rule 10).
    Upstream target = who.before[who.node].node != none ? who.before[who.node] : slave.stored;
    if (target.node != none) target.node = known(world, decider).master;
    if (!slave.master && !slave.disk_full && target.node != none) set_upstream(world, who.node, target);
    who.fenced &= byte(~only(who.node));
}

}  // namespace pgxc::sim
