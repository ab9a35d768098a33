#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "net/tls.h"
#include "pooler/environment.h"
#include "wire/bytes.h"
#include "wire/scram.h"
#include "wire/startup.h"

namespace pgxc::pooler {

/// A client's way from its first byte to a proven role: the startup packets and the authentication, without
/// I/O. The texts and SQLSTATEs are the server's (postmaster.c, auth.c, auth-scram.c, miscinit.c), and so is
/// what they don't tell: a wrong password and a role that isn't there look the same.
class ClientLogin {
  public:
    enum class Step : std::uint8_t {
        NeedMore,       // wait for bytes
        StartTls,       // send what is in `out`, then go on in TLS with environment.tls(), and call secured()
        Work,           // run take_job() off the loop, then call job_done(); take() nothing until then
        NameHost,       // look up the name of the client's address, then call host_named(); as above
        Proven,         // startup() may go on; AuthenticationOk is not sent yet
        Refuse,         // send error() as FATAL and close; if guessed(), not at once
        CloseSilently,  // what came isn't our protocol, or the client has gone
        Cancel,         // cancel_request() asks to cancel; then close
    };

    ClientLogin(Environment& environment, ClientAddress from);
    ~ClientLogin();
    ClientLogin(const ClientLogin&) = delete;
    ClientLogin& operator=(const ClientLogin&) = delete;

    /// Takes what it can off the front of `input`; answers are appended to `out`.
    [[nodiscard]] Step take(wire::Bytes& input, wire::Buffer& out);
    /// The TLS handshake that StartTls began is over.
    void secured(net::TlsInfo info);
    [[nodiscard]] bool wants_tls_info() const { return tls_started_ && !from_.tls; }
    /// What may take long (users, hashes); it touches nothing of this object and may outlive it.
    [[nodiscard]] std::function<void()> take_job() { return std::exchange(job_, nullptr); }
    /// The job asks the operating system for a user, which may ask a server that doesn't answer for long.
    [[nodiscard]] bool job_may_hang() const { return rule_.method == AuthMethod::Peer; }
    /// The job has run to its end, or can't.
    [[nodiscard]] Step job_done();
    /// nullopt: it could not be looked up.
    [[nodiscard]] Step host_named(std::optional<ClientHostName> name, wire::Buffer& out);

    [[nodiscard]] const Error& error() const { return error_; }
    /// The refusal answers a wrong guess of a secret.
    [[nodiscard]] bool guessed() const { return guessed_; }
    /// For the server's log only: what the client isn't told, and which line asked for it.
    [[nodiscard]] std::string log_detail() const;
    [[nodiscard]] const wire::CancelRequest& cancel_request() const { return cancel_; }
    /// The startup message has come: user, database and so on are known (proven only after Step::Proven).
    [[nodiscard]] bool has_startup() const { return startup_.has_value(); }
    [[nodiscard]] wire::StartupMessage& startup() { return *startup_; }

    // After Proven.
    /// Asks anew whether the role is there and may log in: Proven or Refuse.
    [[nodiscard]] Step check_role();
    [[nodiscard]] const RoleInfo& role() const { return *role_; }
    [[nodiscard]] const std::optional<wire::ScramPassThrough>& pass_through() const { return pass_through_; }
    /// "method=scram-sha-256 (pg_hba.conf line 3) SSL enabled (protocol=TLSv1.3, ...)".
    [[nodiscard]] std::string how() const;

  private:
    enum class Phase : std::uint8_t { Startup, Md5, Password, SaslInitial, SaslResponse };
    struct JobResult;

    Step take_startup(wire::Bytes& input, wire::Buffer& out);
    Step begin_authentication(wire::Buffer& out);
    Status check_client_cert() const;
    Step work(std::function<void(JobResult&)> job);
    Step begin_peer();
    Step begin_password(wire::Buffer& out);
    Step begin_scram(wire::Buffer& out, std::optional<wire::ScramSecret> secret);
    Step take_answer(wire::Bytes& input, wire::Buffer& out);
    Step check_md5(wire::Bytes body);
    Step check_password(wire::Bytes body);
    Step check_sasl_initial(wire::Bytes body, wire::Buffer& out);
    Step check_sasl_response(wire::Bytes body, wire::Buffer& out);
    Step check_identity(std::string identity);
    Step authenticated();
    Status look_up_role();
    [[nodiscard]] std::string stored_password();
    Step refuse(Error error);
    /// auth_failed() of auth.c: the words belong to the method.
    Step refuse_by_method(std::string detail);

    Environment& environment_;
    ClientAddress from_;
    Phase phase_ = Phase::Startup;
    bool ssl_asked_ = false;
    bool gssenc_asked_ = false;
    bool tls_started_ = false;
    net::TlsInfo tls_;
    std::optional<wire::StartupMessage> startup_;
    wire::CancelRequest cancel_;
    Error error_;
    std::string detail_;
    bool guessed_ = false;
    AuthRule rule_;
    std::optional<RoleInfo> role_;
    std::string identity_;  // who it is elsewhere: the certificate's name, the operating system's user
    std::array<std::uint8_t, 4> md5_salt_{};
    std::unique_ptr<wire::ScramServerExchange> scram_;
    bool scram_first_pending_ = false;
    std::optional<wire::ScramPassThrough> pass_through_;
    std::function<void()> job_;
    std::shared_ptr<JobResult> job_result_;
};

}  // namespace pgxc::pooler
