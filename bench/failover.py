"""The outage that a client of the pooler sees when its master's postmaster is killed.

Outage = from the last acknowledged commit before kill -9 to the first one after it. After each run every row is
compared with what was acknowledged.
"""

import argparse
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test/cluster"))

import pgcluster  # noqa: E402
from pgcluster import wait_for  # noqa: E402
from result import tell  # noqa: E402
from writer import Writer  # noqa: E402

pgcluster.DURABLE = True

PHASES = ("detect_ms", "decide_ms", "fence_ms", "promote_ms", "publish_ms", "outage_ms")


def one_run(workspace, wanted):
    clients, promotion = wanted.clients, wanted.promotion
    cluster = pgcluster.standard_cluster(workspace, slaves=wanted.slaves, promotion=promotion, sync_slaves=wanted.sync_slaves)
    try:
        master = cluster.masters[1]
        load = Writer(cluster.pooler_dsn(), clients).start()
        wait_for(lambda: load.acked_count() >= 300 * clients, "the load to run")
        killed_at = master.kill9()
        wait_for(lambda: load.acked_after(killed_at) == clients, "every client to write again")
        wait_for(lambda: cluster.coordinator.value("SELECT count(*) = 1 FROM pgxc.failover_history"), "the history row")
        load.stop()
        cluster.wait_status(1, state="up", role_seen="master")
        ((new_address, method, *phases),) = cluster.coordinator.sql(
            f"SELECT new_address, method, {', '.join(PHASES)} FROM pgxc.failover_history")
        port = int(new_address.rsplit(":", 1)[1])
        if promotion == "restart":
            assert port == master.port, "the port of the dead master was not taken over"
        lost, duplicated, phantom = load.verify(master.sql("SELECT client, seq FROM load", port=port))
        answers = load.answers()
        return {
            "outage_ms": round(load.outage_ms(killed_at), 1),
            "acknowledged": sum(a.result == "acked" for a in answers),
            "unknown": sum(a.result == "unknown" for a in answers),
            "failed": sum(a.result == "failed" for a in answers),
            "reconnects": load.reconnects,
            "lost": len(lost),
            "duplicated": len(duplicated),
            "phantom": len(phantom),
            "method": method,
            "phases": {name: None if ms is None else round(ms, 1) for name, ms in zip(PHASES, phases)},
        }
    finally:
        cluster.destroy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--slaves", type=int, default=1)
    parser.add_argument("--sync-slaves", type=int, default=1)
    parser.add_argument("--promotion", choices=("auto", "promote", "restart"), default="auto")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--max-median", type=float)
    parser.add_argument("--max-worst", type=float)
    wanted = parser.parse_args()

    workspace = pgcluster.Workspace()
    runs = []
    try:
        print(f"{'run':>4} {'outage':>8} " + " ".join(f"{name[:-3]:>8}" for name in PHASES[:-1])
              + f" {'acked':>8} {'unknown':>8} {'lost':>5} {'twice':>6}   (outage and phases in ms)")
        for number in range(1, wanted.runs + 1):
            run = one_run(workspace, wanted)
            runs.append(run)
            phases = " ".join(f"{'-' if run['phases'][n] is None else run['phases'][n]:>8}" for n in PHASES[:-1])
            print(f"{number:>4} {run['outage_ms']:>8} {phases} {run['acknowledged']:>8} {run['unknown']:>8} "
                  f"{run['lost']:>5} {run['duplicated']:>6}", flush=True)
    finally:
        workspace.close()

    outages = [run["outage_ms"] for run in runs]
    summary = {
        "runs": len(runs), "clients": wanted.clients, "slaves": wanted.slaves, "sync_slaves": wanted.sync_slaves,
        "promotion": wanted.promotion,
        "median_ms": round(statistics.median(outages), 1), "worst_ms": max(outages), "best_ms": min(outages),
        "acknowledged": sum(run["acknowledged"] for run in runs), "lost": sum(run["lost"] for run in runs),
        "duplicated": sum(run["duplicated"] for run in runs), "phantom": sum(run["phantom"] for run in runs),
    }
    print("\nmedian {median_ms} ms, worst {worst_ms} ms, best {best_ms} ms in {runs} runs; of {acknowledged} acknowledged rows "
          "{lost} lost, {duplicated} duplicated".format(**summary))
    tell({"summary": summary, "runs": runs}, wanted.json)
    wrong = summary["lost"] + summary["duplicated"] + summary["phantom"] > 0
    if wanted.max_median is not None and summary["median_ms"] > wanted.max_median:
        print(f"the median is above {wanted.max_median} ms", file=sys.stderr)
        wrong = True
    if wanted.max_worst is not None and summary["worst_ms"] > wanted.max_worst:
        print(f"the worst is above {wanted.max_worst} ms", file=sys.stderr)
        wrong = True
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
