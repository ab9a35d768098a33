#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

namespace pgxc::fakes {

/// A certificate authority for a test, whose files go with it.
class Certificates {
  public:
    struct Files {
        std::string cert;
        std::string key;
    };

    Certificates() {
        std::string pattern = (std::filesystem::temp_directory_path() / "pgxc.certs.XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
        directory_ = pattern;
        authority_key_ = EVP_EC_gen("P-256");
        authority_ = make("the authority", {}, authority_key_, nullptr, EVP_sha256());
        write_certificate(authority(), authority_);
    }
    ~Certificates() {
        X509_free(authority_);
        EVP_PKEY_free(authority_key_);
        std::filesystem::remove_all(directory_);
    }
    Certificates(const Certificates&) = delete;
    Certificates& operator=(const Certificates&) = delete;

    [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }
    [[nodiscard]] std::string authority() const { return path("root.crt"); }

    /// A certificate signed by the authority; `names` as OpenSSL writes them, "DNS:a.example, IP:127.0.0.1".
    Files issue(const std::string& file, const std::string& common_name, const std::string& names = {},
                const EVP_MD* digest = EVP_sha256()) {
        EVP_PKEY* key = EVP_EC_gen("P-256");
        X509* certificate = make(common_name, names, key, authority_, digest);
        Files files{path(file + ".crt"), path(file + ".key")};
        write_certificate(files.cert, certificate);
        std::FILE* out = std::fopen(files.key.c_str(), "w");
        if (PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
            throw std::runtime_error("PEM_write_PrivateKey");
        std::fclose(out);
        ::chmod(files.key.c_str(), 0600);
        X509_free(certificate);
        EVP_PKEY_free(key);
        return files;
    }

  private:
    X509* make(const std::string& common_name, const std::string& names, EVP_PKEY* key, X509* issuer,
               const EVP_MD* digest) {
        X509* made = X509_new();
        X509_set_version(made, 2);
        ASN1_INTEGER_set(X509_get_serialNumber(made), ++serial_);
        X509_gmtime_adj(X509_getm_notBefore(made), -3600);
        X509_gmtime_adj(X509_getm_notAfter(made), 24 * 3600);
        X509_set_pubkey(made, key);
        X509_NAME* name = X509_get_subject_name(made);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>(common_name.data()),
                                   static_cast<int>(common_name.size()), -1, 0);
        X509_set_issuer_name(made, issuer != nullptr ? X509_get_subject_name(issuer) : name);
        const auto extend = [&](int nid, const char* value) {
            X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
            if (extension == nullptr) throw std::runtime_error("X509V3_EXT_conf_nid");
            X509_add_ext(made, extension, -1);
            X509_EXTENSION_free(extension);
        };
        if (issuer == nullptr) extend(NID_basic_constraints, "critical,CA:TRUE");
        if (!names.empty()) extend(NID_subject_alt_name, names.c_str());
        if (X509_sign(made, authority_key_, digest) == 0) throw std::runtime_error("X509_sign");
        return made;
    }
    static void write_certificate(const std::string& file, X509* certificate) {
        std::FILE* out = std::fopen(file.c_str(), "w");
        if (PEM_write_X509(out, certificate) != 1) throw std::runtime_error("PEM_write_X509");
        std::fclose(out);
    }

    std::string directory_;
    EVP_PKEY* authority_key_ = nullptr;
    X509* authority_ = nullptr;
    long serial_ = 0;
};

}  // namespace pgxc::fakes
