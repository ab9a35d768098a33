#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/listener.h"
#include "pooler/backend.h"
#include "pooler/client_login.h"
#include "pooler/context.h"
#include "pooler/failed_block.h"
#include "pooler/node_pool.h"
#include "pooler/pool.h"
#include "pooler/quiet_level.h"
#include "pooler/router.h"
#include "pooler/session_use.h"
#include "pooler/setting_set.h"

namespace pgxc::pooler {

class SessionOwner {
  public:
    /// The session has closed itself and is on no list any more: let it go.
    virtual void session_ended(Session& session) = 0;
    /// A client's CancelRequest; the key may be another worker's.
    virtual void cancel_requested(CancelKey key) = 0;

  protected:
    ~SessionOwner() = default;
};

/// One client, from its first byte to its last. session.cpp: its life; session_client.cpp: what the client
/// says; session_server.cpp: what the server answers, and what a lost server means.
class Session final : public Waiter, private net::StreamEvents {
  public:
    Session(Context& context, SessionOwner& owner, ClientId id, ClientAddress from);
    ~Session();
    [[nodiscard]] Status start(net::Accepted accepted);

    // From the pool that the session waits for.
    void lend(Backend& backend);
    void lend_failed(const Error& error);

    // From the server connection that the session has.
    void server_input(wire::Bytes& input);
    void server_writable();
    /// Transactions may begin again at the node whose connection the session has.
    void released();
    /// The connection is of no use any more, because it broke or leads to a server that isn't the master now.
    /// The session tells the client what that means and gives the connection up.
    void server_lost(const std::string& cause);

    /// The client asked, over another connection, to cancel what it runs.
    void cancel();
    /// Ends the client with a FATAL error.
    void end(const Error& error);
    /// Ends the client if it is in no transaction, else as soon as that is over.
    void end_when_idle(const Error& error);
    /// Login has taken too long, or the like: true if the session was ended.
    bool tick(TimePoint now);

    [[nodiscard]] ClientRow row() const;
    std::size_t owner_index = 0;  // the owner's place for it

  private:
    enum class State : std::uint8_t {
        Login,          // startup packets and authentication
        LoginWaiting,   // proven; waits for a server connection that tells how the server presents itself
        LoginApplying,  // proven; its startup settings are tried on the server connection that it has
        Idle,           // in no transaction, has no server connection
        Waiting,        // its first message is kept until it gets a server connection
        Applying,       // has one, which is being given the client's settings
        Linked,         // has one; messages pass
        Ended,
    };
    /// What the transaction that runs may do, by all texts that were sent.
    enum class Access : std::uint8_t {
        Open,      // anything
        ReadOnly,  // declared so, and nothing could have changed it
        Ended,     // the same, but what comes now is another transaction
    };
    /// What to do with a message of the client.
    enum class Admit : std::uint8_t {
        Forward,
        Drop,
        Pause,
        Restart,  // kept_ holds what is to be taken in place of what is left
        Ended,
    };

    void on_readable() override;
    void on_writable() override;

    // session.cpp
    void set_state(State state);
    /// The client has said that it goes, or has closed its side.
    void leave();
    void close();
    void protocol_error(const Error& error);
    [[nodiscard]] bool send(wire::Bytes run = {});
    void report_error(const Error& error);
    void login_input(wire::Bytes input);
    void keep(wire::Bytes rest);
    void proven();
    void refuse_login(const Error& error);
    void finish_login(const Backend::Reported& reported);
    void learn_login(Backend& backend);
    [[nodiscard]] NodePool& group_pool();

