#!/usr/bin/python3
"""Random faults on a real cluster under load, and the proof that every promise was kept.

One coordinator, a master and three synchronous slaves of which two must acknowledge. Clients append rows through the
pooler and remember every answer; a seeded generator kills, freezes, restarts and promotes; an administrator (a thread)
starts what is down. In the end every answer is compared with what is there.

The seed decides the faults, their order and their gaps, not what they meet: two runs of one seed are alike, not equal.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

import psycopg2

import pgcluster
from pgcluster import Timeout, wait_for
from writer import UNKNOWN

SLAVES = 3
SYNC_SLAVES = 2
CLIENTS = 8
#: How long the detection of a silent master takes: probe_timeout * (1 + probe_retries).
PROBE_TIMEOUT_S = 1.0
DETECTION_S = 2 * PROBE_TIMEOUT_S
#: How long anything may be without a writable master once nothing is broken on purpose any more.
STUCK_S = 120.0
#: How long a replaced master may take until the extension has made a slave of it, pg_basebackup included.
REJOINING_S = 90.0
#: A registered slave that doesn't become whole in this time is rebuilt.
STALE_S = 20.0

TABLE = """
    CREATE TABLE appended (
        client int, seq bigint,
        seen bigint,   -- the client's newest row as this transaction saw it
        line int DEFAULT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,  -- timeline
        port int DEFAULT inet_server_port());
    CREATE INDEX ON appended (client, seq);
