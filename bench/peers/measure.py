"""The same outages under us and under the peers: one client inserts one row per transaction without pause, the master
is hit, and every acknowledged row is looked for on the master that is left. Called by bench/failover.sh."""

import argparse
import collections
import os
import pathlib
import platform
import signal
import statistics
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "test/cluster"), str(ROOT / "bench")]

import pgcluster  # noqa: E402
from own import Own  # noqa: E402
from patroni_peer import Patroni, PatroniShort, PatroniStrict  # noqa: E402
from pg_auto_failover import PgAutoFailover  # noqa: E402
from pgcluster import Timeout, wait_for  # noqa: E402
from repmgr import Repmgr  # noqa: E402
from result import tell  # noqa: E402

PRODUCTS = {product.title: product for product in (Own, PgAutoFailover, Patroni, PatroniStrict, PatroniShort, Repmgr)}
SCENARIOS = {
    "kill": "kill -9 of the master's postmaster, and of what would start it again on the spot (see the notes)",
    "hang": "SIGSTOP of every process of the master's node; it stays stopped",
    "hang-wake": "the same; SIGCONT after the failover, then both servers are written to for --wake-window seconds",
    "switchover": "the product's own command",
}
#: Rows to be acknowledged before the master is hit.
WARM_UP = 300


class Command(threading.Thread):
    """Runs the product's command while the measure watches the servers."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.trouble = None
        self.start()

    def run(self):
        try:
            self.function()
        except Exception as error:  # told in the result
            self.trouble = str(error)[-500:]


def wait_or_none(condition, what, deadline):
    """When it became true (monotonic), or None if it didn't until `deadline`."""
    try:
        wait_for(condition, what, max(0.0, deadline - time.monotonic()), 0.05)
        return time.monotonic()
    except Timeout:
        return None


def wake(product, load, window_s):
    """Wakes the old master and lets both clients write for `window_s`; what the old master acknowledged meanwhile."""
    woken_at = product.thaw()
    # Not a wait for something: it is how long a client of the old master gets to do damage.
    time.sleep(window_s)
    return load.acked_by_client_after(1, woken_at)


