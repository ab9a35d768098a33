#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

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
        Proven,         // startup() may go on; AuthenticationOk is not sent yet
        Refuse,         // send error() as FATAL and close
        CloseSilently,  // what came isn't our protocol, or the client has gone
        Cancel,         // cancel_request() asks to cancel; then close
    };

    ClientLogin(Environment& environment, ClientAddress from);

    /// Takes what it can off the front of `input`; answers are appended to `out`.
    [[nodiscard]] Step take(wire::Bytes& input, wire::Buffer& out);

    [[nodiscard]] const Error& error() const { return error_; }
    [[nodiscard]] const wire::CancelRequest& cancel_request() const { return cancel_; }
    /// The startup message has come: user, database and so on are known (proven only after Step::Proven).
    [[nodiscard]] bool has_startup() const { return startup_.has_value(); }
    [[nodiscard]] wire::StartupMessage& startup() { return *startup_; }

  private:
    enum class Phase : std::uint8_t { Startup, Md5, SaslInitial, SaslResponse };

    Step take_startup(wire::Bytes& input, wire::Buffer& out);
    Step begin_authentication(wire::Buffer& out);
    Step begin_password(AuthMethod method, wire::Buffer& out);
    Step begin_scram(wire::Buffer& out, std::optional<wire::ScramSecret> secret);
    Step take_answer(wire::Bytes& input, wire::Buffer& out);
    Step check_md5(wire::Bytes body);
    Step check_sasl_initial(wire::Bytes body, wire::Buffer& out);
    Step check_sasl_response(wire::Bytes body, wire::Buffer& out);
    Status look_up_role();
    Step check_role();
    Step refuse(Error error);
    Step refuse_password();

    Environment& environment_;
    ClientAddress from_;
    Phase phase_ = Phase::Startup;
    bool ssl_asked_ = false;
    bool gssenc_asked_ = false;
    std::optional<wire::StartupMessage> startup_;
    wire::CancelRequest cancel_;
    Error error_;
    std::optional<RoleInfo> role_;
    std::array<std::uint8_t, 4> md5_salt_{};
    std::unique_ptr<wire::ScramServerExchange> scram_;
    bool scram_first_pending_ = false;
};

}  // namespace pgxc::pooler
