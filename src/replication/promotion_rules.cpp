#include "replication/promotion_rules.h"

#include <sstream>

namespace pgxc {

std::optional<Lsn> switch_point(const std::string& history, TimelineId timeline) {
    std::istringstream lines(history);
    std::string line;
    while (std::getline(lines, line)) {
        std::istringstream fields(line);
        std::uint32_t id = 0;
        std::string position;
        if (!(fields >> id >> position)) continue;
        if (TimelineId{id} == timeline) return Lsn::parse(position);
    }
    return std::nullopt;
}

std::optional<Lsn> last_switch_point(const std::string& history) {
    std::istringstream lines(history);
    std::string line;
    std::optional<Lsn> last;
    while (std::getline(lines, line)) {
        std::istringstream fields(line);
        std::uint32_t id = 0;
        std::string position;
        if (fields >> id >> position) last = Lsn::parse(position);
    }
    return last;
}

asio::awaitable<Status> prove_prefix(LockSession& master, EndOfWal end) {
    auto history = co_await master.run(
        "SELECT t.id, CASE WHEN t.id > 1 THEN pg_catalog.pg_read_file('pg_wal/' || "
        "upper(lpad(to_hex(t.id), 8, '0')) || '.history') ELSE '' END FROM (SELECT ('x' || substr("
        "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int AS id) t",
        effect_timeout);
    if (!history.ok()) co_return history.error();
    if (history->text(0) == std::to_string(end.timeline.value())) co_return Status{};
    const auto left = switch_point(history->text(1), end.timeline);
    if (!left)
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        "its timeline " + std::to_string(end.timeline.value()) +
                            " is no ancestor of the master's timeline " + history->text(0),
                        "Rebuild it with pg_basebackup."};
    if (end.position > *left)
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        "its WAL ends at " + end.position.to_string() + ", after the master's line left at " +
                            left->to_string(),
                        "Rewind it with pg_rewind, or rebuild it with pg_basebackup."};
    co_return Status{};
}

}  // namespace pgxc
