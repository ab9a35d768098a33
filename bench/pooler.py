"""Our pooler beside PgBouncer, Pgpool-II and a direct connection: throughput, processor time, bulk, memory.

All lead to one datanode, and alternate: who goes first turns round from run to run. Told are medians, and their ratio to
ours. Processor time is what the processes of the pooler alone have used (user and system, /proc/PID/task/*/schedstat), over
the transactions of the run. The poolers may open as many server connections each, with two exceptions:

- Pgpool-II gives each client a process and a server connection of its own. It has 72 processes, and isn't measured with more
  than 64 clients.
- PgBouncer before 1.21 knows no prepared statements in transaction mode. `prepared` is measured against its session mode, in
  which each client has a server connection of its own and PgBouncer has nothing to look at.

What can be measured (--what):
  select   pgbench -S, each of --protocols with each of --clients
  tpcb     pgbench's default script, simple protocol, 32 clients
  workers  pgbench -S, simple protocol, 128 clients: one worker of ours and two
  copy     COPY of 1 GB to a client and from it
  row      how much resident memory one row of 100 MB costs, to a client and from it
  calls    system calls of a pooler for one transaction of pgbench -S, simple protocol, each of --clients (strace, which slows)
"""

import argparse
import collections
import contextlib
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

import psycopg2
from pooler_field import HOST, TITLES, Field
from pgcluster import Workspace, as_server_user
from result import tell

PROTOCOLS = ("simple", "extended", "prepared")
WHAT = ("select", "tpcb", "workers", "copy", "row", "calls")
ROW_BYTES = 100_000_000
#: Of one COPY: rows of 1 kB.
COPY_ROWS = 1_000_000


class Cell:
    """What was measured of one thing, by entrant. `higher`: is more better?"""

    def __init__(self, title, names, unit, digits=0):
        self.title, self.names, self.unit, self.digits = title, names, unit, digits
        self.values = {name: [] for name in names}
        self.processor_us = collections.defaultdict(list)

    def medians(self):
        return {name: statistics.median(values) for name, values in self.values.items()}

    def ratios(self):
        """Ours to each other."""
        medians = self.medians()
        return {name: round(medians["ours"] / value, 3) for name, value in medians.items() if name != "ours" and value}

    def result(self):
        used = {name: round(statistics.median(values), 2) for name, values in self.processor_us.items()}
        return {"unit": self.unit, "median": {name: round(value, self.digits) for name, value in self.medians().items()},
                "ours_to": self.ratios(), **({"pooler_us_per_transaction": used} if used else {}), "runs": self.values}

    def print(self):
        medians, ratios = self.medians(), self.ratios()
        parts = [f"{TITLES[name]} {medians[name]:.{self.digits}f}" + (f" (x{ratios[name]:.3f})" if name in ratios else "")
                 for name in self.names]
        used = [f"{TITLES[name]} {statistics.median(values):.1f}" for name, values in self.processor_us.items()]
        print(f"{self.title:22} {self.unit}: " + ", ".join(parts) + (f"; us of the pooler: {', '.join(used)}" if used else ""),
              flush=True)


