"""Patroni with etcd 3: an agent beside each server, and one etcd that all of them ask."""

import json
import urllib.error
import urllib.request

import node
from pgcluster import HOST, wait_for
from peer import Peer

DYNAMIC = "Patroni documentation, Dynamic Configuration Settings"
MODES = "Patroni documentation, Replication modes"
SCOPE = "bench"


class Patroni(Peer):
    title = "patroni"
    packages = ("patroni", "etcd-server", "python3-etcd")
    strict = False
    ttl = 20
    settings = (
        ("ttl", "20 s", "the smallest value that the document of later versions allows (3.0.2 itself accepts less)", DYNAMIC),
        ("loop_wait, retry_timeout", "1 s, 3 s", "the smallest values there; loop_wait + 2 * retry_timeout must be at most ttl",
         DYNAMIC),
        ("primary_start_timeout", "0", "a crashed master is failed over at once and not started again first", DYNAMIC),
        ("synchronous_mode", "on", "only the synchronous slave may be promoted; without a slave the master goes on alone",
         MODES),
        ("etcd", "one member", "no quorum to wait for: the fastest etcd there is, and not for production",
         "etcd documentation, Clustering"),
    )
    notes = ("kill: only the postmaster is killed: with primary_start_timeout = 0 Patroni hands over instead of starting "
             "it again",)

    def make(self):
        self.etcd = self.node("etcd")
        client, other = f"http://{self.etcd.address}", f"http://{HOST}:{self.workspace.free_port()}"
        self.etcd.spawn("etcd", "--name", "etcd", "--data-dir", self.etcd.data, "--listen-client-urls", client,
                        "--advertise-client-urls", client, "--listen-peer-urls", other,
                        "--initial-advertise-peer-urls", other, "--initial-cluster", f"etcd={other}")
        self.master = self._server("node1")
        wait_for(self.master.is_master, "the master to take writes", 120)
        self.slave = self._server("node2")

    def _server(self, name):
        made = self.node(name)
        made.rest = rest = f"{HOST}:{self.workspace.free_port()}"
        made.write("patroni.yml", json.dumps({  # JSON is YAML
            "scope": SCOPE,
            "name": name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": self.etcd.address},
            "bootstrap": {
                "dcs": {"ttl": self.ttl, "loop_wait": 1, "retry_timeout": 3, "primary_start_timeout": 0,
                        "maximum_lag_on_failover": 1048576, "synchronous_mode": True,
                        "synchronous_mode_strict": self.strict,
                        "postgresql": {"use_pg_rewind": True, "parameters": node.SERVER_SETTINGS}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}],
            },
            "postgresql": {
                "listen": made.address,
                "connect_address": made.address,
                "data_dir": str(made.data),
                "bin_dir": str(node.BIN),
                "pgpass": str(made.folder / "pgpass"),
                "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "postgres"}},
                "parameters": {"unix_socket_directories": str(made.folder)},
            },
        }, indent=1))
        made.spawn("patroni", made.folder / "patroni.yml")
        return made

    def ready(self):
        """The server says that the slave is synchronous, and Patroni knows it (it answers 200 only then)."""
        if not super().ready():
            return False
        try:
            with urllib.request.urlopen(f"http://{self.slave.rest}/synchronous", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def switchover(self):
        self.slave.run("patronictl", "-c", self.slave.folder / "patroni.yml", "switchover", SCOPE, "--leader",
                       self.master.name, "--candidate", self.slave.name, "--force")


class PatroniStrict(Patroni):
    title = "patroni_strict"
    strict = True
    settings = (
        *Patroni.settings[:3],
        ("synchronous_mode, synchronous_mode_strict", "on, on", "a master without a synchronous slave acknowledges "
         "nothing: with one slave, writes go on only when the old master has come back as a slave", MODES),
        Patroni.settings[4],
    )


class PatroniShort(Patroni):
    title = "patroni_ttl7"
    ttl = 7
    settings = (
        ("ttl", "7 s", "below the 20 s that the document of later versions allows: the smallest that its rule "
         "loop_wait + 2 * retry_timeout <= ttl permits, and that 3.0.2 accepts", DYNAMIC),
        *Patroni.settings[1:],
    )
