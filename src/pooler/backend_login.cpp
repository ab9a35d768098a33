#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.h"
#include "pooler/backend.h"
#include "pooler/node_pool.h"
#include "wire/messages.h"
#include "wire/passfile.h"
#include "wire/startup.h"

namespace pgxc::pooler {
namespace {

constexpr off_t max_passfile_bytes = 1024 * 1024;

/// The passfile of the OS user that the server runs as, by libpq's rules: PGPASSFILE, else ~/.pgpass; a plain
/// file that only its owner can read. Empty where there is none.
std::string read_passfile() {
    std::string path;
    if (const char* given = std::getenv("PGPASSFILE"); given != nullptr && *given != '\0') {
        path = given;
    } else {
        passwd entry{};
        passwd* found = nullptr;
        std::vector<char> buffer(16384);
        if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
            return {};
        path = std::string{found->pw_dir} + "/.pgpass";
    }
    UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    struct stat info {};
    if (!fd.valid() || ::fstat(fd.get(), &info) != 0) return {};
    if (!S_ISREG(info.st_mode) || info.st_size > max_passfile_bytes) {
        log_warning("pooler: password file \"" + path + "\" is not a plain file of reasonable size");
        return {};
    }
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        log_warning("pooler: password file \"" + path +
                    "\" has group or world access; permissions should be u=rw (0600) or less");
        return {};
    }
    std::string text(static_cast<std::size_t>(info.st_size), '\0');
    const ssize_t got = ::read(fd.get(), text.data(), text.size());
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

/// A server that went on without it would be believed to be who it should be.
bool may_precede_authentication(wire::BackendMessage type) {
    return type == wire::BackendMessage::Authentication || type == wire::BackendMessage::ErrorResponse ||
           type == wire::BackendMessage::NoticeResponse ||
           type == wire::BackendMessage::NegotiateProtocolVersion;
}

}  // namespace

std::string Backend::where() const {
    return pool_.key().node.to_string() + " (" + address_.to_string() + ")";
}

void Backend::start(const HostPort& address) {
    address_ = address;
    node_tls_ = context_.environment.node_tls();
    // As libpq: a unix socket needs none. Nobody can listen in, so no channel must be bound, either.
    if (address.host.starts_with('/')) {
        node_tls_.mode = SslMode::Disable;
        node_tls_.bind_channel = node_tls_.must_bind_channel = false;
    }
    use_tls_ = node_tls_.mode >= SslMode::Prefer;
    phase_ = Phase::Resolving;
    arm_deadline();
    // A literal address is answered by the next round of the loop, so failures never come out of start().
    resolving_ = context_.resolver.resolve(address.host, address.port, [this](net::Resolver::Answer answer) {
        if (!answer) {
            fail({std::nullopt, true, std::move(answer).error()});
            return;
        }
        candidates_ = std::move(*answer);
        std::reverse(candidates_.begin(), candidates_.end());
        connect_next();
    });
}

/// The look-up of the name and each of its addresses have that time for themselves: else a first address that
/// doesn't answer would hide the others.
void Backend::arm_deadline() {
    deadline_ = context_.loop.call_after(context_.settings().connect_timeout, [this] {
        if (phase_ == Phase::Connecting && !candidates_.empty()) {
            fail_connect(ETIMEDOUT);
            return;
        }
        fail({phase_ == Phase::Resolving ? std::nullopt : std::optional{TrafficFailure::ConnectTimeout},
              true,
              {sqlstate::unable_to_connect, "no answer from " + where() + " within " +
                                                std::to_string(context_.settings().connect_timeout.count()) +
                                                " ms"}});
    });
}

void Backend::connect_next() {
    arm_deadline();
    connected_to_ = candidates_.back();
    candidates_.pop_back();
    auto socket = net::start_connect(connected_to_);
    if (socket.error != 0) {
        fail_connect(socket.error);
        return;
    }
    net::KeepAlive keep_alive;
    keep_alive.user_timeout_ms = static_cast<int>(context_.settings().connect_timeout.count()) * 3;
    net::tune_tcp(socket.fd.get(), keep_alive);
    auto stream = net::Stream::adopt(context_.loop, std::move(socket.fd), *this);
    if (!stream) {
        fail({std::nullopt, true, stream.error()});
        return;
    }
    connection_ = Connection{std::move(*stream)};
    phase_ = Phase::Connecting;
    connection_.stream().want_writable();
}

void Backend::fail_connect(int error_number) {
    connection_.close();
    if (!candidates_.empty()) {
        connect_next();
        return;
    }
    // A full backlog of a unix socket says EAGAIN: the server is there.
    std::optional<TrafficFailure> traffic = TrafficFailure::ConnectionLost;
    if (error_number == ECONNREFUSED || error_number == ENOENT) traffic = TrafficFailure::ConnectRefused;
    if (error_number == ETIMEDOUT || error_number == EHOSTUNREACH || error_number == ENETUNREACH) {
        traffic = TrafficFailure::ConnectTimeout;
    }
    if (error_number == EAGAIN || error_number == EMFILE || error_number == ENFILE) traffic = std::nullopt;
    fail({traffic,
          true,
          {sqlstate::unable_to_connect,
           "could not connect to " + where() + ": " + std::strerror(error_number)}});
}

void Backend::connected() {
    if (!use_tls_) {
        begin_startup();
        return;
    }
    phase_ = Phase::OpeningTls;
    opening_ = std::make_unique<TlsOpening>();
    if (!opening_->begin(connection_, node_tls_, address_.host)) lost(std::strerror(connection_.error()));
}

void Backend::open_tls() {
    const auto step = opening_->readable(connection_);
    switch (step) {
        case TlsOpening::Step::Wait:
            return;
        case TlsOpening::Step::Refused:
            use_tls_ = false;
            tried_both_ = true;
            begin_startup();
            return;
        case TlsOpening::Step::Secured:
            begin_startup();
            return;
        case TlsOpening::Step::Failed:
            break;
    }
    const Error error = opening_->error();
    if (opening_->connection_lost()) {
        lost(error.message);
        return;
    }
    if (may_fall_back() && retry_with(false)) return;
    // A certificate that isn't right doesn't become so by waiting.
    fail({std::nullopt,
          false,
          {error.sqlstate, "could not connect to " + where() + ": " + error.message, error.hint,
           error.detail}});
}

/// libpq's sslmode "prefer" would rather have no TLS than no connection, "allow" the other way round.
bool Backend::may_fall_back() const {
    if (tried_both_ || authenticated_ || node_tls_.must_bind_channel) return false;
    return use_tls_ ? node_tls_.mode == SslMode::Prefer : node_tls_.mode == SslMode::Allow;
}

bool Backend::retry_with(bool tls) {
    tried_both_ = true;
    use_tls_ = tls;
    scram_.reset();
    opening_.reset();
    reported_.clear();
    kept_.clear();
    authenticated_ = false;
    channel_bound_ = false;
    meter.connection_ends(connection_.bytes_sent());
    connection_.close();
    candidates_.push_back(connected_to_);
    connect_next();
    return true;
}

void Backend::begin_startup() {
    opening_.reset();
    phase_ = Phase::Login;
    // Above the role's own setting: the warning that a commit isn't on a synchronous slave must come (F19).
    static const std::array<wire::Setting, 1> settings{wire::Setting{"client_min_messages", "notice"}};
    wire::put_startup_message(connection_.out(), pool_.key().user, pool_.key().database, settings);
    if (!connection_.flush()) {
        lost(std::strerror(connection_.error()));
        return;
    }
    connection_.stream().want_readable(true);
}

void Backend::login_input(wire::Bytes& input) {
    while (phase_ == Phase::Login && !input.empty()) {
        const auto header = wire::read_backend_header(input);
        if (header.violation()) {
            fail({std::nullopt,
                  true,
                  {sqlstate::protocol_violation, where() + " does not speak the PostgreSQL protocol"}});
            return;
        }
        if (!header.complete() || input.size() < header.total_bytes()) return;
        const wire::Bytes body = input.substr(wire::header_bytes, header.body_bytes);
        input.remove_prefix(header.total_bytes());
        if (!authenticated_ && !may_precede_authentication(header.type)) {
            fail({std::nullopt,
                  true,
                  {sqlstate::protocol_violation, "expected authentication request from " + where() +
                                                     ", but received \"" + static_cast<char>(header.type) +
                                                     "\""}});
            return;
        }
        switch (header.type) {
            case wire::BackendMessage::Authentication:
                authenticate(body);
                break;
            case wire::BackendMessage::ParameterStatus:
                if (const auto status = wire::parse_parameter_status(body)) {
                    parameter_reported(status->name, status->value);
                }
                break;
            case wire::BackendMessage::BackendKeyData:
                if (const auto key = wire::parse_backend_key_data(body)) key_ = {key->pid, key->secret};
                break;
            case wire::BackendMessage::ErrorResponse: {
                const auto fields = wire::parse_error_fields(body);
                // pg_hba.conf there may have a line for the other kind.
                if (fields && fields->sqlstate.starts_with("28") && may_fall_back() && retry_with(!use_tls_))
                    return;
                if (fields && fields->sqlstate == sqlstate::invalid_password) keys_refused();
                refuse(fields ? fields->to_error() : fields.error());
                return;
            }
            case wire::BackendMessage::ReadyForQuery:
                ready();
                return;
            default:
                break;  // notices, and a lower protocol version than we never asked for
        }
    }
}

void Backend::refuse(Error error) {
    const std::string_view state = error.sqlstate;
    // It starts, recovers or shuts down, or has no slot free now: not an answer that a client must hear.
    const bool temporary = state == sqlstate::cannot_connect_now || state.starts_with("57P0") ||
                           state == sqlstate::too_many_connections || state == "53400" || state == "55006";
    if (!error.detail.empty()) error.detail += '\n';
    error.detail += "This is the answer of " + where() + " to the pooler.";
    fail({std::nullopt, temporary, std::move(error)});
}

void Backend::authenticate(wire::Bytes body) {
    const auto request = wire::parse_authentication(body);
    if (!request) {
        fail({std::nullopt, true, request.error()});
        return;
    }
    switch (request->kind) {
        case wire::AuthenticationKind::Ok:
            // A server that begins with SCRAM must show that it knows the secret, too.
            if ((scram_ && !scram_->finished()) || (node_tls_.must_bind_channel && !channel_bound_)) {
                fail({std::nullopt,
                      false,
                      {sqlstate::invalid_authorization,
                       where() +
                           (scram_ && !scram_->finished()
                                ? " has not proven that it knows the secret of user \""
                                : " has not bound the channel that it authenticated user \"") +
                           pool_.key().user + "\""}});
                return;
            }
            authenticated_ = true;
            return;
        case wire::AuthenticationKind::Cleartext:
            send_password(false, {});
            return;
        case wire::AuthenticationKind::Md5:
            send_password(true, request->data);
            return;
        case wire::AuthenticationKind::Sasl:
            if (!request->offers(wire::scram_sha_256) && !request->offers(wire::scram_sha_256_plus)) break;
            answer_sasl(*request);
            return;
        case wire::AuthenticationKind::SaslContinue: {
            auto answer = scram_
                              ? scram_->server_first(request->data)
                              : Result<std::string>{Error{sqlstate::protocol_violation, "SASL out of turn"}};
            if (!answer) {
                if (answer.error().sqlstate == sqlstate::invalid_password) {
                    fail(no_password("has another secret for user \"" + pool_.key().user +
                                     "\" than this coordinator"));
                } else {
                    fail({std::nullopt, false, std::move(answer).error()});
                }
                return;
            }
            wire::put_sasl_response(connection_.out(), *answer);
            if (!connection_.flush()) lost(std::strerror(connection_.error()));
            return;
        }
        case wire::AuthenticationKind::SaslFinal: {
            auto status = scram_ ? scram_->server_final(request->data)
                                 : Status{Error{sqlstate::protocol_violation, "SASL out of turn"}};
            if (!status) fail({std::nullopt, false, std::move(status).error()});
            return;
        }
        case wire::AuthenticationKind::KerberosV5:
        case wire::AuthenticationKind::Gss:
        case wire::AuthenticationKind::GssContinue:
        case wire::AuthenticationKind::Sspi:
            break;
    }
    fail({std::nullopt,
          false,
          {sqlstate::invalid_authorization,
           where() + " asks user \"" + pool_.key().user +
               "\" for an authentication that the pooler can't give",
           "Let pg_hba.conf there ask this host for trust, scram-sha-256, md5 or password."}});
}

std::optional<std::string> Backend::password() {
    return wire::find_password(read_passfile(), address_.host.starts_with('/') ? "localhost" : address_.host,
                               address_.port, pool_.key().database, pool_.key().user);
}

BackendFailure Backend::no_password(const std::string& what) const {
    return {
        std::nullopt,
        false,
        {sqlstate::invalid_password, where() + " " + what,
         "Give the role the same scram-sha-256 secret there as here (the text in pg_authid.rolpassword) and "
         "let it log in here with it, add a line to the password file (.pgpass) of the operating system "
         "user that runs this server, or let pg_hba.conf there trust this host."}};
}

void Backend::keys_refused() {
    if (scram_ && scram_->used_pass_through() && pass_key_) pass_key_->refused_by(pool_.key().node);
}

void Backend::answer_sasl(const wire::AuthenticationRequest& request) {
    wire::ScramClientExchange::Credentials credentials;
    pass_key_ = context_.pass_keys.find(pool_.key().user);
    if (pass_key_ && !pass_key_->serves(pool_.key().node)) pass_key_.reset();
    if (pass_key_) credentials.pass_through = pass_key_->pass_through();
    if (const auto known = password())
        credentials.password = context_.environment.saslprep(*known).value_or(*known);
    if (!credentials.pass_through && !credentials.password) {
        fail(no_password("asks the pooler for the password of user \"" + pool_.key().user +
                         "\", which it doesn't know"));
        return;
    }
    std::array<std::uint8_t, wire::scram_raw_nonce_bytes> random{};
    if (!context_.environment.strong_random(random.data(), random.size())) {
        fail({std::nullopt, true, {sqlstate::internal_error, "could not generate nonce"}});
        return;
    }
    scram_ = std::make_unique<wire::ScramClientExchange>(std::move(credentials), random);
    std::string_view mechanism = wire::scram_sha_256;
    if (connection_.stream().secured() && node_tls_.bind_channel) {
        std::string end_point = connection_.stream().tls()->info().server_end_point;
        channel_bound_ = !end_point.empty() && request.offers(wire::scram_sha_256_plus);
        if (channel_bound_) mechanism = wire::scram_sha_256_plus;
        scram_->bind_channel(std::move(end_point), channel_bound_);
    }
    if (node_tls_.must_bind_channel && !channel_bound_) {
        fail({std::nullopt,
              false,
              {sqlstate::unable_to_connect,
               "channel binding required, but not supported by " + where() + "'s authentication request"}});
        return;
    }
    wire::put_sasl_initial_response(connection_.out(), mechanism, scram_->first());
    if (!connection_.flush()) lost(std::strerror(connection_.error()));
}

void Backend::send_password(bool md5, wire::Bytes salt) {
    if (node_tls_.must_bind_channel) {
        fail({std::nullopt,
              false,
              {sqlstate::unable_to_connect,
               "channel binding required, but not supported by " + where() + "'s authentication request"}});
        return;
    }
    const auto known = password();
    if (!known) {
        fail(no_password("asks the pooler for the password of user \"" + pool_.key().user +
                         "\", which it doesn't know"));
        return;
    }
    if (md5) {
        std::array<std::uint8_t, 4> bytes{};
        std::memcpy(bytes.data(), salt.data(), std::min(bytes.size(), salt.size()));
        wire::put_password(connection_.out(),
                           wire::md5_response(wire::md5_secret(*known, pool_.key().user), bytes));
    } else {
        wire::put_password(connection_.out(), *known);
    }
    if (!connection_.flush()) lost(std::strerror(connection_.error()));
}

void Backend::ready() {
    // A server in recovery in a master's place would refuse every write: it isn't the master, whoever says
    // so.
    if (pool_.target().is_master && pool_.key().node.type == NodeType::Datanode &&
        reported_value("in_hot_standby") == "on") {
        fail({TrafficFailure::ServerSaysReadOnly,
              true,
              {sqlstate::connection_failure, where() + " is in recovery, though it should be the master"}});
        return;
    }
    phase_ = Phase::Ready;
    deadline_.reset();
    scram_.reset();
    pass_key_.reset();
    candidates_ = {};
    pool_.backend_ready(*this);
}

void Backend::fail(const BackendFailure& failure) {
    if (phase_ == Phase::Ended) return;
    give_up();
    pool_.backend_failed(*this, failure);
}

void Backend::give_up() {
    phase_ = Phase::Ended;
    connection_.close();
    deadline_.reset();
    resolving_.reset();
}

}  // namespace pgxc::pooler
