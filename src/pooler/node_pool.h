#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
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
    NodePool(Context& context, PoolKey key, std::shared_ptr<PoolCounters> counters);
    ~NodePool();

    [[nodiscard]] const PoolKey& key() const { return key_; }
    [[nodiscard]] const Target& target() const { return target_; }
    [[nodiscard]] const Pool& core() const { return core_; }
    [[nodiscard]] const std::shared_ptr<PoolCounters>& counters() const { return counters_; }
    /// Of the group whose master this node is; nobody asks for a slave's.
    [[nodiscard]] CausalPosition& position() { return position_; }
    /// Of the slave that this node is.
    [[nodiscard]] ReplayProgress& replayed() { return replayed_; }

    /// What sessions of this pool begin with, as the server said of one that had set nothing itself.
    struct Defaults {
        bool known = false;
        bool strict_isolation = true;
    };
    [[nodiscard]] const Defaults& defaults() const { return defaults_; }

    // node_questions.cpp
    /// The position of a commit, or what the sessions begin with, isn't known: the master is asked as soon as
    /// a connection is free.
    void ask_master();
    /// A slave has replayed everything and doesn't show it (Progress): the end of a transaction at this
    /// master shows it, and one is made if there is none for a second.
    void end_a_transaction();
    /// Reads wait for this slave to be that far: it is asked until it says so, as long as reads are wanted.
    void ask_slave(NodeKey group, const Progress& wanted);
    [[nodiscard]] NodeKey asked_group() const { return group_; }
    /// Somebody would use this node, if it could be reached.
    void try_again();
    void own_statement_done(Backend& backend, Backend::Own what, const Backend::Row* row);
    /// Takes a connection back in the middle of a transaction that is of no use any more.
    void roll_back(Backend& backend);

    /// A connection at once; or nullptr, and the session waits: it will hear lend() or lend_failed().
    [[nodiscard]] Backend* request(Session& session);
    /// The same for one who was given one here that is of no use: the next one is for it.
    [[nodiscard]] Backend* request_again(Session& session);
    void stop_waiting(Session& session);
    /// Takes a clean and idle connection back.
    void give_back(Backend& backend);
    /// Closes a connection and forgets it. Its session must have let go of it.
    void discard(Backend& backend);

    void backend_ready(Backend& backend);
    void backend_failed(Backend& backend, const BackendFailure& failure);
    /// The cancel requests for a connection are through, or given up.
    void cancels_done(Backend& backend);
    /// A connection that nobody had broke.
    void idle_backend_lost(Backend& backend, const std::string& cause);
    void report(TrafficFailure failure);

    /// Takes over what a new view or new settings mean for this pool; from here on it lends nothing that they
    /// forbid. Returns what to act on, once all pools have taken over.
    [[nodiscard]] Switch take_over();
    /// Tells the sessions, closes what is of no use any more, and lends again if it may.
    void act_on(Switch change);
    void close_idle();
    /// Its connections were authenticated as a role that doesn't have the name any more: none is lent again.
    void role_made_anew();
    /// Ends what has waited too long.
    void tick(TimePoint now);
    [[nodiscard]] PoolRow row(TimePoint now) const;
    void add_rows(std::vector<ServerRow>& servers, TimePoint now, WallTime wall) const;
    /// Brings the counters up to date that no event has kept so.
    void count_bytes();
    /// Some client here has asked for currval() or lastval(): whoever draws values must be able to.
    [[nodiscard]] bool tells_sequence_values() const { return tells_sequence_values_; }
    void sequence_values_asked() { tells_sequence_values_ = true; }
    /// Nobody is here: the object may be dropped once no session remembers it.
    [[nodiscard]] bool deserted() const { return core_.members() == 0 && core_.waiters().empty(); }
    /// "datanode 1 (127.0.0.1:5433)".
    [[nodiscard]] std::string node_text() const;
    /// Transactions that run.
    [[nodiscard]] std::uint32_t in_use();
    /// Why nobody is served now; empty if that isn't so.
    [[nodiscard]] std::string trouble() const;
    [[nodiscard]] bool in_trouble() const;

    /// What the server reported to a session with these settings: a login with the same ones needs no server.
    [[nodiscard]] const Backend::Reported* known_login(const SettingSet& settings) const;
    void remember_login(const SettingSet& settings, const Backend::Reported& reported);

  private:
    // node_questions.cpp
    [[nodiscard]] bool question_due() const;
    [[nodiscard]] bool position_wanted() const;
    /// Asks on a connection that is free now, if there is something to ask.
    [[nodiscard]] bool ask_on(Backend& backend);
    void ask_now();
    void master_answered(Backend& backend, const Backend::Row& row);
    void learn_defaults(Backend& backend, const Backend::Row& row);
    void slave_answered(const Backend::Row& row);
    void ask_on_while_behind();
    void question_lost();

    [[nodiscard]] static std::vector<Backend*> all_of(List<Member>& members);
    /// The pooler ends, and nobody is left here who waits.
    [[nodiscard]] bool nobody_comes() const { return context_.shutting_down && core_.waiters().empty(); }
    /// For each that has a connection of this pool.
    void each_session(const std::function<void(Session&)>& act);
    /// A slave that doesn't answer: the master does what can be repeated.
    void leave_silent(const std::string& cause);
    [[nodiscard]] Backend* lent_or_awaited(Member* member);
    void serve();
    /// The same, but not while a session acts.
    void serve_soon();
    void open_more();
    void retry_later();
    void close_all(const std::string& cause);
    /// What there is of connections and knowledge is of another server, or another role.
    void forget_server();
    [[nodiscard]] bool lending() const { return target_.exists && !target_.held; }
    void fail_waiters(const Error& error);
    void fail_waiter(Session& session, const Error& error);
    void end_long_waits(TimePoint now);
    [[nodiscard]] bool usable(const Backend& backend) const {
        return backend.target_version() == target_version_;
    }

    Context& context_;
    const PoolKey key_;
    const std::shared_ptr<PoolCounters> counters_;
    CausalPosition& position_;
    ReplayProgress& replayed_;
    Defaults defaults_;
    Backend* asking_ = nullptr;  // the connection that carries this pool's question
    CausalPosition::Question question_;
    std::uint64_t question_version_ = 0;
    bool question_wanted_ = false;
    bool empty_commit_wanted_ = false;
    TimePoint empty_commit_at_;
    bool try_again_ = false;
    NodeKey group_;  // of a slave, once it was asked for
    net::Handle ask_again_;
    bool ask_again_pending_ = false;
    Target target_;
    std::uint64_t target_version_ = 0;
    Pool core_;
    std::vector<std::unique_ptr<Backend>> backends_;
    Millis backoff_{0};         // 0: the last attempt to connect succeeded
    TimePoint in_order_since_;  // the last time that there was trouble(), or nothing
    TimePoint pause_ended_;
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
    /// Closes idle connections to that node's database of that name; of any if empty.
    void close_idle(NodeKey node, const std::string& database);
    /// Does that in all workers, at the next tick: who asks for it may not be allowed to what they want the
    /// database for, and is not to make others connect anew more often than that.
    void leave_soon(NodeKey node, const std::string& database);
    void close_all_idle();
    /// As NodePool::role_made_anew(), for all pools of that user.
    void role_made_anew(const std::string& user);
    [[nodiscard]] std::set<std::string> users() const;
    /// Tells how many transactions of a paused group still run.
    void report_in_use(NodeKey group);
    /// The bound of a group has moved: its slaves are asked whether they are there yet.
    void ask_slaves(NodeKey group, const Progress& wanted);
    /// That pool has asked its slave last.
    void asked_by(const std::shared_ptr<NodePool>& pool) { askers_[pool->key().node] = pool; }
    void tick(TimePoint now);
    [[nodiscard]] std::vector<PoolRow> rows(TimePoint now) const;
    [[nodiscard]] std::vector<ServerRow> server_rows(TimePoint now) const;
    /// Of all pools that there are, and of those that were there and are still known.
    [[nodiscard]] std::vector<PoolStatsRow> statistics();
    /// The counting begins anew.
    void restart_statistics();

  private:
    [[nodiscard]] std::shared_ptr<PoolCounters> counters_of(const PoolKey& key);

    Context& context_;
    std::map<PoolKey, std::shared_ptr<NodePool>> pools_;
    std::map<NodeKey, std::weak_ptr<NodePool>> askers_;          // of slaves
    std::map<PoolKey, std::shared_ptr<PoolCounters>> counters_;  // limits::max_stats_rows at most
    std::set<std::pair<NodeKey, std::string>> leave_soon_;       // databases
    std::shared_ptr<PoolCounters> others_;                       // of pools beyond that; shown nowhere
};

}  // namespace pgxc::pooler
