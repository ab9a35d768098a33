#pragma once

#include <string>

#include "pooler/connection.h"
#include "pooler/environment.h"

namespace pgxc::pooler {

/// How a connection to a server becomes encrypted: SSLRequest, the server's one byte, the handshake, and the
/// look at whose certificate it is.
class TlsOpening {
  public:
    enum class Step : std::uint8_t {
        Wait,     // for the next on_readable()
        Secured,  // go on in TLS
        Refused,  // the server has no TLS, and it isn't a must: go on without
        Failed,   // error()
    };

    /// Sends the request. `host` is the name that the certificate must be for, as far as it must. False: the
    /// connection is broken.
    [[nodiscard]] bool begin(Connection& connection, NodeTls tls, std::string host);
    /// Reads what has come.
    [[nodiscard]] Step readable(Connection& connection);
    /// 08001, 08006, 08P01.
    [[nodiscard]] const Error& error() const { return error_; }
    /// The error is an errno's of the socket, and not the server's doing.
    [[nodiscard]] bool connection_lost() const { return lost_; }

  private:
    Step take_answer(Connection& connection, wire::Bytes answer);
    Step fail(Error error);
    Step lose(const std::string& cause);

    NodeTls tls_;
    std::string host_;
    bool handshaking_ = false;
    bool lost_ = false;
    Error error_;
};

}  // namespace pgxc::pooler
