#pragma once

#include <cstdint>
#include <unordered_map>

#include "pooler/environment.h"

namespace pgxc::pooler {

class Session;

/// Which client of this worker a cancel key means. The low bits of a key's pid are the worker's number, so
/// that a request which reached another worker finds its way.
class CancelMap {
  public:
    static constexpr std::uint32_t worker_bits = 6;  // limits::max_pooler_workers

    explicit CancelMap(int worker) : worker_(static_cast<std::uint32_t>(worker)) {}

    [[nodiscard]] static int worker_of(CancelKey key) {
        return static_cast<int>(key.pid & ((1U << worker_bits) - 1));
    }
    /// Makes a key out of random bits and keeps it; nullopt where those are taken (draw again). The pid is a
    /// positive int, as drivers expect.
    [[nodiscard]] std::optional<CancelKey> add(std::uint32_t random_pid, std::uint32_t random_secret,
                                               Session& session);
    void remove(CancelKey key);
    /// The client with exactly that key, or nullptr.
    [[nodiscard]] Session* find(CancelKey key) const;
    [[nodiscard]] std::size_t size() const { return entries_.size(); }

  private:
    struct Entry {
        std::uint32_t secret = 0;
        Session* session = nullptr;
    };
    std::uint32_t worker_;
    std::unordered_map<std::uint32_t, Entry> entries_;
};

}  // namespace pgxc::pooler
