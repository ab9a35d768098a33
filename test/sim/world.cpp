#include "sim/world.h"

#include <algorithm>

namespace pgxc::sim {

const char* to_text(Mutation mutation) {
    switch (mutation) {
        case Mutation::None:
            return "none";
        case Mutation::Cas:
            return "cas";
        case Mutation::Local:
            return "local";
        case Mutation::Lock:
            return "lock";
        case Mutation::Check:
            return "check";
        case Mutation::Follow:
            return "follow";
        case Mutation::Count:
            return "count";
        case Mutation::Order:
            return "order";
        case Mutation::Any:
            return "any";
        case Mutation::Lsn:
            return "lsn";
        case Mutation::Shrink:
            return "shrink";
        case Mutation::Grow:
            return "grow";
        case Mutation::Keep:
            return "keep";
        case Mutation::Names:
            return "names";
        case Mutation::Epname:
            return "epname";
        case Mutation::Div:
            return "div";
        case Mutation::Needless:
            return "needless";
        case Mutation::Gate:
            return "gate";
        case Mutation::Stale:
            return "stale";
        case Mutation::Listed:
            return "listed";
        case Mutation::Refollow:
            return "refollow";
        case Mutation::Promised:
            return "promised";
    }
    return "?";
}

int Wal::length() const {
    int entries = 0;
    for (unsigned i = 0; i < count; ++i) entries += segments[i].entries;
    return entries;
}

int Wal::common(const Wal& other) const {
    int entries = 0;
    for (unsigned i = 0; i < std::min(count, other.count); ++i) {
        const Segment& mine = segments[i];
        const Segment& theirs = other.segments[i];
        if (mine.epoch != theirs.epoch || mine.writer != theirs.writer) break;
        entries += std::min(mine.entries, theirs.entries);
        if (mine.entries != theirs.entries) break;
    }
    return entries;
}

bool Wal::is_prefix_of(const Wal& other) const {
    return common(other) == length();
}

Wal Wal::first(int entries) const {
    Wal cut;
    for (unsigned i = 0; i < count && entries > 0; ++i) {
        cut.segments[i] = segments[i];
        cut.segments[i].entries = static_cast<std::uint8_t>(std::min<int>(segments[i].entries, entries));
        entries -= cut.segments[i].entries;
        ++cut.count;
    }
    return cut;
}

bool Wal::append(int epoch, int writer) {
    if (count > 0) {
        Segment& last = segments[count - 1U];
        if (last.epoch == epoch && last.writer == writer) {
            if (last.entries == 200) return false;
            ++last.entries;
            return true;
        }
    }
    if (count == max_segments) return false;
    segments[count++] = {static_cast<std::uint8_t>(epoch), static_cast<std::uint8_t>(writer), 1};
    return true;
}

NodeSet ArbiterRecord::members() const {
    NodeSet all = 0;
    for (unsigned i = 0; i < count; ++i) all |= configurations[i].slaves;
    return all;
}

void ArbiterRecord::only_configuration(Counting configuration) {
    configurations = {};
    configurations[0] = configuration;
    count = 1;
}

void ArbiterRecord::list(Counting configuration) {
    auto* const end = std::remove(configurations.begin(), configurations.begin() + count, configuration);
    count = static_cast<std::uint8_t>(end - configurations.begin());
    configurations[count++] = configuration;
    std::fill(configurations.begin() + count, configurations.end(), Counting{});
}

std::string node_name(int node) {
    return node == none ? "nobody" : std::string(1, static_cast<char>('A' + node));
}

std::string to_text(NodeSet set) {
    std::string text = "{";
    for (int node = 0; node < max_nodes; ++node)
        if (has(set, node)) text += node_name(node);
    return text + "}";
}

namespace {

std::string to_text(const Wal& wal) {
    std::string text;
    for (unsigned i = 0; i < wal.count; ++i)
        text += (i == 0 ? "" : " ") + node_name(wal.segments[i].writer) + "e" +
                std::to_string(wal.segments[i].epoch) + "x" + std::to_string(wal.segments[i].entries);
    return "[" + text + "]";
}

}  // namespace

std::string to_text(const World& world, int nodes) {
    std::string text = "    record: epoch " + std::to_string(world.record.epoch) + ", master " +
                       node_name(world.record.master) + (world.record.pending != 0 ? ", pending" : "");
    for (unsigned i = 0; i < world.record.count; ++i)
        text += ", e" + std::to_string(world.record.configurations[i].epoch) + " ANY " +
                std::to_string(world.record.configurations[i].k) + " " +
                to_text(world.record.configurations[i].slaves);
    text += "\n    acknowledged: " + to_text(world.acknowledged) + "\n";
    for (int node = 0; node < nodes; ++node) {
        const Server& server = world.servers[static_cast<unsigned>(node)];
        text += "    " + node_name(node) + (server.master ? " master " : " slave  ") + to_text(server.wal) +
                " flushed " + std::to_string(server.flushed) + (server.running ? "" : " down") +
                " streams from " + node_name(server.stream.node) + "\n";
    }
    return text;
}

}  // namespace pgxc::sim
