#!/usr/bin/python3
"""Clients that connect, work, die, cancel, lie and send half of what they should, for as long as wanted, and the proof
that nothing of them is left: no client, no server connection in use, no descriptor, no backend, no memory.

The load comes in rounds. Between two rounds everybody goes and what is left is counted; the memory of the pooler after the
first rounds (which fill its pools and caches) is compared with that after the last one.

Without --pooler: a real cluster, with TLS, SCRAM, and a slave that serves reads. With --pooler PROGRAM: pooler_standalone of
a build with AddressSanitizer and LeakSanitizer in front of a server, ended in good order so that they report.

The seed decides what each client does, not when, nor what it meets.
"""

import argparse
import collections
import contextlib
import pathlib
import random
import sys
import threading
import time

import long_run
from soak_deeds import WEIGHTS, Client
from soak_targets import ClusterTarget, StandaloneTarget

CLIENTS = 24
ROUND_S = 60.0
#: How much more private memory the pooler may have in the last third of the rounds after the warm-up than in the first.
GROWTH_KB = 1024
#: Shorter rounds don't tell: too little comes to each for their least to be what they all need.
JUDGED_ROUND_S = 10.0
#: Between two server sessions that are ended by the administrator.
KILL_EVERY_S = (4.0, 15.0)


class Soak:
    def __init__(self, target, seed, clients=CLIENTS, quiet=False, only=None):
        self.target = target
        self.seed = seed
        self.counts = collections.Counter()
        self.wrong = []
        self.rounds = []
        self._deeds = {deed: weight for deed, weight in WEIGHTS.items() if only is None or deed.__name__ in only}
        self._quiet = quiet
        self._began = time.monotonic()
        self._clients = [Client(target, number, random.Random(f"{seed}/client {number}")) for number in range(clients)]
        self._random = random.Random(f"{seed}/administrator")
        self._stop = threading.Event()

    def say(self, text):
        if not self._quiet:
            print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    # The load

    def _run_client(self, client, end):
        counts = collections.Counter()
        while time.monotonic() < end and not self._stop.is_set():
            deed = client.random.choices(list(self._deeds), self._deeds.values())[0]
            try:
                client.do(deed)
            except Exception as error:  # noqa: BLE001: told at the end
                self.wrong.append(f"client {client.number}, {deed.__name__}: {type(error).__name__}: {error}")
                self._stop.set()
            counts[deed.__name__] += 1
        self.counts.update(counts)

    def _run_administrator(self, end):
        while True:
            pause = self._random.uniform(*KILL_EVERY_S)
            if self._stop.wait(min(pause, max(0.0, end - time.monotonic()))) or time.monotonic() >= end:
                return
            try:
                if self.target.end_a_session():
                    self.counts["(server session ended)"] += 1
                self.target.reload()
            except Exception as error:  # noqa: BLE001: told at the end
                self.wrong.append(f"the administrator: {type(error).__name__}: {error}")
                self._stop.set()

    def _load(self, seconds):
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._run_client, args=(client, end), daemon=True) for client in self._clients]
        threads.append(threading.Thread(target=self._run_administrator, args=(end,), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(end - time.monotonic() + 180)
            if thread.is_alive():
                self.wrong.append("a client hangs")
                self._stop.set()

    # The rounds

    def round(self, seconds):
        """Load, silence, and what is left."""
        before = self.counts.total()
        self._load(seconds)
        deeds = self.counts.total() - before
        if not self.wrong:
            try:
                self.target.wait_quiet()
                self.wrong += self.target.wrong_rows(sum(client.kept for client in self._clients),
                                                     sum(client.maybe_kept for client in self._clients))
                for client in self._clients:
                    client.kept = client.maybe_kept = 0
            except Exception as error:  # noqa: BLE001: told at the end
                self.wrong.append(f"{type(error).__name__}: {error}")
        self.wrong += self.target.crashes()
        self.rounds.append({"deeds": deeds, **self.target.figures()})
        self.say(f"round {len(self.rounds)}: " + ", ".join(f"{value} {name}" for name, value in self.rounds[-1].items()))

    def run(self, seconds, around_round=contextlib.nullcontext):
        """Rounds for so many seconds of load in all. `around_round`: what to hold meanwhile."""
        count = max(4, round(seconds / ROUND_S))
        warm = max(1, round(count / 5))
        for _ in range(count):
            with around_round():
                self.round(seconds / count)
            if self.wrong:
                break
        return self.summary(warm, seconds / count >= JUDGED_ROUND_S)

    def summary(self, warm, judge_memory):
        memory = [each["kB"] for each in self.rounds[warm:]]
        third = max(1, len(memory) // 3)
        # The least of each: what a buffer or two are larger by at the moment is no growth.
        first, last = min(memory[:third], default=0), min(memory[-third:], default=0)
        growth = last - first
        deeds = sum(each["deeds"] for each in self.rounds[warm:])
        if judge_memory and self.target.memory_counts and growth > GROWTH_KB:
            self.wrong.append(f"the pooler's memory grew from {first} to {last} kB in {deeds} deeds")
        return {"seed": self.seed, "clients": len(self._clients), "deeds": self.counts.total(), "warm_up_rounds": warm,
                "memory_kb": [first, last], "rounds": self.rounds, "counts": dict(sorted(self.counts.items())), "wrong": self.wrong}


def tell(summary):
    lines = [f"{name:28} {count:8}" for name, count in summary["counts"].items()]
    lines.append(one_line(summary))
    return "\n".join(lines + summary["wrong"])


def one_line(summary):
    first, last = summary["memory_kb"]
    descriptors = [each["descriptors"] - each["server sessions"] for each in summary["rounds"]]
    return (f"seed {summary['seed']}: {summary['deeds']} deeds of {summary['clients']} clients, {len(summary['wrong'])} wrong; "
            f"the pooler's memory {first} kB after the warm-up, {last} kB at the end; "
            f"descriptors beside server connections {min(descriptors)} to {max(descriptors)}")


def run(workspace, seed, seconds, clients=CLIENTS, quiet=False, pooler=None, only=None, around_round=contextlib.nullcontext):
    """A whole run (`only`: of these deeds); its summary, in which `wrong` is empty if all is well."""
    target = StandaloneTarget(workspace, pooler) if pooler else ClusterTarget(workspace)
    try:
        soak = Soak(target, seed, clients, quiet, only)
        summary = soak.run(seconds, around_round)
        summary["wrong"] += target.finish()
        return summary
    finally:
        target.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of load in all (60), in rounds of a minute at most")
    parser.add_argument("--seed", type=int, help="without it a random one, which is printed")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"at the same time ({CLIENTS})")
    parser.add_argument("--pooler", type=pathlib.Path, metavar="PROGRAM", help="this pooler_standalone, in place of a cluster")
    parser.add_argument("--only", metavar="DEED,...", help="just these, names as they are counted")
    parser.add_argument("--json", type=pathlib.Path, help="write the summary there")
    wanted = parser.parse_args()
    only = wanted.only and wanted.only.split(",")
    if unknown := set(only or ()) - {deed.__name__ for deed in WEIGHTS}:
        parser.error(f"no such deed: {', '.join(sorted(unknown))}")
    return long_run.main(wanted, tell, lambda workspace, seed: run(workspace, seed, wanted.seconds, wanted.clients,
                                                                   pooler=wanted.pooler, only=only))


if __name__ == "__main__":
    sys.exit(main())
