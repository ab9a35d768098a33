"""What programs have in common that do things at random for long: a seed that is told first, a workspace that goes whatever
happens, and a summary."""

import json
import random
import signal
import sys

import pgcluster


def main(wanted, tell, run):
    """`wanted` has seed and json; `run` gets a workspace and the seed, and returns the summary. The status to exit with."""
    seed = wanted.seed if wanted.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    workspace = pgcluster.Workspace()
    try:
        summary = run(workspace, seed)
    finally:
        workspace.close()
    print(tell(summary))
    if wanted.json:
        wanted.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 1 if summary["wrong"] else 0
