#include <ifaddrs.h>
#include <libpq-fe.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <set>
#include <span>

#include "replication/node_check.h"

namespace pgxc {
namespace {

constexpr Millis slice{100};
constexpr std::size_t connections_at_once = 64;

struct CloseConnection {
    void operator()(PGconn* connection) const { PQfinish(connection); }
};
using Connection = std::unique_ptr<PGconn, CloseConnection>;

struct ClearResult {
    void operator()(PGresult* result) const { PQclear(result); }
};
using Answer = std::unique_ptr<PGresult, ClearResult>;

struct FreeOptions {
    void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

// Columns that only some versions have are reached through to_jsonb, settings through pg_settings, which
// shows a login no more than it may see and has no row for what a version doesn't know.
constexpr const char* question = R"(
WITH s AS (SELECT name, setting FROM pg_catalog.pg_settings),
     r AS (SELECT pg_catalog.to_jsonb(w) AS j FROM pg_catalog.pg_stat_get_wal_receiver() w WHERE w.pid IS NOT NULL),
     c AS (SELECT * FROM pg_catalog.pg_control_checkpoint())
SELECT (SELECT setting FROM s WHERE name = 'server_version_num'),
       pg_catalog.pg_is_in_recovery(),
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       (SELECT timeline_id FROM c),
       CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
            ELSE pg_catalog.pg_current_wal_flush_lsn() END,
       pg_catalog.current_setting('is_superuser'),
       (SELECT j->>'status' FROM r),
       (SELECT j->>'sender_host' FROM r),
       (SELECT j->>'sender_port' FROM r),
       (SELECT j->>'conninfo' FROM r),
       (SELECT j->>'slot_name' FROM r),
       (SELECT setting FROM s WHERE name = 'primary_conninfo'),
       (SELECT setting FROM s WHERE name = 'primary_slot_name'),
       (SELECT setting FROM s WHERE name = 'cluster_name'),
       (SELECT setting FROM s WHERE name = 'wal_level'),
       (SELECT setting FROM s WHERE name = 'max_wal_senders'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_wal_senders()),
       (SELECT setting FROM s WHERE name = 'max_replication_slots'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
       (SELECT setting FROM s WHERE name = 'wal_log_hints'),
       (SELECT setting FROM s WHERE name = 'data_checksums'),
       (SELECT setting FROM s WHERE name = 'allow_alter_system'),
       (SELECT setting FROM s WHERE name = 'data_directory'),
       (SELECT setting FROM s WHERE name = 'port'),
       (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint;
SELECT a.application_name, a.state, a.sync_state, pg_catalog.host(a.client_addr), l.slot_name
  FROM pg_catalog.pg_stat_replication a LEFT JOIN pg_catalog.pg_replication_slots l ON l.active_pid = a.pid)";
constexpr int question_columns = 25;

std::string cell(const PGresult* result, int row, int column) {
    return PQgetisnull(result, row, column) != 0 ? std::string()
                                                 : std::string(PQgetvalue(result, row, column));
}

template <class Number>
Number number(const std::string& text) {
    Number value{};
    (void)std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

/// host, port and application_name of a connection string; what it doesn't name stays as it is.
void read_conninfo(const std::string& conninfo, NodeFacts* facts) {
    if (conninfo.empty()) return;
    const std::unique_ptr<PQconninfoOption, FreeOptions> options(PQconninfoParse(conninfo.c_str(), nullptr));
    if (!options) return;
    std::string host;
    std::string hostaddr;
    for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
        if (option->val == nullptr) continue;
        const std::string_view keyword = option->keyword;
        if (keyword == "host") host = option->val;
        if (keyword == "hostaddr") hostaddr = option->val;
        if (keyword == "port") facts->upstream_port = number<std::uint16_t>(option->val);
        if (keyword == "application_name") facts->application_name = option->val;
    }
    facts->upstream_host = hostaddr.empty() ? host : hostaddr;
    if (facts->upstream_port == 0) facts->upstream_port = 5432;
}

NodeFacts facts_of(const PGresult* result) {
    NodeFacts facts;
    int column = 0;
    const auto next = [&] { return cell(result, 0, column++); };
    facts.server_version_num = number<int>(next());
    facts.in_recovery = next() == "t";
    // A bigint in SQL, but its bits are an unsigned number.
    facts.system_identifier = static_cast<std::uint64_t>(number<std::int64_t>(next()));
    facts.timeline = TimelineId{number<std::uint32_t>(next())};
    facts.position = Lsn::parse(next()).value_or(Lsn{});
    facts.superuser_login = next() == "on";
    facts.streaming = next() == "streaming";
    const std::string sender_host = next();
    const std::string sender_port = next();
    const std::string receiver_conninfo = next();
    const std::string receiver_slot = next();
    const std::string primary_conninfo = next();
    const std::string primary_slot_name = next();
    read_conninfo(primary_conninfo, &facts);
    read_conninfo(receiver_conninfo, &facts);
    if (!sender_host.empty()) facts.upstream_host = sender_host;
    if (!sender_port.empty()) facts.upstream_port = number<std::uint16_t>(sender_port);
    facts.primary_slot_name = receiver_slot.empty() ? primary_slot_name : receiver_slot;
    facts.cluster_name = next();
    facts.wal_level = next();
    facts.max_wal_senders = number<int>(next());
    facts.walsenders = number<int>(next());
    facts.max_replication_slots = number<int>(next());
    facts.replication_slots = number<int>(next());
    const bool wal_log_hints = next() == "on";
    const bool data_checksums = next() == "on";
    facts.rewind_possible = wal_log_hints || data_checksums;
    facts.allow_alter_system = next() != "off";
    facts.data_directory = next();
    facts.port = number<int>(next());
    facts.started_at = next();
    return facts;
}

std::string trimmed(const char* text) {
    std::string words = text != nullptr ? text : "";
    while (!words.empty() && (words.back() == '\n' || words.back() == ' ')) words.pop_back();
    std::replace(words.begin(), words.end(), '\n', ' ');
    std::erase(words, '\t');
    return words;
}

/// One server being asked.
class Examination {
  public:
    Examination(const HostPort& address, const NodeLogin& login, Millis timeout) : address_(address) {
        const std::string port = std::to_string(address.port);
        const std::string seconds = std::to_string(std::max<std::int64_t>(2, timeout.count() / 1000 + 1));
        const std::string millis = std::to_string(timeout.count());
        std::vector<const char*> keywords;
        std::vector<const char*> values;
        const auto add = [&](const char* keyword, const char* value) {
            keywords.push_back(keyword);
            values.push_back(value);
        };
        // The first dbname is expanded as a connection string; whatever follows wins over it.
        if (!login.conninfo.empty()) add("dbname", login.conninfo.c_str());
        add("host", address.host.c_str());
        add("port", port.c_str());
        add("user", login.user.c_str());
        add("dbname", login.database.c_str());
        add("application_name", "pgxc_ha");
        add("connect_timeout", seconds.c_str());
        if (PQlibVersion() >= 120000) {
            add("tcp_user_timeout", millis.c_str());
            add("gssencmode", "disable");
        }
        add("keepalives_idle", "1");
        add("keepalives_interval", "1");
        add("keepalives_count", "3");
        add("client_encoding", "UTF8");
        keywords.push_back(nullptr);
        values.push_back(nullptr);
        connection_.reset(
            PQconnectStartParams(keywords.data(), values.data(), login.conninfo.empty() ? 0 : 1));
        if (!connection_) {
            finish(Error{"53200", "out of memory"});
        } else if (PQstatus(connection_.get()) == CONNECTION_BAD) {
            login_failed();
        } else {
            PQsetNoticeProcessor(
                connection_.get(), [](void*, const char*) {}, nullptr);
            polling_ = PGRES_POLLING_WRITING;
        }
    }

    [[nodiscard]] bool done() const { return result_.has_value(); }
    [[nodiscard]] Result<NodeFacts> take() { return std::move(*result_); }

    [[nodiscard]] pollfd wanted() const {
        short events = POLLIN;
        if (!connected_ && polling_ == PGRES_POLLING_WRITING) events = POLLOUT;
        if (connected_ && flushing_) events = POLLIN | POLLOUT;
        return {PQsocket(connection_.get()), events, 0};
    }

    /// Goes on as far as it can without waiting.
    void advance() {
        if (!connected_) {
            polling_ = PQconnectPoll(connection_.get());
            // From here on something that speaks our protocol is there: a failure is its refusal.
            if (PQstatus(connection_.get()) == CONNECTION_AUTH_OK ||
                PQprotocolVersion(connection_.get()) != 0 ||
                PQstatus(connection_.get()) == CONNECTION_AWAITING_RESPONSE)
                reached_ = true;
            if (polling_ == PGRES_POLLING_FAILED) return login_failed();
            if (polling_ != PGRES_POLLING_OK) return;
            connected_ = true;
            PQsetnonblocking(connection_.get(), 1);
            if (PQsendQuery(connection_.get(), question) == 0) return question_failed(nullptr);
            flushing_ = true;
        }
        if (flushing_) {
            const int flushed = PQflush(connection_.get());
            if (flushed < 0) return question_failed(nullptr);
            flushing_ = flushed > 0;
        }
        if (PQconsumeInput(connection_.get()) == 0) return question_failed(nullptr);
        while (PQisBusy(connection_.get()) == 0) {
            const Answer answer(PQgetResult(connection_.get()));
            if (!answer) return finish_with_facts();
            read(answer.get());
            if (done()) return;
        }
    }

    void give_up(Error error) { finish(std::move(error)); }

    void time_is_over(Millis timeout) {
        finish(Error{sqlstate::unable_to_connect, "server at " + address_.to_string() + " does not answer",
                     "Start it, or check host, port, firewall and pg_hba.conf.",
                     "No answer within " + std::to_string(timeout.count()) + " ms."});
    }

  private:
    void read(const PGresult* answer) {
        if (PQresultStatus(answer) != PGRES_TUPLES_OK) return question_failed(answer);
        if (answers_++ == 0) {
            if (PQntuples(answer) != 1 || PQnfields(answer) != question_columns)
                return finish(Error{sqlstate::protocol_violation,
                                    "unexpected answer of the server at " + address_.to_string(),
                                    "Is it a PostgreSQL server?"});
            facts_ = facts_of(answer);
            return;
        }
        for (int row = 0; row < PQntuples(answer); ++row)
            facts_.standbys.push_back({cell(answer, row, 0), cell(answer, row, 1), cell(answer, row, 2),
                                       cell(answer, row, 3), cell(answer, row, 4)});
    }

    void finish_with_facts() {
        if (answers_ == 2) return finish(std::move(facts_));
        question_failed(nullptr);
    }

    void login_failed() {
        const std::string words = connection_ ? trimmed(PQerrorMessage(connection_.get())) : std::string();
        if (reached_)
            return finish(Error{
                sqlstate::rejected_connection,
                "server at " + address_.to_string() + " refused the login of this coordinator",
                "Correct pgxc.node_user, pgxc.node_database and pgxc.node_conninfo here, or pg_hba.conf "
                "and the role there.",
                words});
        finish(Error{sqlstate::unable_to_connect, "server at " + address_.to_string() + " does not answer",
                     "Start it, or check host, port, firewall and pg_hba.conf.", words});
    }

    void question_failed(const PGresult* answer) {
        const char* state = answer != nullptr ? PQresultErrorField(answer, PG_DIAG_SQLSTATE) : nullptr;
        const char* words = answer != nullptr ? PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY)
                                              : PQerrorMessage(connection_.get());
        if (state != nullptr)
            return finish(
                Error{SqlState(state),
                      "server at " + address_.to_string() + " cannot be asked what it is: " + trimmed(words),
                      "Let pgxc.node_user be a superuser or a member of pg_monitor there."});
        finish(Error{sqlstate::connection_failure,
                     "server at " + address_.to_string() + " broke off the connection",
                     "See the log of that server.", trimmed(words)});
    }

    void finish(Result<NodeFacts> result) {
        connection_.reset();
        result_ = std::move(result);
    }

    HostPort address_;
    Connection connection_;
    PostgresPollingStatusType polling_ = PGRES_POLLING_WRITING;
    bool reached_ = false;
    bool connected_ = false;
    bool flushing_ = false;
    int answers_ = 0;
    NodeFacts facts_;
    std::optional<Result<NodeFacts>> result_;
};

/// Runs all to their end. Errors are in the examinations.
void run(std::span<Examination> examinations, Millis timeout, Interrupted interrupted, void* context) {
    const TimePoint deadline = Clock::now() + timeout;
    std::vector<pollfd> descriptors;
    std::vector<Examination*> waiting;
    for (;;) {
        descriptors.clear();
        waiting.clear();
        for (Examination& examination : examinations) {
            if (examination.done()) continue;
            descriptors.push_back(examination.wanted());
            waiting.push_back(&examination);
        }
        if (waiting.empty()) return;
        if (interrupted != nullptr && interrupted(context)) {
            for (Examination* examination : waiting)
                examination->give_up(Error{sqlstate::query_canceled, "canceling the question to a node"});
            return;
        }
        const auto left = std::chrono::duration_cast<Millis>(deadline - Clock::now());
        if (left.count() <= 0) {
            for (Examination* examination : waiting) examination->time_is_over(timeout);
            return;
        }
        const int ready = ::poll(descriptors.data(), descriptors.size(),
                                 static_cast<int>(std::min(slice, left + Millis{1}).count()));
        if (ready <= 0) continue;  // the time is up, or a signal: the loop looks at both
        for (std::size_t i = 0; i < waiting.size(); ++i)
            if (descriptors[i].revents != 0) waiting[i]->advance();
    }
}

using Address = std::string;  // the bytes of an IPv4 or IPv6 address; "" = this very host

bool is_loopback(const sockaddr* address) {
    if (address->sa_family == AF_INET) {
        const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
        return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
    }
    if (address->sa_family != AF_INET6) return false;
    const auto& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

std::optional<Address> bytes_of(const sockaddr* address) {
    if (address == nullptr) return std::nullopt;
    if (address->sa_family == AF_INET) {
        const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
        return Address(reinterpret_cast<const char*>(&v4->sin_addr), sizeof v4->sin_addr);
    }
    if (address->sa_family == AF_INET6) {
        const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
        return Address(reinterpret_cast<const char*>(&v6->sin6_addr), sizeof v6->sin6_addr);
    }
    return std::nullopt;
}

std::set<Address> own_addresses() {
    std::set<Address> own;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return own;
    for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next)
        if (const auto bytes = bytes_of(entry->ifa_addr)) own.insert(*bytes);
    freeifaddrs(list);
    return own;
}

struct Resolved {
    bool local = false;  // a unix socket or a loopback address: the host that says so
    std::set<Address> addresses;
};

Resolved resolve(const std::string& host) {
    Resolved resolved;
    if (host.empty() || host.starts_with('/') || host.starts_with('@')) {
        resolved.local = true;
        return resolved;
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (getaddrinfo(host.c_str(), nullptr, &hints, &list) != 0) return resolved;
    for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
        if (is_loopback(entry->ai_addr))
            resolved.local = true;
        else if (const auto bytes = bytes_of(entry->ai_addr))
            resolved.addresses.insert(*bytes);
    }
    freeaddrinfo(list);
    return resolved;
}

}  // namespace

std::vector<Result<NodeFacts>> examine_nodes(const std::vector<HostPort>& addresses, const NodeLogin& login,
                                             Millis timeout, Interrupted interrupted, void* context) {
    std::vector<Result<NodeFacts>> results;
    results.reserve(addresses.size());
    for (std::size_t first = 0; first < addresses.size(); first += connections_at_once) {
        const std::size_t count = std::min(connections_at_once, addresses.size() - first);
        std::vector<Examination> batch;
        batch.reserve(count);
        for (std::size_t i = 0; i < count; ++i) batch.emplace_back(addresses[first + i], login, timeout);
        run(batch, timeout, interrupted, context);
        for (Examination& examination : batch) results.push_back(examination.take());
    }
    return results;
}

bool leads_to(const HostPort& upstream, const HostPort& slave, const HostPort& master) {
    if (upstream.port != master.port) return false;
    if (upstream.host == master.host && !resolve(upstream.host).local) return true;
    const auto own = own_addresses();
    // "This host" is the slave's where the slave says it, and ours where we say it.
    const auto here = [&](const Resolved& resolved) {
        return resolved.local || std::any_of(resolved.addresses.begin(), resolved.addresses.end(),
                                             [&](const Address& address) { return own.contains(address); });
    };
    Resolved from = resolve(upstream.host);
    if (from.local) from = resolve(slave.host);
    const Resolved to = resolve(master.host);
    if (here(from) && here(to)) return true;
    return std::any_of(from.addresses.begin(), from.addresses.end(),
                       [&](const Address& address) { return to.addresses.contains(address); });
}

}  // namespace pgxc
