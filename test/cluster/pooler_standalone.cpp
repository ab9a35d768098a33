// The pooler without PostgreSQL around it, in front of one server (and its slaves): for measuring, and for
// tests that need no extension. Usage:
//   pooler_standalone <port> <node host>:<port> [--slave host:port]... [--dir socket_directory] [--key
//   value]...
// Trusts everybody but the role of --guarded, which has to prove its password by SCRAM; offers TLS if --tls
// names a folder with server.crt and server.key. SIGTERM ends it. SIGUSR1 reads the master's address anew
// from the file named by --master-file.
#include <sys/eventfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "base/log.h"
#include "fakes/fake_environment.h"
#include "pooler/pooler.h"

namespace {

using namespace pgxc;
using namespace pgxc::pooler;

/// What the options say in place of pg_hba.conf, pg_authid and the ssl settings.
class Surroundings : public FakeEnvironment {
  public:
    std::string guarded;  // a role's name
    std::string secret;   // its pg_authid.rolpassword
    std::shared_ptr<const net::TlsContext> tls_now;

    AuthRule match_hba(const ClientAddress&, const std::string&, const std::string& user) override {
        if (!guarded.empty() && user == guarded)
            return {AuthMethod::ScramSha256, "scram-sha-256", "--guarded"};
        return {AuthMethod::Trust, "trust", "no --guarded"};
    }
    Result<RoleInfo> role(const std::string& user) override {
        RoleInfo info{true, true, std::nullopt};
        if (user == guarded) info.stored_password = secret;
        return info;
    }
    std::shared_ptr<const net::TlsContext> tls() override { return tls_now; }
};

int wake_fd = -1;
volatile std::sig_atomic_t last_signal = 0;

void on_signal(int signal) {
    last_signal = signal;
    const std::uint64_t one = 1;
    (void)!::write(wake_fd, &one, sizeof one);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(
            stderr,
            "usage: %s port host:port [--slave host:port] [--dir directory] [--pool n] [--hold ms] "
            "[--clients n]\n"
            "       [--login-timeout ms] [--master-file file] [--guarded role=secret] [--tls folder]\n",
            argv[0]);
        return 2;
    }
    Surroundings environment;
    Settings& settings = environment.settings_now;
    settings.port = std::atoi(argv[1]);
    settings.listen_addresses = {"127.0.0.1"};
    auto master = HostPort::parse(argv[2]);
    std::vector<HostPort> slaves;
    std::string master_file;
    for (int i = 3; i + 1 < argc; i += 2) {
        const std::string key = argv[i];
        const std::string value = argv[i + 1];
        if (key == "--slave") {
            if (auto slave = HostPort::parse(value)) slaves.push_back(*slave);
        } else if (key == "--dir") {
            settings.socket_directories = {value};
        } else if (key == "--pool") {
            settings.max_pool_size = std::atoi(value.c_str());
        } else if (key == "--hold") {
            settings.failover_hold = Millis{std::atoi(value.c_str())};
        } else if (key == "--clients") {
            settings.max_client_connections = std::atoi(value.c_str());
        } else if (key == "--login-timeout") {
            settings.login_timeout = Millis{std::atoi(value.c_str())};
        } else if (key == "--master-file") {
            master_file = value;
        } else if (key == "--guarded") {
            const std::size_t end = value.find('=');
            environment.guarded = value.substr(0, end);
            environment.secret = end == std::string::npos ? "" : value.substr(end + 1);
        } else if (key == "--tls") {
            net::TlsServerSettings files;
            files.cert_file = value + "/server.crt";
            files.key_file = value + "/server.key";
            auto context = net::TlsContext::server(files);
            if (!context) {
                std::fprintf(stderr, "%s\n", context.error().message.c_str());
                return 2;
            }
            environment.tls_now = std::move(*context);
        }
    }
    if (!master) {
        std::fprintf(stderr, "%s\n", master.error().message.c_str());
        return 2;
    }
    int epoch = 1;
    settings.own_server = *master;
    const auto show = [&] {
        std::vector<NodeView> nodes{FakeEnvironment::master(1, master->host, master->port, epoch)};
        int id = 2;
        for (const auto& slave : slaves)
            nodes.push_back(FakeEnvironment::slave(id++, 1, slave.host, slave.port));
        environment.show(std::move(nodes));
    };
    show();

    net::Loop loop;
    wake_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    auto pooler = Pooler::start(loop, environment);
    if (!pooler) {
        std::fprintf(stderr, "%s\n", pooler.error().message.c_str());
        return 1;
    }
    auto watch = loop.watch_readable(wake_fd, [&] {
        std::uint64_t count = 0;
        (void)!::read(wake_fd, &count, sizeof count);
        if (last_signal == SIGUSR1) {
            std::string text;
            std::ifstream{master_file} >> text;
            if (auto moved = HostPort::parse(text)) {
                master = *moved;
                ++epoch;
                show();
                (*pooler)->view_changed();
            }
        } else {
            (*pooler)->begin_shutdown(last_signal == SIGINT ? ShutdownMode::Smart : ShutdownMode::Fast,
                                      [&] { loop.stop(); });
        }
    });
    std::signal(SIGTERM, on_signal);
    std::signal(SIGINT, on_signal);
    std::signal(SIGUSR1, on_signal);
    std::signal(SIGPIPE, SIG_IGN);
    loop.run();
    return 0;
}
