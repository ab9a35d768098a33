"""What must hold at the end of a chaos run, and its figures."""

import bisect
import collections
import contextlib
import json
import pathlib
import shutil
import statistics
import tempfile
import time

import psycopg2

from chaos_load import without_lulls
from pgcluster import Timeout, wait_for

    # The proof


class Proof:
    """A mixin of chaos.Chaos."""

    def verify(self):
        """Everything that is wrong, as sentences; none in a good run."""
        wrong = []
        # The coordinator may be too busy to answer the first time.
        master = wait_for(lambda: self.master(self.nodes()), "a master").server
        rows = master.sql("SELECT client, seq, seen, line, port FROM appended ORDER BY client, seq")
        there = collections.Counter((row[0], row[1]) for row in rows)

        def check(name, found):
            if found:
                wrong.append(f"{name}: {len(found)}, for example {sorted(found)[:5]}")

        answers = {client.client: client.answers for client in self.clients}
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
        """Finds for each fault the longest time in which no client had an acknowledgement, lulls apart. A time without belongs to
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
            self.faults[target].gap_ms = max(self.faults[target].gap_ms, without_lulls(earlier, later) * 1000)
        # And the longest that one client waited for one answer, by the fault before which it was sent or within.
        waits = [(a.sent, a.at) for client in self.clients for a in client.answers]
        waits += [times for client in self.clients for times in client.read_times]
        for sent, at in waits:
            number = max(bisect.bisect_right(starts, at) - 1, 0)
            while number > 0 and starts[number] > sent:
                number -= 1
            if self.faults and at >= starts[number]:
                self.faults[number].wait_ms = max(self.faults[number].wait_ms, (at - sent) * 1000)

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
            "hosts": "one for each server" if self.network else "one",
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
                       "worst": round(max(f.gap_ms for f in faults)),
                       "longest_wait": round(max(f.wait_ms for f in faults))}
                for kind, faults in sorted(by_kind.items())},
            "each": [{"at_s": round(f.at - self._began, 1), "kind": f.kind, "victim": f.victim, "note": f.note,
                      "promotions": promotions[id(f)], "without_master_ms": round(f.gap_ms),
                      "longest_wait_ms": round(f.wait_ms)} for f in self.faults],
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
            with open(kept / f"client{client.client}.txt", "w", encoding="utf-8") as answers:
                answers.writelines(f"{a.at - self._began:.3f} {a}\n" for a in client.answers)
        return kept


def one_line(summary):
    """The summary's end."""
    if summary["wrong"]:
        return f"FAILED: {summary['wrong'][0]}"
    return (f"{summary['faults']} faults, {summary['promotions']} promotions; {summary['acknowledged']} acknowledged, "
            "0 lost, 0 duplicated, 0 second masters")


def tell(summary):
    """The summary as text."""
    lines = []
    if "each" in summary:
        lines += ["", f"{'fault':<36} {'times':>5} {'promotions':>11} {'median':>8} {'worst':>8} {'one client':>11}"
                      "   (ms without an acknowledged write; the longest that one client waited for an answer)"]
        lines += [f"{kind:<36} {figures['times']:>5} {figures['promotions']:>11} {figures['median']:>8} "
                  f"{figures['worst']:>8} {figures['longest_wait']:>11}"
                  for kind, figures in summary["without_master_ms"].items()]
        lines += ["", "{faults} faults, {promotions} promotions in {seconds} s; appends: {acknowledged} acknowledged, {unknown} "
                      "unknown, {failed} failed {codes}; {reads} reads, {slave_reads} of slaves; direct writers: {direct}; "
                      "rebuilt: {rebuilt}; hosts: {hosts}".format(**summary)]
    lines += [f"WRONG: {what}" for what in summary["wrong"]]
    lines += [f"seed {summary['seed']}: " + ("FAILED" if summary["wrong"] else "every promise was kept")]
    return "\n".join(lines)
