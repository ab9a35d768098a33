#pragma once

#include <functional>
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
#include "pooler/prepared_statements.h"
#include "pooler/quiet_level.h"
#include "pooler/router.h"
#include "pooler/session_probe.h"
#include "pooler/session_use.h"
#include "pooler/setting_set.h"

namespace pgxc::pooler {

class SessionOwner {
  public:
    /// The session has closed itself and is on no list any more: let it go.
    virtual void session_ended(Session& session) = 0;
    /// A client's CancelRequest; the key may be another worker's.
    virtual void cancel_requested(CancelKey key) = 0;
    /// How many clients are logged in, or about to be, as that user.
    [[nodiscard]] virtual std::size_t clients_of(const std::string& user) const = 0;
    /// A client is about to be let in as the role that has the name now. Where that is another role than the
    /// one before, nothing of the old one may come to it, nor the other way round.
    virtual void role_logs_in(const std::string& user, std::uint32_t oid) = 0;

  protected:
    ~SessionOwner() = default;
};

/// One client, from its first byte to its last. session.cpp: its life; session_login.cpp: how it proves who
/// it is; session_client.cpp: what the client says; session_traces.cpp: what that may do and leave behind;
/// session_statements.cpp: its prepared statements; session_sql_names.cpp: those that SQL names;
/// session_routing.cpp: who reads at a slave; session_server.cpp: what the server answers; session_loss.cpp:
/// what a lost server means; session_settle.cpp: what its transactions have left behind.
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

    /// The slave that the session may have doesn't answer: what can be repeated at the master is.
    void leave_silent_slave(const std::string& cause);

    /// The client asked, over another connection, to cancel what it runs.
    void cancel();
    /// Ends the client with a FATAL error.
    void end(const Error& error);
    /// Ends the client if it is in no transaction, else as soon as that is over.
    void end_when_idle(const Error& error);
    /// Its user name is another role's now, and so is every server connection that is made from now on: what
    /// it has begun at the one that it has ends there, and the client with it.
    void role_replaced(const Error& error);
    /// Login has taken too long, or the like: true if the session was ended.
    bool tick(TimePoint now);
    /// The first view of the cluster has come: a login that waited for it goes on.
    void view_came();

    [[nodiscard]] ClientRow row() const;
    [[nodiscard]] ClientId id() const { return id_; }
    /// Empty before its login is proven.
    [[nodiscard]] const std::string& user() const { return user_; }
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
        Settling,       // has one, which is being asked what the transaction has left behind
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
    [[nodiscard]] bool in_no_transaction() const;
    /// Is something of the client's under way that end_when_idle() waits for?
    [[nodiscard]] bool in_transaction() const;
    /// Ends it if end_when_idle() was waiting for the end of its transaction, and that is over.
    [[nodiscard]] bool ends_now();
    /// The client has said that it goes, or has closed its side.
    void leave();
    /// Would a server go on for this client though it has closed its side: was it sent all of something that
    /// it has not answered?
    [[nodiscard]] bool owes_answers() const;
    void close();
    void read_defaults();
    void protocol_error(const Error& error);
    [[nodiscard]] bool send(wire::Bytes run = {});
    void report_error(const Error& error);
    void keep(wire::Bytes rest);
    void proven();
    void finish_login(const Backend::Reported& reported);
    void learn_login(Backend& backend);
    [[nodiscard]] NodePool& group_pool();

    // session_login.cpp
    void login_input(wire::Bytes input);
    void login_step(ClientLogin::Step step);
    void start_client_tls();
    void pause_login(bool paused);
    void begin_login_work();
    void look_up_host();
    /// What the login had to wait for is there.
    void login_goes_on(ClientLogin::Step step);
    /// Who it is has been proven, and what remains is whether there is room.
    void authorized();
    /// Its role has room for one more; else the login is refused.
    [[nodiscard]] bool role_has_room();
    void refuse_login(const Error& error);
    void refuse_login_later();
    void log_refusal(const Error& error) const;
    void leave_login();
    void note_read_failure(int error_number);

