"""Clients that connect, work, die, cancel and lie; soak.py says how, and what must not be left. PGXC_SOAK_SECONDS says for how
long, without it this is left out; PGXC_SOAK_SEED repeats a seed."""

import os
import random

import pytest

import pgcluster
import soak

SECONDS = float(os.environ.get("PGXC_SOAK_SECONDS", "0"))
#: pooler_standalone of the preset asan-ubsan: cmake --build --preset asan-ubsan --target pooler_standalone
SANITIZED = pgcluster.ROOT / "build-asan/test/pooler_standalone"
#: Beside the load: making the servers, and waiting for silence after each round.
TIMEOUT_S = int(SECONDS * 2) + 600

pytestmark = [pytest.mark.skipif(SECONDS == 0, reason="PGXC_SOAK_SECONDS is not set"), pytest.mark.timeout(TIMEOUT_S)]


def run(workspace, seconds, tell, **options):
    seed = int(os.environ.get("PGXC_SOAK_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"seed {seed}")
    summary = soak.run(workspace, seed, seconds, **options)
    print(soak.tell(summary))
    tell(f"soak.py --seconds {seconds:g}: {soak.one_line(summary)}")
    assert summary["wrong"] == []


def test_nothing_of_clients_is_left_in_a_cluster(workspace, tell):
    run(workspace, SECONDS, tell)


@pytest.mark.skipif(not SANITIZED.exists(), reason=f"{SANITIZED} is not built")
def test_the_pooler_loses_no_memory(workspace, tell):
    """Under LeakSanitizer, for two minutes at most."""
    run(workspace, min(SECONDS, 120), tell, pooler=SANITIZED)
