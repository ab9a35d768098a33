#include "pooler/client_login.h"

#include <array>

#include "base/log.h"
#include "wire/framing.h"
#include "wire/messages.h"

namespace pgxc::pooler {

ClientLogin::ClientLogin(Environment& environment, ClientAddress from)
    : environment_(environment), from_(std::move(from)) {}

ClientLogin::Step ClientLogin::take(wire::Bytes& input, wire::Buffer& out) {
    Step step = Step::NeedMore;
    while (step == Step::NeedMore && !input.empty()) {
        const std::size_t before = input.size();
        step = phase_ == Phase::Startup ? take_startup(input, out) : take_answer(input, out);
        if (input.size() == before) break;
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
    // Each may be asked once, as in the server; more is not our protocol.
    if (std::holds_alternative<wire::SslRequest>(*packet)) {
        if (std::exchange(ssl_asked_, true)) return Step::CloseSilently;
        out.push_back(wire::encryption_refused);
        return Step::NeedMore;
    }
    if (std::holds_alternative<wire::GssEncRequest>(*packet)) {
        if (std::exchange(gssenc_asked_, true)) return Step::CloseSilently;
        out.push_back(wire::encryption_refused);
        return Step::NeedMore;
    }
    startup_ = std::get<wire::StartupMessage>(std::move(*packet));
    if (startup_->wants_negotiation()) wire::put_negotiate_protocol_version(out, *startup_);
    return begin_authentication(out);
}

ClientLogin::Step ClientLogin::begin_authentication(wire::Buffer& out) {
    const std::string where = "host \"" + from_.host() + "\", user \"" + startup_->user + "\", database \"" +
                              startup_->database + "\", " + (from_.tls ? "SSL encryption" : "no encryption");
    if (startup_->replication != wire::ReplicationRequest::None) {
        return refuse({sqlstate::feature_not_supported,
                       "replication connections are not possible through the pooler",
                       "Connect to the node itself."});
    }
    const AuthRule rule = environment_.match_hba(from_, startup_->database, startup_->user);
    switch (rule.method) {
        case AuthMethod::Trust:
            return check_role();
        case AuthMethod::Reject:
            if (rule.where.starts_with("no line")) {
                return refuse({sqlstate::invalid_authorization, "no pg_hba.conf entry for " + where});
            }
            return refuse({sqlstate::invalid_authorization, "pg_hba.conf rejects connection for " + where});
        case AuthMethod::ScramSha256:
        case AuthMethod::Md5:
            return begin_password(rule.method, out);
        case AuthMethod::Unsupported:
            break;
    }
    return refuse({sqlstate::feature_not_supported,
                   "authentication method \"" + rule.method_name + "\" (" + rule.where +
                       ") is not supported by the pooler",
                   "Use trust, scram-sha-256 or md5 there, or connect to the server itself."});
}

ClientLogin::Step ClientLogin::begin_password(AuthMethod method, wire::Buffer& out) {
    if (auto status = look_up_role(); !status) return refuse(status.error());
    const std::string stored = role_->exists ? role_->stored_password.value_or("") : "";
    if (method == AuthMethod::Md5 && wire::is_md5_secret(stored)) {
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
    static constexpr std::array mechanisms{wire::scram_sha_256};
    wire::put_authentication_sasl(out, mechanisms);
    phase_ = Phase::SaslInitial;
    return Step::NeedMore;
}

ClientLogin::Step ClientLogin::take_answer(wire::Bytes& input, wire::Buffer& out) {
    const auto phase = phase_ == Phase::Md5 ? wire::FrontendPhase::Password : wire::FrontendPhase::Sasl;
    const auto header = wire::read_frontend_header(input, phase);
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
    const auto password = wire::parse_password(body);
    if (!password) return refuse(password.error());
    const std::string expected = wire::md5_response(role_->stored_password.value_or(""), md5_salt_);
    return wire::equal_constant_time(*password, expected) ? check_role() : refuse_password();
}

ClientLogin::Step ClientLogin::check_sasl_initial(wire::Bytes body, wire::Buffer& out) {
    const auto initial = wire::parse_sasl_initial_response(body);
    if (!initial) return refuse(initial.error());
    if (initial->mechanism != wire::scram_sha_256) {
        return refuse(
            {sqlstate::protocol_violation, "client selected an invalid SASL authentication mechanism"});
    }
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
    if (!answer->has_value()) return refuse_password();
    wire::put_authentication_sasl_final(out, **answer);
    return check_role();
}

Status ClientLogin::look_up_role() {
    if (role_) return {};
    auto role = environment_.role(startup_->user);
    if (!role) return role.error();
    role_ = std::move(*role);
    return {};
}

ClientLogin::Step ClientLogin::check_role() {
    if (auto status = look_up_role(); !status) return refuse(status.error());
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

ClientLogin::Step ClientLogin::refuse_password() {
    return refuse(
        {sqlstate::invalid_password, "password authentication failed for user \"" + startup_->user + "\""});
}

}  // namespace pgxc::pooler
