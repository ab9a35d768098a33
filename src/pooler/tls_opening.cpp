#include "pooler/tls_opening.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "wire/startup.h"

namespace pgxc::pooler {

bool TlsOpening::begin(Connection& connection, NodeTls tls, std::string host) {
    tls_ = std::move(tls);
    host_ = std::move(host);
    wire::put_ssl_request(connection.out());
    if (!connection.flush()) return false;
    connection.stream().want_readable(true);
    return true;
}

TlsOpening::Step TlsOpening::fail(Error error) {
    error_ = std::move(error);
    return Step::Failed;
}

TlsOpening::Step TlsOpening::lose(const std::string& cause) {
    lost_ = true;
    return fail({sqlstate::connection_failure, cause});
}

TlsOpening::Step TlsOpening::readable(Connection& connection) {
    std::array<char, 256> buffer{};
    const auto result = connection.stream().read(buffer);
    switch (result.outcome) {
        case net::IoResult::Outcome::Done:
            break;
        case net::IoResult::Outcome::WouldBlock: {
            if (!handshaking_ || !connection.stream().secured()) return Step::Wait;
            if (tls_.mode != SslMode::VerifyFull) return Step::Secured;
            auto status = connection.stream().tls()->check_host(host_);
            return status ? Step::Secured : fail(std::move(status).error());
        }
        case net::IoResult::Outcome::Ended:
            return lose("server closed the connection during the SSL negotiation");
        case net::IoResult::Outcome::Failed:
            if (result.error != EPROTO) return lose(std::strerror(result.error));
            return fail({sqlstate::connection_failure, "SSL error: " + connection.stream().tls()->error()});
    }
    if (handshaking_)
        return fail({sqlstate::protocol_violation, "the server speaks before it was asked anything"});
    return take_answer(connection, {buffer.data(), result.bytes});
}

TlsOpening::Step TlsOpening::take_answer(Connection& connection, wire::Bytes answer) {
    // Plain bytes behind the answer could be passed off as sent under the protection of TLS (CVE-2021-23222).
    if (answer.size() > 1 && answer[0] != 'E')
        return fail({sqlstate::protocol_violation, "received unencrypted data after SSL response"});
    if (answer[0] == wire::encryption_refused) {
        if (tls_.mode >= SslMode::Require || tls_.must_bind_channel)
            return fail({sqlstate::unable_to_connect, "server does not support SSL, but SSL was required",
                         "Switch ssl on there, or change sslmode in pgxc.node_conninfo."});
        return Step::Refused;
    }
    if (answer[0] == 'E') return lose("the server could not begin to answer");
    if (answer[0] != wire::ssl_accepted)
        return fail({sqlstate::protocol_violation, "received invalid response to SSL negotiation"});
    if (tls_.context == nullptr) return fail(tls_.error);
    handshaking_ = true;
    auto status =
        connection.stream().start_tls(tls_.context, tls_.server_name_indication ? host_ : std::string{});
    return status ? Step::Wait : fail(std::move(status).error());
}

}  // namespace pgxc::pooler
