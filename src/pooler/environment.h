#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "catalog/cluster_view.h"
#include "net/tls.h"
#include "pooler/statistics.h"

/// All that the pooler needs from the server it lives in. src/pg implements it; tests have fakes.
/// Every call is made from the pooler's loop and must not block on the network.
namespace pgxc::pooler {

/// pgxc.read_routing: which reads may go to slaves: none, those of transactions declared read only, or also
/// all that the server's parser knows to only read.
enum class ReadRouting : std::uint8_t { Master, Explicit, Auto };

struct CausalRecord;
class StatementClassifier;

/// The settings of DESIGN section 4 that the pooler uses; a new copy after each reload.
struct Settings {
    NodeId own_node_id{1};  // pgxc.node_id
    HostPort own_server;  // where this coordinator's own server listens (TCP loopback or a socket directory)
    int port = 6667;
    std::vector<std::string> listen_addresses;    // '*' = all; empty = no TCP
    std::vector<std::string> socket_directories;  // the socket is <dir>/.s.PGSQL.<port>
    int workers = 1;
    std::string relay_directory;  // private, of all workers: for the sockets between them
    int max_pool_size = 100;
    int min_pool_size = 1;
    bool adaptive_concurrency = true;
    int max_client_connections = 10000;
    ReadRouting read_routing = ReadRouting::Explicit;
    std::uint64_t max_read_lag_bytes = 1024 * 1024;
    bool causal_reads = true;
    Millis failover_hold{30'000};
    Millis login_timeout{60'000};  // pgxc.client_login_timeout, or the server's authentication_timeout
    // Zero: without a limit.
    Millis query_wait_timeout{120'000};
    Millis server_idle_timeout{600'000};
    Millis server_lifetime{3'600'000};
    Millis client_idle_timeout{0};
    Millis connect_timeout{1'000};  // for each address of a node: pgxc.probe_timeout
    std::string unix_socket_group;  // the server's own unix_socket_group ('' = default group)
    unsigned unix_socket_permissions = 0777;
    bool log_connections = false;  // the server's own
};

/// How a client must prove who it is: the first pg_hba.conf line that matches.
enum class AuthMethod : std::uint8_t {
    Trust,
    Reject,
    ScramSha256,
    Md5,
    Password,
    Cert,
    Peer,
    NeedsHostName,  // which line matches depends on the client's host name: look it up and ask again
    Unsupported,
};

/// What a line asks of a client's certificate beside its method (clientcert=).
enum class ClientCert : std::uint8_t { NotAsked, VerifyCa, VerifyFull };

struct AuthRule {
    AuthMethod method = AuthMethod::Reject;
    std::string method_name;  // as written in pg_hba.conf, e.g. "gss"
    std::string where;  // "pg_hba.conf line 12", or "no line of pg_hba.conf matches" for the implicit reject
    ClientCert client_cert = ClientCert::NotAsked;
    std::string map{};            // of pg_ident.conf; empty: the names must be equal
    bool certificate_dn = false;  // clientname=DN: not the common name but the whole one counts
};

/// What a reverse look-up of a client's address gave.
struct ClientHostName {
    std::string name;        // empty: it has none
    bool confirmed = false;  // one of the name's own addresses is the client's
};

/// Where a client comes from: a unix socket, or an address in network byte order.
struct ClientAddress {
    bool is_unix = false;
    bool tls = false;
    std::vector<std::uint8_t> address;  // 4 or 16 bytes; empty for unix
    std::uint16_t port = 0;
    std::optional<std::uint32_t> peer_uid;        // unix: who runs the client (SO_PEERCRED)
    std::optional<ClientHostName> host_name{};    // once it was looked up
    [[nodiscard]] std::string host() const;       // "[local]", "127.0.0.1"
    [[nodiscard]] std::string to_string() const;  // "[local]", "127.0.0.1(52114)"
    /// Whom wrong guesses are counted against: the host; on a unix socket, which all local users share, who
    /// runs the client. Of IPv6 a network of 64 bits is one host: who has one of its addresses has them all.
    [[nodiscard]] std::string throttle_key() const;
};

/// What pg_authid says of a role.
struct RoleInfo {
    bool exists = false;
    bool can_login = false;
    /// rolpassword as stored; nullopt = none (or VALID UNTIL has passed)
    std::optional<std::string> stored_password;
    bool password_expired = false;
    bool superuser = false;
    int connection_limit = -1;  // -1 = none
    std::uint32_t oid = 0;      // another one under the same name is another role
};

/// libpq's sslmode.
enum class SslMode : std::uint8_t { Disable, Allow, Prefer, Require, VerifyCa, VerifyFull };

/// How server connections are encrypted: the ssl options of pgxc.node_conninfo.
struct NodeTls {
    SslMode mode = SslMode::Disable;
    std::shared_ptr<const net::TlsContext> context;  // nullptr although `mode` needs one: `error` says why
    Error error;
    bool server_name_indication = true;
    bool bind_channel = true;        // where it can be: channel_binding=prefer
    bool must_bind_channel = false;  // channel_binding=require
};

/// A row of the view pgxc_pools. Plain numbers, kept by the pooler, copied by src/pg into shared memory.
struct PoolRow {
    NodeKey node;
    std::string database;
    std::string user;
    std::uint32_t clients_active = 0;   // in a transaction, holding a server connection
    std::uint32_t clients_waiting = 0;  // waiting for a server connection, or held by a failover
    std::uint32_t servers_active = 0;   // lent to a client
    std::uint32_t servers_idle = 0;
    std::uint32_t servers_connecting = 0;
    std::uint64_t longest_wait_us = 0;    // of the clients that wait now
    std::uint32_t concurrency_limit = 0;  // see ConcurrencyLimit; 0: none
};

/// A row of the view pgxc_pooler_clients.
struct ClientRow {
    ClientId id;
    std::string address;  // ClientAddress::to_string()
    std::string database;
    std::string user;
    std::string application_name;
    std::string state;  // "login", "idle", "active", "waiting", "held", "pinned"
    std::string why;    // why it waits or is pinned; else empty
    NodeKey node;       // the node group it means
    WallTime connected_at;
    std::uint64_t transactions = 0;
};

/// Shared-memory rows of this worker, replaced as a whole. Called when asked for, at most a few times a
/// second.
class StatsSink {
  public:
    virtual ~StatsSink() = default;
    virtual void publish(const std::vector<PoolRow>& pools, const std::vector<ClientRow>& clients) = 0;
    virtual void publish_statistics(const std::vector<ServerRow>& servers,
                                    const std::vector<PoolStatsRow>& pools) = 0;
    /// How often somebody has asked that the counting begin anew.
    [[nodiscard]] virtual std::uint64_t statistics_resets() const { return 0; }
};

/// A cancel key must be found from any worker that gets the cancel request.
struct CancelKey {
    std::uint32_t pid = 0;
    std::uint32_t secret = 0;
    friend bool operator==(const CancelKey&, const CancelKey&) = default;
};

class Environment : public ClusterViewSource, public TrafficFailureSink, public StatsSink {
  public:
    [[nodiscard]] virtual const Settings& settings() const = 0;
    /// 0 .. settings().workers - 1, different for each pooler process. Number 0 listens on the unix sockets;
    /// every one listens on TCP (SO_REUSEPORT).
    [[nodiscard]] virtual int worker_index() const { return 0; }
    /// Nothing begins any more that a view before this one permitted.
    virtual void view_taken(Generation /*generation*/) {}
    /// Reads statements for ReadRouting::Auto; nullptr = nothing can, so everything is unknown.
    [[nodiscard]] virtual StatementClassifier* classifier() { return nullptr; }
    /// What all workers know of the commits at that group's master; nullptr = this one is alone.
    [[nodiscard]] virtual CausalRecord* causal_record(NodeKey /*group*/) { return nullptr; }
    /// How many transactions of this worker run at the nodes of a group that is paused (pgxc.pause()).
    virtual void report_in_use(NodeKey /*group*/, std::uint32_t /*transactions*/) {}
    /// The other workers are to close their idle connections to a database of that node. Waits for nobody.
    virtual void leave_database(NodeKey /*node*/, const std::string& /*database*/) {}
    /// The first line of the coordinator's pg_hba.conf that matches.
    [[nodiscard]] virtual AuthRule match_hba(const ClientAddress& from, const std::string& database,
                                             const std::string& user) = 0;
    /// Does pg_ident.conf let who is `system_user` elsewhere log in as `user`?
    [[nodiscard]] virtual bool maps_to(const std::string& map, const std::string& system_user,
                                       const std::string& user) {
        return map.empty() && system_user == user;
    }
    /// What clients are offered; nullptr: no TLS.
    [[nodiscard]] virtual std::shared_ptr<const net::TlsContext> tls() { return nullptr; }
    [[nodiscard]] virtual NodeTls node_tls() { return {}; }
    [[nodiscard]] virtual Result<RoleInfo> role(const std::string& user) = 0;
    /// For SCRAM with a role that has no secret: 32 bytes that look like one, the same for a user each time
    /// (the server's mock_authentication_nonce).
    [[nodiscard]] virtual std::string mock_nonce() = 0;
    /// Fills with cryptographically strong random bytes (pg_strong_random); false = no entropy, refuse.
    [[nodiscard]] virtual bool strong_random(std::uint8_t* out, std::size_t bytes) = 0;
    /// SASLprep of a password or user name (pg_saslprep): nullopt where it is not valid UTF-8 or prohibited.
    [[nodiscard]] virtual std::optional<std::string> saslprep(const std::string& text) = 0;
    /// ParameterStatus that the server would report (server_version, TimeZone, ...), for a client that logs
    /// in before any server connection exists.
    [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> default_parameters() = 0;
};

}  // namespace pgxc::pooler