    // session_client.cpp
    [[nodiscard]] bool takes_commands() const {
        return (state_ == State::Idle || state_ == State::Linked) && !paused_;
    }
    /// Puts `run` and context_.front into what is collected for the server, if anything is to go in front of
    /// `message` or in place of its beginning. Where the bytes begin that follow.
    [[nodiscard]] const char* put_front(wire::Bytes run, wire::Bytes message);
    /// Sends what is collected for the server and then `run`. `original`: the client's bytes that this is
    /// made of.
    [[nodiscard]] bool forward(wire::Bytes run, wire::Bytes original, wire::Bytes rest);
    /// It gets no server of that pool to begin with, or not with its settings.
    void refuse_start(const Error& error, bool login, const NodePool& pool);
    void refuse_pending(const Error& error, const NodePool& pool);
    /// As the client asked before the server has got it.
    void refuse_canceled(const NodePool& pool);
    void take_commands(wire::Bytes input);
    [[nodiscard]] Admit admit(wire::FrontendMessage type, wire::Bytes body, bool whole);
    [[nodiscard]] Admit admit_unlinked(wire::FrontendMessage type, wire::Bytes body, bool whole);
    [[nodiscard]] Admit admit_linked(wire::FrontendMessage type, wire::Bytes body, bool whole);
    [[nodiscard]] Admit begin_transaction(wire::FrontendMessage type, wire::Bytes body, bool whole);
    [[nodiscard]] Admit prepare_to_send(wire::FrontendMessage type, wire::Bytes body, bool whole);
    void remember_sent(wire::Bytes run);
    /// It can't be repeated any more.
    void forget_sent() {
        repeatable_ = false;
        sent_.clear();
    }
    void take_in_failed_block(wire::FrontendMessage type, wire::Bytes body, bool whole);
    void resume();
    /// `again`: what the pool had given it was of no use.
    void wait_for(const std::shared_ptr<NodePool>& pool, bool again = false);

    // session_traces.cpp
    void note_text(std::string_view text, bool whole);
    /// The same of a text that was read before.
    void note_bound(SessionUse use, std::string_view text);
    /// `text`: that does so, empty if it isn't known.
    void note_use(SessionUse use, std::string_view text);
    /// What was sent so far can't leave anything behind any more.
    void forget_use() {
        use_ = {};
        unnamed_noted_ = false;
        set_in_transaction_ = false;
        names_in_transaction_.clear();
    }
    void keep_sequence_values(SessionUse use, bool drew_before);
    void note_access(wire::FrontendMessage type, wire::Bytes body, bool whole);
    void note_commit();
    void end_commit();
    void pin(std::uint16_t reasons);
    void unpin(std::uint16_t reasons) {
        pins_.bits &= static_cast<std::uint16_t>(~reasons);
        pin_text_ = pins_.text();
    }
    /// What pinned it is gone with the server connection, or was never there.
    void forget_pins() {
        pins_ = {};
        pin_text_.clear();
        own_names_.clear();
    }
    [[nodiscard]] bool pinned() const { return pins_.any(); }

    // session_sql_names.cpp
    /// Takes away from the server connection what others have prepared in SQL.
    void drop_others_statements();
    /// Would the client have it read now as it was read there?
    [[nodiscard]] bool reads_the_same(const SqlStatements::Entry& there) const;
    /// Prepares there what is needed of what the client has prepared in SQL.
    /// False: not now.
    [[nodiscard]] bool bring_sql_statements(
        const std::function<bool(const SqlStatements::Entry&)>& is_needed);
    /// Is any of that not there, or may it not be?
    [[nodiscard]] bool lacks_sql_statements() const;
    /// Is that the first message of a pipeline in which any may be named?
    [[nodiscard]] bool begins_with_names(wire::FrontendMessage type, wire::Bytes body) const;
    /// What it names must be brought, but whether it can be isn't known before all has been answered.
    [[nodiscard]] bool must_wait_to_bring(wire::FrontendMessage type, wire::Bytes body, bool whole) const;
    /// What a Query may name.
    void bring_for_text(SessionUse use, std::string_view sql);
    /// All of it, where the client begins a pipeline: it may name any, and no Query can be put in later.
    void bring_for_pipeline(wire::FrontendMessage type, wire::Bytes body);
    /// In a failed block nothing can be brought, and the server is to say that, and not that there is none.
    void fail_where_not_brought(std::string_view name);
    /// The name of what the server prepares of that now, empty for what surrounds it; nullptr: it does
    /// something else.
    [[nodiscard]] const std::string* statement_being_brought() const;
    /// Some of that, which the server has refused to prepare; false: it wasn't that.
    [[nodiscard]] bool not_brought(std::string_view why);
    /// The server has told what is prepared in SQL.
    void take_over_sql_statements();
    /// A Close ends those, too.
    void close_sql_statement(std::string_view name);
    /// What statements may do that SQL names.
    [[nodiscard]] SessionUse use_of_named(std::string_view sql) const;
    void bring_named_in_sql(std::string_view sql, bool simple);
    void end_own_unit();
    void close_other_clients();
    [[nodiscard]] bool answer_deallocate(std::string_view sql);
    [[nodiscard]] bool has_statements() const { return !prepared_.empty() || sql_statements_; }

