#!/usr/bin/python3
"""Random faults on a real cluster under load, and the proof that every promise was kept.

One coordinator, a master and three synchronous slaves of which two must acknowledge. Clients append rows through the
pooler and remember every answer; a seeded generator kills, freezes, restarts, promotes and, where every server has a host
of its own (--apart), cuts links; an administrator (a thread) starts what is down. In the end every answer is compared with
what is there.

The seed decides the faults, their order and their gaps, not what they meet: two runs of one seed are alike, not equal.
"""

import argparse
import contextlib
import pathlib
import random
import sys
import threading
import time

import psycopg2

import netns
import long_run
import pgcluster
from chaos_administrator import Administrator, Member
from chaos_faults import PROBE_TIMEOUT_S, STUCK_S, Fault, Faults
from chaos_load import TABLE, Appender, Witness
from chaos_proof import Proof, one_line, tell
from pgcluster import Timeout, wait_for

SLAVES = 3
SYNC_SLAVES = 2
CLIENTS = 8
#: How long a replaced master may take until the extension has made a slave of it, pg_basebackup included.
REJOINING_S = 90.0


class Chaos(Faults, Proof):
    """A run: the cluster, its load, its faults and the proof."""

    def __init__(self, workspace, seed, quiet=False, network=None):
        self.workspace = workspace
        self.network = network
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
                                                  network=network,
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
        whole = self._whole(nodes, master_may_miss_slaves)
        return [member for member in self.members if member.held == "fault" or member.server.port not in whole]

    @staticmethod
    def _whole(nodes, master_may_miss_slaves=False):
        """The ports of those that are what they should be."""
        return {row["node_port"] for row in nodes if row["state"] == "up"
                and (not row["why"] or master_may_miss_slaves and row["gate"] == "open")}

    def master_is_replaceable(self):
        """Must a failover follow if the master is lost now: is every server up, and does every slave count?"""
        nodes = self.nodes() or []
        return {member.server.port for member in self.members} <= self._whole(nodes)

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
                bag = list(self.KINDS + self.LINK_KINDS if self.network else self.KINDS)
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


def run(workspace, seed, seconds, quiet=False, keep=False, apart=False):
    """A whole run; `keep` keeps the logs of a good one, too; `apart`: every server on a host of its own (netns.py).
    Returns its summary; `wrong` in it is empty if every promise was kept."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(netns.Network()) if apart else None
        chaos = Chaos(workspace, seed, quiet, network)
        stack.callback(chaos.close)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long faults are done (60); healing comes after")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; without it a random one, which is printed")
    parser.add_argument("--apart", action="store_true", help="each server on a host of its own, whose links are cut, too; as root")
    parser.add_argument("--keep", action="store_true", help="keep logs and answers of a good run, too")
    parser.add_argument("--json", type=pathlib.Path, help="write the summary there")
    wanted = parser.parse_args()
    if wanted.apart and (reason := netns.why_not()):
        parser.error(f"--apart: {reason}")
    return long_run.main(wanted, tell, lambda workspace, seed: run(workspace, seed, wanted.seconds, keep=wanted.keep,
                                                                   apart=wanted.apart))


if __name__ == "__main__":
    sys.exit(main())