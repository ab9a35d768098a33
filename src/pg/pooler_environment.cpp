#include "pg/pooler_environment.h"

#include <algorithm>
#include <string_view>

#include "base/log.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/hba.h"
#include "pg/tls_settings.h"
#include "pg/worker_host.h"

extern "C" {
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_control.h"
#include "catalog/pg_database.h"
#include "common/saslprep.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
}

namespace pgxc {
namespace {

/// Splits 'a, "b c", d' as the server splits its lists of addresses and directories.
std::vector<std::string> split_list(std::string_view text) {
    std::vector<std::string> parts;
    std::string part;
    bool quoted = false;
    const auto finish = [&] {
        const auto first = part.find_first_not_of(" \t\r\n");
        if (first != std::string::npos)
            parts.push_back(part.substr(first, part.find_last_not_of(" \t\r\n") - first + 1));
        part.clear();
    };
    for (const char c : text) {
        if (c == '"') {
            quoted = !quoted;
        } else if (c == ',' && !quoted) {
            finish();
        } else {
            part += c;
        }
    }
    finish();
    return parts;
}

/// Where this server itself is reached from the same host: its first socket directory, else an address.
HostPort own_server() {
    HostPort own{"127.0.0.1", static_cast<std::uint16_t>(PostPortNumber)};
    const auto sockets = split_list(Unix_socket_directories != nullptr ? Unix_socket_directories : "");
    if (!sockets.empty()) {
        own.host = sockets.front();
        return own;
    }
    const auto addresses = split_list(ListenAddresses != nullptr ? ListenAddresses : "");
    const auto any = [](const std::string& name) {
        return name == "*" || name == "0.0.0.0" || name == "localhost";
    };
    if (!addresses.empty() && std::none_of(addresses.begin(), addresses.end(), any))
        own.host = addresses.front();
    if (own.host == "::") own.host = "::1";
    return own;
}

/// The encoding of a database, by name; empty if there is no such database.
std::string encoding_of(const std::string& database) {
    std::string encoding;
    const char* name = database.c_str();
    const Status asked = in_transaction([&] {
        const auto found = pg_call([name]() -> const char* {
            // Without a database of its own a process may not open any index: read the table from end to end.
            const char* encoding_name = nullptr;
            Relation const databases = table_open(DatabaseRelationId, AccessShareLock);
            TableScanDesc const scan = table_beginscan_catalog(databases, 0, nullptr);
            while (HeapTuple const row = heap_getnext(scan, ForwardScanDirection)) {
                const auto* form = reinterpret_cast<Form_pg_database>(GETSTRUCT(row));
                if (strcmp(NameStr(form->datname), name) == 0)
                    encoding_name = pg_encoding_to_char(form->encoding);  // static storage
            }
            table_endscan(scan);
            table_close(databases, AccessShareLock);
            return encoding_name;
        });
        if (!found) return Status{found.error()};
        if (*found != nullptr) encoding = *found;
        return Status{};
    });
    if (!asked)
        log_warning("could not look up the encoding of database " + database + ": " + asked.error().message);
    return encoding;
}

/// Open files for the clients, as many server connections, and what the server's own code may use.
std::size_t files_for(std::size_t clients) {
    return 2 * clients + static_cast<std::size_t>(std::max(max_safe_fds, 0)) + 64;
}

}  // namespace

pooler::ReadRouting routing_of(guc::Routing routing) {
    switch (routing) {
        case guc::Routing::Master:
            return pooler::ReadRouting::Master;
        case guc::Routing::Explicit:
            return pooler::ReadRouting::Explicit;
        case guc::Routing::Auto:
            return pooler::ReadRouting::Auto;
    }
    return pooler::ReadRouting::Master;
}

PoolerEnvironment::PoolerEnvironment(int worker)
    : worker_(worker),
      most_clients_(guc::max_client_connections()),
      facts_(server_hba_facts()),
      classifier_(make_statement_classifier()) {
    const std::size_t wanted = files_for(static_cast<std::size_t>(most_clients_));
    const std::size_t allowed = raise_file_limit(wanted);
    if (allowed < wanted) {
        const std::size_t none = files_for(0);
        most_clients_ = allowed > none + 2 ? static_cast<int>((allowed - none) / 2) : 1;
        log_warning("the limit of open files (" + std::to_string(allowed) + ") allows " +
                    std::to_string(most_clients_) + " clients of pgxc.max_client_connections = " +
                    std::to_string(guc::max_client_connections()) + "; " + std::to_string(wanted) +
                    " would be needed");
    }
    encoding_ = encoding_of(guc::database());
    if (encoding_.empty()) encoding_ = "UTF8";
    reload();
}

void PoolerEnvironment::read_settings() {
    pooler::Settings fresh;
    fresh.own_node_id = guc::node_id();
    fresh.own_server = own_server();
    fresh.port = guc::pooler_port();
    fresh.listen_addresses = split_list(guc::pooler_listen_addresses());
    fresh.socket_directories = split_list(guc::pooler_socket_directories());
    fresh.workers = guc::pooler_workers();
    // In the data directory, where the server's processes are at home, and left out of base backups.
    fresh.relay_directory = "pg_stat_tmp";
    fresh.max_pool_size = guc::max_pool_size();
    fresh.min_pool_size = guc::min_pool_size();
    fresh.max_client_connections = most_clients_;
    fresh.read_routing = routing_of(guc::read_routing());
    fresh.max_read_lag_bytes = guc::max_read_lag_bytes();
    fresh.adaptive_concurrency = guc::adaptive_concurrency();
    fresh.causal_reads = guc::causal_reads();
    fresh.failover_hold = guc::failover_hold();
    fresh.login_timeout =
        guc::client_login_timeout().value_or(Millis{std::chrono::seconds{AuthenticationTimeout}});
    fresh.query_wait_timeout = guc::query_wait_timeout();
    fresh.server_idle_timeout = guc::server_idle_timeout();
    fresh.server_lifetime = guc::server_lifetime();
    fresh.client_idle_timeout = guc::client_idle_timeout();
    fresh.connect_timeout = guc::probe_timeout();
    fresh.unix_socket_group = Unix_socket_group != nullptr ? Unix_socket_group : "";
    // A word since long, a list of what is logged from 18 on.
    const std::string logged = server_setting("log_connections");
    fresh.log_connections = !logged.empty() && logged != "off";
    fresh.unix_socket_permissions = static_cast<unsigned>(Unix_socket_permissions);
    settings_ = std::move(fresh);
}

void PoolerEnvironment::reload() {
    read_settings();
    read_rules();
    read_tls();
    started_ = true;
}

void PoolerEnvironment::read_rules() {
    if (auto rules = read_hba_file()) {
        rules_ = std::move(rules).value();
    } else {
        log_warning(rules.error().message + (rules_.empty() ? ": the pooler lets nobody in until it is mended"
                                                            : ": the pooler goes on with the rules it had"));
    }
    if (auto rules = read_ident_file()) {
        ident_rules_ = std::move(rules).value();
    } else {
        log_warning(rules.error().message + ": the pooler goes on with the maps it had");
    }
}

void PoolerEnvironment::read_tls() {
    node_tls_ = read_node_tls(guc::node_conninfo());
    if (auto made = read_server_tls(!started_)) {
        tls_ = std::move(made).value();
    } else {
        log_warning("pooler: " + made.error().message +
                    (tls_ ? ": SSL configuration was not reloaded, the old one stays in force"
                          : ": clients are offered no SSL"));
    }
}

bool PoolerEnvironment::maps_to(const std::string& map, const std::string& system_user,
                                const std::string& user) {
    return pooler::ident_matches(ident_rules_, map, system_user, user, facts_);
}

pooler::AuthRule PoolerEnvironment::match_hba(const pooler::ClientAddress& from, const std::string& database,
                                              const std::string& user) {
    return pooler::match_rules(rules_, from, database, user, facts_);
}

Result<pooler::RoleInfo> PoolerEnvironment::role(const std::string& user) {
    struct Found {
        bool exists;
        bool can_login;
        bool superuser;
        bool expired;
        int connection_limit;
        Oid oid;
        const char* password;  // in the transaction's memory
    };
    pooler::RoleInfo info;
    const char* name = user.c_str();
    const Status asked = in_transaction([&] {
        const auto found = pg_call([name] {
            Found role{};
            HeapTuple const row = SearchSysCache1(AUTHNAME, PointerGetDatum(name));
            if (!HeapTupleIsValid(row)) return role;
            role.exists = true;
            const auto* form = reinterpret_cast<Form_pg_authid>(GETSTRUCT(row));
            role.can_login = form->rolcanlogin;
            role.superuser = form->rolsuper;
            role.connection_limit = form->rolconnlimit;
            role.oid = form->oid;
            bool no_password = false;
            bool no_end = false;
            const Datum password = SysCacheGetAttr(AUTHNAME, row, Anum_pg_authid_rolpassword, &no_password);
            const Datum end = SysCacheGetAttr(AUTHNAME, row, Anum_pg_authid_rolvaliduntil, &no_end);
            role.expired = !no_end && DatumGetTimestampTz(end) < GetCurrentTimestamp();
            if (!no_password && !role.expired) role.password = TextDatumGetCString(password);
            ReleaseSysCache(row);
            return role;
        });
        if (!found) return Status{found.error()};
        info.exists = found->exists;
        info.can_login = found->can_login;
        info.superuser = found->superuser;
        info.password_expired = found->expired;
        info.connection_limit = found->exists ? found->connection_limit : -1;
        info.oid = found->oid;
        if (found->password != nullptr) info.stored_password = found->password;
        return Status{};
    });
    if (!asked) return asked.error();
    return info;
}

std::string PoolerEnvironment::mock_nonce() {
    return {GetMockAuthenticationNonce(), MOCK_AUTH_NONCE_LEN};
}

bool PoolerEnvironment::strong_random(std::uint8_t* out, std::size_t bytes) {
    return pg_strong_random(out, bytes);
}

std::optional<std::string> PoolerEnvironment::saslprep(const std::string& text) {
    const char* input = text.c_str();
    // Outside of a transaction this is TopMemoryContext: what it allocates must be freed.
    const auto prepared = pg_call([input]() -> char* {
        char* output = nullptr;
        return pg_saslprep(input, &output) == SASLPREP_SUCCESS ? output : nullptr;
    });
    if (!prepared || *prepared == nullptr) return std::nullopt;
    std::string result = *prepared;
    pfree(*prepared);
    return result;
}

std::vector<std::pair<std::string, std::string>> PoolerEnvironment::default_parameters() {
    // GUC_REPORT settings of all versions, without those that belong to a session (is_superuser,
    // session_authorization, application_name). A name that this version doesn't have is left out.
    static constexpr const char* names[] = {"server_version",
                                            "DateStyle",
                                            "IntervalStyle",
                                            "TimeZone",
                                            "integer_datetimes",
                                            "standard_conforming_strings",
                                            "default_transaction_read_only",
                                            "in_hot_standby",
                                            "scram_iterations",
                                            "search_path"};
    std::vector<std::pair<std::string, std::string>> parameters;
    for (const char* name : names) {
        const auto value = pg_call([name]() -> const char* {
            return (GetConfigOptionFlags(name, true) & GUC_REPORT) != 0 ? GetConfigOption(name, true, false)
                                                                        : nullptr;
        });
        if (value && *value != nullptr) parameters.emplace_back(name, *value);
    }
    parameters.emplace_back("server_encoding", encoding_);
    parameters.emplace_back("client_encoding", encoding_);
    return parameters;
}

}  // namespace pgxc
