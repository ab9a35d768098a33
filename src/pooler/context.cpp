#include "pooler/context.h"

#include <cstring>

#include "pooler/node_pool.h"

namespace pgxc::pooler {
namespace {

/// Bytes of one read. Larger ones save system calls in COPY and large rows; memory is shared by all
/// connections.
constexpr std::size_t read_bytes = 64 * 1024;

}  // namespace

Context::Context(net::Loop& event_loop, Environment& server)
    : loop(event_loop),
      environment(server),
      resolver(event_loop),
      name_lookups(event_loop),
      login_work(event_loop),
      view(server.current()),
      cancels(server.worker_index()),
      pools(std::make_unique<PoolSet>(*this)),
      buffer_(2 * read_bytes),
      alive_(std::make_shared<bool>(true)) {}

Context::~Context() {
    *alive_ = false;
    pools.reset();
}

net::IoResult Context::read(Connection& connection, const std::string& kept, wire::Bytes& input) {
    begin_event();
    if (buffer_.size() < kept.size() + read_bytes) buffer_.resize(kept.size() + read_bytes);
    std::memcpy(buffer_.data(), kept.data(), kept.size());
    const auto result = connection.stream().read({buffer_.data() + kept.size(), read_bytes});
    input = {buffer_.data(), kept.size() + result.bytes};
    return result;
}

void Context::observe_positions() {
    const auto now = std::chrono::time_point_cast<WallTime::duration>(std::chrono::system_clock::now());
    for (auto& [group, position] : positions) position.observe(view->find(group), now);
}

CausalBound Context::bound_of(NodeKey group) {
    if (!settings().causal_reads) return {};
    // What the other workers' clients commit isn't seen here.
    if (settings().workers > 1) return {CausalBound::State::Unknown, {}, {}};
    return positions[group].bound();
}

void Context::schedule_burial() {
    loop.post([this, alive = alive_] {
        if (*alive) std::exchange(graveyard_, {}).clear();
    });
}

}  // namespace pgxc::pooler
