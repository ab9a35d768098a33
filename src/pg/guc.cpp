#include "pg/guc.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <climits>
#include <string_view>

#include "base/limits.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"

extern "C" {
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
}

namespace pgxc::guc {
namespace {

// The server writes these. A string is never null once it is defined.
int role_value = static_cast<int>(Role::Coordinator);
int node_id_value = 1;
char* coordinators_value = nullptr;
char* datanodes_value = nullptr;
char* database_value = nullptr;
bool grammar_value = true;
char* node_user_value = nullptr;
char* node_database_value = nullptr;
char* node_conninfo_value = nullptr;
int pooler_port_value = 6667;
char* pooler_listen_addresses_value = nullptr;
char* pooler_socket_directories_value = nullptr;
int pooler_workers_value = 1;
int max_pool_size_value = 100;
int min_pool_size_value = 1;
int max_client_connections_value = 10000;
int query_wait_timeout_ms = 120000;
int server_idle_timeout_ms = 600000;
int server_lifetime_ms = 3600000;
int client_idle_timeout_ms = 0;
int client_login_timeout_ms = -1;
char* node_value = nullptr;
bool check_nodes_value = true;
int read_routing_value = static_cast<int>(Routing::Explicit);
int max_read_lag_kb = 1024;
bool adaptive_concurrency_value = true;
bool causal_reads_value = true;
bool failover_value = true;
int probe_interval_ms = 200;
int probe_timeout_ms = 1000;
int probe_retries_value = 1;
int restart_grace_ms = 5000;
int failover_hold_ms = 30000;
int max_lost_wal_kb = 0;
int sync_slaves_value = 1;
bool sync_degrade_value = true;
bool rejoin_value = true;
int promotion_value = static_cast<int>(Promotion::Auto);
char* arbiter_value = nullptr;

const config_enum_entry role_options[] = {{"coordinator", static_cast<int>(Role::Coordinator), false},
                                          {"datanode", static_cast<int>(Role::Datanode), false},
                                          {nullptr, 0, false}};
const config_enum_entry routing_options[] = {{"master", static_cast<int>(Routing::Master), false},
                                             {"primary", static_cast<int>(Routing::Master), true},
                                             {"explicit", static_cast<int>(Routing::Explicit), false},
                                             {"auto", static_cast<int>(Routing::Auto), false},
                                             {nullptr, 0, false}};
const config_enum_entry promotion_options[] = {{"auto", static_cast<int>(Promotion::Auto), false},
                                               {"promote", static_cast<int>(Promotion::Promote), false},
                                               {"restart", static_cast<int>(Promotion::Restart), false},
                                               {nullptr, 0, false}};

/// Refuses a value with the error's code, sentence and hint. Always false.
bool refuse(const Error& error) {
    char detail[512];
    char hint[256];
    // "invalid entry ..." -> "Invalid entry ...": a detail is a sentence.
    strlcpy(detail, error.message.c_str(), sizeof detail);
    detail[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(detail[0])));
    if (!error.message.ends_with('.')) strlcat(detail, ".", sizeof detail);
    strlcpy(hint, error.hint.c_str(), sizeof hint);
    const char* state = error.sqlstate.c_str();
    GUC_check_errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]));
    GUC_check_errdetail("%s", detail);
    if (hint[0] != '\0') GUC_check_errhint("%s", hint);
    return false;
}

/// Wraps a check that is C++ (text -> Status) into a hook: nothing is thrown into the server.
template <Status (*check)(std::string_view)>
bool check_hook(char** newval, void** /*extra*/, GucSource /*source*/) {
    try {
        const Status status = check(*newval != nullptr ? *newval : "");
        return status ? true : refuse(status.error());
    } catch (const std::exception&) {
        return false;
    }
}

Status check_node_list(std::string_view text) {
    const auto nodes = parse_node_list(text);
    return nodes ? Status{} : Status{nodes.error()};
}

Status check_name(std::string_view text) {
    if (text.empty()) return Error{sqlstate::invalid_parameter_value, "a name is needed"};
    if (text.size() >= NAMEDATALEN)
        return Error{sqlstate::invalid_parameter_value,
                     "a name has at most " + std::to_string(NAMEDATALEN - 1) + " bytes"};
    return {};
}

Status check_node_choice(std::string_view text) {
    if (text.empty() || text == "C" || text == "c") return {};
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error == std::errc{} && end == text.data() + text.size() && id > 0) return {};
    return Error{sqlstate::invalid_parameter_value, "there is no such node to choose",
                 "Give the id of a datanode, or C for the coordinator itself."};
}

