#pragma once

#include <algorithm>
#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "net/event.h"
#include "replication/evidence.h"
#include "replication/monitor_environment.h"
#include "replication/node_effects.h"
#include "replication/node_watch.h"
#include "replication/old_slave.h"
#include "replication/rejoin.h"

namespace pgxc {

/// One datanode master and its slaves: owns the group's claim, keeps its synchronous replication as the
/// catalog says, fails it over. One coroutine: whatever is done to the group is done by it, one thing at a
/// time.
class NodeGroup : public std::enable_shared_from_this<NodeGroup> {
  public:
    /// What the group asks of the monitor that owns it.
    class Surroundings {
      public:
        virtual ~Surroundings() = default;
        [[nodiscard]] virtual const Topology& topology() const = 0;
        /// The newest observation of each address that a group has to do with; a copy for a consistent
        /// decision.
        [[nodiscard]] virtual std::map<HostPort, Observation> observations(NodeKey group) const = 0;
        /// Asks a node now.
        virtual void kick(const HostPort& address) = 0;
        /// The group's part of the view has changed: publish now.
        virtual void view_changed() = 0;
        /// The catalog has been written: read it again before anything else is decided.
        virtual void reload_topology() = 0;
    };

    NodeGroup(asio::any_io_executor executor, NodeKey key, std::string claim_token,
              MonitorEnvironment& environment, Surroundings& surroundings);
    ~NodeGroup();

    void start();
    void stop();
    /// Something has changed: look again.
    void wake();
    void submit(MonitorTask task);

    [[nodiscard]] NodeKey key() const { return key_; }
    /// The record as last read or written; nullopt before the first reading.
    [[nodiscard]] const std::optional<Record>& record() const { return record_; }
    /// Held where the record is another decider's by now, about whose master nothing is proven here.
    [[nodiscard]] Gate gate() const { return claimed_ ? gate_ : Gate::Held; }
    /// Nothing is done or waited for: what moves only a position may be told a moment later.
    [[nodiscard]] bool calm() const {
        return gate_ == Gate::Open && why_.empty() && tasks_.empty() && !promoting() &&
               record_->formers.empty();
    }
    [[nodiscard]] bool promoting() const { return record_ && record_->pending.has_value(); }
    /// What the group does or waits for; empty when all is as it should be.
    [[nodiscard]] const std::string& why() const { return why_; }
    /// What a replaced master's return is waiting for.
    [[nodiscard]] std::string why_not_back(const FormerMaster& former) const;

  private:
    /// After an effect failed, the next attempt waits this long: the node's own state has to change first.
    static constexpr Millis retry_interval{500};

    struct Timing {
        TimePoint silent_since;
        TimePoint judged;
        TimePoint claimed;
        TimePoint fenced;
    };
    struct Candidate {
        Member member;
        FenceResult result;
    };
    struct Fences {
        std::vector<Candidate> proven;
        /// Cut, or about to be when they were left, and counted for nothing.
        std::vector<Candidate> begun;
        std::string trouble;  // why some are not among the proven ones
    };
    /// How much longer those that are not among these may take; nullopt = they are needed.
    using Patience = std::function<std::optional<Millis>(const std::vector<FencedPosition>&)>;
    struct Promoting;
    /// What becomes of several slaves to which the same is done side by side. Shared with whoever does it,
    /// which the end of the process may leave behind.
    struct SideBySide {
        struct Each {
            Member member;
            bool ended = false;
            bool by_restart =
                false;  // before PostgreSQL 13: one after the other, each a change of the record
            bool done = false;
            std::optional<Candidate> cut;
            std::string trouble;
        };
        [[nodiscard]] std::size_t done() const {
            return static_cast<std::size_t>(std::ranges::count(all, true, &Each::done));
        }
        std::vector<Each> all;
        std::shared_ptr<Promoting> promoting;  // where they are pointed at the chosen
        TimePoint began = Clock::now();
    };
    /// What a promotion needs besides the promotion. Shared with whoever does it, as above.
    struct Promoting {
        explicit Promoting(const asio::any_io_executor& executor)
            : enough_pointed(executor), spares_wanted(executor) {}
        /// How many slaves the gate needs.
        [[nodiscard]] std::size_t needed() const { return static_cast<std::size_t>(wanted.k); }
        Configuration wanted;
        bool with_names = true;                     // not yet in force
        std::vector<net::Event> slots_made;         // for each slave of `wanted`; or given up
        net::Event enough_pointed;                  // as many slaves as the gate needs; or nobody is left
        net::Event spares_wanted;                   // those beyond that may be pointed, too
        std::unique_ptr<NodeConnection> committer;  // for the gate, where there was one to be had
        Status outcome;
    };
    /// A replaced master on its way back.
    struct Returning {
        std::shared_ptr<Rejoin> work;  // on its files; one at a time in a group
        Epoch epoch;                   // of the master that it was last sent for to follow
        std::string why;
        TimePoint next_look;
        Millis patience{250};
        std::optional<TimePoint> no_stream_since;  // runs as a slave
        bool was_there = false;                    // answered at the last look
        bool keeps_slot = false;                   // was started as a slave
    };