def one_run(product, scenario, options):
    load = product.writer(old_master_too=scenario == "hang-wake").start()
    command = None
    try:
        wait_for(lambda: load.acked_of(0) >= WARM_UP, "the load to run")
        if scenario == "hang-wake":
            wait_for(lambda: load.acked_of(1) >= WARM_UP // 10, "the load on the master to run")
        if scenario == "kill":
            hit_at = product.kill()
        elif scenario == "switchover":
            hit_at = time.monotonic()
            command = Command(product.switchover)
        else:
            hit_at = product.freeze()
        deadline = hit_at + options.deadline
        taken_at = wait_or_none(product.who_writes, "the new master", deadline)
        written_at = taken_at and wait_or_none(lambda: load.acked_by_client_after(0, taken_at), "a row", deadline)
        acked_by_old = None
        if scenario == "hang-wake" and written_at:
            acked_by_old = wake(product, load, options.wake_window)
        taken_by = product.who_writes() if taken_at and scenario == "kill" else None
        if command:
            command.join(options.deadline)
    finally:
        load.stop()
    outage_ms = load.outage_ms(hit_at, taken_at) if written_at else None
    lost, duplicated, phantom = load.verify(product.rows())
    results = collections.Counter(answer.result for answer in load.answers())
    return {
        "outage_ms": outage_ms and round(outage_ms, 1),
        "takeover_ms": taken_at and round((taken_at - hit_at) * 1000, 1),
        "taken_over_by": taken_by,
        "acknowledged": results["acked"], "unknown": results["unknown"], "failed": results["failed"],
        "lost": len(lost), "duplicated": len(duplicated), "phantom": len(phantom),
        "reconnects": load.reconnects, "errors": dict(load.errors),
        "acked_by_old_master_after_wake": acked_by_old,
        "command": command and (command.trouble or "done"),
    }


def measure(workspace, title, scenario, options):
    runs = []
    for number in range(1, options.runs + 1):
        product = None
        try:
            product = PRODUCTS[title](workspace).start()
            run = one_run(product, scenario, options)
        except Exception as error:  # one product's trouble must not hide the others' figures
            run = {"broken": f"{type(error).__name__}: {str(error)[-1500:]}"}
            if product and options.verbose and hasattr(product, "nodes"):
                print("".join(made.logs() for made in product.nodes))
        finally:
            if product:
                product.destroy()
        runs.append(run)
        print(f"{title:17} {scenario:11} {number:>3}  " + told(run, options), flush=True)
    return runs


def told(run, options):
    if "broken" in run:
        return "BROKEN: " + run["broken"]
    errors = ", ".join(f"{count} {what}" for what, count in sorted(run["errors"].items())) or "none"
    more = "" if run["acked_by_old_master_after_wake"] is None else \
        f"; woken master acknowledged {run['acked_by_old_master_after_wake']}"
    if run["taken_over_by"] == "master":
        more += "; the old master was started again"
    if run["command"] not in (None, "done"):
        more += f"; its command: {run['command']}"
    return (f"{shown(run['outage_ms'], options):>9} {shown(run['takeover_ms'], options):>9} {run['acknowledged']:>8} "
            f"{run['lost']:>5} {run['duplicated']:>6}  {errors}{more}")


def shown(milliseconds, options):
    return f"> {options.deadline:g} s" if milliseconds is None else f"{milliseconds:.0f}"


def summary_of(runs, options):
    done = [run for run in runs if "broken" not in run]
    # A run without a write until the deadline is longer than every other.
    never = options.deadline * 1000 + 1

    def of(name, function):
        values = [never if run[name] is None else run[name] for run in done]
        found = function(values) if values else None
        return None if found is None or found >= never else round(found, 1)

    errors = collections.Counter()
    for run in done:
        errors.update(run["errors"])
    return {
        "runs": len(done), "broken": len(runs) - len(done),
        "median_ms": of("outage_ms", statistics.median), "worst_ms": of("outage_ms", max),
        "takeover_median_ms": of("takeover_ms", statistics.median), "takeover_worst_ms": of("takeover_ms", max),
        "acknowledged": sum(run["acknowledged"] for run in done),
        "lost": sum(run["lost"] for run in done), "duplicated": sum(run["duplicated"] for run in done),
        "phantom": sum(run["phantom"] for run in done), "errors": dict(errors),
    }


def print_settings(titles):
    for title in titles:
        product = PRODUCTS[title]
        print(f"{title}: {', '.join(product.versions())}")
        for what, value, why, document in product.settings:
            print(f"    {what} = {value}: {why} [{document}]")
        for note in product.notes:
            print(f"    {note}")
    print()


def print_summary(results, options):
    print(f"\n{'product':17} {'scenario':11} {'runs':>4} {'median':>8} {'worst':>8} {'takeover':>9} {'acked':>8} {'lost':>5} "
          f"{'twice':>6}  client's errors   (ms; takeover: median from the hit, or from the start of the command, until the "
          "new master takes writes)")
    for (title, scenario), result in results.items():
        short = result["summary"]
        if not short["runs"]:
            print(f"{title:17} {scenario:11}    0  no run was finished")
            continue
        errors = ", ".join(f"{count} {what}" for what, count in sorted(short["errors"].items())) or "none"
        print(f"{title:17} {scenario:11} {short['runs']:>4} {shown(short['median_ms'], options):>8} "
              f"{shown(short['worst_ms'], options):>8} {shown(short['takeover_median_ms'], options):>9} "
              f"{short['acknowledged']:>8} {short['lost']:>5} {short['duplicated']:>6}  {errors}")


def words(known):
    def parse(text):
        chosen = [word for word in text.split(",") if word]
        unknown = [word for word in chosen if word not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return chosen
    return parse


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=words(PRODUCTS), default=[])
    parser.add_argument("--without-own", action="store_true")
    parser.add_argument("--scenario", type=words(SCENARIOS), default=["kill"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--deadline", type=float, default=60.0)
    parser.add_argument("--wake-window", type=float, default=10.0)
    parser.add_argument("--skipped", action="append", default=[])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    titles = [*([] if options.without_own else [Own.title]), *options.peers]

    # A signal ends the measure as Ctrl-C does: with everything stopped and removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for text in options.skipped:
        print(f"skipped: {text}")
    print_settings(titles)
    for scenario in options.scenario:
        print(f"{scenario}: {SCENARIOS[scenario]}")
    print(f"\n{'product':17} {'scenario':11} {'run':>3} {'outage':>10} {'takeover':>9} {'acked':>8} {'lost':>5} {'twice':>6}  "
          "client's errors")
    results = {}
    workspace = pgcluster.Workspace()
    try:
        for scenario in options.scenario:
            for title in titles:
                runs = measure(workspace, title, scenario, options)
                results[title, scenario] = {"product": title, "scenario": scenario,
                                            "summary": summary_of(runs, options), "runs": runs}
    finally:
        workspace.close()
    print_summary(results, options)
    tell({
        "machine": {"system": platform.platform(), "processors": len(os.sched_getaffinity(0))},
        "deadline_s": options.deadline, "wake_window_s": options.wake_window, "skipped": options.skipped,
        "products": {title: {"versions": PRODUCTS[title].versions(),
                             "settings": [dict(zip(("what", "value", "why", "document"), row))
                                          for row in PRODUCTS[title].settings],
                             "notes": PRODUCTS[title].notes} for title in titles},
        "results": list(results.values()),
    }, options.json)
    # The peers' losses are findings; ours are failures, and so is a run that couldn't be made.
    own = [result["summary"] for (title, _), result in results.items() if title == Own.title]
    wrong = any(short["lost"] + short["duplicated"] + short["phantom"] for short in own)
    return 1 if wrong or any(result["summary"]["broken"] for result in results.values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