    /// A server that is to be asked for a database that nobody is in finds no idle connections of ours there.
    void free_database(wire::FrontendMessage type, wire::Bytes body);

    // session_statements.cpp
    [[nodiscard]] Admit admit_parse(wire::Bytes body, bool whole);
    void admit_bind(wire::Bytes body, bool whole);
    void admit_describe(wire::Bytes body);
    void close_sent(wire::Bytes body);
    /// Forgets what a Close names; gives what that stood for.
    StatementRef close_named(wire::Bytes body);
    void query_sent();
    /// The text that a Query, Parse, or a Bind or Describe of a prepared statement means; nullopt = unknown.
    [[nodiscard]] std::optional<std::string_view> text_of(wire::FrontendMessage type, wire::Bytes body) const;
    /// Of a statement that was prepared without a server.
    void remember_parse(wire::Bytes body);
    void put_own_parse(std::string_view name, wire::Bytes tail, StatementRef statement);
    void put_own_close(std::string_view name, StatementRef statement);
    void make_room();
    /// Has it on the server connection, as it is read there: what `name` stands for from now on.
    [[nodiscard]] StatementRef bring(std::string_view name, StatementRef statement);
    /// What it may do, for the transaction in which it is bound.
    void note_unnamed();
    void bring_unnamed();
    /// Is it on the server connection that the session has?
    [[nodiscard]] bool unnamed_here() const { return has_unnamed_ && backend_->unnamed == unnamed_number_; }
    [[nodiscard]] bool expects_only_own() const;
    /// The server has skipped Queries.
    void units_skipped();
    /// The same of a Parse (or own Close) of the unnamed statement, or it has failed.
    void unnamed_skipped(bool own);
    void undo(std::vector<ExpectedAnswers::Entry> entries);
    /// Was something sent of which it isn't known where the server reads on should it fail?
    [[nodiscard]] bool may_be_skipped() const;
    /// What an earlier unit has to tell of that message's statement, or of where the server reads on if
    /// something failed, must be known before the message can be looked at.
    [[nodiscard]] bool must_wait_for_answers(wire::FrontendMessage type, wire::Bytes body, bool whole) const;
    [[nodiscard]] bool depends_on_answers(wire::FrontendMessage type, wire::Bytes body, bool whole) const;
    /// What the server reads that text under.
    [[nodiscard]] std::string parse_context(std::string_view sql) const;

    // session_settle.cpp
    void settle();
    [[nodiscard]] bool must_settle() const;
    void settled();
    void take_over_what_is_left();
    void take_over_settings();
    void own_answer(wire::BackendMessage type, wire::Bytes body);
    void put_settings();
    /// A Query of the pooler's own, in a unit of its own.
    void put_own_query(wire::Buffer& out, std::string_view sql);
    /// The pool of that node for this client; cached.
    [[nodiscard]] const std::shared_ptr<NodePool>& pool_of(NodeKey node);

    // session_routing.cpp: pgxc.read_routing = auto, and what reads at slaves need
    /// What a client sends up to the end of its next statement or pipeline.
    struct Unit {
        bool complete = false;
        bool begins = false;  // a pipeline that begins a block
        bool ends = false;    // it ends one, whatever else it does
        int statements = 0;   // that a pipeline runs, beside those
        Classification what;  // of the worst of these; End where there is nothing else
        std::string_view begin_text;
    };
    [[nodiscard]] Decision decide(RouteFacts& facts);
    void know_slaves(RouteFacts& facts);
    [[nodiscard]] RouteFacts route_facts() const;
    [[nodiscard]] Unit look_ahead() const;
    [[nodiscard]] Classification classify(std::string_view sql) const;
    /// nullopt: nothing special about it, it is routed by what `unit` says.
    [[nodiscard]] std::optional<Admit> begin_auto(wire::FrontendMessage type,
                                                  std::optional<std::string_view> text, Unit& unit);
    /// Answers a BEGIN before it is known which server will get it.
    void answer_begin(std::string_view text);
    /// Puts it in front of what comes next, which the server skips should it fail.
    void put_deferred_begin();
    /// Is what comes now BEGIN's, and of no unit of the pooler's own in front of it?
    [[nodiscard]] bool begin_answers() const;
    [[nodiscard]] std::optional<Admit> stay_at_slave(wire::FrontendMessage type);
    /// Does what is looked at now?
    [[nodiscard]] bool begins_with_rollback() const;
    [[nodiscard]] Admit restart_block(Decision decision);
    void begin_movable_block(std::string_view begin_text);
    /// In a transaction that was declared read only: what would pin the client to the slave is done at the
    /// master, or refused where that comes too late.
    [[nodiscard]] std::optional<Admit> keep_nothing_at_slave(wire::FrontendMessage type, wire::Bytes body,
                                                             bool whole);
    /// It keeps something there, which only a master can be left to keep.
    void leave_slave();
    void unit_answered_in_block(wire::TransactionStatus status);
    void forget_block();
    [[nodiscard]] bool held_by_pause();
    void learn_write();
    /// What is sent again prepares again what it had prepared.
    void forget_sent_names();
    void note_reported(const Backend::Reported& reported);
    void note_dialect(std::string_view name, std::string_view value);
    void note_modes(std::string_view text);
    /// The client wants to see what there is: nothing can be repeated behind that.
    void hold_nothing_back();
    [[nodiscard]] bool holds_back_notice(wire::Bytes body) const;
    void transaction_seen();
    [[nodiscard]] const std::shared_ptr<NodePool>& slave_pool(NodeKey slave);

