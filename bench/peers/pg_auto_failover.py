"""pg_auto_failover: a monitor, and a keeper (pg_autoctl) beside each server."""

import node
from pgcluster import HOST, wait_for
from peer import Peer

FAULTS = "pg_auto_failover documentation, Fault Tolerance"
CONFIGURATION = "pg_auto_failover documentation, Configuring pg_auto_failover"

MONITOR_SETTINGS = {
    "pgautofailover.health_check_period": 1000,
    "pgautofailover.health_check_timeout": 1000,
    "pgautofailover.health_check_max_retries": 1,
    "pgautofailover.health_check_retry_delay": 500,
    "pgautofailover.node_considered_unhealthy_timeout": 2000,
    "pgautofailover.primary_demote_timeout": 4000,
}
KEEPER_SETTINGS = {"timeout.network_partition_timeout": 2}


class PgAutoFailover(Peer):
    title = "pg_auto_failover"
    packages = ("pg-auto-failover-cli", "postgresql-15-auto-failover")
    kill_supervisor = True
    settings = (
        ("health_check_period, _timeout, _max_retries, _retry_delay", "1 s, 1 s, 1, 0.5 s",
         "how fast a dead server is noticed; two failed checks, as with our probes", CONFIGURATION),
        ("node_considered_unhealthy_timeout", "2 s", "a keeper reports each second; two reports may be missing",
         CONFIGURATION),
        ("primary_demote_timeout", "4 s", "how long a silent master is given to stop before the slave is promoted. "
         "Safe only above network_partition_timeout + 1 s (the keeper's loop) + the time of a shutdown", FAULTS),
        ("timeout.network_partition_timeout (keeper)", "2 s", "when a master that sees neither monitor nor slave stops",
         FAULTS),
        ("number_sync_standbys", "0", "what two nodes allow: synchronous while the slave is healthy; 1 takes three nodes",
         "pg_auto_failover documentation, Multi-node Architectures"),
    )
    notes = ("kill: the keeper would start the postmaster again at once, so pg_autoctl and its children are killed too",)

    def make(self):
        self.monitor = self.node("monitor")
        # --listen is not in the help for a monitor, but is what keeps it off the machine's other addresses.
        self._autoctl(self.monitor, "create", "monitor", "--pgport", self.monitor.port, "--listen", HOST,
                      "--hostname", HOST, "--auth", "trust", "--no-ssl")
        self._configure(self.monitor, {"shared_buffers": "32MB", **MONITOR_SETTINGS})
        self._run(self.monitor)
        # A monitor that has just started does not fail over (startup_grace_period, 10 s).
        wait_for(lambda: self._ask("SELECT 1"), "the monitor")
        self.master = self._server("node1")
        wait_for(lambda: self._states() == ["single"], "the master to be there", 60)
        wait_for(self.master.is_master, "the master to take writes")
        self.slave = self._server("node2")

    def _configure(self, which, settings):
        with open(which.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            for name, value in {**settings, "unix_socket_directories": which.folder}.items():
                conf.write(f"{name} = '{value}'\n")

    def _server(self, name):
        made = self.node(name)
        uri = f"postgres://autoctl_node@{HOST}:{self.monitor.port}/pg_auto_failover?sslmode=prefer"
        self._autoctl(made, "create", "postgres", "--pgport", made.port, "--listen", HOST, "--hostname", HOST, "--name", name,
                      "--monitor", uri, "--auth", "trust", "--no-ssl", "--username", "postgres", "--dbname", "postgres")
        for option, value in KEEPER_SETTINGS.items():
            self._autoctl(made, "config", "set", option, value)
        if (made.data / "postgresql.conf").exists():
            self._configure(made, node.SERVER_SETTINGS)
        self._run(made)
        return made

    @staticmethod
    def _autoctl(made, *words):
        """pg_autoctl connects to its own server by libpq's default host."""
        return made.run("pg_autoctl", *words, "--pgdata", made.data, extra={"PGHOST": str(made.folder)})

    @staticmethod
    def _run(made):
        made.spawn("pg_autoctl", "run", "--pgdata", made.data, extra={"PGHOST": str(made.folder)})

    def _ask(self, text):
        return self.monitor.sql(text, user="autoctl_node", dbname="pg_auto_failover")

    def _states(self):
        rows = self._ask("SELECT reportedstate::text, goalstate::text FROM pgautofailover.node ORDER BY nodeid")
        return [reported if reported == goal else f"{reported} to {goal}" for reported, goal in rows]

    def ready(self):
        ((settled,),) = self._ask("SELECT now() - pg_postmaster_start_time() > "
                                  "current_setting('pgautofailover.startup_grace_period')::interval")
        return settled and self._states() == ["primary", "secondary"] and super().ready()

    def switchover(self):
        self._autoctl(self.monitor, "perform", "switchover")
