#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/tls.h"

namespace pgxc::net {
namespace {

std::string last_openssl_error() {
    const unsigned long code = ERR_get_error();
    ERR_clear_error();
    if (code == 0) return "no SSL error reported";
    // System errors (a file that isn't there) have no reason of OpenSSL's.
    if (ERR_SYSTEM_ERROR(code)) return std::strerror(ERR_GET_REASON(code));
    const char* reason = ERR_reason_error_string(code);
    return reason != nullptr ? reason : "SSL error code " + std::to_string(code);
}

Error bad(std::string message) {
    return {sqlstate::config_file_error, std::move(message)};
}
Error bad_with_reason(const std::string& message) {
    return bad(message + ": " + last_openssl_error());
}

const char* or_null(const std::string& text) {
    return text.empty() ? nullptr : text.c_str();
}

/// The server's and libpq's rule for key files: nobody else may read one, or it is root's and its group may.
Status check_key_file(const std::string& file) {
    struct stat info {};
    if (::stat(file.c_str(), &info) != 0)
        return bad("could not access private key file \"" + file + "\": " + std::strerror(errno));
    if (!S_ISREG(info.st_mode)) return bad("private key file \"" + file + "\" is not a regular file");
    if (info.st_uid != ::geteuid() && info.st_uid != 0)
        return bad("private key file \"" + file + "\" must be owned by the database user or root");
    const mode_t forbidden =
        info.st_uid == 0 && ::geteuid() != 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;
    if ((info.st_mode & forbidden) != 0) {
        return Error{sqlstate::config_file_error,
                     "private key file \"" + file + "\" has group or world access",
                     "File must have permissions u=rw (0600) or less if owned by the database user, or "
                     "permissions u=rw,g=r (0640) or less if owned by root."};
    }
    return {};
}

Result<int> protocol_version(const std::string& name) {
    if (name.empty()) return 0;
    if (name == "TLSv1") return TLS1_VERSION;
    if (name == "TLSv1.1") return TLS1_1_VERSION;
    if (name == "TLSv1.2") return TLS1_2_VERSION;
    if (name == "TLSv1.3") return TLS1_3_VERSION;
    return bad("\"" + name + "\" is no TLS protocol version");
}

Status set_protocols(SSL_CTX* context, const std::string& lowest, const std::string& highest) {
    const auto low = protocol_version(lowest);
    if (!low) return low.error();
    const auto high = protocol_version(highest);
    if (!high) return high.error();
    if (SSL_CTX_set_min_proto_version(context, *low) != 1)
        return bad("could not set minimum SSL protocol version \"" + lowest + "\"");
    if (SSL_CTX_set_max_proto_version(context, *high) != 1)
        return bad("could not set maximum SSL protocol version \"" + highest + "\"");
    if (*low != 0 && *high != 0 && *low > *high)
        return bad("the minimum SSL protocol version is above the maximum");
    return {};
}

Status load_revocations(SSL_CTX* context, const std::string& file, const std::string& directory) {
    if (file.empty() && directory.empty()) return {};
    X509_STORE* store = SSL_CTX_get_cert_store(context);
    if (X509_STORE_load_locations(store, or_null(file), or_null(directory)) != 1) {
        return bad_with_reason("could not load SSL certificate revocation list \"" +
                               (file.empty() ? directory : file) + "\"");
    }
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return {};
}

using Passphrase = std::function<std::optional<std::string>()>;

int give_passphrase(char* buffer, int size, int /*writing*/, void* from) {
    const auto& ask = *static_cast<const Passphrase*>(from);
    const auto text = ask ? ask() : std::nullopt;
    if (!text || text->empty() || text->size() >= static_cast<std::size_t>(size)) return 0;
    std::copy(text->begin(), text->end(), buffer);  // OpenSSL takes its length, not an end
    return static_cast<int>(text->size());
}

Status load_certificate(SSL_CTX* context, const std::string& cert, const std::string& key,
                        Passphrase passphrase) {
    if (SSL_CTX_use_certificate_chain_file(context, cert.c_str()) != 1)
        return bad_with_reason("could not load certificate file \"" + cert + "\"");
    if (auto status = check_key_file(key); !status) return status;
    // Set in any case: OpenSSL's own function would ask the terminal.
    SSL_CTX_set_default_passwd_cb(context, give_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(context, &passphrase);
    const bool loaded = SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) == 1;
    SSL_CTX_set_default_passwd_cb_userdata(context, nullptr);
    SSL_CTX_set_default_passwd_cb(context, nullptr);
    if (!loaded) return bad_with_reason("could not load private key file \"" + key + "\"");
    if (SSL_CTX_check_private_key(context) != 1)
        return bad_with_reason("the private key \"" + key + "\" doesn't fit the certificate \"" + cert +
                               "\"");
    return {};
}

Status load_dh_parameters(SSL_CTX* context, const std::string& file) {
    if (file.empty()) {
        SSL_CTX_set_dh_auto(context, 1);
        return {};
    }
    BIO* bio = BIO_new_file(file.c_str(), "r");
    if (bio == nullptr) return bad_with_reason("could not open DH parameters file \"" + file + "\"");
    EVP_PKEY* parameters = PEM_read_bio_Parameters(bio, nullptr);
    BIO_free(bio);
    if (parameters == nullptr) return bad_with_reason("could not load DH parameters file \"" + file + "\"");
    if (SSL_CTX_set0_tmp_dh_pkey(context, parameters) != 1) {
        EVP_PKEY_free(parameters);
        return bad_with_reason("could not use the DH parameters of file \"" + file + "\"");
    }
    return {};
}

void set_common(SSL_CTX* context) {
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_SSLv2 |
                                     SSL_OP_NO_SSLv3 | SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    // A buffer for writing may move, and an idle connection has no buffers.
    SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
}

}  // namespace

TlsContext::~TlsContext() {
    SSL_CTX_free(context_);
}

Result<std::shared_ptr<const TlsContext>> TlsContext::server(const TlsServerSettings& settings) {
    ERR_clear_error();
    SSL_CTX* context = SSL_CTX_new(TLS_server_method());
    if (context == nullptr) return bad_with_reason("could not create SSL context");
    std::shared_ptr<TlsContext> made{new TlsContext{context, true}};
    set_common(context);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_options(context, SSL_OP_SINGLE_DH_USE | SSL_OP_SINGLE_ECDH_USE);
    if (settings.prefer_server_ciphers) SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);