    // session_server.cpp
    /// What the messages behind a CommandComplete say of the commit that it reports.
    enum class Tail : std::uint8_t { NotYetKnown, Durable, NotDurable };
    [[nodiscard]] static Tail read_tail(wire::Bytes behind);
    void applying_input(wire::Bytes& input);
    void settings_applied();
    /// `before`: what the server had reported of it.
    [[nodiscard]] bool parameter_changed(std::string_view name, std::string_view value, std::string before);
    void settings_stand() {
        wanted_before_ = wanted_;
        reported_before_.clear();
    }
    void relay(wire::Bytes& input);
    /// The server waits for the client.
    void all_answered();
    /// Is that error not for the client, but the end of this server connection (or of this slave's part)?
    [[nodiscard]] bool gives_up_server(wire::Bytes body);
    /// `body`: of the error for which it is given up.
    void give_up_server(wire::Bytes body);
    void refuse_settings();
    void answer_ready(wire::TransactionStatus status);
    void statement_done(std::string_view tag);
    void forget_statements();
    void let_go(bool reusable);
    void transaction_over();

    // session_loss.cpp
    [[nodiscard]] bool may_repeat() const;
    /// Nothing of the client's has gone there: another connection gets it, or its settings. `reusable`: this
    /// one can be used on.
    void begin_elsewhere(bool reusable);
    /// It can do what a slave can't.
    void begin_at_master();
    void repeat_elsewhere();
    /// What the transaction has set is undone with it, though the server can't say so any more.
    void take_settings_back();
    /// `refusal`: what the server said to the BEGIN that went along with what is lost.
    void lose_transaction(const std::string& cause, const std::optional<Error>& refusal = std::nullopt);
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
    net::Handle login_wait_;             // for work in another thread, or until a refusal is told
    bool login_paused_ = false;          // meanwhile nothing is taken from the client
    bool login_delayed_ = false;         // counted by the throttle
    bool login_wants_view_ = false;      // proven, but nobody has told yet which groups there are
    std::shared_ptr<PassKey> pass_key_;  // kept alive for the server connections of this user
    std::string database_;
    std::string user_;
    std::string application_name_;
    std::optional<CancelKey> cancel_key_;
    bool counted_ = false;  // in context_.logged_in
    std::optional<Error> end_when_idle_;
    bool no_other_server_ = false;  // ends rather than being lent another connection

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
    SettingSetRef wanted_before_;                 // the transaction that runs
    Backend::Reported reported_before_;           // of what it has changed of that, as the client knows it
    std::optional<std::uint64_t> settings_unit_;  // in which they were sent in front of the client's messages
    bool settings_refused_ = false;               // there
    bool tried_elsewhere_ = false;      // to apply them, where nothing of another client was in the way
    bool tell_settings_ = false;        // DISCARD ALL: the client is told what is applied next
    std::optional<Error> apply_error_;  // the server's answer to them