    // session_client.cpp
    [[nodiscard]] bool takes_commands() const {
        return (state_ == State::Idle || state_ == State::Linked) && !paused_;
    }
    [[nodiscard]] bool forward(wire::Bytes run, wire::Bytes rest);
    void refuse_pending(const Error& error);
    void take_commands(wire::Bytes input);
    [[nodiscard]] Admit admit(wire::FrontendMessage type, wire::Bytes body, bool whole);
    [[nodiscard]] Admit admit_unlinked(wire::FrontendMessage type, wire::Bytes body, bool whole);
    [[nodiscard]] Admit admit_linked(wire::FrontendMessage type, wire::Bytes body, bool whole);
    [[nodiscard]] Admit begin_transaction(wire::FrontendMessage type, wire::Bytes body, bool whole);
    void note_statement(wire::FrontendMessage type, wire::Bytes body, bool whole);
    void remember_sent(wire::Bytes run);
    void note_access(wire::FrontendMessage type, wire::Bytes body, bool whole);
    void note_commit();
    void end_commit();
    void resume();
    void wait_for(const std::shared_ptr<NodePool>& pool);
    void use(Backend& backend);
    void pin(std::string_view reason);
    /// The pool of that node for this client; cached.
    [[nodiscard]] const std::shared_ptr<NodePool>& pool_of(NodeKey node);

    // session_routing.cpp: pgxc.read_routing = auto, and what reads at slaves need
    /// What a client sends up to the end of its next statement or pipeline.
    struct Unit {
        bool complete = false;
        bool begins = false;  // a pipeline that begins a block
        Classification what;
        std::string_view begin_text;
    };
    [[nodiscard]] Decision decide(RouteFacts& facts);
    void know_slaves(RouteFacts& facts);
    [[nodiscard]] RouteFacts route_facts() const;
    [[nodiscard]] Unit look_ahead() const;
    [[nodiscard]] Classification classify(std::string_view sql) const;
    /// nullopt: nothing special about it, it is routed by what `unit` says.
    [[nodiscard]] std::optional<Admit> begin_auto(wire::FrontendMessage type, Unit& unit);
    [[nodiscard]] std::optional<Admit> stay_at_slave(wire::FrontendMessage type);
    [[nodiscard]] Admit restart_block(Decision decision);
    void begin_movable_block(std::string_view begin_text);
    void unit_answered_in_block(wire::TransactionStatus status);
    void forget_block();
    [[nodiscard]] bool held_by_pause();
    void learn_write();
    void note_reported(const Backend::Reported& reported);
    void note_dialect(std::string_view name, std::string_view value);
    void note_modes(std::string_view text);
    [[nodiscard]] bool holds_back_notice(wire::Bytes body) const;
    void transaction_seen();
    [[nodiscard]] const std::shared_ptr<NodePool>& slave_pool(NodeKey slave);

    // session_server.cpp
    /// What the messages behind a CommandComplete say of the commit that it reports.
    enum class Tail : std::uint8_t { NotYetKnown, Durable, NotDurable };
    [[nodiscard]] static Tail read_tail(wire::Bytes behind);
    void applying_input(wire::Bytes& input);
    void settings_applied();
    [[nodiscard]] bool parameter_changed(std::string_view name, std::string_view value);
    void relay(wire::Bytes& input);
    /// Is that error not for the client, but the end of this server connection (or of this slave's part)?
    [[nodiscard]] bool gives_up_server(wire::Bytes body);
    void settings_refused();
    void answer_ready(wire::TransactionStatus status);
    void statement_done(std::string_view tag);
    [[nodiscard]] bool may_repeat() const;
    void repeat_elsewhere();
    void let_go(bool reusable);
    void transaction_over();
    void lose_transaction(const std::string& cause);
    [[nodiscard]] Error loss_error(const std::string& cause, bool outcome_unknown) const;

    Context& context_;
    SessionOwner& owner_;
    const ClientId id_;
    const ClientAddress from_;
    const WallTime connected_at_;
    const TimePoint login_deadline_;
    State state_ = State::Login;
    Connection client_;
    std::string kept_;  // input that isn't passed on yet
    std::unique_ptr<ClientLogin> login_;
    std::string database_;
    std::string user_;
    std::string application_name_;
    std::optional<CancelKey> cancel_key_;
    bool counted_ = false;  // in context_.logged_in
    std::optional<Error> end_when_idle_;

