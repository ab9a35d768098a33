#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "pooler/backend.h"
#include "pooler/context.h"
#include "pooler/pool.h"
#include "pooler/topology_switch.h"

namespace pgxc::pooler {

class Session;

struct PoolKey {
    NodeKey node;
    std::string database;
    std::string user;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the 0 that it compares with for a pointer.
    friend auto operator<=>(const PoolKey&, const PoolKey&) = default;
};

/// The server connections of one (node, database, user) and the sessions that wait for one.
class NodePool : public std::enable_shared_from_this<NodePool> {
  public:
    NodePool(Context& context, PoolKey key);
    ~NodePool();

    [[nodiscard]] const PoolKey& key() const { return key_; }
    [[nodiscard]] const Target& target() const { return target_; }
    [[nodiscard]] const Pool& core() const { return core_; }
    /// Of the group whose master this node is; nobody asks for a slave's.
    [[nodiscard]] CausalPosition& position() { return position_; }

    /// A connection at once; or nullptr, and the session waits: it will hear lend() or lend_failed().
    [[nodiscard]] Backend* request(Session& session);
    void stop_waiting(Session& session);
    /// Takes a clean and idle connection back.
    void give_back(Backend& backend);
    /// Closes a connection and forgets it. Its session must have let go of it.
    void discard(Backend& backend);

    void backend_ready(Backend& backend);
    void backend_failed(Backend& backend, const BackendFailure& failure);
    /// The cancel requests for a connection are through: it may be lent again.
    void cancels_done(Backend& backend);
    /// A connection that nobody had broke.
    void idle_backend_lost(Backend& backend, const std::string& cause);
    void report(TrafficFailure failure);

    /// Takes over what a new view or new settings mean for this pool.
    void refresh();
    void close_idle();
    /// Ends what has waited too long.
    void tick(TimePoint now);
    [[nodiscard]] PoolRow row(TimePoint now) const;
    /// Some client here has asked for currval() or lastval(): whoever draws values must be able to.
    [[nodiscard]] bool tells_sequence_values() const { return tells_sequence_values_; }
    void sequence_values_asked() { tells_sequence_values_ = true; }
    /// Nobody is here: the object may be dropped once no session remembers it.
    [[nodiscard]] bool deserted() const { return core_.members() == 0 && core_.waiters().empty(); }
    /// "datanode 1 (127.0.0.1:5433)".
    [[nodiscard]] std::string node_text() const;
    /// Why nobody is served now; empty if that isn't so.
    [[nodiscard]] std::string trouble() const;

    /// What the server reported to a session with these settings: a login with the same ones needs no server.
    [[nodiscard]] const Backend::Reported* known_login(const SettingSet& settings) const;
    void remember_login(const SettingSet& settings, const Backend::Reported& reported);

  private:
    void serve();
    void open_more();
    void retry_later();
    void close_all(const std::string& cause);
    void fail_waiters(const Error& error);
    [[nodiscard]] bool usable(const Backend& backend) const {
        return backend.target_version() == target_version_;
    }

    Context& context_;
    const PoolKey key_;
    CausalPosition& position_;
    Target target_;
    std::uint64_t target_version_ = 0;
    Pool core_;
    std::vector<std::unique_ptr<Backend>> backends_;
    Millis backoff_{0};  // 0: the last attempt to connect succeeded
    net::Handle retry_;
    bool retry_pending_ = false;
    bool tells_sequence_values_ = false;
    std::string last_failure_;
    std::map<std::vector<SettingSet::Entry>, Backend::Reported> logins_;
};

class PoolSet {
  public:
    explicit PoolSet(Context& context) : context_(context) {}
    [[nodiscard]] std::shared_ptr<NodePool> get(const PoolKey& key);
    void refresh();
    /// Closes idle connections to this coordinator's database of that name; of any if empty.
    void close_own_idle(const std::string& database);
    void close_all_idle();
    void tick(TimePoint now);
    [[nodiscard]] std::vector<PoolRow> rows(TimePoint now) const;

  private:
    Context& context_;
    std::map<PoolKey, std::shared_ptr<NodePool>> pools_;
};

}  // namespace pgxc::pooler
