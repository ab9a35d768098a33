#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "net/loop.h"
#include "pooler/environment.h"

namespace pgxc::pooler {

/// How the worker is asked to end (pg_ctl stop -m ...).
enum class ShutdownMode : std::uint8_t {
    Smart,  // no new clients; who is in a transaction finishes it; idle clients and server connections are
            // closed
    Fast,   // every client gets 57P01 and is closed now
};

/// One worker's pooler: listens, logs clients in, lends them server connections. Lives on `loop`'s thread;
/// nothing here blocks. The Environment and the Loop outlive it.
class Pooler {
  public:
    /// Listens on the sockets that the settings name. The error says which one failed and why. As for the
    /// server, one listening socket is enough: what fails beside it is logged, and tried again every second.
    /// Workers but the first need none.
    [[nodiscard]] static Result<std::unique_ptr<Pooler>> start(net::Loop& loop, Environment& environment);
    ~Pooler();
    Pooler(const Pooler&) = delete;
    Pooler& operator=(const Pooler&) = delete;

    /// The settings or pg_hba.conf have changed. Takes effect for new logins and new server connections.
    void reload();
    /// A new ClusterView is there (Environment::current()): the worker calls it when the monitor wakes it.
    void view_changed();
    /// Closes the idle server connections of this coordinator to `database`, so that DROP DATABASE and the
    /// like can go on. All of them where the name is empty.
    void close_database(const std::string& database);
    /// The same for a node's database: another worker's client has asked for it.
    void close_database(NodeKey node, const std::string& database);
    /// Stops listening and ends the clients; drained() tells when the last one is gone. May be repeated to go
    /// from Smart to Fast. `on_drained` is called once then, from the loop.
    void begin_shutdown(ShutdownMode mode, std::function<void()> on_drained = {});
    [[nodiscard]] bool drained() const;
    /// The TCP port that is listened on; useful where the settings say 0 (tests). 0 if there is none.
    [[nodiscard]] int port() const;
    /// Hands the rows of pgxc_pools and pgxc_pooler_clients to the Environment now. The pooler does it by
    /// itself twice a second while they change.
    void publish_stats();

  private:
    struct Impl;
    explicit Pooler(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgxc::pooler
