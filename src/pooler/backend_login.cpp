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

}  // namespace

std::string Backend::where() const {
    return pool_.key().node.to_string() + " (" + address_.to_string() + ")";
}

void Backend::start(const HostPort& address) {
    address_ = address;
    phase_ = Phase::Resolving;
    deadline_ = context_.loop.call_after(context_.settings().connect_timeout, [this] {
        fail({phase_ == Phase::Resolving ? std::nullopt : std::optional{TrafficFailure::ConnectTimeout},
              true,
              {sqlstate::unable_to_connect, "no answer from " + where() + " within " +
                                                std::to_string(context_.settings().connect_timeout.count()) +
                                                " ms"}});
    });
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

void Backend::connect_next() {
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
    if (auto status = connection_.stream().forget_writable(); !status) {
        fail({std::nullopt, true, status.error()});
        return;
    }
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
            return;
        case wire::AuthenticationKind::Cleartext:
            send_password(false, {});
            return;
        case wire::AuthenticationKind::Md5:
            send_password(true, request->data);
            return;
        case wire::AuthenticationKind::Sasl:
            if (!request->offers(wire::scram_sha_256)) break;
            answer_sasl({});
            return;
        case wire::AuthenticationKind::SaslContinue: {
            auto answer = scram_
                              ? scram_->server_first(request->data)
                              : Result<std::string>{Error{sqlstate::protocol_violation, "SASL out of turn"}};
            if (!answer) {
                fail({std::nullopt, false, std::move(answer).error()});
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
    // Where the passfile tells nothing, the message must say where it was looked for.
    auto found =
        wire::find_password(read_passfile(), address_.host.starts_with('/') ? "localhost" : address_.host,
                            address_.port, pool_.key().database, pool_.key().user);
    if (!found) {
        fail({std::nullopt,
              false,
              {sqlstate::invalid_password,
               where() + " asks the pooler for the password of user \"" + pool_.key().user +
                   "\", which it doesn't know",
               "Add a line to the password file (.pgpass) of the operating system user that runs this "
               "server, or let "
               "pg_hba.conf there trust this host."}});
    }
    return found;
}

void Backend::answer_sasl(wire::Bytes) {
    const auto known = password();
    if (!known) return;
    std::array<std::uint8_t, wire::scram_raw_nonce_bytes> random{};
    if (!context_.environment.strong_random(random.data(), random.size())) {
        fail({std::nullopt, true, {sqlstate::internal_error, "could not generate nonce"}});
        return;
    }
    const auto prepared = context_.environment.saslprep(*known);
    scram_ = std::make_unique<wire::ScramClientExchange>(prepared.value_or(*known), random);
    wire::put_sasl_initial_response(connection_.out(), wire::scram_sha_256, scram_->first());
    if (!connection_.flush()) lost(std::strerror(connection_.error()));
}

void Backend::send_password(bool md5, wire::Bytes salt) {
    const auto known = password();
    if (!known) return;
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
    candidates_ = {};
    pool_.backend_ready(*this);
}

void Backend::fail(const BackendFailure& failure) {
    if (phase_ == Phase::Ended) return;
    phase_ = Phase::Ended;
    connection_.close();
    deadline_.reset();
    resolving_.reset();
    pool_.backend_failed(*this, failure);
}

}  // namespace pgxc::pooler