    // The server connection and what passes over it.
    Backend* backend_ = nullptr;
    std::size_t client_pass_ = 0;  // bytes of a large message's body still to pass
    std::size_t server_pass_ = 0;
    bool client_pass_dropped_ = false;
    bool client_pass_owes_ = false;  // without its rest a ReadyForQuery that is owed doesn't come
    bool over_at_end_of_message_ =
        false;  // all is answered, but the server waits for the rest of that message
    bool server_pass_dropped_ = false;
    bool paused_ = false;  // linked, but the next message begins a transaction that may belong elsewhere
    bool to_slave_ = false;
    Access access_ = Access::Open;
    bool committing_ = false;           // counted in the position of the group as a commit that runs
    bool force_master_ = false;         // the next transaction: a slave could not do it
    bool cancel_waits_ = false;         // until the server has answered what it does for the pooler
    bool drop_until_ready_ = false;     // an error was put in place of the answers up to ReadyForQuery
    SessionUse use_;                    // what the texts of this transaction may do
    SessionUse use_now_;                // what the text that was looked at last may do
    bool set_in_transaction_ = false;   // what may matter to how other texts are read
    bool makes_all_temporary_ = false;  // search_path begins with pg_temp
    SessionUse left_;                   // what they may have left behind: to be asked for when it is over
    PinReasons pins_;                   // why the client keeps its server connection
    std::string pin_text_;              // the same in words
    TimePoint quiet_since_;             // the end of its last transaction
    bool asked_while_quiet_ = false;
    std::unique_ptr<ProbeAnswer> probe_;  // while settling
    bool own_failed_ = false;             // the server refused something of the pooler's own
    bool never_slave_ = false;            // what it keeps can't be kept on a slave
    bool sent_any_ = false;               // the server was sent something of the transaction
    bool admitted_ = false;               // a message of the client's has passed since it got the connection
    bool flush_asked_ = false;            // the client wants to see answers before its Sync
    bool beginning_ = false;              // begin_transaction() is on the stack
    bool taking_ = false;                 // take_commands() is on the stack
    bool leaving_ = false;                // ends when what it was promised has been answered
    bool again_ = false;                  // resume() was called meanwhile
    std::uint64_t transactions_ = 0;

    // Prepared statements. The unnamed one is lost with each simple Query.
    ClientStatements prepared_;
    SqlStatementsRef sql_statements_;
    bool brought_for_pipeline_ = false;    // since it got the connection
    StatementNames own_names_;             // of what it is pinned for as Prepared
    NamedUses own_uses_;                   // on the connection that it has
    StatementNames names_in_transaction_;  // that SQL may have prepared in the transaction that runs
    std::string unnamed_;                  // as Statement::parse_tail; empty though there is one: too large
    bool has_unnamed_ = false;
    bool had_unnamed_ = false;      // before the newest Query or FunctionCall
    bool unnamed_unbound_ = false;  // too large to be remembered, and not bound yet: keep the connection
    std::uint64_t unnamed_number_ = 0;
    SessionUse unnamed_use_;
    bool unnamed_noted_ = false;  // what it may do is among what the transaction that runs may do
    struct {
        bool prepared = false;  // or bound
        bool sent = false;      // for the server to do it
        bool followed = false;  // by something else in the same pipeline
    } awaited_;                 // what SessionUse::Awaited says, until all is answered
    bool deallocates_ = false;  // the connection is soiled until the server says DEALLOCATE
    std::size_t replaced_ = 0;  // bytes of the message that is looked at for which context_.front stands
    std::vector<std::string> custom_settings_;

    // A read-only transaction as it was sent, to repeat it elsewhere as long as that can't be noticed.
    bool repeatable_ = false;
    bool begins_with_begin_ = false;
    std::string sent_;
    wire::TransactionStatus told_ = wire::TransactionStatus::Idle;  // in the client's last ReadyForQuery
    unsigned repeats_ = 0;                                          // of this transaction
    unsigned units_answered_ = 0;  // ReadyForQuery given to the client in this transaction
    bool unit_answered_ = false;   // something of the unit that runs now was given to the client

    // Routing by what statements are.
    wire::Bytes upcoming_;  // while commands are taken: from the message in question on
    // A BEGIN whose answer the client has, and which goes in front of what comes next.
    std::string deferred_begin_;
    bool begin_sent_ = false;      // it was sent, and the unit that follows isn't answered
    bool begin_owed_ = false;      // it was sent, and isn't answered itself
    bool begin_last_ = false;      // nothing was put behind it yet
    bool begin_declared_ = false;  // it is repeated, and was routed by its own words
    std::uint64_t begin_unit_ = 0;
    std::size_t begin_skipped_ = 0;    // answers owed to the client that won't come, as it has failed
    std::string begin_message_;        // of the block that runs, which can be begun anew at the master
    bool movable_ = false;             // it runs at a slave, and moves to the master at its first write
    std::optional<Decision> planned_;  // for the BEGIN that is sent now
    bool only_reads_ = false;          // the statement that runs at the master was one for a slave
    bool pause_held_ = false;          // linked, and its next transaction waits for the end of a pause
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
