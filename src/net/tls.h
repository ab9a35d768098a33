#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

struct ssl_ctx_st;
struct ssl_st;

/// TLS by OpenSSL, apart from any socket: bytes in, bytes out. Stream puts it on a connection.
namespace pgxc::net {

/// What a PostgreSQL server's ssl_* settings say (be-secure-openssl.c); empty = not set.
struct TlsServerSettings {
    std::string cert_file;
    std::string key_file;
    std::string ca_file;  // without it no client certificate is asked for
    std::string crl_file;
    std::string crl_dir;
    std::string ciphers;         // up to TLS 1.2
    std::string cipher_suites;   // TLS 1.3
    std::string dh_params_file;  // empty: OpenSSL chooses parameters to fit the key
    std::string groups;          // ssl_ecdh_curve
    std::string min_protocol;    // "TLSv1.2" and so on
    std::string max_protocol;
    bool prefer_server_ciphers = true;
    /// Asked where the key file is encrypted; nullopt or none: such a key can't be used.
    std::function<std::optional<std::string>()> passphrase;
};

/// What libpq's ssl* options say; files that are named must be there.
struct TlsClientSettings {
    std::string root_cert;  // empty: the server's certificate is not verified
    bool system_roots =
        false;  // by what OpenSSL trusts on this system, in place of root_cert; without `crl`s
    std::string cert;
    std::string key;
    std::string key_password;
    std::string crl;
    std::string crl_dir;
    std::string min_protocol;
    std::string max_protocol;
};

/// What is loaded once and used by many connections, for one side. A connection keeps its context alive, so
/// that a new one may take its place at any time.
class TlsContext {
  public:
    /// Errors F0000 name the file or setting.
    [[nodiscard]] static Result<std::shared_ptr<const TlsContext>> server(const TlsServerSettings& settings);
    [[nodiscard]] static Result<std::shared_ptr<const TlsContext>> client(const TlsClientSettings& settings);
    ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;

    /// Server: a client's certificate is asked for, and verified where it sends one. Client: the server's is.
    [[nodiscard]] bool verifies_peer() const { return verifies_peer_; }

  private:
    friend class TlsSession;
    TlsContext(ssl_ctx_st* context, bool server) : context_(context), server_(server) {}

    ssl_ctx_st* context_;
    bool server_;
    bool verifies_peer_ = false;
};

/// What a finished handshake has found out.
struct TlsInfo {
    std::string protocol;  // "TLSv1.3"
    std::string cipher;
    int bits = 0;
    bool verifies_peer = false;      // as the context
    bool peer_certificate = false;   // sent, and verified if the context verifies
    std::string common_name;         // of the peer's certificate
    std::string distinguished_name;  // RFC 2253
    /// The channel binding tls-server-end-point (RFC 5929): a hash of the server's certificate; empty where
    /// its signature has no hash.
    std::string server_end_point;
};

/// One connection's TLS. Encrypted bytes are put in by feed() and taken from output(). Renegotiation and
/// compression are off.
class TlsSession {
  public:
    /// `server_name`: a client sends it (SNI) unless it is empty or an address.
    [[nodiscard]] static Result<std::unique_ptr<TlsSession>> start(std::shared_ptr<const TlsContext> context,
                                                                   const std::string& server_name = {});
    ~TlsSession();
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;

    enum class Step : std::uint8_t {
        Done,      // handshake: over; read: bytes were given
        NeedMore,  // all that was fed is used up
        Ended,     // the peer has said goodbye
        Failed,    // error() says why; nothing goes on
    };

    /// Lends encrypted input until the next call of feed() or keep(); what is not used by then must be
    /// kept by keep().
    void feed(std::string_view encrypted);
    /// Copies what has not been used of the lent input.
    void keep();
    [[nodiscard]] Step handshake();
    [[nodiscard]] bool established() const { return established_; }
    /// Decrypts into `into` as much as fits; `bytes` > 0 exactly if Done. `more()` tells whether a next call
    /// may give more without being fed.
    [[nodiscard]] Step read(std::span<char> into, std::size_t& bytes);
    [[nodiscard]] bool more() const { return more_; }
    /// Encrypts all of it. False: failed.
    [[nodiscard]] bool write(std::string_view plain);
    /// Encrypts the goodbye.
    void shut_down();

    /// Encrypted bytes to be sent; whoever sends them takes them off.
    [[nodiscard]] std::string& output() { return output_; }
    [[nodiscard]] const std::string& error() const { return error_; }
    /// After the handshake.
    [[nodiscard]] TlsInfo info() const;
    /// Client, after the handshake: is the certificate one for this host (name or address)? Error 08006.
    [[nodiscard]] Status check_host(const std::string& host) const;

  private:
    friend struct TlsBio;
    explicit TlsSession(std::shared_ptr<const TlsContext> context) : context_(std::move(context)) {}
    Step judge(int result);
    void note_error();

    std::shared_ptr<const TlsContext> context_;
    ssl_st* ssl_ = nullptr;
    std::string_view lent_;
    std::string kept_;
    std::size_t kept_used_ = 0;
    std::string output_;
    std::string error_;
    bool established_ = false;
    bool failed_ = false;
    bool more_ = false;
};

}  // namespace pgxc::net
