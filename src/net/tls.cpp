#include "net/tls.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

namespace pgxc::net {

/// OpenSSL's view of a TlsSession's input and output.
struct TlsBio {
    static TlsSession& session(BIO* bio) { return *static_cast<TlsSession*>(BIO_get_data(bio)); }

    static int read(BIO* bio, char* into, int size) {
        TlsSession& self = session(bio);
        BIO_clear_retry_flags(bio);
        std::string_view from = self.lent_;
        const bool from_kept = self.kept_used_ < self.kept_.size();
        if (from_kept) from = std::string_view{self.kept_}.substr(self.kept_used_);
        if (from.empty()) {
            BIO_set_retry_read(bio);
            return -1;
        }
        const std::size_t bytes = std::min(from.size(), static_cast<std::size_t>(size));
        std::memcpy(into, from.data(), bytes);
        if (from_kept) {
            self.kept_used_ += bytes;
        } else {
            self.lent_.remove_prefix(bytes);
        }
        return static_cast<int>(bytes);
    }
    static int write(BIO* bio, const char* from, int size) {
        BIO_clear_retry_flags(bio);
        session(bio).output_.append(from, static_cast<std::size_t>(size));
        return size;
    }
    static long control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
        return command == BIO_CTRL_FLUSH ? 1 : 0;
    }
    static BIO_METHOD* method() {
        static BIO_METHOD* const made = [] {
            BIO_METHOD* created = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pgxc stream");
            if (created == nullptr) throw std::bad_alloc{};
            BIO_meth_set_read(created, read);
            BIO_meth_set_write(created, write);
            BIO_meth_set_ctrl(created, control);
            return created;
        }();
        return made;
    }
};

namespace {

/// An address has no place in SNI, and is looked for elsewhere in a certificate.
bool is_address(const std::string& host) {
    std::array<unsigned char, sizeof(in6_addr)> ignored{};
    return ::inet_pton(AF_INET, host.c_str(), ignored.data()) == 1 ||
           ::inet_pton(AF_INET6, host.c_str(), ignored.data()) == 1;
}

std::string distinguished_name(X509* certificate) {
    BIO* bio = BIO_new(BIO_s_mem());
    if (bio == nullptr) return {};
    std::string text;
    if (X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) != -1) {
        char* data = nullptr;
        const long size = BIO_get_mem_data(bio, &data);
        if (size > 0) text.assign(data, static_cast<std::size_t>(size));
    }
    BIO_free(bio);
    return text;
}

std::string common_name(X509* certificate) {
    X509_NAME* subject = X509_get_subject_name(certificate);
    const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return {};
    const ASN1_STRING* value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(value)),
            static_cast<std::size_t>(ASN1_STRING_length(value))};
}

/// RFC 5929, 4.1: the hash of the certificate by its signature's own function, but SHA-256 for the weak ones.
std::string end_point_hash(X509* certificate) {
    int digest = 0;
    if (certificate == nullptr ||
        X509_get_signature_info(certificate, &digest, nullptr, nullptr, nullptr) != 1)
        return {};
    if (digest == NID_md5 || digest == NID_sha1) digest = NID_sha256;
    const EVP_MD* function = EVP_get_digestbynid(digest);
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
    unsigned size = 0;
    if (function == nullptr || X509_digest(certificate, function, hash.data(), &size) != 1) return {};
    return {reinterpret_cast<const char*>(hash.data()), size};
}

}  // namespace

Result<std::unique_ptr<TlsSession>> TlsSession::start(std::shared_ptr<const TlsContext> context,
                                                      const std::string& server_name) {
    ERR_clear_error();
    std::unique_ptr<TlsSession> made{new TlsSession{std::move(context)}};
    made->ssl_ = SSL_new(made->context_->context_);
    BIO* bio = BIO_new(TlsBio::method());
    if (made->ssl_ == nullptr || bio == nullptr) {
        BIO_free(bio);
        return Error{sqlstate::insufficient_resources, "could not initialize SSL connection"};
    }
    BIO_set_data(bio, made.get());
    BIO_set_init(bio, 1);
    SSL_set_bio(made->ssl_, bio, bio);
    if (made->context_->server_) {
        SSL_set_accept_state(made->ssl_);
    } else {
        SSL_set_connect_state(made->ssl_);
        if (!server_name.empty() && !is_address(server_name))
            (void)SSL_set_tlsext_host_name(made->ssl_, server_name.c_str());
    }
    return made;
}

TlsSession::~TlsSession() {
    SSL_free(ssl_);
}

void TlsSession::feed(std::string_view encrypted) {
    lent_ = encrypted;
}

