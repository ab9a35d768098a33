// What a trace says of each step.
#include "sim/model.h"

namespace pgxc::sim {
namespace {

std::string what_of(Pc pc) {
    switch (pc) {
        case Pc::Idle:
            return "is idle";
        case Pc::FenceTake:
        case Pc::NamesTake:
        case Pc::PointTake:
        case Pc::PrepareTake:
            return "takes the lock session on";
        case Pc::FenceCheck:
        case Pc::NamesCheck:
        case Pc::PointCheck:
        case Pc::PrepareCheck:
            return "sees whether its claim is the newest, for";
        case Pc::FenceCut:
        case Pc::PrepareCut:
            return "clears primary_conninfo of";
        case Pc::FenceProve:
        case Pc::PrepareGone:
            return "sees the receiver gone on";
        case Pc::Decide:
            return "decides with what is fenced:";
        case Pc::Record:
            return "records the promotion of";
        case Pc::NamesSet:
            return "sets the names on";
        case Pc::NamesSeen:
            return "sees the names in force on";
        case Pc::PointSet:
            return "points at the chosen:";
        case Pc::Promote:
            return "promotes";
        case Pc::LateNames:
            return "sets the names, too late, on";
        case Pc::GateBegin:
            return "begins an own commit on";
        case Pc::GateSee:
            return "sees it flushed on";
        case Pc::Publish:
            return "publishes";
        case Pc::Settle:
            return "records only what is proven in force on";
        case Pc::PrepareProve:
            return "sees whether this is a prefix:";
        case Pc::PreparePoint:
            return "points at the master:";
        case Pc::PrepareRecord:
            return "records the line of";
        case Pc::ChangeRecord:
            return "lists, beside the older ones,";
        case Pc::UndoCheck:
        case Pc::Undo:
        case Pc::UndoLock:
            return "undoes a fence of";
    }
    return "?";
}

bool about_chosen(Pc pc) {
    switch (pc) {
        case Pc::Record:
        case Pc::NamesTake:
        case Pc::NamesCheck:
        case Pc::NamesSet:
        case Pc::NamesSeen:
        case Pc::Promote:
        case Pc::LateNames:
        case Pc::GateBegin:
        case Pc::GateSee:
        case Pc::Publish:
        case Pc::Settle:
            return true;
        default:
            return false;
    }
}

}  // namespace

std::string Model::describe(const World& world, const Action& action) {
    const std::string node = node_name(action.actor);
    const std::string other = node_name(action.a);
    const std::string who = "D" + std::to_string(action.actor + 1) + " ";
    switch (action.act) {
        case Act::Write:
            return node + " writes a commit";
        case Act::Acknowledge:
            return node + " acknowledges what enough have flushed";
        case Act::Receive:
            return node + " receives from " + node_name(world.servers[action.actor].stream.node);
        case Act::LateCut:
            return node + " hangs no more, and carries out the cut that was sent to it";
        case Act::TakeOver:
            return "the address that " + node + " streams from is taken over by " +
                   node_name(world.record.master);
        case Act::Flush:
            return node + " flushes";
        case Act::Reply:
            return "a reply of " + other + " reaches " + node;
        case Act::Reload:
            return node + " reads its settings";
        case Act::Crash:
            return node + " crashes";
        case Act::Start:
            return node + " starts";
        case Act::OldSettings:
            return node + " starts with old settings";
        case Act::CutStream:
            return "the way of WAL from " + node + " to " + other + " is cut or mended";
        case Act::CutDecider:
            return "the way from " + who + "to " + other + " is cut or mended";
        case Act::FillDisk:
            return "the disk of " + node + " is full or has room again";
        case Act::Rejoin:
            return node + " is rewound and is a slave";
        case Act::Register:
            return node + " becomes synchronous, or no longer is";
        case Act::DeciderDies:
            return who + "dies";
        case Act::Probe:
            return who + "probes";
        case Act::OpenGate:
            return who + "opens the gate of the recorded master";
        case Act::CloseGate:
            return who + "holds transactions";
        case Act::FailOver:
            return who + "begins a failover";
        case Act::FinishPending:
            return who + "begins to finish what is recorded";
        case Act::Change:
            return who + "begins a change to ANY " + std::to_string(action.b) + " " + to_text(action.a);
        case Act::Prepare:
            return who + "begins to prepare " + other;
        case Act::Step:
            break;
    }
    const Decider& decider = world.deciders[action.actor];
    std::string on = node_name(about_chosen(decider.pc) ? decider.chosen : decider.node);
    if (decider.pc == Pc::Decide || decider.pc == Pc::UndoCheck) on = to_text(decider.fenced);
    if (decider.pc == Pc::ChangeRecord || decider.pc == Pc::Settle || decider.pc == Pc::Record)
        on += " ANY " + std::to_string(decider.wanted.k) + " " + to_text(decider.wanted.slaves);
    const bool refused = decider.pc != Pc::Decide && action.a == 1;
    return who + (refused ? "can't: " : "") + what_of(decider.pc) + " " + on;
}

}  // namespace pgxc::sim
