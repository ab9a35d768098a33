"""repmgr: a daemon (repmgrd) beside each server; the slave's promotes its server."""

import pathlib
import time

import node
from pgcluster import HOST
from peer import Peer

CONFIGURATION = "repmgr documentation, repmgrd configuration"
#: `repmgr standby switchover` works on the other machine by ssh. Here that is the same machine, so instead of an sshd
#: this runs the command. It spares repmgr the time of the logins.
SSH = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    -o | -p | -i | -l) shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
shift
exec sh -c "$*"
"""


class Repmgr(Peer):
    title = "repmgr"
    packages = ("repmgr", "postgresql-15-repmgr")
    settings = (
        ("monitor_interval_secs", "1", "the smallest: how often the slave asks for its master", CONFIGURATION),
        ("reconnect_attempts, reconnect_interval", "1, 1 s", "the smallest that asks a second time before failing over",
         CONFIGURATION),
        ("connect_timeout in conninfo", "2 s", "libpq's smallest: how long an attempt waits for a master that hangs",
         "repmgr documentation, Required configuration file settings"),
        ("synchronous_standby_names", "the slave, on the master only", "repmgr leaves it to the administrator. Not on the "
         "slave: once promoted it has no slave, and would acknowledge nothing",
         "PostgreSQL documentation, Synchronous Replication"),
    )
    notes = ("kill: only the postmaster is killed; nothing starts it again",
             "no witness: the document wants one where master and slave are in different places",
             "a master that comes back is not stopped by anybody: fencing is left to the administrator "
             "(repmgr documentation, Fencing a failed master node)",
             "switchover: ssh is replaced by a script that runs the command on the spot")
    switched_at = None

    def make(self):
        self.master = self.node("node1")
        self.master.run("initdb", "-D", self.master.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
                        "--no-sync")
        self._configure(self.master, 1)
        self._start(self.master)
        self._repmgr(self.master, "primary", "register")
        self.slave = self.node("node2")
        self._configure(self.slave, 2)
        self._repmgr(self.slave, "standby", "clone", "--fast-checkpoint", "-h", HOST, "-p", self.master.port, "-U",
                     "postgres", "-d", "postgres")
        self._port(self.slave)
        self._start(self.slave)
        self._repmgr(self.slave, "standby", "register", "--wait-sync=60")
        self.master.sql("ALTER SYSTEM SET synchronous_standby_names = 'node2'")
        self.master.sql("SELECT pg_reload_conf()")
        for made in (self.master, self.slave):
            made.spawn("repmgrd", "-f", made.folder / "repmgr.conf", "--daemonize=false", "--pid-file",
                       made.folder / "repmgrd.pid")

    def _configure(self, made, node_id):
        made.write("ssh", SSH, 0o755)
        conf = made.folder / "repmgr.conf"
        command = f"{node.BIN}/repmgr -f {conf} --log-to-file"
        lines = {
            "node_id": node_id, "node_name": made.name, "data_directory": made.data, "pg_bindir": node.BIN,
            "conninfo": f"host={HOST} port={made.port} user=postgres dbname=postgres connect_timeout=2",
            "failover": "automatic", "promote_command": f"{command} standby promote",
            "follow_command": f"{command} standby follow --upstream-node-id=%n",
            "monitor_interval_secs": 1, "reconnect_attempts": 1, "reconnect_interval": 1,
            "log_file": made.folder / "repmgr.log", "ssh_options": "-q",
            "pg_ctl_options": f"-l {made.folder}/server.log",
        }
        made.write("repmgr.conf", "".join(f"{name}='{value}'\n" for name, value in lines.items()))
        if made.data.exists():
            with open(made.data / "postgresql.conf", "a", encoding="utf-8") as server:
                for name, value in {**node.SERVER_SETTINGS, "shared_preload_libraries": "repmgr"}.items():
                    server.write(f"{name} = '{value}'\n")
            self._port(made)

    @staticmethod
    def _port(made):
        with open(made.data / "postgresql.conf", "a", encoding="utf-8") as server:
            server.write(f"port = {made.port}\nlisten_addresses = '{HOST}'\nunix_socket_directories = '{made.folder}'\n")

    def _start(self, made):
        made.run("pg_ctl", "start", "-D", made.data, "-l", made.folder / "server.log", "-w", "-t", "60")

    def _repmgr(self, made, *words):
        return made.run("repmgr", "-f", made.folder / "repmgr.conf", *words, path=made.folder)

    def ready(self):
        watching = self.slave.value("SELECT count(*) FROM repmgr.nodes WHERE active") == 2
        return watching and self.slave.value("SELECT repmgr.repmgrd_is_running()") and super().ready()

    def switchover(self):
        self.switched_at = int(time.time())
        self._repmgr(self.slave, "standby", "switchover")

    def destroy(self):
        super().destroy()
        # A switchover leaves its log in /tmp named by the second it was made in, wherever TMPDIR is.
        if self.switched_at:
            for second in range(self.switched_at, int(time.time()) + 1):
                pathlib.Path(f"/tmp/node-rejoin.{second}.log").unlink(missing_ok=True)