void TlsSession::keep() {
    if (kept_used_ == kept_.size()) {
        kept_.assign(lent_);
        kept_used_ = 0;
        if (kept_.empty()) std::string{}.swap(kept_);
    } else {
        kept_.append(lent_);
    }
    lent_ = {};
}

void TlsSession::note_error() {
    failed_ = true;
    more_ = false;
    const unsigned long code = ERR_get_error();
    const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
    error_ = reason != nullptr ? reason : code != 0 ? "SSL error code " + std::to_string(code) : "SSL error";
    // What exactly is wrong with a certificate.
    if (const long verified = SSL_get_verify_result(ssl_); verified != X509_V_OK)
        error_ += std::string(": ") + X509_verify_cert_error_string(verified);
    ERR_clear_error();
}

TlsSession::Step TlsSession::judge(int result) {
    switch (SSL_get_error(ssl_, result)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE:
            return Step::NeedMore;
        case SSL_ERROR_ZERO_RETURN:
            return Step::Ended;
        default:
            note_error();
            return Step::Failed;
    }
}

TlsSession::Step TlsSession::handshake() {
    if (failed_) return Step::Failed;
    if (established_) return Step::Done;
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_);
    if (result != 1) return judge(result);
    if (X509* peer = SSL_get0_peer_certificate(ssl_); peer != nullptr) {
        // Such a name would be read as a shorter one somewhere.
        if (common_name(peer).find('\0') != std::string::npos ||
            distinguished_name(peer).find('\0') != std::string::npos) {
            failed_ = true;
            error_ = "SSL certificate's name contains embedded null";
            return Step::Failed;
        }
    }
    established_ = true;
    return Step::Done;
}

TlsSession::Step TlsSession::read(std::span<char> into, std::size_t& bytes) {
    bytes = 0;
    if (failed_) return Step::Failed;
    more_ = false;
    while (bytes < into.size()) {
        ERR_clear_error();
        std::size_t got = 0;
        const int result = SSL_read_ex(ssl_, into.data() + bytes, into.size() - bytes, &got);
        if (result == 1) {
            bytes += got;
            continue;
        }
        const Step step = judge(result);
        // What came before the end is given first; the end is met again by the next call.
        if (bytes > 0) {
            more_ = step != Step::NeedMore;
            return Step::Done;
        }
        return step;
    }
    more_ = true;
    return Step::Done;
}

bool TlsSession::write(std::string_view plain) {
    if (failed_ || !established_) return false;
    while (!plain.empty()) {
        ERR_clear_error();
        std::size_t put = 0;
        const int result = SSL_write_ex(ssl_, plain.data(), plain.size(), &put);
        if (result != 1) {
            if (!failed_) note_error();
            return false;
        }
        plain.remove_prefix(put);
    }
    return true;
}

void TlsSession::shut_down() {
    if (failed_ || !established_) return;
    ERR_clear_error();
    (void)SSL_shutdown(ssl_);
    ERR_clear_error();
}

TlsInfo TlsSession::info() const {
    TlsInfo info;
    info.verifies_peer = context_->verifies_peer();
    info.protocol = SSL_get_version(ssl_);
    if (const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl_)) {
        info.cipher = SSL_CIPHER_get_name(cipher);
        info.bits = SSL_CIPHER_get_bits(cipher, nullptr);
    }
    X509* peer = SSL_get0_peer_certificate(ssl_);
    if (peer != nullptr) {
        info.peer_certificate = true;
        info.common_name = common_name(peer);
        info.distinguished_name = distinguished_name(peer);
    }
    info.server_end_point = end_point_hash(context_->server_ ? SSL_get_certificate(ssl_) : peer);
    return info;
}

Status TlsSession::check_host(const std::string& host) const {
    X509* peer = SSL_get0_peer_certificate(ssl_);
    if (peer == nullptr) return Error{sqlstate::connection_failure, "the server sent no SSL certificate"};
    if (is_address(host)) {
        if (X509_check_ip_asc(peer, host.c_str(), 0) == 1) return {};
        // As libpq: an address in the place of a name counts, too.
        if (X509_check_host(peer, host.data(), host.size(), X509_CHECK_FLAG_NO_WILDCARDS, nullptr) == 1)
            return {};
    } else if (X509_check_host(peer, host.data(), host.size(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
                               nullptr) == 1) {
        return {};
    }
    return Error{
        sqlstate::connection_failure,
        "the server's certificate for \"" + distinguished_name(peer) + "\" does not match host name \"" +
            host + "\"",
        "With sslmode=verify-full the address in pgxc_nodes must be a name in the node's certificate."};
}

}  // namespace pgxc::net