    asio::awaitable<void> run();
    asio::awaitable<void> step();
    asio::awaitable<void> wait_for_event(Millis limit);

    // The record
    asio::awaitable<Status> read_record();
    asio::awaitable<Status> claim();
    asio::awaitable<Status> still_claimed();
    /// After a wait in which the record may have been read anew: is it still ours?
    [[nodiscard]] Status claim_as_read() const;
    asio::awaitable<Status> replace_record(Record next);

    // Sessions
    asio::awaitable<Result<LockSession*>> session(HostPort address);

    // What is done in one way from PostgreSQL 13 on and in another before (node_group_old_slaves.cpp)
    [[nodiscard]] SlaveHands hands_on(const HostPort& address);
    asio::awaitable<Status> restart_with(HostPort slave, std::vector<replication::StreamSetting> settings);
    /// Starts slaves that whoever had this claim before has left stopped in the middle of a restart.
    asio::awaitable<void> finish_restarts();
    /// `on_cut` is called just before the cut, and again with what has to be put back.
    asio::awaitable<Result<FenceResult>> cut_stream(HostPort slave, std::vector<std::string> names,
                                                    Millis timeout,
                                                    std::function<void(const FenceResult&)> on_cut = {});
    asio::awaitable<Status> undo_cut(HostPort slave, std::string conninfo,
                                     std::map<std::string, std::string> settings);
    /// Makes the slot, and the slave stream as planned, with the settings that a fence has changed.
    asio::awaitable<Status> give_stream(HostPort slave, HostPort upstream, StreamPlan plan,
                                        std::map<std::string, std::string> settings, Millis patience);
    /// `meanwhile` is done while the server is on its way out of recovery, or just before.
    asio::awaitable<Status> promote_node(LockSession& slave, Millis timeout,
                                         std::function<asio::awaitable<void>()> meanwhile = {});