class Measure:
    def __init__(self, field, wanted):
        self.field, self.wanted = field, wanted
        self.results = {}

    def alternate(self, cell, once):
        """Calls once(entrant, cell) for each in turn."""
        for run in range(self.wanted.runs):
            names = cell.names if run % 2 == 0 else cell.names[::-1]
            for name in names:
                once(self.field.entrants[name], cell)
        cell.print()
        return cell.result()

    def names(self, *only):
        return [name for name in TITLES if name in self.field.entrants and (not only or name in only)]

    def pgbench(self, title, names, protocol, clients, *arguments):
        wanted = self.wanted
        names = [name for name in names if self.field.entrants[name].serves(clients)]

        def run(entrant, seconds):
            done = self.field.workspace.run("pgbench", "-n", "-M", protocol, "-c", clients, "-j", min(wanted.threads, clients),
                                            "-T", seconds, *arguments, entrant.conninfo(protocol), timeout=seconds + 120,
                                            check=False)
            if done.returncode or "aborted" in done.stdout:
                raise RuntimeError(f"pgbench failed at {TITLES[entrant.name]} with {clients} clients:\n{done.stdout}")
            return done.stdout

        def once(entrant, cell):
            before = entrant.processor_ns()
            told = run(entrant, wanted.seconds)
            used = entrant.processor_ns() - before
            rate = re.search(r"tps = ([\d.]+) \(without", told)
            if not rate:
                raise RuntimeError(f"no transaction was done at {TITLES[entrant.name]} with {clients} clients:\n{told}")
            cell.values[entrant.name].append(float(rate.group(1)))
            done = int(re.search(r"transactions actually processed: (\d+)", told).group(1))
            if entrant.pids():
                cell.processor_us[entrant.name].append(used / 1000 / done)

        # Pools fill and tables come into memory before it counts. Many clients may still be connecting when that is over.
        for name in names:
            run(self.field.entrants[name], 1)
        return self.alternate(Cell(title, names, "transactions/s"), once)

    def select(self):
        return {protocol: {clients: self.pgbench(f"-S {protocol} {clients}", self.names("ours", "pgbouncer", "pgpool", "direct"),
                                                 protocol, clients, "-S") for clients in self.wanted.clients}
                for protocol in self.wanted.protocols}

    def tpcb(self):
        return self.pgbench("TPC-B-like 32", self.names("ours", "pgbouncer", "pgpool", "direct"), "simple", 32)

    def workers(self):
        return self.pgbench("-S simple 128", self.names("ours", "ours2"), "simple", 128, "-S")

    def copy(self):
        field = self.field
        field.datanode.sql("CREATE UNLOGGED TABLE bulk AS SELECT repeat('x', 1000) AS line FROM "
                           f"generate_series(1, {COPY_ROWS})")
        field.datanode.sql("CREATE UNLOGGED TABLE sink (line text)")
        file = field.workspace.path / "bulk.copy"

        def psql(entrant, sql, **streams):
            began = time.monotonic()
            subprocess.run([str(field.workspace.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql,
                            entrant.conninfo("simple")], check=True, timeout=300, **streams, **as_server_user())
            return time.monotonic() - began

        def out(entrant, cell):
            with open("/dev/null", "wb") as nowhere:
                cell.values[entrant.name].append(size / psql(entrant, "COPY bulk TO STDOUT", stdout=nowhere) / 1e6)

        def into(entrant, cell):
            with open(file, "rb") as lines:
                took = psql(entrant, "COPY sink FROM STDIN", stdin=lines)
            cell.values[entrant.name].append(size / took / 1e6)
            field.datanode.sql("TRUNCATE sink")

        names = self.names("ours", "pgbouncer", "pgpool", "direct")
        with open(file, "wb") as lines:
            psql(field.entrants[names[0]], "COPY bulk TO STDOUT", stdout=lines)
        size = file.stat().st_size
        result = {"bytes": size, "out": self.alternate(Cell("COPY to the client", names, "MB/s"), out),
                  "in": self.alternate(Cell("COPY from the client", names, "MB/s"), into)}
        field.datanode.sql("DROP TABLE bulk, sink")
        file.unlink()
        return result

    def row(self):
        self.field.datanode.sql("CREATE UNLOGGED TABLE large (line text)")

        def grown(entrant, run):
            with contextlib.closing(psycopg2.connect(entrant.conninfo("simple"))) as connection, connection.cursor() as cursor:
                connection.autocommit = True
                cursor.execute("SELECT 1")
                entrant.reset_peak()
                before = entrant.resident_kb()
                run(cursor)
                return (entrant.resident_kb("VmHWM") - before) / 1024

        def fetch(cursor):
            cursor.execute("SELECT repeat('x', %s)", (ROW_BYTES,))
            assert len(cursor.fetchone()[0]) == ROW_BYTES

        class Line:
            left = ROW_BYTES

            def read(self, size):
                size = min(size, self.left)
                self.left -= size
                return b"x" * size

        def send(cursor):
            cursor.copy_expert("COPY large FROM STDIN", Line())
            cursor.execute("TRUNCATE large")

        # A peer of many processes shares memory among them: what all of them have grown is told.
        names = self.names("ours", "pgbouncer", "pgpool")
        return {way: self.alternate(Cell(f"a row of 100 MB {way}", names, "MB grown", 2),
                                    lambda entrant, cell: cell.values[entrant.name].append(grown(entrant, run)))
                for way, run in (("out", fetch), ("in", send))}

    def calls(self):
        result = {}
        for clients in self.wanted.clients:
            for entrant in map(self.field.entrants.get, self.names("ours", "pgbouncer")):
                counts = self.field.workspace.path / "calls"
                # What connecting costs is in it, so there are many transactions for each client.
                each = max(200, 10_000 // clients)
                with subprocess.Popen(["strace", "-f", "-c", "-o", counts, *(f"-p{pid}" for pid in entrant.pids())],
                                      stderr=subprocess.PIPE, text=True) as tracer:
                    assert "attached" in tracer.stderr.readline()
                    self.field.workspace.run("pgbench", "-n", "-S", "-c", clients, "-t", each, entrant.conninfo("simple"))
                    tracer.send_signal(signal.SIGINT)
                    tracer.communicate()
                lines = [line.split() for line in counts.read_text().splitlines()]
                found = {line[-1]: int(line[3]) / each / clients for line in lines if len(line) >= 5 and line[3].isdigit()}
                found = {name: round(count, 2) for name, count in found.items() if count >= 0.05}
                result.setdefault(clients, {})[entrant.name] = found
                print(f"calls {clients:3} {TITLES[entrant.name]}: {found}", flush=True)
        return result


def words(known):
    def read(text):
        chosen = text.split(",")
        if set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"choose from {','.join(known)}")
        return chosen
    return read


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--what", type=words(WHAT), default=["select"], help=f"{','.join(WHAT)} (select)")
    options.add_argument("--peers", type=words(TITLES), default=["pgbouncer", "direct"], help="pgbouncer,pgpool,direct (all but pgpool)")
    options.add_argument("--protocols", type=words(PROTOCOLS), default=["simple"], help=f"{','.join(PROTOCOLS)} (simple)")
    options.add_argument("--clients", type=lambda text: [int(word) for word in text.split(",")], default=[32], help="1,8,32,128 (32)")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--seconds", type=int, default=6, help="of one run (6)")
    options.add_argument("--threads", type=int, default=2, help="of pgbench (2)")
    options.add_argument("--pool-size", type=int, default=32)
    options.add_argument("--scale", type=int, default=32, help="of pgbench's tables (32)")
    options.add_argument("--json", type=pathlib.Path)
    options.add_argument("--min-ratio", type=float, default=0, help="fail if a cell of select has less of PgBouncer's throughput")
    wanted = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not before what was started has ended
    names = ["ours", *wanted.peers, *(["ours2"] if "workers" in wanted.what else [])]
    workspace = Workspace()
    field = None
    try:
        field = Field(workspace, names, max(128, *wanted.clients), wanted.pool_size)
        workspace.run("pgbench", "-q", "-i", "-s", wanted.scale, "-h", HOST, "-p", field.datanode.port, "-U", "postgres", "postgres")
        measure = Measure(field, wanted)
        for what in wanted.what:
            measure.results[what] = getattr(measure, what)()
    finally:
        if field:
            field.destroy()
        workspace.close()
    result = {name: getattr(wanted, name) for name in ("runs", "seconds", "threads", "pool_size", "scale")} | measure.results
    tell(result, wanted.json)
    ratios = [cell["ours_to"].get("pgbouncer", wanted.min_ratio) for cells in result.get("select", {}).values()
              for cell in cells.values()]
    if ratios and min(ratios) < wanted.min_ratio:
        sys.exit(f"a ratio to PgBouncer is {min(ratios)}, below {wanted.min_ratio}")


if __name__ == "__main__":
    main()
