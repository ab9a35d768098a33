#include "pg/tls_settings.h"

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <map>
#include <vector>

#include "base/log.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"
#include "replication/conninfo.h"

// libpq/libpq.h declares it, which needs the headers of GSSAPI where the server was built with that.
extern "C" int run_ssl_passphrase_command(const char* prompt, bool is_server_start, char* buf, int size);

namespace pgxc {
namespace {

std::optional<std::string> ask_passphrase(bool at_start) {
    std::array<char, 1024> buffer{};
    char* into = buffer.data();
    const auto size = static_cast<int>(buffer.size());
    const auto asked = pg_call([into, size, at_start] {
        return run_ssl_passphrase_command("Enter PEM pass phrase:", at_start, into, size);
    });
    if (!asked) {
        log_warning("pooler: " + asked.error().message);
        return std::nullopt;
    }
    return std::string{buffer.data()};
}

/// Environment variables and files that libpq falls back to.
class LibpqDefaults {
  public:
    explicit LibpqDefaults(std::map<std::string, std::string> values) : values_(std::move(values)) {}

    [[nodiscard]] std::string value(const std::string& key, const char* variable,
                                    const std::string& fallback) const {
        if (const auto found = values_.find(key); found != values_.end() && !found->second.empty())
            return found->second;
        const char* given = std::getenv(variable);
        return given != nullptr && *given != '\0' ? given : fallback;
    }
    /// A file of libpq's folder; empty where there is none.
    [[nodiscard]] static std::string file(const std::string& name) {
        std::string home;
        if (const char* given = std::getenv("HOME"); given != nullptr && *given != '\0') {
            home = given;
        } else {
            passwd entry{};
            passwd* found = nullptr;
            std::vector<char> buffer(16384);
            if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
                found == nullptr)
                return {};
            home = found->pw_dir;
        }
        return home + "/.postgresql/" + name;
    }

  private:
    std::map<std::string, std::string> values_;
};

bool exists(const std::string& file) {
    return ::access(file.c_str(), F_OK) == 0;
}

pooler::SslMode mode_of(const std::string& name) {
    if (name == "disable") return pooler::SslMode::Disable;
    if (name == "allow") return pooler::SslMode::Allow;
    if (name == "require") return pooler::SslMode::Require;
    if (name == "verify-ca") return pooler::SslMode::VerifyCa;
    if (name == "verify-full") return pooler::SslMode::VerifyFull;
    if (name != "prefer") log_warning("pooler: sslmode \"" + name + "\" is unknown: taken for prefer");
    return pooler::SslMode::Prefer;
}

}  // namespace

std::string server_setting(const char* name) {
    const auto value = pg_call([name] { return GetConfigOption(name, true, false); });
    return value && *value != nullptr ? *value : "";
}

Result<std::shared_ptr<const net::TlsContext>> read_server_tls(bool at_start) {
    if (server_setting("ssl") != "on") return std::shared_ptr<const net::TlsContext>{};
    net::TlsServerSettings settings;
    settings.cert_file = server_setting("ssl_cert_file");
    settings.key_file = server_setting("ssl_key_file");
    settings.ca_file = server_setting("ssl_ca_file");
    settings.crl_file = server_setting("ssl_crl_file");
    settings.crl_dir = server_setting("ssl_crl_dir");
    settings.ciphers = server_setting("ssl_ciphers");
    settings.cipher_suites = server_setting("ssl_tls13_ciphers");
    settings.dh_params_file = server_setting("ssl_dh_params_file");
    settings.groups = server_setting("ssl_groups");  // 18's name
    if (settings.groups.empty()) settings.groups = server_setting("ssl_ecdh_curve");
    settings.min_protocol = server_setting("ssl_min_protocol_version");
    settings.max_protocol = server_setting("ssl_max_protocol_version");
    settings.prefer_server_ciphers = server_setting("ssl_prefer_server_ciphers") == "on";
    const bool may_ask = !server_setting("ssl_passphrase_command").empty() &&
                         (at_start || server_setting("ssl_passphrase_command_supports_reload") == "on");
    if (may_ask) settings.passphrase = [at_start] { return ask_passphrase(at_start); };
    return net::TlsContext::server(settings);
}

pooler::NodeTls read_node_tls(const std::string& conninfo) {
    auto values = conninfo_values(conninfo);
    if (!values) log_warning("pooler: pgxc.node_conninfo: " + values.error().message);
    const LibpqDefaults defaults(values ? std::move(*values) : std::map<std::string, std::string>{});
    pooler::NodeTls tls;
    // libpq's word for what the operating system trusts. It tells nothing of whose the node is, unless the
    // certificate is for its name.
    const std::string root_cert =
        defaults.value("sslrootcert", "PGSSLROOTCERT", LibpqDefaults::file("root.crt"));
    const bool system_roots = root_cert == "system";
    const std::string mode = defaults.value("sslmode", "PGSSLMODE", system_roots ? "verify-full" : "prefer");
    tls.mode = mode_of(mode);
    const std::string binding = defaults.value("channel_binding", "PGCHANNELBINDING", "prefer");
    tls.bind_channel = binding != "disable";
    tls.must_bind_channel = binding == "require";
    tls.server_name_indication = defaults.value("sslsni", "PGSSLSNI", "1") != "0";
    if (system_roots && tls.mode != pooler::SslMode::VerifyFull) {
        tls.error = {
            sqlstate::config_file_error,
            "weak sslmode \"" + mode + "\" may not be used with sslrootcert=system (use \"verify-full\")",
            "Change pgxc.node_conninfo."};
        log_warning("pooler: TLS towards nodes (pgxc.node_conninfo): " + tls.error.message);
        // No node is connected to in another way, either.
        tls.mode = pooler::SslMode::VerifyFull;
        return tls;
    }
    if (tls.mode == pooler::SslMode::Disable) return tls;

    net::TlsClientSettings settings;
    settings.root_cert = root_cert;
    settings.system_roots = system_roots;
    if (!system_roots && !exists(settings.root_cert)) {
        if (tls.mode >= pooler::SslMode::VerifyCa) {
            tls.error = {sqlstate::config_file_error,
                         "root certificate file \"" + settings.root_cert + "\" does not exist",
                         "Either provide the file or change sslmode in pgxc.node_conninfo to disable server "
                         "certificate verification."};
            return tls;
        }
        settings.root_cert.clear();
    }
    settings.crl = defaults.value("sslcrl", "PGSSLCRL", "");
    settings.crl_dir = defaults.value("sslcrldir", "PGSSLCRLDIR", "");
    if (settings.crl.empty() && settings.crl_dir.empty()) {
        const std::string own = LibpqDefaults::file("root.crl");
        if (exists(own)) settings.crl = own;
    }
    settings.cert = defaults.value("sslcert", "PGSSLCERT", LibpqDefaults::file("postgresql.crt"));
    if (exists(settings.cert)) {
        settings.key = defaults.value("sslkey", "PGSSLKEY", LibpqDefaults::file("postgresql.key"));
    } else {
        settings.cert.clear();
    }
    settings.key_password = defaults.value("sslpassword", "", "");
    settings.min_protocol = defaults.value("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", "TLSv1.2");
    settings.max_protocol = defaults.value("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", "");
    auto made = net::TlsContext::client(settings);
    if (made) {
        tls.context = std::move(*made);
    } else {
        tls.error = made.error();
        log_warning("pooler: TLS towards nodes (pgxc.node_conninfo): " + tls.error.message);
    }
    return tls;
}

}  // namespace pgxc
