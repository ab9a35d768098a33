#include "pg/monitor_host.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "base/log.h"
#include "catalog/topology_rules.h"
#include "pg/arbiter_local.h"
#include "pg/boundary.h"
#include "pg/catalog_write.h"
#include "pg/guc.h"
#include "pg/node_store_pg.h"
#include "pg/random_hex.h"
#include "pg/shared_state.h"
#include "replication/monitor.h"

namespace pgxc {
namespace {

replication::PromotionMethod method_of(guc::Promotion promotion) {
    switch (promotion) {
        case guc::Promotion::Auto:
            return replication::PromotionMethod::Auto;
        case guc::Promotion::Promote:
            return replication::PromotionMethod::Promote;
        case guc::Promotion::Restart:
            return replication::PromotionMethod::Restart;
    }
    return replication::PromotionMethod::Auto;
}

MonitorSettings read_settings() {
    MonitorSettings settings;
    settings.own_id = guc::node_id();
    settings.login = {guc::node_user(), guc::node_database(), guc::node_conninfo()};
    settings.policy.failover = guc::failover();
    settings.policy.probe_interval = guc::probe_interval();
    settings.policy.probe_timeout = guc::probe_timeout();
    settings.policy.probe_retries = guc::probe_retries();
    settings.policy.restart_grace = guc::restart_grace();
    settings.policy.max_lost_wal_bytes = guc::max_lost_wal_bytes();
    settings.policy.sync_slaves = guc::sync_slaves();
    settings.policy.sync_degrade = guc::sync_degrade();
    settings.policy.rejoin = guc::rejoin();
    settings.policy.promotion = method_of(guc::promotion());
    return settings;
}

std::string decimal(double value) {
    return std::to_string(value);
}

/// The history row and its notification, in the caller's transaction.
Status write_history(const HistoryRow& row) {
    const auto written = spi_execute(
        "INSERT INTO pgxc.failover_history (epoch, node_type, node_id, old_address, new_address, cause, "
        "decided_by, method, started_at, detect_ms, decide_ms, fence_ms, promote_ms, publish_ms, outage_ms, "
        "lost_wal_bytes, promoted_from_id) VALUES ($1::int8, $2::\"char\", $3::int4, $4, $5, $6, $7, $8, "
        "pg_catalog.to_timestamp($9::float8 / 1000000), $10::float8, $11::float8, $12::float8, $13::float8, "
        "$14::float8, $15::float8, $16::int8, $17::int4) RETURNING history_id",
        {std::to_string(row.epoch.value()), std::string(1, static_cast<char>(row.node.type)),
         std::to_string(row.node.id.value()), row.old_address.to_string(), row.new_address.to_string(),
         row.cause, row.decided_by, row.method, std::to_string(row.started_at_us), decimal(row.detect_ms),
         decimal(row.decide_ms), decimal(row.fence_ms), decimal(row.promote_ms), decimal(row.publish_ms),
         decimal(row.outage_ms),
         row.lost_wal_bytes < 0 ? std::optional<std::string>{} : std::to_string(row.lost_wal_bytes),
         std::to_string(row.promoted_from.value())});
    if (!written) return written.error();
    if (written->rows.size() != 1) return Error{sqlstate::internal_error, "the history row was not written"};
    const auto notified = spi_execute(
        "SELECT pg_catalog.pg_notify('pgxc_failover', pg_catalog.row_to_json(h)::text) "
        "FROM pgxc.failover_history h WHERE h.history_id = $1::int8",
        {written->rows[0][0]});
    if (!notified) return notified.error();
    return {};
}

class Host : public MonitorEnvironment {
  public:
    Host() : settings_(read_settings()) {}

    const MonitorSettings& settings() override { return settings_; }
    void reload() { settings_ = read_settings(); }

    Result<Topology> topology() override {
        Result<Topology> topology = Topology{};
        const Status read = in_transaction([&]() -> Status {
            const auto exists = catalog_exists();
            if (!exists) return exists.error();
            if (!*exists)
                return Error{sqlstate::undefined_object,
                             "extension pgxc_ha is not created in database \"" + guc::database() + "\""};
            topology = load_topology();
            return topology ? Status{} : Status{topology.error()};
        });
        if (!read) return read.error();
        return topology;
    }

    Arbiter& arbiter() override { return arbiter_; }

    void publish_view(const ClusterView& view) override {
        const Status published = publish_cluster_view(view);
        if (!published) log_warning("the monitor can't publish what it sees: " + published.error().message);
    }

    bool view_taken() override { return newest_view_taken(); }

    Status publish_promotion(const HistoryRow& row) override {
        return in_transaction([&]() -> Status {
            const CatalogWrite write;
            bool there_already = false;
            auto changed = change_topology([&](const Topology& before) -> Result<Topology> {
                const Node* master = before.find(row.node);
                there_already = master == nullptr || master->epoch >= row.epoch;
                if (there_already) return before;
                return with_promotion(before, row.node, row.listened_at, row.new_address, row.epoch);
            });
            if (!changed) return changed.error();
            return there_already ? Status{} : write_history(row);
        });
    }

    Status publish_rejoin(const NewSlave& slave) override {
        return in_transaction([&]() -> Status {
            const CatalogWrite write;
            auto changed = change_topology(
                [&](const Topology& before) -> Result<Topology> { return register_slave(before, slave); });
            return changed ? Status{} : Status{changed.error()};
        });
    }