Status check_arbiter(std::string_view text) {
    if (text == "local") return {};
    constexpr std::string_view etcd = "etcd:";
    if (text.starts_with(etcd)) {
        std::string_view rest = text.substr(etcd.size());
        bool good = !rest.empty();
        while (good && !rest.empty()) {
            const auto comma = std::min(rest.find(','), rest.size());
            std::string_view url = rest.substr(0, comma);
            rest.remove_prefix(std::min(comma + 1, rest.size()));
            constexpr std::string_view http = "http://";
            good = url.starts_with(http) && HostPort::parse(url.substr(http.size())).ok();
        }
        if (good)
            return Error{sqlstate::feature_not_supported,
                         "an arbiter in etcd is not supported by this version",
                         "With one coordinator use 'local'."};
    }
    return Error{sqlstate::invalid_parameter_value,
                 "an arbiter is 'local' or 'etcd:http://host:port,http://host:port'"};
}

Status check_conninfo(std::string_view text) {
    // Options that are ours to set: a second value would quietly lose, or send the control sessions
    // elsewhere.
    constexpr std::string_view ours[] = {"host",        "hostaddr",         "port",
                                         "user",        "dbname",           "options",
                                         "replication", "application_name", "service"};
    std::size_t at = 0;
    const auto skip_white = [&] {
        while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at])) != 0) ++at;
    };
    const auto bad = [](std::string message) {
        return Error{sqlstate::invalid_parameter_value, std::move(message),
                     "Write libpq options as in \"sslmode=require passfile=/path/to/.pgpass\"."};
    };
    for (skip_white(); at < text.size(); skip_white()) {
        const std::size_t begin = at;
        while (at < text.size() &&
               (std::isalnum(static_cast<unsigned char>(text[at])) != 0 || text[at] == '_'))
            ++at;
        const std::string keyword(text.substr(begin, at - begin));
        skip_white();
        if (keyword.empty() || at >= text.size() || text[at] != '=')
            return bad("an option has the form keyword=value");
        if (std::find(std::begin(ours), std::end(ours), keyword) != std::end(ours))
            return bad("the option \"" + keyword + "\" is set by the coordinator itself");
        ++at;
        skip_white();
        if (at < text.size() && text[at] == '\'') {
            for (++at; at < text.size() && text[at] != '\''; ++at)
                if (text[at] == '\\') ++at;
            if (at >= text.size()) return bad("a quoted value is not closed");
            ++at;
        } else {
            for (; at < text.size() && std::isspace(static_cast<unsigned char>(text[at])) == 0; ++at)
                if (text[at] == '\\') ++at;
            at = std::min(at, text.size());
        }
    }
    return {};
}

struct Definer {
    bool preloading;

    /// A setting that only a postmaster's start can set can't be defined later.
    [[nodiscard]] bool skip(GucContext context) const { return context == PGC_POSTMASTER && !preloading; }

    void integer(const char* name, const char* what, int* variable, int least, int most, GucContext context,
                 int flags = 0) const {
        if (skip(context)) return;
        DefineCustomIntVariable(name, what, nullptr, variable, *variable, least, most, context, flags,
                                nullptr, nullptr, nullptr);
    }
    void boolean(const char* name, const char* what, bool* variable, GucContext context) const {
        if (skip(context)) return;
        DefineCustomBoolVariable(name, what, nullptr, variable, *variable, context, 0, nullptr, nullptr,
                                 nullptr);
    }
    void choice(const char* name, const char* what, int* variable, const config_enum_entry* options,
                GucContext context) const {
        if (skip(context)) return;
        DefineCustomEnumVariable(name, what, nullptr, variable, *variable, options, context, 0, nullptr,
                                 nullptr, nullptr);
    }
    void text(const char* name, const char* what, char** variable, const char* initially, GucContext context,
              int flags = 0, GucStringCheckHook check = nullptr) const {
        if (skip(context)) return;
        DefineCustomStringVariable(name, what, nullptr, variable, initially, context, flags, check, nullptr,
                                   nullptr);
    }
};

/// The server's own value of a setting, as a lasting string: the default of ours.
const char* servers_own(const char* name) {
    const char* value = GetConfigOption(name, true, false);
    return MemoryContextStrdup(TopMemoryContext, value != nullptr ? value : "");
}

std::string copy(const char* value, const char* otherwise = "") {
    return value != nullptr ? value : otherwise;
}

std::vector<ListedNode> listed(const char* value) {
    auto nodes = parse_node_list(copy(value));
    return nodes ? std::move(nodes).value() : std::vector<ListedNode>{};
}

}  // namespace

