#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pooler/connection.h"
#include "pooler/context.h"
#include "pooler/expected_answers.h"
#include "pooler/pool.h"
#include "pooler/setting_set.h"
#include "pooler/sql_statements.h"
#include "pooler/tls_opening.h"
#include "wire/messages.h"
#include "wire/scram.h"
#include "wire/startup.h"
#include "wire/transaction_tracker.h"

namespace pgxc::pooler {

class NodePool;
class Session;

/// Why a server connection could not be made.
struct BackendFailure {
    std::optional<TrafficFailure> traffic;  // evidence for the monitor; nullopt: the server answered
    bool temporary = true;                  // may go by itself: waiting clients go on waiting
    Error error;
};

/// One server connection: makes itself (address, connect, startup, authentication), is lent to one session at
/// a time, and is watched while idle. Owned by its NodePool, which it tells when it is ready, failed or lost.
class Backend final : public Member, private net::StreamEvents {
  public:
    Backend(Context& context, NodePool& pool, std::uint64_t target_version);
    ~Backend();

    /// Begins to connect. The pool hears backend_ready() or backend_failed(), never from inside this call.
    void start(const HostPort& address);
    /// Closes it, whatever it is in the middle of: the pool hears nothing of it any more.
    void give_up();

    [[nodiscard]] NodePool& pool() { return pool_; }
    [[nodiscard]] Connection& connection() { return connection_; }
    [[nodiscard]] wire::TransactionTracker& tracker() { return tracker_; }
    /// Which target of the pool it was made for: an older one's connections are not lent again.
    [[nodiscard]] std::uint64_t target_version() const { return target_version_; }

    /// The session that has it. While there is one it gets all input; without, the connection is idle.
    [[nodiscard]] Session* session() { return session_; }
    void lend_to(Session* session) {
        session_ = session;
        meter.changes_hands();
    }
    /// Stops and goes on reading from the server: back-pressure.
    void read_on(bool wanted);

    /// The client settings in force in the server session, beyond its defaults.
    SettingSetRef applied;
    TrafficMeter meter;

    /// What it has prepared under names of ours, and what it has still to answer of that.
    ServerStatements statements;
    ExpectedAnswers expected;
    /// What is prepared there in SQL; and what was sent to be so, by unit.
    SqlStatementsRef sql_statements;
    std::vector<std::pair<std::uint64_t, std::string>> bringing;  // no name: what surrounds it
    /// What those were read under that are there (parse_context), as far as it is known.
    std::map<std::string, std::string, std::less<>> sql_readings;
    /// The number of the unnamed statement that is there (Context::unnamed_statements); or none is (0), or
    /// any.
    std::uint64_t unnamed = 0;
    static constexpr std::uint64_t any_unnamed = ~std::uint64_t{0};
    /// It has something under a client's name, or the like: no other client gets it.
    bool soiled = false;
    /// Code has run there that may have set what no server tells of: a setting of an application's own, whose
    /// name no text has told.
    bool unseen_settings = false;
    /// At a master: don't its commits wait for their WAL, unless a client sets that? As it said; nullopt: not
    /// asked yet.
    std::optional<bool> async_commit;
    /// It was asked; an answer that tells nothing is not asked for again.
    bool async_commit_asked = false;
    /// ParameterStatus values as last reported, under the server's own names.
    using Reported = std::vector<std::pair<std::string, std::string>>;
    [[nodiscard]] const Reported& reported() const { return reported_; }
    void parameter_reported(std::string_view name, std::string_view value);
    [[nodiscard]] std::string_view reported_value(std::string_view name) const;

    /// Asks the server to cancel what this connection runs, over a connection of its own. Until that is done
    /// cancels_running() holds the connection back from the next client.
    void cancel();
    [[nodiscard]] bool cancels_running() const { return cancels_ > 0; }
    /// The server has not confirmed a request in time: it may still come to it, so no other client gets this
    /// connection.
    [[nodiscard]] bool cancel_may_come() const { return cancel_may_come_; }
    [[nodiscard]] ServerRow row(TimePoint now, WallTime wall) const;

    /// Runs a statement of the pooler's own, of at most one row, while nobody has the connection. The pool
    /// hears own_statement_done(), unless the connection breaks.
    enum class Own : std::uint8_t { None, Question, EmptyCommit, Rollback };
    void run_own(Own what, std::string_view sql);
    [[nodiscard]] Own own_statement() const { return own_; }
    using Row = std::vector<std::optional<std::string>>;

    std::size_t pool_index = 0;  // the pool's place for it

  private:
    class CancelConnection;

    void on_readable() override;
    void on_writable() override;

    // backend_login.cpp
    void arm_deadline();
    void connect_next();
    void connected();
    void begin_startup();
    void open_tls();
    /// Tries the same address once more, with TLS or without: true if that was begun.
    [[nodiscard]] bool retry_with(bool tls);
    [[nodiscard]] bool may_fall_back() const;
    void login_input(wire::Bytes& input);
    void authenticate(wire::Bytes body);
    void answer_sasl(const wire::AuthenticationRequest& request);
    void send_password(bool md5, wire::Bytes salt);
    [[nodiscard]] std::optional<std::string> password();
    [[nodiscard]] BackendFailure no_password(const std::string& what) const;
    void keys_refused();
    void ready();
    void fail(const BackendFailure& failure);
    void fail_connect(int error_number);
    void refuse(Error error);
    [[nodiscard]] std::string where() const;

    void idle_input(wire::Bytes& input);
    void lost(const std::string& cause);

    enum class Phase : std::uint8_t {
        Resolving,
        Connecting,
        OpeningTls,
        Login,
        Ready,  // lent or idle: the pool's list says
        Ended,  // the pool has been told; nothing comes any more
    };

    Context& context_;
    NodePool& pool_;
    const std::uint64_t target_version_;
    Phase phase_ = Phase::Resolving;
    Connection connection_;
    std::string kept_;  // input that is not a whole message yet
    wire::TransactionTracker tracker_;
    Session* session_ = nullptr;
    Reported reported_;
    wire::CancelRequest key_;
    int cancels_ = 0;
    bool cancel_may_come_ = false;
    Own own_ = Own::None;
    Row own_row_;
    bool own_failed_ = false;
    std::shared_ptr<bool> alive_;

    // While connecting.
    HostPort address_;
    std::vector<net::SocketAddress> candidates_;  // back is next
    net::SocketAddress connected_to_;
    net::Handle resolving_;
    net::Handle deadline_;
    std::unique_ptr<wire::ScramClientExchange> scram_;
    std::shared_ptr<PassKey> pass_key_;  // that scram_ may use
    NodeTls node_tls_;
    bool use_tls_ = false;
    bool tried_both_ = false;  // with TLS and without
    std::unique_ptr<TlsOpening> opening_;
    bool authenticated_ = false;
    bool channel_bound_ = false;
};

}  // namespace pgxc::pooler
