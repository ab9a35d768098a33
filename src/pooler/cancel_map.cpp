#include "pooler/cancel_map.h"

#include "base/limits.h"

namespace pgxc::pooler {

static_assert(limits::max_pooler_workers <= 1 << CancelMap::worker_bits);

std::optional<CancelKey> CancelMap::add(std::uint32_t random_pid, std::uint32_t random_secret,
                                        Session& session) {
    const std::uint32_t pid = ((random_pid << worker_bits) & 0x7fffffffU) | worker_;
    // Zero in both halves is what clients without a key send.
    if (pid == 0 || !entries_.try_emplace(pid, Entry{random_secret, &session}).second) return std::nullopt;
    return CancelKey{pid, random_secret};
}

void CancelMap::remove(CancelKey key) {
    entries_.erase(key.pid);
}

Session* CancelMap::find(CancelKey key) const {
    const auto found = entries_.find(key.pid);
    return found != entries_.end() && found->second.secret == key.secret ? found->second.session : nullptr;
}

}  // namespace pgxc::pooler
