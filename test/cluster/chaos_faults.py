"""The faults of a chaos run."""

import contextlib
import threading
import time

import psycopg2

from pgcluster import Timeout, wait_for

#: How long the detection of a silent master takes: probe_timeout * (1 + probe_retries).
PROBE_TIMEOUT_S = 1.0
DETECTION_S = 2 * PROBE_TIMEOUT_S
#: How long anything may be without a writable master once nothing is broken on purpose any more.
STUCK_S = 120.0


class Fault:
    """One fault that was done. Times are of time.monotonic()."""

    def __init__(self, kind, epoch):
        self.kind = kind
        self.epoch = epoch
        self.at = time.monotonic()
        self.victim = ""
        self.note = ""
        self.gap_ms = 0.0  # the longest time in which no client had an acknowledgement
        self.wait_ms = 0.0  # the longest time that one client waited for one answer


class Faults:
    """What can be done to the cluster of a run. Each fault takes the members it works on by hold(), and lets them go
    in the end. A mixin of chaos.Chaos."""

    network = None  # netns.Network where every server has a host of its own

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
        fault.victim += (" " if fault.victim else "") + member.name
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
            whole = self.master_is_replaceable()
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

    # Links. They are cut for less than the detection time or for more, and mended while clients write.

    @contextlib.contextmanager
    def _links(self, fault):
        """Whatever is cut within is mended behind it."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.network.mend()
            fault.note += f"{time.monotonic() - began:.1f} s"

    def _cut_for_a_while(self, fault):
        """Waits as long as the links stay cut."""
        if self._random.random() < 0.35:
            fault.kind += "_briefly"
            self.pause(0.5 * DETECTION_S)
        else:
            time.sleep(DETECTION_S)
            self.pause(self._random.choice((DETECTION_S, DETECTION_S, 4 * DETECTION_S)))

    def _hosts(self, *without):
        """All hosts, the coordinator's too, but these servers'."""
        left_out = {server.place for server in without}
        return [host for host in self.network.hosts if host not in left_out]

    def _slave_hosts(self, master):
        return [member.server.place for member in self.members if member.server is not master]

    def cut_master(self, fault):
        """From everybody. It lives on and takes its own host's clients."""
        with self.master_held(fault) as server:
            member = self.member_at(server.port)
            epoch = self.epoch()
            whole = self.master_is_replaceable()
            long = self._random.random() < 0.65
            before = self.witness(member).connect().start()
            with self._links(fault):
                if self._random.random() < 0.5:
                    fault.note += "cable; "
                    self.network.pull_cable(server.place)
                else:
                    self.network.separate([server.place], self._hosts(server))
                self.witness(member).start()
                if long:
                    try:
                        wait_for(lambda: self.epoch() > epoch, "a master that is cut off to be replaced", 60)
                    except Timeout:
                        fault.note += "not replaced; "
                        if whole:
                            raise
                    self.pause(3)
                else:
                    fault.kind += "_briefly"
                    self.pause(0.5 * DETECTION_S)
            if before.alive():
                self.pause(1)

    def cut_master_from_coordinator(self, fault):
        """Its slaves still stream, and what its own host's clients write is acknowledged: no reason to replace it."""
        with self.master_held(fault) as server:
            member = self.member_at(server.port)
            epoch = self.epoch()
            witness = self.witness(member).start()
            began = time.monotonic()
            with self._links(fault):
                self.network.separate([server.place], [self.coordinator.place])
                self._cut_for_a_while(fault)
                if self.epoch() > epoch and witness.longest_wait(began) < 0.1:
                    raise AssertionError(f"{member.name} was replaced though its slaves received all it wrote")

    def cut_master_from_slaves(self, fault):
        with self.master_held(fault) as server, self._links(fault):
            self.network.separate([server.place], self._slave_hosts(server))
            self._cut_for_a_while(fault)

    def cut_master_with_a_slave(self, fault):
        """Both sides have slaves; only one has the coordinator."""
        with self.master_held(fault) as master, self.slave_held(fault) as slave:
            self.witness(self.member_at(master.port)).start()
            with self._links(fault):
                self.network.separate([master.place, slave.place], self._hosts(master, slave))
                self._cut_for_a_while(fault)

    def cut_slave(self, fault):
        with self.slave_held(fault) as server, self._links(fault):
            if self._random.random() < 0.5:
                fault.note += "cable; "
                self.network.pull_cable(server.place)
            else:
                self.network.separate([server.place], self._hosts(server))
            self._cut_for_a_while(fault)

    def cut_slave_from_master(self, fault):
        with self.master_held(fault) as master, self.slave_held(fault) as slave, self._links(fault):
            self.network.separate([slave.place], [master.place])
            self._cut_for_a_while(fault)

    def cut_slave_from_coordinator(self, fault):
        with self.slave_held(fault) as server, self._links(fault):
            self.network.separate([server.place], [self.coordinator.place])
            self._cut_for_a_while(fault)

    def cut_coordinator(self, fault):
        """From everybody: it can't know whether anything has happened."""
        fault.victim = "coordinator"
        whole, epoch = not self.broken(), self.epoch()
        with self._links(fault):
            self.network.separate([self.coordinator.place], self._hosts(self.coordinator))
            self._cut_for_a_while(fault)
        wait_for(lambda: self.gate_is_open(self.nodes()), "an open gate after the coordinator's isolation", STUCK_S)
        if whole and self.epoch() > epoch:
            fault.note += "; a master that served was replaced"  # on a busy machine that may have been slow as well

    def _some_hosts(self, server):
        """What is on the other end of a one-way cut."""
        slaves = self._slave_hosts(server)
        name, hosts = self._random.choice((("everybody", self._hosts(server)), ("coordinator", [self.coordinator.place]),
                                           ("slaves", slaves), ("a slave", [self._random.choice(slaves)])))
        return name, hosts

    def deafen_master(self, fault):
        """What is sent to it is lost; what it sends arrives."""
        with self.master_held(fault) as server, self._links(fault):
            name, hosts = self._some_hosts(server)
            fault.note += f"to {name}; "
            self.network.cut(hosts, [server.place])
            self._cut_for_a_while(fault)

    def mute_master(self, fault):
        """What it sends is lost; what is sent to it arrives."""
        with self.master_held(fault) as server, self._links(fault):
            name, hosts = self._some_hosts(server)
            fault.note += f"for {name}; "
            self.network.cut([server.place], hosts)
            self._cut_for_a_while(fault)

    def cut_master_and_kill_the_next(self, fault):
        """The old master lives, cut off, while its successor dies."""
        with self.master_held(fault) as server:
            epoch = self.epoch()
            self.witness(self.member_at(server.port)).start()
            with self._links(fault):
                self.network.separate([server.place], self._hosts(server))
                try:
                    wait_for(lambda: self.epoch() > epoch, "the first failover", 20)
                except Timeout:
                    fault.note += "not replaced; "
                    return
                with self.master_held(fault) as successor:
                    successor.kill9()
                self.pause(3)

    LINK_KINDS = (cut_master, cut_master_from_coordinator, cut_master_from_slaves, cut_master_with_a_slave, cut_slave,
                  cut_slave_from_master, cut_slave_from_coordinator, cut_coordinator, deafen_master, mute_master,
                  cut_master_and_kill_the_next)