    Result<std::optional<std::string>> stored_conninfo(const HostPort& slave) override {
        std::optional<std::string> found;
        const Status read = in_transaction([&]() -> Status {
            const auto rows = spi_execute(
                "SELECT conninfo FROM pgxc.replication_conninfo "
                "WHERE node_host = $1 AND node_port = $2::int4",
                {slave.host, std::to_string(slave.port)}, true);
            if (!rows) return rows.error();
            if (!rows->rows.empty()) found = rows->rows[0][0];
            return {};
        });
        if (!read) return read.error();
        return found;
    }

    Status store_conninfo(const HostPort& slave, const std::string& conninfo) override {
        return in_transaction([&]() -> Status {
            const auto stored = spi_execute(
                "INSERT INTO pgxc.replication_conninfo (node_host, node_port, conninfo) "
                "VALUES ($1, $2::int4, $3) "
                "ON CONFLICT (node_host, node_port) DO UPDATE SET conninfo = excluded.conninfo",
                {slave.host, std::to_string(slave.port), conninfo});
            if (!stored) return stored.error();
            return {};
        });
    }

    void keep_evidence(const std::vector<Evidence>& evidence) override {
        const Status kept = in_transaction([&]() -> Status {
            for (const Evidence& row : evidence) {
                const auto written = spi_execute(
                    "INSERT INTO pgxc.failover_evidence (decided_at, node_type, node_id, epoch, decision, "
                    "reason, facts) VALUES (pg_catalog.to_timestamp($1::float8 / 1000000), $2::\"char\", "
                    "$3::int4, $4::int8, $5, $6, $7::jsonb)",
                    {std::to_string(row.at.time_since_epoch().count()),
                     std::string(1, static_cast<char>(row.group.type)), std::to_string(row.group.id.value()),
                     std::to_string(row.epoch.value()), row.decision, row.reason, row.facts});
                if (!written) return written.error();
            }
            const auto forgotten = spi_execute(
                "DELETE FROM pgxc.failover_evidence WHERE evidence_id <= (SELECT max(evidence_id) - 10000 "
                "FROM pgxc.failover_evidence)");
            if (!forgotten) return forgotten.error();
            return {};
        });
        if (!kept) log_warning("what was decided is not in pgxc.failover_evidence: " + kept.error().message);
    }

    void crash_point(const char* name) override {
        // Nobody sets that but tests. The file, in the data directory, names the place; it works once.
        static const bool wanted = std::getenv("PGXC_CRASH_POINTS") != nullptr;
        if (!wanted) return;
        static constexpr const char* file = "pgxc_crash_point";
        std::string chosen;
        std::getline(std::ifstream(file), chosen);
        if (chosen != name || std::remove(file) != 0) return;
        log_warning(std::string("killed at the crash point ") + name);
        (void)::kill(::getpid(), SIGKILL);
    }

    bool task_abandoned(int ticket) override { return monitor_request_abandoned(ticket); }

    void finish_task(int ticket, const Status& status, const std::string& text) override {
        finish_monitor_request(ticket, status, text);
    }

  private:
    MonitorSettings settings_;
    ArbiterLocal arbiter_;
};

MonitorTask task_from(const TakenRequest& taken) {
    MonitorTask task;
    task.ticket = taken.slot;
    switch (taken.request.kind) {
        case MonitorRequestKind::Promote:
            task.kind = MonitorTask::Kind::Promote;
            break;
        case MonitorRequestKind::Settle:
            task.kind = MonitorTask::Kind::Settle;
            break;
    }
    task.node = taken.request.node;
    task.address = taken.request.address;
    task.with_restart = taken.request.with_restart;
    task.force = taken.request.force;
    task.user = taken.request.user;
    return task;
}

/// Settings of the monitor's own session: a record is flushed here before it counts and never waits for a
/// slave of this coordinator; a lock that somebody holds on the catalog must not stop a failover.
Status prepare_session() {
    return in_transaction([]() -> Status {
        for (const char* setting : {"SET synchronous_commit = local", "SET lock_timeout = '200ms'"}) {
            const auto set = spi_execute(setting);
            if (!set) return set.error();
        }
        return {};
    });
}

}  // namespace

Status run_monitor(WorkerHost& host) {
    if (Status prepared = prepare_session(); !prepared) return prepared;
    // Random per start, so that a claim of an earlier life is another's (FAILOVER_PROTOCOL rule 1).
    auto token = random_hex(8);
    if (!token) return token.error();
    Host environment;
    Monitor monitor(host.loop().context(), environment, *token);

    std::uint64_t seen = catalog_generation();
    WorkerEvents events;
    events.woken = [&] {
        for (const TrafficReport& report : drain_traffic_failures()) monitor.traffic_failed(report.node);
        const std::uint64_t generation = catalog_generation();
        if (generation != seen) {
            seen = generation;
            monitor.catalog_changed();
        }
        while (const auto taken = take_monitor_request()) monitor.submit(task_from(*taken));
    };
    events.reloaded = [&] {
        environment.reload();
        monitor.reload();
    };
    events.leave_database = [&host](const std::string& database) {
        // A process can't change its database: the next monitor waits in its connect until the command is
        // through.
        if (database.empty() || database == guc::database()) host.leave();
    };
    events.ending = [&host](Ending ending) {
        if (ending == Ending::Now) host.leave();
    };
    monitor.start();
    return host.serve(std::move(events));
}

}  // namespace pgxc
