"""The administrator of a chaos run: starts what is down, and makes slaves of what the extension can't reach."""

import random
import shutil
import threading
import time

import psycopg2


#: A registered slave that doesn't become whole in this time is rebuilt.
STALE_S = 20.0
#: A replaced master that streams as a slave is registered within this time, or is made anew.
REGISTERING_S = 30.0


class Member:
    """A datanode server as the administrator sees it."""

    def __init__(self, server):
        self.server = server
        self.held = None  # who works on it: "fault" or "administrator"
        self.emptied = False  # its data directory is gone: only a rebuild helps
        self.start_at = None  # it is down, and will be started then
        self.stale_since = None  # it runs, and is not what it should be
        self.back_at = None  # it is a replaced master that nobody else can make a slave of: then it will be done
        self.witnesses = []

    @property
    def name(self):
        return f"{self.server.name}:{self.server.port}"


class Administrator(threading.Thread):
    """Starts what is down after a random while, and sees to it that every server is registered and whole."""

    def __init__(self, chaos, seed):
        super().__init__(daemon=True, name="administrator")
        self._chaos = chaos
        self._random = random.Random(seed)
        self._stop_wanted = threading.Event()
        self.hurry = False  # no more faults: start everything at once
        self.rebuilt = 0
        self.trouble = None

    def stop(self):
        self._stop_wanted.set()
        self.join(180)
        assert not self.is_alive(), "the administrator hangs"

    def run(self):
        try:
            while not self._stop_wanted.is_set():
                for member in self._chaos.members:
                    with self._chaos.lock:
                        if member.held:
                            continue
                        member.held = "administrator"
                    try:
                        self._look_after(member)
                    finally:
                        member.held = None
                self._stop_wanted.wait(0.1)
        except Exception as error:  # told by the main thread, which can fail the run
            self.trouble = error

    def _look_after(self, member):
        now = time.monotonic()
        server = member.server
        if member.emptied:
            self._rebuild(member)
            return
        if server.postmaster_pid() is None:
            if member.start_at is None:
                member.start_at = now + (0 if self.hurry else self._random.choice((0, 0.3, 1, 3, 6)))
            elif now >= member.start_at and server.gone() and (self._chaos.network or not self._rejoining(server)):
                server.start(check=False)
                member.start_at = None
            return
        member.start_at = None
        nodes = self._chaos.nodes()
        if nodes is None:
            return
        row = next((node for node in nodes if node["node_port"] == server.port), None)
        if row is None or row["state"] == "rejoining":
            # One that was made anew while the master changed is known to nobody.
            member.stale_since = None if row else member.stale_since or now
            self._chaos.watch_former_master(member)
            if row is None and now - member.stale_since > STALE_S:
                self._chaos.say(f"{member.name} is in no catalog for too long")
                self._rebuild(member)
            elif self._chaos.network and row:
                self._bring_back(member)
            return
        member.back_at = None
        self._chaos.end_witnesses(member)
        if row["node_master_id"] == 0 or (row["state"] == "up" and not row["why"]):
            member.stale_since = None
        elif self._chaos.gate_is_open(nodes):
            member.stale_since = member.stale_since or now
            if now - member.stale_since > STALE_S:
                self._chaos.say(f"{member.name} is {row['state']} for too long: {row['why']}")
                self._chaos.later_diagnosis(member)
                self._rebuild(member)

    def _rejoining(self, server):
        """The extension makes a slave of it: its files are no business of the administrator."""
        rows = self._chaos.nodes()
        return rows is None or any(row["node_port"] == server.port and row["state"] == "rejoining" for row in rows)

    def _bring_back(self, member):
        """A replaced master on another host than the coordinator's: its files are the administrator's to work on.
        Whoever streams from the new master then is registered by itself."""
        now = time.monotonic()
        if member.back_at is None:
            member.back_at = now + (0 if self.hurry else self._random.choice((0, 1, 3, 6)))
        elif now >= member.back_at and self._rebuild(member, register=False):
            member.back_at = now + REGISTERING_S

    def _rebuild(self, member, register=True):
        """Makes a slave anew that has WAL which its master lacks, as docs/failover.md tells: the extension does that
        by itself for replaced masters only, and only where it reaches their files. False: not now."""
        chaos, server = self._chaos, member.server
        nodes = chaos.nodes()
        master = chaos.master(nodes)
        if master is None or master is member or not chaos.gate_is_open(nodes):
            return False  # what is there may be needed
        chaos.end_witnesses(member)
        try:
            if server.postmaster_pid():
                server.stop("immediate", check=False)
            server.wait_gone()
            for row in nodes:
                if row["node_port"] == server.port and row["state"] != "rejoining":
                    chaos.coordinator.sql(f"DROP DATANODE SLAVE {row['node_id']}")
            member.emptied = True
            shutil.rmtree(server.data, ignore_errors=True)
            server.init_from(master.server)
            member.emptied = False
            auto = server.data / "postgresql.auto.conf"  # the slot in it is on another server, if anywhere
            auto.write_text("".join(line for line in auto.read_text().splitlines(True)
                                    if not line.startswith("primary_slot_name")))
            server.start(check=False)
            self.rebuilt += 1
            member.stale_since = None
            if not register:
                return True
            free_id = next(n for n in range(2, 100) if n not in {row["node_id"] for row in chaos.nodes() or nodes})
            chaos.coordinator.sql(f"REGISTER DATANODE SLAVE IDENTIFIED BY ID {free_id} WITH CONNECTION "
                                  f"('{server.address}') ON MASTER 1 REPLICATION TO SYNCHRONOUS")
            return True
        except (psycopg2.Error, AssertionError) as error:
            # Another fault has come between. It will be found as it is now, and tried again.
            chaos.say(f"bringing {member.name} back has to wait: {str(error).strip().splitlines()[0]}")
            return False