    // Several slaves side by side (node_group_fences.cpp)
    [[nodiscard]] Patience patience_for(const std::optional<HostPort>& chosen);
    [[nodiscard]] std::shared_ptr<SideBySide> side_by_side(const std::vector<Member>& members) const;
    using Deed = asio::awaitable<void> (NodeGroup::*)(std::shared_ptr<SideBySide>, std::size_t);
    /// Does it to all of them. Sessions of those that were not waited for are given up: what was sent through
    /// them takes effect under the node's lock, and so before whatever is done there next.
    asio::awaitable<void> run_side_by_side(std::shared_ptr<SideBySide> slaves, Deed deed,
                                           std::function<std::optional<Millis>()> patience);
    asio::awaitable<void> look_at_one(std::shared_ptr<SideBySide> slaves, std::size_t which);
    asio::awaitable<void> fence_one(std::shared_ptr<SideBySide> slaves, std::size_t which);
    asio::awaitable<void> point_one(std::shared_ptr<SideBySide> slaves, std::size_t which);
    [[nodiscard]] StreamPlan plan_for(const Member& member);
    /// The members whose streams could be cut now; why the others' can't is added to `trouble`.
    asio::awaitable<std::vector<Member>> members_within_reach(std::vector<Member> members, Patience patience,
                                                              std::string* trouble);
    /// Fences these, or as many as are enough.
    asio::awaitable<Fences> fence_members(std::vector<Member> members, Patience patience);
    asio::awaitable<void> undo_fences(const Fences& fences, Epoch epoch);
    /// Before a fence changes anything there: what it finds is stored and recorded, so that whoever goes on
    /// can give it back. Calls `on_cut` with it.
    asio::awaitable<Status> keep_before_cut(HostPort slave, FenceResult found,
                                            std::function<void(const FenceResult&)> on_cut);
    /// What fences have changed there and is not given back yet.
    [[nodiscard]] std::map<std::string, std::string> changed_on(const HostPort& slave) const;
    /// Gives those back, in calm times.
    asio::awaitable<void> give_back();
    /// Makes the slaves that the new epoch begins with stream from its master, each once its slot is made;
    /// who isn't there is left for later.
    asio::awaitable<void> point_followers(std::shared_ptr<Promoting> promoting);
    static asio::awaitable<void> want_spares_later(std::shared_ptr<Promoting> promoting);

    // The way of the chosen out of recovery; the others are already pointed at it (before PostgreSQL 13: they
    // are before), and follow its switch of timeline by themselves.
    [[nodiscard]] std::shared_ptr<Promoting> promoting(Configuration wanted, bool with_names);
    asio::awaitable<Status> promote_and_point(std::shared_ptr<Promoting> promoting);
    asio::awaitable<Status> name_and_promote(std::shared_ptr<Promoting> promoting);
    asio::awaitable<void> prepare_for_followers(std::shared_ptr<Promoting> promoting, LockSession& master);
    asio::awaitable<void> make_slots(std::shared_ptr<Promoting> promoting, LockSession& master);
    asio::awaitable<void> open_committer(std::shared_ptr<Promoting> promoting, LockSession& master);
    asio::awaitable<void> promote_and_open(std::shared_ptr<Promoting> promoting);
    /// Proves the new master and opens the gate.
    asio::awaitable<Status> open_promoted(std::shared_ptr<Promoting> promoting);
    asio::awaitable<void> point_and_tell(std::shared_ptr<Promoting> promoting);

    // Failover
    /// `unfinished`: go past the promotion of that epoch, which is recorded and whose chosen is lost.
    asio::awaitable<Status> fail_over(std::string cause, TimePoint silent_since,
                                      std::optional<Epoch> unfinished = {});
    /// A chosen that dies while it is being promoted is replaced in its turn, where enough can be fenced for
    /// every configuration that is listed by then.
    asio::awaitable<void> fail_over_pending();
    Status publish_unfinished();
    [[nodiscard]] HistoryRow history_row() const;
    /// The same where nobody counts and pgxc.max_lost_wal lets an asynchronous slave be promoted.
    asio::awaitable<Status> fail_over_asynchronous(std::string cause, Timing timing);
    asio::awaitable<Status> promote_chosen(const Fences& fences, HostPort best, std::string cause,
                                           Timing timing, std::int64_t lost_wal_bytes);
    /// Those that may be promoted by themselves though they don't count; nobody where that isn't allowed.
    [[nodiscard]] std::vector<HostPort> asynchronous_heirs();
    asio::awaitable<Status> promote_by_hand(MonitorTask task);
    asio::awaitable<void> carry_out(MonitorTask task);
    /// Takes the oldest promotion that is asked for and still waited for.
    [[nodiscard]] std::optional<MonitorTask> take_promotion();
    void refuse_promotions(const std::string& why);
    [[nodiscard]] std::vector<FencedPosition> positions_of(const std::vector<Candidate>& fenced) const;
    /// As if these were fenced: where their WAL ends isn't known yet.
    [[nodiscard]] std::vector<FencedPosition> positions_expected_of(const std::vector<Member>& members) const;
    asio::awaitable<Status> record_and_promote(const Fences& fences, HostPort chosen,
                                               PendingPromotion pending, HostPort new_address);
    asio::awaitable<Status> finish_promotion();
    /// Brings the recorded master about, up to the proven gate.
    asio::awaitable<Status> promote_recorded();
    asio::awaitable<Status> put_names_in_force(LockSession& chosen, Configuration wanted);
    asio::awaitable<Status> restart_as_new_master();
    /// While a promotion isn't finished nothing else is done: slaves of its configuration that have died, or
    /// can't follow, must not hold it up for ever. Lists a configuration without them, where that is allowed.
    asio::awaitable<Status> degrade_promotion();
    /// In a takeover of its port by hand the old master may still live: it is stopped, after the record.
    asio::awaitable<Status> make_way();