void define_settings(bool preloading) {
    const Definer define{preloading};
    constexpr int day_ms = 24 * 60 * 60 * 1000;

    define.choice("pgxc.role", "What this server is: coordinator or datanode.", &role_value, role_options,
                  PGC_POSTMASTER);
    define.integer("pgxc.node_id", "This node's id among the nodes of its type.", &node_id_value, 1, INT_MAX,
                   PGC_POSTMASTER);
    define.text("pgxc.coordinators",
                "Coordinator masters, 'id=host:port, ...', that CREATE EXTENSION enters.",
                &coordinators_value, "", PGC_SIGHUP, GUC_LIST_INPUT, check_hook<check_node_list>);
    define.text("pgxc.datanodes", "Datanode masters, 'id=host:port, ...', that CREATE EXTENSION enters.",
                &datanodes_value, "", PGC_SIGHUP, GUC_LIST_INPUT, check_hook<check_node_list>);
    define.text("pgxc.database", "The database with the extension; the monitor connects to it.",
                &database_value, "postgres", PGC_POSTMASTER, 0, check_hook<check_name>);
    define.boolean("pgxc.grammar", "Understand REGISTER DATANODE SLAVE and its family.", &grammar_value,
                   PGC_POSTMASTER);
    define.text("pgxc.node_user", "The role with which the coordinator controls nodes.", &node_user_value,
                "postgres", PGC_SIGHUP, 0, check_hook<check_name>);
    define.text("pgxc.node_database", "The database of a node that the coordinator connects to for control.",
                &node_database_value, "postgres", PGC_SIGHUP, 0, check_hook<check_name>);
    // It may hold a password.
    define.text("pgxc.node_conninfo", "More libpq options for control connections (sslmode, passfile, ...).",
                &node_conninfo_value, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_hook<check_conninfo>);

    define.integer("pgxc.pooler_port", "The TCP port and socket number of the pooler; 0 means no pooler.",
                   &pooler_port_value, 0, 65535, PGC_POSTMASTER);
    if (preloading) {
        define.text(
            "pgxc.pooler_listen_addresses", "Addresses that the pooler listens on, as listen_addresses.",
            &pooler_listen_addresses_value, servers_own("listen_addresses"), PGC_POSTMASTER, GUC_LIST_INPUT);
        define.text("pgxc.pooler_socket_directories", "Directories of the pooler's Unix sockets.",
                    &pooler_socket_directories_value, servers_own("unix_socket_directories"), PGC_POSTMASTER,
                    GUC_LIST_INPUT | GUC_SUPERUSER_ONLY);
    }
    define.integer("pgxc.pooler_workers", "Processes that share the pooler's port.", &pooler_workers_value, 1,
                   limits::max_pooler_workers, PGC_POSTMASTER);
    define.integer("pgxc.max_pool_size", "Most server connections for one node, database and user.",
                   &max_pool_size_value, 1, 100000, PGC_SIGHUP);
    define.integer("pgxc.min_pool_size",
                   "Server connections for one node, database and user that are kept open.",
                   &min_pool_size_value, 0, 100000, PGC_SIGHUP);
    define.integer("pgxc.max_client_connections", "Most clients of the pooler.",
                   &max_client_connections_value, 1, 1000000, PGC_POSTMASTER);

    define.integer("pgxc.query_wait_timeout",
                   "How long a transaction waits for a free server connection; 0 means without a limit.",
                   &query_wait_timeout_ms, 0, day_ms, PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.server_idle_timeout",
                   "A server connection that nobody has needed for so long is closed; 0 means never.",
                   &server_idle_timeout_ms, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.server_lifetime",
                   "A server connection that is older is closed once it is free; 0 means never.",
                   &server_lifetime_ms, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.client_idle_timeout",
                   "A client that is in no transaction for so long is disconnected; 0 means never.",
                   &client_idle_timeout_ms, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.client_login_timeout",
                   "How long a client may take to log in; -1 means authentication_timeout, 0 for ever.",
                   &client_login_timeout_ms, -1, day_ms, PGC_SIGHUP, GUC_UNIT_MS);

    define.text("pgxc.node", "The node that a connection through the pooler means: a datanode's id, or C.",
                &node_value, "", PGC_USERSET, 0, check_hook<check_node_choice>);
    define.boolean("pgxc.check_nodes", "REGISTER asks the node before it writes the catalog.",
                   &check_nodes_value, PGC_USERSET);
    // A connection string that the pooler understands must not fail at the server itself, hence not SIGHUP.
    define.choice("pgxc.read_routing", "Which transactions the pooler may send to slaves.",
                  &read_routing_value, routing_options, PGC_USERSET);
    define.integer("pgxc.max_read_lag", "A slave further behind its master serves no reads.",
                   &max_read_lag_kb, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB);
    define.boolean("pgxc.adaptive_concurrency",
                   "Lend fewer server connections than there may be while that serves all clients sooner.",
                   &adaptive_concurrency_value, PGC_SIGHUP);
    define.boolean("pgxc.causal_reads", "A read sees every commit that came through this pooler before it.",
                   &causal_reads_value, PGC_SIGHUP);

    define.boolean("pgxc.failover", "Fail over automatically.", &failover_value, PGC_SIGHUP);
    define.integer("pgxc.probe_interval", "Time between two probes of a node.", &probe_interval_ms, 10, 60000,
                   PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.probe_timeout", "How long a probe waits for an answer.", &probe_timeout_ms, 10,
                   60000, PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.probe_retries", "How many more silent probes make a node suspect of being dead.",
                   &probe_retries_value, 0, 100, PGC_SIGHUP);
    define.integer("pgxc.restart_grace", "How long a master may take to restart by itself.",
                   &restart_grace_ms, 0, day_ms, PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.failover_hold", "How long new transactions wait for a new master before they fail.",
                   &failover_hold_ms, 0, day_ms, PGC_SIGHUP, GUC_UNIT_MS);
    define.integer("pgxc.max_lost_wal",
                   "An asynchronous slave that may have missed more is never promoted automatically.",
                   &max_lost_wal_kb, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB);
    define.integer("pgxc.sync_slaves", "How many synchronous slaves must acknowledge a commit.",
                   &sync_slaves_value, 1, static_cast<int>(limits::max_sync_slaves), PGC_SIGHUP);
    define.boolean("pgxc.sync_degrade",
                   "When synchronous slaves die: record that they no longer count, and let commits through.",
                   &sync_degrade_value, PGC_SIGHUP);
    define.boolean("pgxc.rejoin", "Make a slave of a master that was replaced.", &rejoin_value, PGC_SIGHUP);
    define.choice("pgxc.promotion", "How a slave is made the master.", &promotion_value, promotion_options,
                  PGC_SIGHUP);
    define.text("pgxc.arbiter", "Who keeps the record that decides a failover.", &arbiter_value, "local",
                PGC_SIGHUP, 0, check_hook<check_arbiter>);

    if (preloading) compat::reserve_setting_prefix("pgxc");
}

