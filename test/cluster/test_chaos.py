"""Random faults for PGXC_CHAOS_SECONDS; chaos.py says which, and what must hold. Not without that variable: what a
random run finds belongs to whoever looks for it, not to whoever happens to test. Also: test/cluster/chaos.py --seconds 600."""

import os
import random

import pytest

import chaos

SECONDS = float(os.environ.get("PGXC_CHAOS_SECONDS", "0"))


@pytest.mark.skipif(SECONDS == 0, reason="PGXC_CHAOS_SECONDS is not set")
@pytest.mark.timeout(int(SECONDS) + 900)
def test_nothing_acknowledged_is_lost(workspace):
    seed = int(os.environ.get("PGXC_CHAOS_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"seed {seed}")
    summary = chaos.run(workspace, seed, SECONDS)
    print(chaos.tell(summary))
    assert summary["wrong"] == []
