#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "net/resolver.h"
#include "pooler/cancel_map.h"
#include "pooler/causal_bound.h"
#include "pooler/connection.h"
#include "pooler/environment.h"
#include "pooler/login_throttle.h"
#include "pooler/pass_keys.h"
#include "pooler/prepared_statements.h"
#include "pooler/setting_set.h"

namespace pgxc::pooler {

class PoolSet;

/// What the sessions, pools and server connections of one worker share. Outlives them all.
class Context {
  public:
    Context(net::Loop& event_loop, Environment& server);
    ~Context();

    net::Loop& loop;
    Environment& environment;
    net::Resolver resolver;
    net::Resolver name_lookups;  // of clients: theirs must not hold up the nodes'
    net::Resolver login_work;    // what takes a while, but doesn't hang
    LoginThrottle throttle;
    PassKeys pass_keys;
    std::shared_ptr<const ClusterView> view;  // never null; renewed by the Pooler only
    CancelMap cancels;
    /// By group. An entry stays where it is, and for good: a group that comes back mustn't seem untouched.
    std::map<NodeKey, CausalPosition> positions;
    std::unique_ptr<PoolSet> pools;
    StatementStore statements;
    SettingSetStore setting_sets;
    wire::Buffer
        front;  // what goes in front of the message that a session looks at now, or in place of its front
    TimePoint coarse_now = Clock::now();  // renewed a few times a second, for what needs no better
    bool stats_changed = true;
    std::size_t logged_in = 0;  // clients that count for max_client_connections
    bool shutting_down = false;

    [[nodiscard]] const Settings& settings() const { return environment.settings(); }
    [[nodiscard]] NodeKey own_node() const { return {NodeType::Coordinator, settings().own_node_id}; }

    /// Tells the positions what the view says.
    void observe_positions();
    /// What a read that begins now at that group must see.
    [[nodiscard]] CausalBound bound_of(NodeKey group);

    /// One read into the buffer that all connections share, behind what `kept` still holds; `input` is both
    /// together, valid until the next read. Only from the top of an event's callback: nothing reads while it
    /// works.
    [[nodiscard]] net::IoResult read(Connection& connection, const std::string& kept, wire::Bytes& input);

    /// Destroys the object after the callback that runs now, since it may be on the stack. It must have
    /// detached itself from everything.
    template <class T>
    void bury(std::unique_ptr<T> object) {
        graveyard_.emplace_back(std::shared_ptr<T>{std::move(object)});
        if (graveyard_.size() == 1) schedule_burial();
    }

  private:
    void schedule_burial();

    std::vector<std::shared_ptr<void>> graveyard_;
    std::vector<char> buffer_;
    std::shared_ptr<bool> alive_;
};

}  // namespace pgxc::pooler
