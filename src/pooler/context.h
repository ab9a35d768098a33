#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "net/confirmed_names.h"
#include "net/resolver.h"
#include "pooler/cancel_map.h"
#include "pooler/causal_bound.h"
#include "pooler/connection.h"
#include "pooler/environment.h"
#include "pooler/login_throttle.h"
#include "pooler/pass_keys.h"
#include "pooler/prepared_statements.h"
#include "pooler/setting_set.h"
#include "pooler/statement_class.h"

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
    net::ConfirmedNames client_names;
    net::Resolver system_users;  // who a client's process is run by: may hang as any look-up may
    net::Resolver login_work;    // what takes a while, but doesn't hang
    LoginThrottle throttle;
    PassKeys pass_keys;
    std::shared_ptr<const ClusterView> view;  // never null; renewed by take_view()
    CancelMap cancels;
    /// How far the slaves have replayed, and what they have to do. An entry stays where it is, and for good.
    std::map<NodeKey, ReplayProgress> slaves;
    ClassifierCache classes;
    std::uint32_t turn = 0;       // of the slaves, for reads
    std::vector<NodeLoad> loads;  // of the decision that is being made
    std::unique_ptr<PoolSet> pools;
    StatementStore statements;
    std::uint64_t unnamed_statements = 0;  // that clients have prepared: numbers them
    SettingSetStore setting_sets;
    wire::Buffer
        front;  // what goes in front of the message that a session looks at now, or in place of its front
    TimePoint coarse_now = Clock::now();  // renewed a few times a second, for what needs no better
    /// When the event that runs now was looked at: the clock is read once for each event that asks.
    [[nodiscard]] TimePoint now() {
        if (!now_known_) now_ = Clock::now();
        now_known_ = true;
        return now_;
    }
    /// At the top of what the loop calls: now() is read anew.
    void begin_event() { now_known_ = false; }
    bool stats_changed = true;
    std::size_t logged_in = 0;  // clients that count for max_client_connections
    bool shutting_down = false;

    [[nodiscard]] const Settings& settings() const { return environment.settings(); }
    [[nodiscard]] NodeKey own_node() const { return {NodeType::Coordinator, settings().own_node_id}; }

    /// Goes by the newest view from here on; the pools hear of it afterwards.
    void take_view();

    /// Of a group, by its master's name. An entry stays where it is, and for good: a group that comes back
    /// mustn't seem untouched.
    [[nodiscard]] CausalPosition& position_of(NodeKey group);

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
    void note_registration(NodeKey group, CausalPosition& position) const;

    std::map<NodeKey, CausalPosition> positions_;
    TimePoint now_;
    bool now_known_ = false;
    std::vector<std::shared_ptr<void>> graveyard_;
    std::vector<char> buffer_;
    std::shared_ptr<bool> alive_;
};

}  // namespace pgxc::pooler