"""
#: Column `seen` chains a client's rows: a row that was acknowledged before and isn't seen was lost in between.
APPEND = """INSERT INTO appended (client, seq, seen)
            SELECT {client}, {seq}, coalesce(max(seq), 0) FROM appended WHERE client = {client} RETURNING line"""

Answer = collections.namedtuple("Answer", "seq result sent at code line")


class Appender:
    """A client of the pooler: appends its next numbers, alone or two in a block, and sometimes reads its newest."""

    def __init__(self, dsn, client, seed):
        self._dsn = dsn
        self._client = client
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self.answers = []
        self.last_acked_sent = 0.0  # when the newest acknowledged append was sent
        self._acked = 0  # its number
        self.reads = 0
        self.slave_reads = 0
        self.stale_reads = []
        self.trouble = None
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"client {client}")

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()

    def join(self, deadline_s):
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), f"client {self._client} hangs"
        assert self.trouble is None, f"client {self._client}: {self.trouble!r}"

    def _run(self):
        connection = None
        seq = 0
        try:
            while not self._stop.is_set():
                if connection is None or connection.closed:
                    connection = self._connect()
                    continue
                choice = self._random.random()
                if choice < 0.1:
                    self._read(connection)
                elif choice < 0.3:
                    self._append(connection, [seq + 1, seq + 2])
                    seq += 2
                else:
                    self._append(connection, [seq + 1])
                    seq += 1
                self._stop.wait(0.004)  # the load needn't fill the machine
            if connection is not None:
                connection.close()
        except Exception as error:  # told by join(), in the thread that can fail the run
            self.trouble = error

    def _connect(self):
        """None where the coordinator isn't there, or doesn't let anybody in yet."""
        try:
            connection = psycopg2.connect(**self._dsn)
        except psycopg2.OperationalError:
            self._stop.wait(0.05)
            return None
        connection.autocommit = True
        return connection

    def _append(self, connection, numbers):
        in_block = len(numbers) > 1
        sent = time.monotonic()
        line = code = None
        may_be_committed = not in_block
        try:
            with connection.cursor() as cursor:
                if in_block:
                    cursor.execute("BEGIN")
                for seq in numbers:
                    cursor.execute(APPEND.format(client=self._client, seq=seq))
                    line = cursor.fetchone()[0]
                if in_block:
                    may_be_committed = True
                    cursor.execute("COMMIT")
            # A warning says that the wait for the slaves was cancelled: that is no acknowledgement.
            result = "unknown" if connection.notices else "acked"
        except psycopg2.Error as error:
            code = error.pgcode
            result = "unknown" if may_be_committed and code in UNKNOWN else "failed"
            if in_block or code is None:
                self._leave_block(connection, code)
        del connection.notices[:]
        at = time.monotonic()
        for seq in numbers:
            self.answers.append(Answer(seq, result, sent, at, code, line))
        if result == "acked":
            self._acked = numbers[-1]
            self.last_acked_sent = sent

    def _leave_block(self, connection, code):
        try:
            if code is None:
                connection.close()
            elif not connection.closed:
                connection.cursor().execute("ROLLBACK")
        except psycopg2.Error:
            connection.close()

    def _read(self, connection):
        """Every row that this client was promised must be seen, whoever answers."""
        promised = self._acked
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN READ ONLY")
                cursor.execute("SELECT coalesce(max(seq), 0), pg_is_in_recovery(), inet_server_port() FROM appended "
                               f"WHERE client = {self._client}")
                newest, by_slave, port = cursor.fetchone()
                cursor.execute("COMMIT")
        except psycopg2.Error as error:
            self._leave_block(connection, error.pgcode)
            return
        self.reads += 1
        self.slave_reads += by_slave
        if newest < promised:
            self.stale_reads.append((self._client, promised, newest, port))


class Witness:
    """Writes directly to one server as long as that lets it: to a former master that has woken or was started again.
    What it is told to be committed must be on the master in the end like everything else."""

    def __init__(self, server, client):
        self._server = server
        self.client = client
        self.answers = []
        self.sent = 0
        self._stop = threading.Event()
        self._connection = None
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"witness {client}")

    def connect(self):
        """Connects now, while the server still answers; not needed before start()."""
        with contextlib.suppress(psycopg2.OperationalError):
            self._connection = self._server.connect(connect_timeout=3, application_name="pgxc_witness")
        return self

    def start(self):
        self._thread.start()
        return self

    def end(self):
        self._stop.set()

    def alive(self):
        return self._thread.is_alive()

    def _run(self):
        seq = 0
        while not self._stop.is_set():
            if self._connection is None or self._connection.closed:
                self._connection = None
                self.connect()
                if self._connection is None:
                    self._stop.wait(0.1)
                    continue
            seq += 1
            self.sent += 1
            line = code = None
            sent = time.monotonic()
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(APPEND.format(client=self.client, seq=seq))
                    line = cursor.fetchone()[0]
                result = "unknown" if self._connection.notices else "acked"
            except psycopg2.Error as error:
                code = error.pgcode
                result = "unknown"  # directly connected clients are told less than those of the pooler
            del self._connection.notices[:]
            self.answers.append(Answer(seq, result, sent, time.monotonic(), code, line))
            self._stop.wait(0.05)
        if self._connection is not None:
            self._connection.close()


class Member:
    """A datanode server as the administrator sees it."""

    def __init__(self, server):
        self.server = server
        self.held = None  # who works on it: "fault" or "administrator"
        self.emptied = False  # its data directory is gone: only a rebuild helps
        self.start_at = None  # it is down, and will be started then
        self.stale_since = None  # it runs, is registered, and not what it should be
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
            elif now >= member.start_at and server.gone() and not self._rejoining(server):
                server.start(check=False)
                member.start_at = None
            return
        member.start_at = None
        nodes = self._chaos.nodes()
        if nodes is None:
            return
        row = next((node for node in nodes if node["node_port"] == server.port), None)
        if row is None or row["state"] == "rejoining":
            member.stale_since = None
            self._chaos.watch_former_master(member)
            return
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

    def _rebuild(self, member):
        """Makes a slave anew that has WAL which its master lacks, as docs/failover.md tells: the extension does that
        by itself for replaced masters only."""
        chaos, server = self._chaos, member.server
        nodes = chaos.nodes()
        master = chaos.master(nodes)
        if master is None or master is member or not chaos.gate_is_open(nodes):
            return  # not now: what is there may be needed
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
            free_id = next(n for n in range(2, 100) if n not in {row["node_id"] for row in chaos.nodes() or nodes})
            chaos.coordinator.sql(f"REGISTER DATANODE SLAVE IDENTIFIED BY ID {free_id} WITH CONNECTION "
                                  f"('{server.address}') ON MASTER 1 REPLICATION TO SYNCHRONOUS")
            self.rebuilt += 1
            member.stale_since = None
        except (psycopg2.Error, AssertionError) as error:
            # Another fault has come between. It will be found as it is now, and tried again.
            chaos.say(f"bringing {member.name} back has to wait: {str(error).strip().splitlines()[0]}")


class Fault:
    """One fault that was done. Times are of time.monotonic()."""

    def __init__(self, kind, epoch):
        self.kind = kind
        self.epoch = epoch
        self.at = time.monotonic()
        self.victim = ""
        self.note = ""
        self.gap_ms = 0.0


class Chaos:
    """A run: the cluster, its load, its faults and the proof."""

    def __init__(self, workspace, seed, quiet=False):
        self.workspace = workspace
        self.seed = seed
        self._quiet = quiet
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self.lock = threading.Lock()  # of Member.held
        self.faults = []
        self.notes = []
        self.kept_diagnoses = []
        self._witnesses = []
        self._stuck = None
        self.cluster = pgcluster.standard_cluster(workspace, slaves=SLAVES, sync_slaves=SYNC_SLAVES,
                                                  probe_timeout=f"{PROBE_TIMEOUT_S:g}s")
        self.coordinator = self.cluster.coordinator
        self.members = [Member(server) for server in (self.cluster.masters[1], *self.cluster.slaves.values())]
        self.cluster.masters[1].sql(TABLE)
        self.clients = [Appender(self.cluster.pooler_dsn(), n, f"{seed}/client {n}") for n in range(1, CLIENTS + 1)]
        self.administrator = Administrator(self, f"{seed}/administrator")

    # What is there

    def say(self, text):
        line = f"{time.monotonic() - self._began:7.1f} s  {text}"
        self.notes.append(line)
        if not self._quiet:
            print(line, flush=True)

    def nodes(self):
        """The datanodes' rows of pgxc_node_status as dictionaries; None while the coordinator doesn't answer."""
        try:
            with contextlib.closing(self.coordinator.connect(connect_timeout=3)) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT s.node_id, s.node_port, s.node_master_id, s.state, s.gate, s.why, n.node_epoch "
                                   "FROM pgxc_node_status s LEFT JOIN pgxc_nodes n USING (node_type, node_id) "
                                   "WHERE node_type = 'D'")
                    names = [column.name for column in cursor.description]
                    return [dict(zip(names, row)) for row in cursor.fetchall()]
        except psycopg2.OperationalError:
            return None

    @staticmethod
    def gate_is_open(nodes):
        return any(row["node_master_id"] == 0 and row["gate"] == "open" for row in nodes or ())

    def member_at(self, port):
        return next((member for member in self.members if member.server.port == port), None)

    def master(self, nodes):
        """The member that the catalog has as the master."""
        return next((self.member_at(row["node_port"]) for row in nodes or ()
                     if row["node_master_id"] == 0 and row["state"] != "rejoining"), None)

    def epoch(self):
        return self.coordinator.value("SELECT coalesce(max(epoch), 0) FROM pgxc.failover_history")

    def broken(self, master_may_miss_slaves=False):
        """The members that are not what they should be; all while the coordinator doesn't answer. With
        `master_may_miss_slaves` a master that lets transactions in is whole though it misses slaves."""
        self.check_threads()
        nodes = self.nodes()
        if nodes is None:
            return list(self.members)
        whole = {row["node_port"] for row in nodes if row["state"] == "up"
                 and (not row["why"] or master_may_miss_slaves and row["gate"] == "open")}
        return [member for member in self.members if member.held == "fault" or member.server.port not in whole]

    # Witnesses

    def witness(self, member):
        made = Witness(member.server, -1 - len(self._witnesses))
        self._witnesses.append(made)
        member.witnesses.append(made)
        return made

    def watch_former_master(self, member):
        if not any(witness.alive() for witness in member.witnesses):
            self.say(f"{member.name} runs and isn't the master any more: writing to it directly")
            self.witness(member).start()

    def end_witnesses(self, member):
        for witness in member.witnesses:
            witness.end()
        member.witnesses.clear()

    # Faults. Each takes the members it works on by hold(), and lets them go in the end.

    def hold(self, member):
        end = time.monotonic() + STUCK_S
        while True:
            with self.lock:
                if not member.held:
                    member.held = "fault"
                    return
            if time.monotonic() > end:
                raise Timeout(f"the administrator works on {member.name} for {STUCK_S:g} s")
            time.sleep(0.01)

    @contextlib.contextmanager
    def master_held(self, fault):
        while True:
            member = wait_for(lambda: self.master(self.nodes()), "the catalog to have a master")
            self.hold(member)
            if self.master(self.nodes()) is member and member.server.postmaster_pid():
                break
            member.held = None
            time.sleep(0.05)
        fault.victim = member.name
        try:
            yield member.server
        finally:
            member.held = None

    @contextlib.contextmanager
    def slave_held(self, fault):
        def slaves():
            nodes = self.nodes() or []
            ports = {row["node_port"] for row in nodes if row["node_master_id"] and row["state"] == "up"}
            return [m for m in self.members if m.server.port in ports and m.server.postmaster_pid()]
        found = wait_for(slaves, "a slave", STUCK_S)
        member = self._random.choice(found)
        self.hold(member)
        fault.victim += (" " if fault.victim else "") + member.name
        try:
            yield member.server
        finally:
            member.held = None

    def pause(self, most_s):
        """A random gap: the only waiting here that isn't for an event."""
        time.sleep(self._random.uniform(0, most_s))

    def kill_master(self, fault):
        with self.master_held(fault) as server:
            server.kill9()

    def kill_slave(self, fault):
        with self.slave_held(fault) as server:
            server.kill9()

    def kill_master_and_slave(self, fault):
        with self.master_held(fault) as master, self.slave_held(fault) as slave:
            for server in self._random.sample([master, slave], 2):
                if server.postmaster_pid():
                    server.kill9()

    def kill_master_and_the_next(self, fault):
        with self.master_held(fault) as server:
            epoch = self.epoch()
            server.kill9()
        try:
            wait_for(lambda: self.epoch() > epoch, "the first failover", 30)
        except Timeout:
            fault.note = "the administrator was faster"
            return
        self.pause(1)
        with self.master_held(fault) as server:
            server.kill9()

    def kill_master_and_coordinator(self, fault):
        with self.master_held(fault) as server:
            server.kill9()
        self.pause(0.5)
        self.restart_killed_coordinator()

    def kill_coordinator(self, fault):
        fault.victim = "coordinator"
        self.restart_killed_coordinator()

    def restart_killed_coordinator(self):
        self.coordinator.kill9()
        self.pause(3)
        self.coordinator.wait_gone()
        self.coordinator.start()

    @staticmethod
    def _freeze(server):
        server.freeze()
        server.freeze()  # who was being forked

    def freeze_master_briefly(self, fault):
        with self.master_held(fault) as server:
            self._freeze(server)
            began = time.monotonic()
            self.pause(0.5 * DETECTION_S)
            server.thaw()
            fault.note = f"{time.monotonic() - began:.1f} s"

    def freeze_master(self, fault):
        with self.master_held(fault) as server:
            member = self.member_at(server.port)
            epoch = self.epoch()
            whole = len(self.broken()) <= 1  # the master itself, because it is held
            before = self.witness(member).connect()
            self._freeze(server)
            began = time.monotonic()
            before.start()
            try:
                wait_for(lambda: self.epoch() > epoch, "a frozen master to be replaced", 60)
            except Timeout:
                fault.note = "not replaced; "
                if whole:
                    raise
            self.pause(2)
            server.thaw()
            fault.note += f"{time.monotonic() - began:.1f} s"
            self.witness(member).start()
            self.pause(1)

    def freeze_slave_briefly(self, fault):
        with self.slave_held(fault) as server:
            self._freeze(server)
            self.pause(0.5 * DETECTION_S)
            server.thaw()

    def freeze_slave(self, fault):
        with self.slave_held(fault) as server:
            self._freeze(server)
            began = time.monotonic()
            time.sleep(DETECTION_S)
            self.pause(2 * DETECTION_S)
            server.thaw()
            fault.note = f"{time.monotonic() - began:.1f} s"

    def restart_master_fast(self, fault):
        with self.master_held(fault) as server:
            server.restart("fast")

    def restart_master_immediate(self, fault):
        with self.master_held(fault) as server:
            server.restart("immediate")

    def restart_slave_fast(self, fault):
        with self.slave_held(fault) as server:
            server.restart("fast")

    def restart_slave_immediate(self, fault):
        with self.slave_held(fault) as server:
            server.restart("immediate")

    def promote(self, fault):
        """Planned, so of a whole cluster. A refusal is an answer; silence isn't."""
        with contextlib.suppress(Timeout):
            wait_for(lambda: not self.broken(), "a whole cluster", 45)
        slaves = [row for row in self.nodes() or () if row["node_master_id"] and row["state"] == "up"]
        if not slaves:
            fault.note = "no slave is up"
            return
        row = self._random.choice(sorted(slaves, key=lambda slave: slave["node_id"]))
        fault.victim = self.member_at(row["node_port"]).name
        fault.at = time.monotonic()
        outcome = []

        def type_it():
            try:
                self.coordinator.sql(f"ALTER DATANODE SLAVE {row['node_id']} PROMOTE TO MASTER")
                outcome.append("done")
            except psycopg2.Error as error:
                outcome.append(f"refused: {str(error).splitlines()[0]}")
        thread = threading.Thread(target=type_it, daemon=True)
        thread.start()
        thread.join(STUCK_S)
        if not outcome:
            raise Timeout(f"ALTER DATANODE SLAVE PROMOTE hangs for {STUCK_S:g} s")
        fault.note = outcome[0]

    KINDS = (kill_master, kill_slave, kill_master_and_slave, kill_master_and_the_next, kill_master_and_coordinator,
             kill_coordinator, freeze_master_briefly, freeze_master, freeze_slave_briefly, freeze_slave,
             restart_master_fast, restart_master_immediate, restart_slave_fast, restart_slave_immediate, promote)

    # The run

    def run(self, seconds):
        for client in self.clients:
            client.start()
        self.wait_writable(self._began)
        self.administrator.start()
        self._began = time.monotonic()
        bag = []
        while time.monotonic() < self._began + seconds:
            if not bag:
                bag = list(self.KINDS)
                self._random.shuffle(bag)
            self.do(bag.pop())
            if self._random.random() < 0.6:
                self.wait_writable(time.monotonic())
            self.pause(2)
            # With more broken servers nothing would be left to break.
            wait_for(lambda: len(self.broken(master_may_miss_slaves=True)) <= 1, "all servers but one to be whole",
                     STUCK_S + REJOINING_S)
            self.check_threads()
        self.heal()

    def do(self, kind):
        try:
            fault = Fault(kind.__name__, wait_for(lambda: self.epoch() + 1, "the coordinator") - 1)
        except Timeout as error:
            raise Timeout(f"the coordinator doesn't answer: {error}") from None
        self.faults.append(fault)
        kind(self, fault)
        self.say(f"{fault.kind} {fault.victim} {fault.note}")

    def check_threads(self):
        for thread in (self.administrator, *self.clients):
            if thread.trouble:
                raise AssertionError(f"{thread}: {thread.trouble!r}")

    def wait_writable(self, since):
        wait_for(lambda: all(client.last_acked_sent > since for client in self.clients),
                 "every client to write again", STUCK_S)

    def heal(self):
        self.say("no more faults: healing")
        self.administrator.hurry = True
        wait_for(lambda: not self.broken(), "all servers to be whole", 2 * (STUCK_S + REJOINING_S), 0.2)
        self.wait_writable(time.monotonic())
        self.administrator.stop()
        self.check_threads()
        for member in self.members:
            self.end_witnesses(member)
        for client in self.clients:
            client.stop()
        for client in self.clients:
            client.join(60)
        wait_for(lambda: not any(witness.alive() for witness in self._witnesses), "the direct writers to end")

    # The proof

    def verify(self):
        """Everything that is wrong, as sentences; none in a good run."""
        wrong = []
        master = self.master(self.nodes()).server
        rows = master.sql("SELECT client, seq, seen, line, port FROM appended ORDER BY client, seq")
        there = collections.Counter((row[0], row[1]) for row in rows)

        def check(name, found):
            if found:
                wrong.append(f"{name}: {len(found)}, for example {sorted(found)[:5]}")

        answers = {client._client: client.answers for client in self.clients}
        answers |= {witness.client: witness.answers for witness in self._witnesses}
        acked = {(client, a.seq): a for client, of_client in answers.items() for a in of_client if a.result == "acked"}
        failed = {(client, a.seq) for client, of_client in answers.items() for a in of_client if a.result == "failed"}
        known = {(client, a.seq) for client, of_client in answers.items() for a in of_client}
        check("acknowledged and lost", acked.keys() - there.keys())
        check("there more than once", [row for row, times in there.items() if times > 1])
        check("reported as not committed and there", failed & there.keys())
        check("there and never sent", there.keys() - known)
        check("reads that missed an acknowledged row (client, promised, seen, port)",
              [read for client in self.clients for read in client.stale_reads])
        check("rows whose client saw another timeline at the acknowledgement (client, seq, line, port)",
              [(c, s, line, port) for c, s, _, line, port in rows
               if (c, s) in acked and acked[(c, s)].line != line])

        # Order: each row has seen its client's newest acknowledged row, and no row that isn't there.
        newest_acked, previous = 0, None
        missed, ghosts = [], []
        for client, seq, seen, _, _ in rows:
            if client != previous:
                previous, newest_acked = client, 0
            if seen < newest_acked:
                missed.append((client, seq, seen, newest_acked))
            if seen and (client, seen) not in there or seen >= seq:
                ghosts.append((client, seq, seen))
            if (client, seq) in acked:
                newest_acked = seq
        check("rows that didn't see an acknowledged one before them (client, seq, seen, acknowledged)", missed)
        check("rows that saw one that isn't there (client, seq, seen)", ghosts)

        # One master at a time: each timeline has one server, and nothing that was sent after a timeline's first
        # acknowledgement was acknowledged on an older one.
        ports = collections.defaultdict(set)
        for _, _, _, line, port in rows:
            ports[line].add(port)
        check("timelines that two servers wrote", [(line, *of_line) for line, of_line in ports.items() if len(of_line) > 1])
        first = {}
        for answer in acked.values():
            first[answer.line] = min(first.get(answer.line, answer.at), answer.at)
        late = []
        for (client, seq), answer in acked.items():
            if any(line > answer.line and at < answer.sent for line, at in first.items()):
                late.append((client, seq, answer.line))
        check("acknowledged by an older master after a newer one had (client, seq, timeline)", late)

        # The servers agree with each other, and with the catalog.
        in_order = "SELECT count(*), md5(string_agg(format('%s %s', client, seq), ',' ORDER BY client, seq)) FROM appended"
        expected = master.sql(in_order)
        for member in self.members:
            server = member.server
            if server is master:
                continue
            if not server.value("SELECT pg_is_in_recovery()"):
                wrong.append(f"{member.name} is a second master")
                continue
            try:
                wait_for(lambda s=server: s.sql(in_order) == expected, f"{member.name} to have the master's rows", 60, 0.2)
            except Timeout as error:
                wrong.append(str(error))
        crashed = [line for line in self.coordinator.log_text().splitlines()
                   if "PANIC" in line or "TRAP:" in line or "was terminated by signal" in line]
        check("crashes of the coordinator's processes", crashed)
        self._measure()
        return wrong

    def _measure(self):
        """Finds for each fault the longest time in which no client had an acknowledgement. A time without belongs to
        the first fault that was done in it, or else to the last one before it."""
        times = sorted(a.at for client in self.clients for a in client.answers if a.result == "acked")
        starts = [fault.at for fault in self.faults] + [float("inf")]
        number = 0
        for earlier, later in zip(times, times[1:]):
            while number + 1 < len(self.faults) and starts[number + 1] <= earlier:
                number += 1
            if not self.faults or later < starts[number]:
                continue
            target = number
            if starts[number] <= earlier and starts[number + 1] < later and starts[number + 1] - earlier < 0.05:
                target = number + 1
            self.faults[target].gap_ms = max(self.faults[target].gap_ms, (later - earlier) * 1000)

    def summary(self, wrong):
        counted = collections.Counter(a.result for client in self.clients for a in client.answers)
        codes = collections.Counter(str(a.code) for client in self.clients for a in client.answers if a.result != "acked")
        direct = collections.Counter(a.result for witness in self._witnesses for a in witness.answers)
        by_kind = collections.defaultdict(list)
        for fault in self.faults:
            by_kind[fault.kind].append(fault)
        epochs = [*(fault.epoch for fault in self.faults[1:]), self.epoch()]
        promotions = {id(fault): epoch - fault.epoch for fault, epoch in zip(self.faults, epochs)}
        return {
            "seed": self.seed,
            "seconds": round(time.monotonic() - self._began),
            "faults": len(self.faults),
            "promotions": epochs[-1],
            "acknowledged": counted["acked"], "unknown": counted["unknown"], "failed": counted["failed"],
            "codes": dict(codes),
            "reads": sum(client.reads for client in self.clients),
            "slave_reads": sum(client.slave_reads for client in self.clients),
            "direct": {"sent": sum(w.sent for w in self._witnesses), "acknowledged": direct["acked"],
                       "writers": len(self._witnesses)},
            "rebuilt": self.administrator.rebuilt,
            "without_master_ms": {
                kind: {"times": len(faults), "promotions": sum(promotions[id(f)] for f in faults),
                       "median": round(statistics.median(f.gap_ms for f in faults)),
                       "worst": round(max(f.gap_ms for f in faults))}
                for kind, faults in sorted(by_kind.items())},
            "each": [{"at_s": round(f.at - self._began, 1), "kind": f.kind, "victim": f.victim, "note": f.note,
                      "promotions": promotions[id(f)], "without_master_ms": round(f.gap_ms)} for f in self.faults],
            "wrong": wrong,
        }

    def diagnosis(self):
        """What the coordinator knows, for a run that went wrong."""
        parts = []
        for title, query in (
                ("pgxc_node_status", "SELECT to_jsonb(s) FROM pgxc_node_status s"),
                ("pgxc.node_record", "SELECT to_jsonb(r) FROM pgxc.node_record r"),
                ("pgxc.failover_history", "SELECT to_jsonb(h) FROM pgxc.failover_history h ORDER BY history_id"),
                ("pgxc.failover_evidence", "SELECT to_jsonb(e) FROM pgxc.failover_evidence e ORDER BY evidence_id")):
            try:
                found = [json.dumps(row[0]) for row in self.coordinator.sql(query, connect_timeout=5)]
            except psycopg2.Error as error:
                found = [str(error)]
            parts.append("\n".join([f"--- {title}", *found]))
        for member in self.members:
            parts.append(f"--- {member.name}: postmaster {member.server.postmaster_pid()}, held {member.held}")
        return "\n".join(parts)

    def later_diagnosis(self, member):
        """Keeps what is to be seen now of a slave that is about to be rebuilt."""
        auto = (member.server.data / "postgresql.auto.conf").read_text()
        self.kept_diagnoses.append(f"{self.notes[-1]}\n{auto}\n{member.server.log_text()[-5000:]}\n{self.diagnosis()}")

    def keep_logs(self):
        """Copies what tells of a failure out of the workspace, and returns where it is."""
        kept = pathlib.Path(tempfile.mkdtemp(prefix=f"pgxc_chaos_{self.seed}."))
        (kept / "run.txt").write_text("\n".join(self.notes) + "\n")
        (kept / "diagnosis.txt").write_text("\n\n".join([*self.kept_diagnoses, self.diagnosis()]) + "\n")
        for server in (self.coordinator, *(member.server for member in self.members)):
            if server.log.exists():
                shutil.copy(server.log, kept)
            with contextlib.suppress(OSError):
                shutil.copy(server.data / "postgresql.auto.conf", kept / f"{server.name}.auto.conf")
        for client in [*self.clients, *self._witnesses]:
            number = client._client if isinstance(client, Appender) else client.client
            with open(kept / f"client{number}.txt", "w", encoding="utf-8") as answers:
                answers.writelines(f"{a.at - self._began:.3f} {a}\n" for a in client.answers)
        return kept

    def close(self):
        for client in self.clients:
            client.stop()
        for witness in self._witnesses:
            witness.end()
        self.administrator._stop_wanted.set()
        for member in self.members:
            member.server.thaw()
        if self.administrator.is_alive():
            self.administrator.join(60)
        self.cluster.destroy()


