#include <algorithm>
#include <asio/use_awaitable.hpp>
#include <cctype>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "replication/node_group.h"

// What breaks the promise, or may, without any server failing: looked for in calm times, reported in
// pgxc_node_status and pgxc.failover_evidence.

namespace pgxc {
namespace {

/// How often settings that nobody announces are looked at.
constexpr Millis audit_interval{10'000};

std::string list_of(const Rows& rows) {
    std::string list;
    for (std::size_t row = 0; row < rows.rows.size(); ++row)
        list += (list.empty() ? "" : ", ") + rows.text(0, row);
    return list;
}

/// As PostgreSQL compares names in synchronous_standby_names.
bool same_name(const std::string& one, const std::string& other) {
    return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
}

}  // namespace

void NodeGroup::note_positions(const std::map<HostPort, Observation>& seen) {
    const std::vector<Member> members = record_->all_members();
    // Whoever has left S by record joins anew, with whatever WAL it has then.
    std::erase_if(replayed_, [&](const auto& entry) {
        return std::none_of(members.begin(), members.end(),
                            [&](const Member& member) { return member.address == entry.first; });
    });
    for (const Member& member : members) {
        const auto found = seen.find(member.address);
        if (found == seen.end() || !found->second.facts || !found->second.facts->in_recovery) continue;
        Replayed& known = replayed_[member.address];
        if (known.epoch != record_->epoch) known = {record_->epoch, Lsn{}};
        // Replayed, not received: a slave that restarts may lose the beginning of a record that it had
        // received, and no commit ends there.
        known.position = std::max(known.position, found->second.facts->replayed);
    }
}

bool NodeGroup::has_forgotten(const HostPort& address, Lsn position) const {
    const auto known = replayed_.find(address);
    if (known == replayed_.end() || known->second.epoch != record_->epoch ||
        position >= known->second.position)
        return false;
    log_warning(key_.to_string() + ": " + address.to_string() + " ends at " + position.to_string() +
                ", and had replayed " + known->second.position.to_string() +
                ": it was made anew, has forgotten what it acknowledged, and doesn't count as fenced");
    return true;
}

asio::awaitable<void> NodeGroup::audit(const ServerFacts& master) {
    co_await end_second_streams(master);
    const auto now = Clock::now();
    if (audited_at_ && now - *audited_at_ < audit_interval) co_return;
    audited_at_ = now;
    auto server = co_await session(record_->master);
    if (!server.ok()) co_return;
    co_await look_at_settings(**server);
    if (prepared_.empty()) co_return;
    server = co_await session(record_->master);
    if (!server.ok()) co_return;
    std::string list = "''";
    for (const std::string& gid : prepared_) list += ", " + sql_literal(gid);
    auto left = co_await (*server)->run(
        "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE gid IN (" + list + ") ORDER BY gid",
        effect_timeout);
    if (!left.ok()) co_return;
    prepared_.clear();
    for (std::size_t row = 0; row < left->rows.size(); ++row) prepared_.push_back(left->text(0, row));
    if (prepared_.empty()) prepared_why_.clear();
}

asio::awaitable<void> NodeGroup::end_second_streams(const ServerFacts& master) {
    // SyncRep counts WAL senders, not names (F11): one slave connected twice would stand for two.
    std::string twice;
    std::vector<std::string> names = record_->wanted().names();
    for (const std::string& name : names) {
        const auto streams = std::count_if(
            master.standbys.begin(), master.standbys.end(),
            [&](const StreamSeen& each) { return each.state == "streaming" && same_name(each.name, name); });
        if (streams > 1) twice += (twice.empty() ? "" : ", ") + name;
        if (streams <= 1) continue;
        auto server = co_await session(record_->master);
        if (!server.ok()) continue;
        // The slave itself streams through its slot, which serves one only.
        auto ended = co_await (*server)->run(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_replication WHERE "
            "lower(application_name) = lower(" +
                sql_literal(name) +
                ") AND pid NOT IN (SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE "
                "active_pid IS NOT NULL AND slot_name = lower(" +
                sql_literal(name) + "))",
            effect_timeout);
        if (!ended.ok()) log_warning(key_.to_string() + ": " + ended.error().message);
    }
    if (twice.empty()) {
        second_streams_why_.clear();
        co_return;
    }
    const std::string why = "more than one stream is called " + twice +
                            ": what doesn't come through that slave's slot is ended, since it would count "
                            "as another slave";
    if (why == second_streams_why_) co_return;
    log_warning(key_.to_string() + ": " + why);
    second_streams_why_ = why;
    note(decision_alarm, why);
}

asio::awaitable<void> NodeGroup::look_at_settings(LockSession& master) {
    const std::string before = std::exchange(settings_why_, {});
    if (record_->wanted().k == 0) co_return;
    auto hits = co_await master.run(
        "SELECT CASE WHEN s.setrole = 0 THEN '' ELSE 'role \"' || coalesce(r.rolname, s.setrole::text) || "
        "'\"' END || CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN ' in ' ELSE '' END || "
        "CASE WHEN s.setdatabase = 0 THEN '' ELSE 'database \"' || coalesce(d.datname, "
        "s.setdatabase::text) || '\"' END || ' (' || c || ')' "
        "FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c "
        "LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole "
        "LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase "
        "WHERE c ~* '^synchronous_commit=(off|local|false|no|0)$' "
        "UNION ALL SELECT 'the server (synchronous_commit=' || reset_val || ')' FROM pg_catalog.pg_settings "
        "WHERE name = 'synchronous_commit' AND source IN ('configuration file', 'command line', "
        "'environment variable') AND reset_val IN ('off', 'local') ORDER BY 1 LIMIT 20",
        effect_timeout);
    if (!hits.ok() || hits->rows.empty()) co_return;
    settings_why_ = "commits that don't wait for any slave, and that a failover may lose: " + list_of(*hits);
    if (settings_why_ != before) note(decision_alarm, settings_why_);
}

asio::awaitable<void> NodeGroup::note_prepared() {
    prepared_.clear();
    prepared_why_.clear();
    auto server = co_await session(record_->master);
    if (!server.ok()) co_return;
    auto found = co_await (*server)->run("SELECT gid FROM pg_catalog.pg_prepared_xacts ORDER BY gid LIMIT 20",
                                         effect_timeout);
    if (!found.ok() || found->rows.empty()) co_return;
    for (std::size_t row = 0; row < found->rows.size(); ++row) prepared_.push_back(found->text(0, row));
    prepared_why_ =
        "prepared transactions of the former master are here with their locks, until somebody "
        "commits them or rolls them back: " +
        list_of(*found);
    log_warning(key_.to_string() + ": " + prepared_why_);
    note(decision_alarm, prepared_why_);
}

}  // namespace pgxc
