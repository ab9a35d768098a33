#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/address.h"
#include "net/asker.h"
#include "net/loop.h"

namespace pgxc::net {

/// Asks getaddrinfo(): blocks. Error 08001.
[[nodiscard]] Result<std::vector<SocketAddress>> look_up_host(const std::string& host, std::uint16_t port);

/// Turns host names into addresses without blocking the loop. Literal addresses are answered at once; a name
/// is asked of getaddrinfo() in a thread of its own, which blocks all signals (it may live in a PostgreSQL
/// process, whose handlers must run in the main thread only), touches nothing of the process but its own
/// queue, and starts with the first name. `most_threads`: further ones start when all are busy, and stay.
class Resolver {
  public:
    using Answer = Result<std::vector<SocketAddress>>;
    using Callback = std::function<void(Answer)>;
    /// Who couldn't wait for a slow look-up gets its answer when he comes back within that time.
    static constexpr Millis answer_is_good_for{2000};

    explicit Resolver(Loop& loop, int most_threads = 1);
    ~Resolver();
    Resolver(const Resolver&) = delete;
    Resolver& operator=(const Resolver&) = delete;

    /// A literal address, or a host that begins with '/' (a unix socket's directory); nullopt: a name, ask
    /// resolve().
    [[nodiscard]] static std::optional<SocketAddress> without_lookup(const std::string& host,
                                                                     std::uint16_t port);
    /// Calls back from the loop; not after the handle is gone. The answer isn't empty unless it is an error
    /// (08001). All who ask for a name share one look-up, which goes on, in its place of the queue, when they
    /// have gone; an answer that isn't an error serves for answer_is_good_for.
    [[nodiscard]] Handle resolve(const std::string& host, std::uint16_t port, Callback callback);
    /// Runs `job` in such a thread, then `done` from the loop; not after the handle is gone, when `job` is
    /// not begun any more, but may still be running. Begun in order, one at a time in each thread. `done`
    /// also comes where `job` has thrown, or was not begun because there can't be any thread.
    [[nodiscard]] Handle run(std::function<void()> job, std::function<void()> done);

  private:
    class Queue;
    class Request;
    using Key = std::pair<std::string, std::uint16_t>;
    /// What is being looked up, or has been a moment ago.
    struct Name {
        Handle look_up;
        std::vector<std::shared_ptr<Asker<Answer>>> askers;
        std::optional<Answer> answer;
        TimePoint answered_at;
    };

    [[nodiscard]] Handle look_up(const Key& key);
    void looked_up(const Key& key, const Answer& answer);
    void collect();

    Loop& loop_;
    std::shared_ptr<Queue>
        queue_;  // shared with the thread, which may still be inside getaddrinfo() at the end
    Handle watch_;
    bool watched_ = false;
    std::map<Key, Name> names_;
};

}  // namespace pgxc::net
