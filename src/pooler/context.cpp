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
      client_names(event_loop),
      system_users(event_loop),
      login_work(event_loop),
      view(server.current()),
      cancels(server.worker_index()),
      classes(server.classifier()),
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

void Context::take_view() {
    view = environment.current();
    for (auto& [group, position] : positions_) note_registration(group, position);
}

void Context::note_registration(NodeKey group, CausalPosition& position) const {
    const NodeView* master = view->find(group);
    position.registered(master != nullptr ? master->registration : Registration{}, view->generation);
}

CausalPosition& Context::position_of(NodeKey group) {
    const auto [entry, added] = positions_.try_emplace(group);
    if (added) {
        if (CausalRecord* record = environment.causal_record(group))
            entry->second.attach(*record, environment.worker_index(), settings().workers);
        else if (settings().workers > 1)
            entry->second.know_nothing();
        note_registration(group, entry->second);
    }
    return entry->second;
}

void Context::schedule_burial() {
    loop.post([this, alive = alive_] {
        if (*alive) std::exchange(graveyard_, {}).clear();
    });
}

}  // namespace pgxc::pooler
