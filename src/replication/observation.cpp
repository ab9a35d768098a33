#include "replication/observation.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "replication/promotion_plan.h"
#include "replication/settings_file.h"

namespace pgxc {
namespace {

// A wrong fact is worse than none, so what can't be read ends the reading: by an exception that stays in this
// file.

template <class T>
T number(const std::string& text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value == 0)
        throw std::invalid_argument("\"" + text + "\" is no number above 0");
    return value;
}

bool boolean(const std::string& text) {
    if (text != "t" && text != "f") throw std::invalid_argument("\"" + text + "\" is no boolean");
    return text == "t";
}

/// A position; NULL is none.
Lsn position(const Rows& rows, std::size_t column) {
    if (rows.is_null(column)) return Lsn{};
    const auto parsed = Lsn::parse(rows.text(column));
    if (!parsed) throw std::invalid_argument("\"" + rows.text(column) + "\" is no WAL position");
    return *parsed;
}

/// A number from 0 on; missing, NULL, and the -1 that stands for a unix socket's port are 0.
template <class T>
T number_in(const nlohmann::json& row, const char* key) {
    const auto at = row.find(key);
    if (at == row.end() || at->is_null() || *at == -1) return T{};
    if (!at->is_number_unsigned() || at->get<std::uint64_t>() > std::numeric_limits<T>::max())
        throw std::out_of_range(std::string(key) + " is out of range");
    return at->get<T>();
}

Lsn lsn_in(const nlohmann::json& row, const char* key) {
    const auto at = row.find(key);
    if (at == row.end() || !at->is_string()) return Lsn{};
    return Lsn::parse(at->get<std::string>()).value_or(Lsn{});
}

std::string text_in(const nlohmann::json& row, const char* key) {
    const auto at = row.find(key);
    return at != row.end() && at->is_string() ? at->get<std::string>() : std::string{};
}

/// Before PostgreSQL 12. One that can't be read is as good as none: the server doesn't start with it.
void read_recovery_conf(const std::string& text, ServerFacts& facts) {
    const auto file = replication::SettingsFile::parse(text, "recovery.conf");
    if (!file.ok()) return;
    if (const auto item = file->get("primary_conninfo")) facts.primary_conninfo = item->value;
    if (const auto item = file->get("primary_slot_name")) facts.primary_slot = item->value;
}

}  // namespace

void StreamProgress::answered(Lsn flush, Lsn master_flushed, TimePoint at) {
    const bool moves = !flush_ || flush != *flush_ || flush >= master_flushed;
    flush_ = flush;
    if (moves) {
        first_.reset();
        stands_since_.reset();
    } else if (!first_) {
        first_ = at;
    } else {
        stands_since_ = first_;
    }
}

bool same_but_for_positions(const Observation& one, const Observation& other) {
    if (one.silence != other.silence || one.starting != other.starting ||
        one.refuses_us != other.refuses_us || one.error != other.error ||
        one.going_down_since.has_value() != other.going_down_since.has_value() ||
        one.facts.has_value() != other.facts.has_value())
        return false;
    if (!one.facts) return true;
    const ServerFacts& a = *one.facts;
    const ServerFacts& b = *other.facts;
    const bool same_streams = std::equal(
        a.standbys.begin(), a.standbys.end(), b.standbys.begin(), b.standbys.end(),
        [](const StreamSeen& x, const StreamSeen& y) { return x.name == y.name && x.state == y.state; });
    return same_streams && a.in_recovery == b.in_recovery && a.system_identifier == b.system_identifier &&
           a.timeline == b.timeline && a.receiver_status == b.receiver_status &&
           a.sender_host == b.sender_host && a.sender_port == b.sender_port &&
           a.standby_names == b.standby_names && a.primary_conninfo == b.primary_conninfo &&
           a.primary_slot == b.primary_slot && a.started_at == b.started_at;
}

const StreamSeen* ServerFacts::find_standby(const std::string& name) const {
    const auto at = std::find_if(standbys.begin(), standbys.end(),
                                 [&](const StreamSeen& standby) { return standby.name == name; });
    return at != standbys.end() ? &*at : nullptr;
}