Role role() {
    return static_cast<Role>(role_value);
}
NodeId node_id() {
    return NodeId{node_id_value};
}
std::vector<ListedNode> coordinators() {
    return listed(coordinators_value);
}
std::vector<ListedNode> datanodes() {
    return listed(datanodes_value);
}
std::string database() {
    return copy(database_value, "postgres");
}
bool grammar() {
    return grammar_value;
}
std::string node_user() {
    return copy(node_user_value, "postgres");
}
std::string node_database() {
    return copy(node_database_value, "postgres");
}
std::string node_conninfo() {
    return copy(node_conninfo_value);
}
int pooler_port() {
    return pooler_port_value;
}
std::string pooler_listen_addresses() {
    return copy(pooler_listen_addresses_value);
}
std::string pooler_socket_directories() {
    return copy(pooler_socket_directories_value);
}
int pooler_workers() {
    return pooler_workers_value;
}
int max_pool_size() {
    return max_pool_size_value;
}
int min_pool_size() {
    return std::min(min_pool_size_value, max_pool_size_value);
}
int max_client_connections() {
    return max_client_connections_value;
}
Millis query_wait_timeout() {
    return Millis{query_wait_timeout_ms};
}
Millis server_idle_timeout() {
    return Millis{server_idle_timeout_ms};
}
Millis server_lifetime() {
    return Millis{server_lifetime_ms};
}
Millis client_idle_timeout() {
    return Millis{client_idle_timeout_ms};
}
std::optional<Millis> client_login_timeout() {
    if (client_login_timeout_ms < 0) return std::nullopt;
    return Millis{client_login_timeout_ms};
}
bool check_nodes() {
    return check_nodes_value;
}
Routing read_routing() {
    return static_cast<Routing>(read_routing_value);
}
std::uint64_t max_read_lag_bytes() {
    return static_cast<std::uint64_t>(max_read_lag_kb) * 1024;
}
bool adaptive_concurrency() {
    return adaptive_concurrency_value;
}
bool causal_reads() {
    return causal_reads_value;
}
bool failover() {
    return failover_value;
}
Millis probe_interval() {
    return Millis{probe_interval_ms};
}
Millis probe_timeout() {
    return Millis{probe_timeout_ms};
}
int probe_retries() {
    return probe_retries_value;
}
Millis restart_grace() {
    return Millis{restart_grace_ms};
}
Millis failover_hold() {
    return Millis{failover_hold_ms};
}
std::uint64_t max_lost_wal_bytes() {
    return static_cast<std::uint64_t>(max_lost_wal_kb) * 1024;
}
int sync_slaves() {
    return sync_slaves_value;
}
bool sync_degrade() {
    return sync_degrade_value;
}
bool rejoin() {
    return rejoin_value;
}
Promotion promotion() {
    return static_cast<Promotion>(promotion_value);
}
std::string arbiter() {
    return copy(arbiter_value, "local");
}

}  // namespace pgxc::guc
