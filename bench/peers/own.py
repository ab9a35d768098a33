"""Our own product, measured as the peers are: the client goes through the pooler, which keeps its connection."""

import time

import pgcluster
from client import PeerWriter
from peer import Peer
from pgcluster import wait_for

pgcluster.DURABLE = True


class Own(Peer):
    title = "pgxc_ha"
    settings = (("everything", "default", "probe_interval 200 ms, probe_timeout 1 s, probe_retries 1", "docs/settings.md"),)
    notes = ("kill: only the master's postmaster is killed; a datanode has no supervisor",
             "the client has one address, the pooler's, and no time limit of its own")

    def start(self):
        self.cluster = pgcluster.standard_cluster(self.workspace)
        self.master, self.slave = self.cluster.masters[1], self.cluster.slaves[2]
        return self

    def writer(self, old_master_too=False):
        dsns = [self.cluster.pooler_dsn()]
        if old_master_too:
            dsns.append(self.master.dsn(connect_timeout=2))
        # Only who goes to a hanging server directly needs a time limit.
        return PeerWriter(dsns, patient={0})

    def kill(self):
        return self.master.kill9()

    def freeze(self):
        now = time.monotonic()
        self.master.freeze()
        return now

    def thaw(self):
        self.master.thaw()
        return time.monotonic()

    def who_writes(self):
        return "slave" if self.slave.value("SELECT NOT pg_is_in_recovery()") else None

    def switchover(self):
        self.cluster.coordinator.sql("ALTER DATANODE SLAVE 2 PROMOTE TO MASTER")

    def rows(self):
        wait_for(self.who_writes, "the new master at the end")
        return self.slave.sql("SELECT client, seq FROM load")

    def destroy(self):
        self.cluster.destroy()

    @classmethod
    def versions(cls):
        return ["this checkout"]
