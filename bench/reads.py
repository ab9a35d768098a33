"""Reads through the pooler with two slaves: pgxc.read_routing = auto against master only, and what auto costs by itself.

pgbench -S, alternating runs; medians of transactions per second, and of the processor time (user and system) that the
pooler's worker used for one. Without slaves `auto` looks at every statement, and then the master answers it: the difference
to `master` is the overhead of routing. Texts differ from statement to statement in the simple protocol only. Prints JSON.
"""

import argparse
import os
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test/cluster"))

import pgcluster  # noqa: E402
from pgcluster import HOST, wait_for  # noqa: E402
from result import tell  # noqa: E402

ROUTINGS = {"master": (1, "master"), "auto": (1, "auto"), "auto without slaves": (2, "auto"), "master without slaves": (2, "master")}


def processor_us(pid):
    """What a process has used so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--json", type=pathlib.Path)
    wanted = options.parse_args()
    workspace = pgcluster.Workspace()
    cluster = pgcluster.Cluster(workspace)
    try:
        for node in (1, 2):
            cluster.make_datanode(node)
        cluster.make_coordinator(failover="off")
        for slave in (3, 4):
            cluster.make_slave(slave, 1)
            cluster.register(slave, 1, "ASYNCHRONOUS")
        cluster.wait_ready()
        for master in cluster.masters.values():
            workspace.run("pgbench", "-q", "-i", "-s", "5", "-h", HOST, "-p", master.port, "-U", "postgres", "postgres")
        end = cluster.masters[1].value("SELECT pg_current_wal_lsn()")
        for slave in cluster.slaves.values():
            wait_for(lambda: slave.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (end,)), "the slaves to catch up")
        result = {"clients": wanted.clients, "seconds": wanted.seconds, "runs": wanted.runs}
        worker = wait_for(lambda: cluster.coordinator.child_pid("pgxc", "pooler"), "the pooler")
        for protocol in ("simple", "extended", "prepared"):
            tps = {name: [] for name in ROUTINGS}
            used = {name: [] for name in ROUTINGS}
            for _ in range(wanted.runs):
                for name, (node, routing) in ROUTINGS.items():
                    target = (f"host={HOST} port={cluster.pooler_port} user=postgres dbname=postgres "
                              f"options='-c pgxc.node={node} -c pgxc.read_routing={routing}'")
                    before = processor_us(worker)
                    run = workspace.run("pgbench", "-n", "-S", "-M", protocol, "-c", wanted.clients, "-T", wanted.seconds,
                                        target, timeout=wanted.seconds + 60)
                    tps[name].append(float(re.search(r"tps = ([\d.]+) \(without", run.stdout).group(1)))
                    done = int(re.search(r"transactions actually processed: (\d+)", run.stdout).group(1))
                    used[name].append((processor_us(worker) - before) / done)
            medians = {name: statistics.median(runs) for name, runs in tps.items()}
            cost = {name: statistics.median(runs) for name, runs in used.items()}
            result[protocol] = {
                "tps": {name: round(value) for name, value in medians.items()},
                "auto / master": round(medians["auto"] / medians["master"], 3),
                "pooler_us": {name: round(value, 1) for name, value in cost.items()},
                "routing_us": round(cost["auto without slaves"] - cost["master without slaves"], 1),
            }
        tell(result, wanted.json)
    finally:
        cluster.destroy()
        workspace.close()


if __name__ == "__main__":
    main()