std::string probe_sql(int server_version, bool superuser) {
    // Five times a second and node: no more than what is read. Before 12 the whole row of the receiver, whose
    // columns differ (sender_host is of 11).
    static const std::string beginning = R"(
SELECT pg_catalog.pg_is_in_recovery(),
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())
            ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() END,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() END,
       )";
    static const std::string receiver =
        R"((SELECT pg_catalog.json_build_object('status', status, 'sender_host', sender_host,
               'sender_port', sender_port, 'received_tli', received_tli) FROM pg_catalog.pg_stat_wal_receiver),
       )";
    static const std::string whole_receiver =
        "(SELECT pg_catalog.row_to_json(w) FROM pg_catalog.pg_stat_wal_receiver w),\n";
    static const std::string names = R"(pg_catalog.current_setting('synchronous_standby_names'),
       )";
    static const std::string from_settings = R"(pg_catalog.current_setting('primary_conninfo', true),
       pg_catalog.current_setting('primary_slot_name', true),
       )";
    static const std::string from_recovery_conf =
        "pg_catalog.pg_read_file('recovery.conf', 0, 1000000, true), NULL,\n";
    static const std::string end = R"(pg_catalog.pg_postmaster_start_time(),
       (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('application_name', application_name,
               'state', state, 'flush_lsn', flush_lsn, 'replay_lsn', replay_lsn))
          FROM pg_catalog.pg_stat_replication))";
    const bool has_recovery_conf = server_version < replication::first_without_recovery_conf;
    return beginning + (has_recovery_conf ? whole_receiver : receiver) + names +
           (has_recovery_conf && superuser ? from_recovery_conf : from_settings) + end;
}

Result<ServerFacts> facts_from(Rows& rows, int server_version) {
    if (rows.rows.size() != 1 || rows.rows.front().size() != 12)
        return Error{sqlstate::internal_error, "a node answered the probe with an unexpected result"};
    ServerFacts facts;
    facts.server_version = server_version;
    facts.standby_names = rows.text(7);
    const bool has_recovery_conf = server_version < replication::first_without_recovery_conf;
    if (has_recovery_conf) {
        read_recovery_conf(rows.text(8), facts);
    } else {
        facts.primary_conninfo = rows.text(8);
        facts.primary_slot = rows.text(9);
    }
    facts.started_at = rows.text(10);
    try {
        facts.in_recovery = boolean(rows.text(0));
        facts.system_identifier = number<std::uint64_t>(rows.text(1));
        facts.timeline = TimelineId{number<std::uint32_t>(rows.text(2))};
        facts.flushed = position(rows, 3);
        facts.received = position(rows, 4);
        facts.replayed = position(rows, 5);
        if (!rows.is_null(6)) {
            const auto receiver = nlohmann::json::parse(rows.text(6));
            if (!receiver.is_object()) throw std::invalid_argument("the WAL receiver is no row");
            facts.receiver_status = text_in(receiver, "status");
            facts.sender_host = text_in(receiver, "sender_host");
            facts.sender_port = number_in<std::uint16_t>(receiver, "sender_port");
            const auto timeline = number_in<std::uint32_t>(receiver, "received_tli");
            if (timeline != 0 && facts.streaming()) facts.timeline = TimelineId{timeline};
            // Of a slave whose recovery.conf may not be read: what its receiver goes by.
            if (has_recovery_conf && facts.primary_conninfo.empty()) {
                facts.primary_conninfo = text_in(receiver, "conninfo");
                facts.primary_slot = text_in(receiver, "slot_name");
            }
        }
        if (!rows.is_null(11)) {
            const auto standbys = nlohmann::json::parse(rows.text(11));
            if (!standbys.is_array()) throw std::invalid_argument("the standbys are no rows");
            for (const auto& row : standbys) {
                if (!row.is_object()) throw std::invalid_argument("a standby is no row");
                facts.standbys.push_back({text_in(row, "application_name"), text_in(row, "state"),
                                          lsn_in(row, "flush_lsn"), lsn_in(row, "replay_lsn")});
            }
        }
    } catch (const std::exception& problem) {
        return Error{sqlstate::internal_error,
                     std::string("a node's answer can't be read: ") + problem.what()};
    }
    return facts;
}

}  // namespace pgxc
