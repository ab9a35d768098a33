#include "pooler/client_login.h"

#include <pwd.h>

#include <array>
#include <vector>

#include "wire/framing.h"
#include "wire/messages.h"

namespace pgxc::pooler {

/// What a job has found out, of whichever kind it was.
struct ClientLogin::JobResult {
    bool finished = false;  // else there was no memory or thread for it
    std::optional<std::string> system_user;
    std::optional<bool> password_right;
};

namespace {

std::optional<std::string> user_name_of(uid_t uid) {
    passwd entry{};
    passwd* found = nullptr;
    std::vector<char> buffer(16384);
    if (::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
        return std::nullopt;
    return std::string{found->pw_name};
}

/// What a client has answered with; never empty.
Result<std::string_view> given_password(wire::Bytes body) {
    auto password = wire::parse_password(body);
    if (password && password->empty())
        return Error{sqlstate::invalid_password, "empty password returned by client"};
    return password;
}

/// Overwritten when nobody needs it any more.
class PlainPassword {
  public:
    explicit PlainPassword(std::string text) : text_(std::move(text)) {}
    PlainPassword(const PlainPassword&) = delete;
    PlainPassword& operator=(const PlainPassword&) = delete;
    ~PlainPassword() {
        volatile char* at = text_.data();
        for (std::size_t i = 0; i < text_.size(); ++i) at[i] = '\0';
    }
    [[nodiscard]] const std::string& text() const { return text_; }

  private:
    std::string text_;
};

}  // namespace

ClientLogin::ClientLogin(Environment& environment, ClientAddress from)
    : environment_(environment), from_(std::move(from)) {}

ClientLogin::~ClientLogin() {
    if (pass_through_) wire::forget(pass_through_->keys);
}

ClientLogin::Step ClientLogin::take(wire::Bytes& input, wire::Buffer& out) {
    Step step = Step::NeedMore;
    while (step == Step::NeedMore && !input.empty()) {
        const std::size_t before = input.size();
        step = phase_ == Phase::Startup ? take_startup(input, out) : take_answer(input, out);
        if (input.size() == before) break;
    }
    // Plain bytes behind the request could be passed off as sent under the protection of TLS
    // (CVE-2021-23214).
    if (step == Step::StartTls && !input.empty()) {
        input = {};
        return refuse({sqlstate::protocol_violation,
                       "received unencrypted data after SSL request",
                       {},
                       "This could be either a client-software bug or evidence of an attempted "
                       "man-in-the-middle attack."});
    }
    return step;
}

ClientLogin::Step ClientLogin::take_startup(wire::Bytes& input, wire::Buffer& out) {
    const auto bytes = wire::startup_packet_bytes(input);
    if (!bytes) return Step::CloseSilently;
    if (!bytes->has_value() || input.size() < **bytes) return Step::NeedMore;
    auto packet = wire::parse_startup_packet(input.substr(0, **bytes));
    input.remove_prefix(**bytes);
    if (!packet) return refuse(std::move(packet).error());
    if (const auto* cancel = std::get_if<wire::CancelRequest>(&*packet)) {
        cancel_ = *cancel;
        return Step::Cancel;
    }
    // Each may be asked once, and neither within TLS, as in the server; more is not our protocol.
    if (std::holds_alternative<wire::SslRequest>(*packet)) {
        if (tls_started_ || std::exchange(ssl_asked_, true)) return Step::CloseSilently;
        if (from_.is_unix || environment_.tls() == nullptr) {
            out.push_back(wire::encryption_refused);
            return Step::NeedMore;
        }
        out.push_back(wire::ssl_accepted);
        tls_started_ = true;
        return Step::StartTls;
    }
    if (std::holds_alternative<wire::GssEncRequest>(*packet)) {
        if (tls_started_ || std::exchange(gssenc_asked_, true)) return Step::CloseSilently;
        out.push_back(wire::encryption_refused);
        return Step::NeedMore;
    }
    startup_ = std::get<wire::StartupMessage>(std::move(*packet));
    if (startup_->wants_negotiation()) wire::put_negotiate_protocol_version(out, *startup_);
    return begin_authentication(out);
}

void ClientLogin::secured(net::TlsInfo info) {
    from_.tls = true;
    tls_ = std::move(info);
}

ClientLogin::Step ClientLogin::begin_authentication(wire::Buffer& out) {
    const std::string where = "host \"" + from_.host() + "\", user \"" + startup_->user + "\", database \"" +
                              startup_->database + "\", " + (from_.tls ? "SSL encryption" : "no encryption");
    if (startup_->replication != wire::ReplicationRequest::None) {
        return refuse({sqlstate::feature_not_supported,
                       "replication connections are not possible through the pooler",
                       "Connect to the node itself."});
    }
    rule_ = environment_.match_hba(from_, startup_->database, startup_->user);
    if (auto status = check_client_cert(); !status) return refuse(status.error());
    switch (rule_.method) {
        case AuthMethod::NeedsHostName:
            return Step::NameHost;
        case AuthMethod::Trust:
        case AuthMethod::Cert:
            return authenticated();
        case AuthMethod::Reject:
            if (rule_.where.starts_with("no line")) {
                return refuse({sqlstate::invalid_authorization, "no pg_hba.conf entry for " + where});
            }
            return refuse({sqlstate::invalid_authorization, "pg_hba.conf rejects connection for " + where});
        case AuthMethod::ScramSha256:
        case AuthMethod::Md5:
        case AuthMethod::Password:
            return begin_password(out);
        case AuthMethod::Peer:
            return begin_peer();
        case AuthMethod::Unsupported:
            break;
    }
    return refuse({sqlstate::feature_not_supported,
                   "authentication method \"" + rule_.method_name + "\" (" + rule_.where +
                       ") is not supported by the pooler",
                   "Use trust, scram-sha-256, md5, password, cert or peer there, or connect to the server "
                   "itself."});
}

/// ClientAuthentication(): before the method, whichever it is.
Status ClientLogin::check_client_cert() const {
    if (rule_.client_cert == ClientCert::NotAsked && rule_.method != AuthMethod::Cert) return {};
    if (!tls_.verifies_peer) {
        return Error{sqlstate::config_file_error,
                     "client certificates can only be checked if a root certificate store is available"};
    }
    if (!tls_.peer_certificate) {
        return Error{sqlstate::invalid_authorization, "connection requires a valid client certificate"};
    }
    return {};
}

ClientLogin::Step ClientLogin::work(std::function<void(JobResult&)> job) {
    job_result_ = std::make_shared<JobResult>();
    job_ = [result = job_result_, job = std::move(job)] {
        job(*result);
        result->finished = true;
    };
    return Step::Work;
}

ClientLogin::Step ClientLogin::host_named(std::optional<ClientHostName> name, wire::Buffer& out) {
    // Who has no name is not who a line refuses by it: that must be known.
    if (!name) return refuse({sqlstate::internal_error, "could not look up the host name of the client"});
    from_.host_name = std::move(*name);
    return begin_authentication(out);
}

ClientLogin::Step ClientLogin::begin_peer() {
    if (!from_.is_unix || !from_.peer_uid) {
        return refuse({sqlstate::invalid_authorization, "peer authentication is not supported here"});
    }
    return work([uid = *from_.peer_uid](JobResult& result) { result.system_user = user_name_of(uid); });
}

ClientLogin::Step ClientLogin::job_done() {
    const std::shared_ptr<JobResult> result = std::move(job_result_);
    if (!result) return Step::NeedMore;
    if (!result->finished)
        return refuse({sqlstate::internal_error, "could not check the login: no memory or thread for it"});
    if (result->password_right) {
        return *result->password_right ? authenticated() : refuse_by_method("The password does not match.");
    }
    if (!result->system_user) {
        return refuse_by_method("The user id " + std::to_string(from_.peer_uid.value_or(0)) +
                                " has no name.");
    }
    return check_identity(std::move(*result->system_user));
}

std::string ClientLogin::stored_password() {
    return role_->exists ? role_->stored_password.value_or("") : "";
}

ClientLogin::Step ClientLogin::begin_password(wire::Buffer& out) {
    if (rule_.method == AuthMethod::Password) {
        phase_ = Phase::Password;
        wire::put_authentication_cleartext(out);
        return Step::NeedMore;
    }
    if (auto status = look_up_role(); !status) return refuse(status.error());
    const std::string stored = stored_password();
    if (rule_.method == AuthMethod::Md5 && wire::is_md5_secret(stored)) {
        if (!environment_.strong_random(md5_salt_.data(), md5_salt_.size())) {
            return refuse({sqlstate::internal_error, "could not generate random MD5 salt"});
        }
        phase_ = Phase::Md5;
        wire::put_authentication_md5(out, md5_salt_);
        return Step::NeedMore;
    }
    // A secret of another form, or none: the exchange runs to its end with a mock, and fails there.
    return begin_scram(out, wire::parse_scram_secret(stored));
}

ClientLogin::Step ClientLogin::begin_scram(wire::Buffer& out, std::optional<wire::ScramSecret> secret) {
    std::array<std::uint8_t, wire::scram_raw_nonce_bytes> random{};
    if (!environment_.strong_random(random.data(), random.size())) {
        return refuse({sqlstate::internal_error, "could not generate random nonce"});
    }
    const bool doomed = !secret.has_value();
    if (doomed) secret = wire::mock_scram_secret(startup_->user, environment_.mock_nonce());
    scram_ = std::make_unique<wire::ScramServerExchange>(std::move(*secret), doomed, random);
    // The better one first, as the server does.
    static constexpr std::array mechanisms{wire::scram_sha_256_plus, wire::scram_sha_256};
    const std::span<const std::string_view> offered{mechanisms};
    wire::put_authentication_sasl(out, tls_.server_end_point.empty() ? offered.subspan(1) : offered);
    phase_ = Phase::SaslInitial;
    return Step::NeedMore;
}

ClientLogin::Step ClientLogin::take_answer(wire::Bytes& input, wire::Buffer& out) {
    const bool plain = phase_ == Phase::Md5 || phase_ == Phase::Password;
    const auto header =
        wire::read_frontend_header(input, plain ? wire::FrontendPhase::Password : wire::FrontendPhase::Sasl);
    if (header.violation()) {
        // A client that hangs up politely instead of answering.
        if (input[0] == static_cast<char>(wire::FrontendMessage::Terminate)) return Step::CloseSilently;
        return refuse(wire::to_error(header));
    }
    if (!header.complete() || input.size() < header.total_bytes()) return Step::NeedMore;
    const wire::Bytes body = input.substr(wire::header_bytes, header.body_bytes);
    input.remove_prefix(header.total_bytes());
    switch (phase_) {
        case Phase::Md5:
            return check_md5(body);
        case Phase::Password:
            return check_password(body);
        case Phase::SaslInitial:
            return check_sasl_initial(body, out);
        case Phase::SaslResponse:
            return check_sasl_response(body, out);
        case Phase::Startup:
            break;
    }
    return Step::CloseSilently;
}

ClientLogin::Step ClientLogin::check_md5(wire::Bytes body) {
    const auto password = given_password(body);
    if (!password) return refuse(password.error());
    const std::string expected = wire::md5_response(stored_password(), md5_salt_);
    // Nothing is expected where OpenSSL refuses MD5: then nothing is right.
    return !expected.empty() && wire::equal_constant_time(*password, expected)
               ? authenticated()
               : refuse_by_method("The password does not match.");
}

ClientLogin::Step ClientLogin::check_password(wire::Bytes body) {
    const auto password = given_password(body);
    if (!password) return refuse(password.error());
    if (auto status = look_up_role(); !status) return refuse(status.error());
    const std::string stored = stored_password();
    if (wire::is_md5_secret(stored)) {
        const std::string given = wire::md5_secret(*password, startup_->user);
        return wire::equal_constant_time(given, stored) ? authenticated()
                                                        : refuse_by_method("The password does not match.");
    }
    const auto secret = wire::parse_scram_secret(stored);
    if (!secret) return refuse_by_method({});
    if (secret->iterations > wire::scram_max_iterations) {
        return refuse_by_method("The role's SCRAM secret has " + std::to_string(secret->iterations) +
                                " iterations: a password is checked with " +
                                std::to_string(wire::scram_max_iterations) + " at most.");
    }
    const PlainPassword given{std::string{*password}};
    auto prepared =
        std::make_shared<const PlainPassword>(environment_.saslprep(given.text()).value_or(given.text()));
    // Thousands of hashes: the other clients needn't wait for them.
    return work([secret = *secret, prepared = std::move(prepared)](JobResult& result) {
        result.password_right = wire::verify_plain_password(prepared->text(), secret);
    });
}

ClientLogin::Step ClientLogin::check_sasl_initial(wire::Bytes body, wire::Buffer& out) {
    const auto initial = wire::parse_sasl_initial_response(body);
    if (!initial) return refuse(initial.error());
    const bool plus = initial->mechanism == wire::scram_sha_256_plus && !tls_.server_end_point.empty();
    if (!plus && initial->mechanism != wire::scram_sha_256) {
        return refuse(
            {sqlstate::protocol_violation, "client selected an invalid SASL authentication mechanism"});
    }
    if (!tls_.server_end_point.empty()) scram_->bind_channel(tls_.server_end_point, plus);
    phase_ = Phase::SaslResponse;
    // Without data the server sends an empty challenge; the client's next message begins the exchange then.
    if (!initial->data) {
        scram_first_pending_ = true;
        wire::put_authentication_sasl_continue(out, "");
        return Step::NeedMore;
    }
    auto answer = scram_->client_first(*initial->data);
    if (!answer) return refuse(std::move(answer).error());
    wire::put_authentication_sasl_continue(out, *answer);
    return Step::NeedMore;
}

ClientLogin::Step ClientLogin::check_sasl_response(wire::Bytes body, wire::Buffer& out) {
    if (std::exchange(scram_first_pending_, false)) {
        auto first = scram_->client_first(body);
        if (!first) return refuse(std::move(first).error());
        wire::put_authentication_sasl_continue(out, *first);
        return Step::NeedMore;
    }
    auto answer = scram_->client_final(body);
    if (!answer) return refuse(std::move(answer).error());
    if (!answer->has_value()) return refuse_by_method({});
    wire::put_authentication_sasl_final(out, **answer);
    if (const auto& keys = scram_->client_keys()) {
        pass_through_ = wire::ScramPassThrough{*keys, scram_->secret().salt, scram_->secret().iterations};
    }
    return authenticated();
}

ClientLogin::Step ClientLogin::authenticated() {
    const bool by_name = rule_.method == AuthMethod::Cert || rule_.client_cert == ClientCert::VerifyFull;
    if (!by_name) return check_role();
    return check_identity(rule_.certificate_dn ? tls_.distinguished_name : tls_.common_name);
}

ClientLogin::Step ClientLogin::check_identity(std::string identity) {
    identity_ = std::move(identity);
    if (identity_.empty()) return refuse_by_method("The client certificate contains no user name.");
    if (environment_.maps_to(rule_.map, identity_, startup_->user)) return check_role();
    const std::string who = "\"" + startup_->user + "\" authenticated as \"" + identity_ + "\"";
    return refuse_by_method(rule_.map.empty()
                                ? "Provided user name and authenticated user name do not match: " + who
                                : "No match in usermap \"" + rule_.map + "\" for user " + who);
}

/// Each time anew: a client decides how long it takes to answer.
Status ClientLogin::look_up_role() {
    auto role = environment_.role(startup_->user);
    if (!role) return role.error();
    role_ = std::move(*role);
    return {};
}

ClientLogin::Step ClientLogin::check_role() {
    const std::uint32_t proven = role_ ? role_->oid : 0;
    if (auto status = look_up_role(); !status) return refuse(status.error());
    if (proven != 0 && role_->exists && role_->oid != proven)
        return refuse_by_method("The role was renamed or made anew meanwhile.");
    if (!role_->exists) {
        return refuse({sqlstate::invalid_authorization, "role \"" + startup_->user + "\" does not exist"});
    }
    if (!role_->can_login) {
        return refuse(
            {sqlstate::invalid_authorization, "role \"" + startup_->user + "\" is not permitted to log in"});
    }
    return Step::Proven;
}

ClientLogin::Step ClientLogin::refuse(Error error) {
    error_ = std::move(error);
    return Step::Refuse;
}

ClientLogin::Step ClientLogin::refuse_by_method(std::string detail) {
    detail_ = std::move(detail);
    if (role_ && detail_.empty()) {
        if (!role_->exists) {
            detail_ = "The role does not exist.";
        } else if (role_->password_expired) {
            detail_ = "The role has an expired password.";
        } else if (!role_->stored_password) {
            detail_ = "The role has no password assigned.";
        } else if (scram_ && wire::is_md5_secret(*role_->stored_password)) {
            detail_ = "The role does not have a valid SCRAM secret.";
        } else {
            detail_ = "The password does not match.";
        }
    }
    guessed_ = true;
    const std::string user = " for user \"" + startup_->user + "\"";
    switch (rule_.method) {
        case AuthMethod::ScramSha256:
        case AuthMethod::Md5:
        case AuthMethod::Password:
            return refuse({sqlstate::invalid_password, "password authentication failed" + user});
        case AuthMethod::Trust:
            return refuse({sqlstate::invalid_authorization, "\"trust\" authentication failed" + user});
        case AuthMethod::Peer:
            return refuse({sqlstate::invalid_authorization, "Peer authentication failed" + user});
        case AuthMethod::Cert:
            return refuse({sqlstate::invalid_authorization, "certificate authentication failed" + user});
        case AuthMethod::Reject:
        case AuthMethod::NeedsHostName:
        case AuthMethod::Unsupported:
            break;
    }
    return refuse({sqlstate::invalid_authorization, "authentication failed" + user});
}

std::string ClientLogin::log_detail() const {
    std::string text = detail_.empty() ? error_.detail : detail_;
    if (!rule_.where.empty()) text += (text.empty() ? "" : " ") + ("(" + rule_.where + ")");
    return text;
}

std::string ClientLogin::how() const {
    std::string text = "method=" + rule_.method_name + " (" + rule_.where + ")";
    if (!identity_.empty()) text += " identity=\"" + identity_ + "\"";
    if (from_.tls)
        text += " SSL enabled (protocol=" + tls_.protocol + ", cipher=" + tls_.cipher +
                ", bits=" + std::to_string(tls_.bits) + ")";
    return text;
}

}  // namespace pgxc::pooler