    // Calm times
    asio::awaitable<Status> open_gate();
    /// What the gate of the recorded master must find with this configuration in force.
    [[nodiscard]] GateExpectation gate_expectation(const Configuration& configuration) const;
    /// Why a server that answers at the master's address isn't the recorded master.
    [[nodiscard]] std::optional<std::string> why_not_master(const ServerFacts& facts) const;
    asio::awaitable<void> tidy_slots();
    asio::awaitable<Status> keep_synchronous();
    /// Makes a slave stream from that server under its name of this epoch.
    asio::awaitable<Status> prepare(Node slave, HostPort upstream);
    asio::awaitable<Status> change_configuration(Configuration next);
    /// Points slaves that stream from elsewhere (a former master, another parent) at the server they belong
    /// to.
    asio::awaitable<Status> follow();
    /// Taking a connection string apart costs more than all else of a look at a calm group: what came out is
    /// kept.
    [[nodiscard]] bool is_astray(const HostPort& slave, const std::string& primary_conninfo,
                                 const HostPort& upstream);
    /// Waits, bounded, until no pooler begins anything that the view forbids: those that run are counted
    /// after that.
    asio::awaitable<void> view_in_force();
    /// Waits, bounded, for what an attempt tells of the node that begins after this call: an answer or none.
    asio::awaitable<void> observe_anew(HostPort address);
    void note_missing_streams(const std::map<HostPort, Observation>& seen);
    /// Streams are missed only while the master itself answers.
    void miss_no_streams();

    // What is watched besides (node_group_audit.cpp)
    /// How far each slave that counts is known to have replayed: one that is less far has forgotten what it
    /// acknowledged, whatever its name says.
    void note_positions(const std::map<HostPort, Observation>& seen);
    [[nodiscard]] bool has_forgotten(const HostPort& address, Lsn position) const;
    /// Looks for what breaks the promise without any failure, and says so in audit_why_.
    asio::awaitable<void> audit(const ServerFacts& master);
    asio::awaitable<void> end_second_streams(const ServerFacts& master);
    asio::awaitable<void> look_at_settings(LockSession& master);
    /// Takes down which prepared transactions the new master has: they hold their locks until somebody ends
    /// them.
    asio::awaitable<void> note_prepared();

    // Why: pgxc.failover_evidence
    static constexpr const char* decision_alive = "alive";
    static constexpr const char* decision_wait = "wait";
    static constexpr const char* decision_fail_over = "fail over";
    static constexpr const char* decision_no_failover = "no failover";
    static constexpr const char* decision_promoted = "promoted";
    static constexpr const char* decision_refused = "refused";
    static constexpr const char* decision_synchronous = "synchronous";
    static constexpr const char* decision_alarm = "alarm";
    /// Takes a decision down where it is another one than the last; needs the record.
    void note(const char* decision, const std::string& reason);
    void note_judgement(const Judgement& judgement, const std::map<HostPort, Observation>& seen);
    /// A failover for that cause was found impossible just before: it is tried again and again, which is told
    /// once.
    [[nodiscard]] bool refused_before(const std::string& cause) const;
    /// Writes down what was noted: after what was decided is done, because it takes a transaction.
    void keep_evidence();