    if (auto status = load_certificate(context, settings.cert_file, settings.key_file, settings.passphrase);
        !status)
        return status.error();
    if (auto status = set_protocols(context, settings.min_protocol, settings.max_protocol); !status)
        return status.error();
    if (auto status = load_dh_parameters(context, settings.dh_params_file); !status) return status.error();
    if (!settings.groups.empty() && SSL_CTX_set1_groups_list(context, settings.groups.c_str()) != 1)
        return bad("ECDH: unrecognized curve name: " + settings.groups);
    if (!settings.ciphers.empty() && SSL_CTX_set_cipher_list(context, settings.ciphers.c_str()) != 1)
        return bad("could not set the cipher list (no valid ciphers available)");
    if (!settings.cipher_suites.empty() &&
        SSL_CTX_set_ciphersuites(context, settings.cipher_suites.c_str()) != 1)
        return bad("could not set the TLSv1.3 cipher suites (no valid ciphers available)");

    if (!settings.ca_file.empty()) {
        STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(settings.ca_file.c_str());
        if (names == nullptr ||
            SSL_CTX_load_verify_locations(context, settings.ca_file.c_str(), nullptr) != 1) {
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            return bad_with_reason("could not load root certificate file \"" + settings.ca_file + "\"");
        }
        SSL_CTX_set_client_CA_list(context, names);
        // A certificate need not be sent; one that is must be good.
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, nullptr);
        made->verifies_peer_ = true;
    }
    if (auto status = load_revocations(context, settings.crl_file, settings.crl_dir); !status)
        return status.error();
    return std::shared_ptr<const TlsContext>{std::move(made)};
}

Result<std::shared_ptr<const TlsContext>> TlsContext::client(const TlsClientSettings& settings) {
    ERR_clear_error();
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    if (context == nullptr) return bad_with_reason("could not create SSL context");
    std::shared_ptr<TlsContext> made{new TlsContext{context, false}};
    set_common(context);
    if (auto status = set_protocols(context, settings.min_protocol, settings.max_protocol); !status)
        return status.error();
    if (settings.system_roots) {
        if (SSL_CTX_set_default_verify_paths(context) != 1)
            return bad_with_reason("could not load system root certificate paths");
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
        made->verifies_peer_ = true;
    } else if (!settings.root_cert.empty()) {
        if (SSL_CTX_load_verify_locations(context, settings.root_cert.c_str(), nullptr) != 1)
            return bad_with_reason("could not load root certificate file \"" + settings.root_cert + "\"");
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
        made->verifies_peer_ = true;
        if (auto status = load_revocations(context, settings.crl, settings.crl_dir); !status)
            return status.error();
    }
    if (!settings.cert.empty()) {
        const auto password = [&settings]() -> std::optional<std::string> { return settings.key_password; };
        if (auto status = load_certificate(context, settings.cert, settings.key, password); !status)
            return status.error();
    }
    return std::shared_ptr<const TlsContext>{std::move(made)};
}

}  // namespace pgxc::net
