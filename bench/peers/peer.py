"""What the measure wants of a product: a ready pair of a master and a synchronous slave, and how it is hit."""

import subprocess

import node
from client import PeerWriter, multi_host
from pgcluster import wait_for


class Peer:
    """A master and a synchronous slave under one of the peers. A peer gives `title`, `packages`, `settings`, `notes`,
    and defines make() and switchover()."""

    title = ""
    packages = ()
    #: (what is set, to what, why, in which document that is)
    settings = ()
    notes = ()
    #: Whether kill has to end what looks after the master too, because it would just start it again.
    kill_supervisor = False

    def __init__(self, workspace):
        self.workspace = workspace
        self.nodes = []
        self.master = self.slave = None
        self.killed = None  # the pid of the postmaster that kill() ended

    def node(self, name):
        made = node.Node(self.workspace, name)
        self.nodes.append(made)
        return made

    def start(self):
        try:
            self.make()
            self.master.sql("CREATE TABLE load (client int, seq bigint)")
            wait_for(self.ready, f"{self.title} to be ready", 120)
        except BaseException as error:
            if isinstance(error, Exception):
                print("".join(made.logs() for made in self.nodes))
            self.destroy()
            raise
        return self

    def ready(self):
        return self.sync_state() in ("sync", "quorum")

    def sync_state(self):
        return self.master.value("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming' "
                                 "ORDER BY sync_state DESC LIMIT 1")

    def writer(self, old_master_too=False):
        """Client 0 goes to whoever takes writes; client 1, if asked for, to the server that is the master now."""
        dsns = [multi_host([self.master, self.slave])]
        if old_master_too:
            dsns.append(self.master.dsn())
        return PeerWriter(dsns)

    def kill(self):
        self.killed = self.master.postmaster_pid()
        return self.master.kill9(self.kill_supervisor)

    def freeze(self):
        return self.master.freeze()

    def thaw(self):
        return self.master.thaw()

    def who_writes(self):
        """The server that takes writes again: "slave", or "master" if that was started again in spite of all."""
        if self.slave.is_master():
            return "slave"
        if self.killed and self.master.postmaster_pid() not in (None, self.killed) and self.master.is_master():
            return "master"
        return None

    def rows(self):
        """What is in the table in the end, on the surviving master."""
        wait_for(lambda: self.slave.is_master() or self.master.is_master(), "a master at the end", 60)
        survivor = self.slave if self.slave.is_master() else self.master
        return survivor.sql("SELECT client, seq FROM load")

    def destroy(self):
        for made in self.nodes:
            made.destroy()

    @classmethod
    def versions(cls):
        asked = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *cls.packages, "postgresql-15"],
                               stdout=subprocess.PIPE, text=True, check=True)
        return asked.stdout.splitlines()