    // Routing.
    NodeKey group_;
    ReadRouting routing_ = ReadRouting::Explicit;
    bool default_read_only_ = false;
    bool default_serializable_ = false;
    std::shared_ptr<NodePool> group_pool_;
    std::shared_ptr<NodePool> other_pool_;  // a slave's or the coordinator's, last used
    std::shared_ptr<NodePool> waits_for_;   // while waiting

    // Settings.
    SettingSetRef wanted_;
    SettingSetRef login_wanted_;
    bool tell_settings_ = false;        // DISCARD ALL: the client is told what is applied next
    std::optional<Error> apply_error_;  // the server's answer to them

    // The server connection and what passes over it.
    Backend* backend_ = nullptr;
    std::size_t client_pass_ = 0;  // bytes of a large message's body still to pass
    std::size_t server_pass_ = 0;
    bool client_pass_dropped_ = false;
    bool server_pass_dropped_ = false;
    bool paused_ = false;  // linked, but the next message begins a transaction that may belong elsewhere
    bool to_slave_ = false;
    Access access_ = Access::Open;
    bool committing_ = false;        // counted in the position of the group as a commit that runs
    bool force_master_ = false;      // the next transaction: a slave could not do it
    bool drop_until_ready_ = false;  // an error was put in place of the answers up to ReadyForQuery
    SessionUse use_;
    std::string_view pin_reason_;  // a literal; empty = not pinned
    bool parsed_unbound_ = false;  // an unnamed statement was prepared and not bound yet
    bool keep_for_bind_ = false;   // so it was when the unit ended: the next one will bind it
    bool never_slave_ = false;     // it has prepared statements, which live where they were made
    bool sent_any_ = false;        // the server was sent something of the transaction
    bool beginning_ = false;       // begin_transaction() is on the stack
    bool taking_ = false;          // take_commands() is on the stack
    bool leaving_ = false;         // ends when what it was promised has been answered
    bool again_ = false;           // resume() was called meanwhile
    std::uint64_t transactions_ = 0;

    // A read-only transaction as it was sent, to repeat it elsewhere as long as that can't be noticed.
    bool repeatable_ = false;
    bool begins_with_begin_ = false;
    std::string sent_;
    unsigned units_answered_ = 0;  // ReadyForQuery given to the client in this transaction
    bool unit_answered_ = false;   // something of the unit that runs now was given to the client
    unsigned swallow_next_ = 0;    // swallow_units_ of the connection that repeats
    unsigned swallow_units_ = 0;   // units of a repeated transaction whose answers the client has already

    // Routing by what statements are.
    wire::Bytes upcoming_;        // while commands are taken: from the message in question on
    std::string deferred_begin_;  // a BEGIN that was answered here, and goes where the next statement goes
    std::string begin_message_;   // of the block that runs, which can be begun anew at the master
    bool movable_ = false;        // it runs at a slave, and moves to the master at its first write
    std::optional<Decision> planned_;  // for the BEGIN that is sent now
    bool first_unit_ = false;          // what follows that BEGIN goes along with it
    bool only_reads_ = false;          // the statement that runs at the master was one for a slave
    bool pause_held_ = false;          // pinned, and its next transaction waits for the end of a pause
    bool strict_default_ = false;      // transactions may begin with a strict isolation level
    bool maybe_async_ = false;         // commits may not wait for their WAL
    SqlDialect dialect_;
    CausalPosition::Ticket seen_ = 0;    // the newest commit that a look at the master may have shown
    CausalPosition::Ticket commit_ = 0;  // of the commit that runs
    Outstanding outstanding_;            // at a slave
    std::string held_back_;              // of a slave's answer, while the master could still give another
    std::vector<std::shared_ptr<NodePool>> slave_pools_;

    QuietLevel quiet_;
    bool rolled_back_ = false;  // by the newest statement

    FailedBlock failed_block_;  // in place of a server: a transaction block whose server was lost
};

}  // namespace pgxc::pooler