    // Replaced masters (node_group_rejoin.cpp)
    /// Lists the master that is replaced, in the record that replaces it.
    void note_former(Record& next, const PendingPromotion& pending) const;
    /// Where the master's files are, for its return should it be replaced.
    asio::awaitable<void> note_place();
    asio::awaitable<void> take_back();
    asio::awaitable<Status> take_back_one(FormerMaster former);
    asio::awaitable<Status> register_former(FormerMaster former);
    asio::awaitable<Status> forget_former(HostPort address);
    void send_for(const FormerMaster& former, bool stream_failed);
    [[nodiscard]] bool another_works(const HostPort& address) const;
    [[nodiscard]] std::vector<std::string> slots_of_formers() const;
    void end_rejoins();

    /// An effect failed a moment ago and would fail again: wake-ups don't count until then.
    [[nodiscard]] bool too_soon();
    void retry_later();
    void hold(std::string why);
    /// What there is to say of a group that works.
    [[nodiscard]] std::string calm_why() const;
    void set_why(std::string why);
    void answer_tasks(const Status& settled);
    [[nodiscard]] std::optional<std::string> settle_blocker() const;
    [[nodiscard]] const PolicySettings& policy() { return environment_.settings().policy; }

    asio::any_io_executor executor_;
    NodeKey key_;
    std::string claim_token_;
    MonitorEnvironment& environment_;
    Surroundings& surroundings_;
    asio::steady_timer timer_;
    bool woken_ = false;
    bool stopped_ = false;

    std::optional<Record> record_;
    bool claimed_ = false;
    Gate gate_ = Gate::Held;
    std::string why_;
    std::string sync_why_;
    std::string follow_why_;
    std::string second_streams_why_;
    std::string settings_why_;
    std::string prepared_why_;
    std::vector<std::string> prepared_;  // gids that the newest promotion found
    std::optional<TimePoint> audited_at_;
    struct Replayed {
        Epoch epoch;
        Lsn position;
    };
    std::map<HostPort, Replayed> replayed_;
    std::vector<Evidence> evidence_;  // noted, not yet written
    std::optional<Evidence> last_evidence_;
    std::map<HostPort, std::unique_ptr<LockSession>> sessions_;
    std::shared_ptr<net::Event> keeping_;  // the end of a change of the record beside which others wait
    struct Source {
        bool looked_at = false;
        std::string conninfo;
        HostPort upstream;
        bool astray = false;
    };
    std::map<HostPort, Source> sources_;  // of slaves' streams
    std::optional<TimePoint> restarts_tried_;
    std::optional<TimePoint> given_back_at_;
    std::map<HostPort, TimePoint>
        missing_since_;  // slaves that count and whose stream the master doesn't have, or whose stream stands
    std::map<HostPort, StreamProgress> progress_;  // of synchronous slaves' streams
    std::optional<TimePoint> streams_read_at_;     // the master's answer that is in there
    Millis look_after_{200};                       // how long run() may sleep now
    std::optional<TimePoint> retry_at_;
    std::optional<TimePoint> gate_tried_;
    std::optional<TimePoint> sync_tried_;
    std::optional<TimePoint> follow_tried_;
    std::optional<Timing> timing_;   // of the failover that runs, if it began in this process
    std::optional<Epoch> promoted_;  // the epoch whose master this process has seen promoted and proven
    TimePoint promoted_at_;          // when that was
    TimelineId proven_timeline_;     // what it writes
    std::string proven_start_;       // when the server was started whose gate was proven
    std::optional<TimePoint> tidied_at_;
    bool restarted_ = false;              // the chosen has been restarted for the pending promotion
    std::optional<Error> restart_error_;  // why the restart that was wanted did not come about
    std::deque<MonitorTask> tasks_;
    std::map<HostPort, Returning> returning_;
    std::map<int, TimePoint> settle_since_;  // ticket -> when it was taken
};

}  // namespace pgxc