def run(workspace, seed, seconds, quiet=False, keep=False):
    """A whole run; `keep` keeps the logs of a good one, too. Returns its summary; `wrong` in it is empty if every promise was kept."""
    chaos = Chaos(workspace, seed, quiet)
    try:
        try:
            chaos.run(seconds)
            wrong = chaos.verify()
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong or keep:
            chaos.say(f"logs and answers: {chaos.keep_logs()}")
        try:
            return chaos.summary(wrong)
        except psycopg2.Error:
            return {"seed": seed, "wrong": wrong}
    finally:
        chaos.close()


def tell(summary):
    """The summary as text."""
    lines = []
    if "each" in summary:
        lines += ["", f"{'fault':<30} {'times':>6} {'promotions':>11} {'median':>8} {'worst':>8}   (ms without an acknowledged write)"]
        lines += [f"{kind:<30} {figures['times']:>6} {figures['promotions']:>11} {figures['median']:>8} "
                  f"{figures['worst']:>8}"
                  for kind, figures in summary["without_master_ms"].items()]
        lines += ["", "{faults} faults, {promotions} promotions in {seconds} s; appends: {acknowledged} acknowledged, {unknown} "
                      "unknown, {failed} failed {codes}; {reads} reads, {slave_reads} of slaves; direct writers: {direct}; "
                      "rebuilt: {rebuilt}".format(**summary)]
    lines += [f"WRONG: {what}" for what in summary["wrong"]]
    lines += [f"seed {summary['seed']}: " + ("FAILED" if summary["wrong"] else "every promise was kept")]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long faults are done (60); healing comes after")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; without it a random one, which is printed")
    parser.add_argument("--keep", action="store_true", help="keep logs and answers of a good run, too")
    parser.add_argument("--json", type=pathlib.Path, help="write the summary there")
    wanted = parser.parse_args()
    seed = wanted.seed if wanted.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    workspace = pgcluster.Workspace()
    try:
        summary = run(workspace, seed, wanted.seconds, keep=wanted.keep)
    finally:
        workspace.close()
    print(tell(summary))
    if wanted.json:
        wanted.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 1 if summary["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
