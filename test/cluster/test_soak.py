"""Clients that connect, work, die, cancel and lie; soak.py says how, and what must not be left. PGXC_SOAK_SECONDS says for how
long (four seconds), 0 leaves it out; PGXC_SOAK_SEED repeats a seed. Where it is set the pooler is tried under LeakSanitizer, too."""

import os
import random

import pytest

import pgcluster
import soak

GIVEN = os.environ.get("PGXC_SOAK_SECONDS")
SECONDS = float(GIVEN or "4")
#: pooler_standalone of the preset asan-ubsan: cmake --build --preset asan-ubsan --target pooler_standalone
SANITIZED = pgcluster.ROOT / "build-asan/test/pooler_standalone"

#: Beside the load: making the servers, and waiting for silence after each round.
pytestmark = [pytest.mark.skipif(SECONDS == 0, reason="PGXC_SOAK_SECONDS is 0"),
              pytest.mark.timeout(int(SECONDS * 2) + 600)]


def run(workspace, seconds, tell, **options):
    seed = int(os.environ.get("PGXC_SOAK_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"seed {seed}")
    summary = soak.run(workspace, seed, seconds, **options)
    print(soak.tell(summary))
    if GIVEN:
        tell(f"soak.py --seconds {seconds:g}{' --pooler' if 'pooler' in options else ''}: {soak.one_line(summary)}")
    assert summary["wrong"] == []


def test_nothing_of_clients_is_left_in_a_cluster(workspace, tell):
    run(workspace, SECONDS, tell)


@pytest.mark.skipif(not GIVEN, reason="PGXC_SOAK_SECONDS is not set")
@pytest.mark.skipif(not SANITIZED.exists(), reason=f"{SANITIZED} is not built")
def test_the_pooler_loses_no_memory(workspace, tell):
    """Under LeakSanitizer, for two minutes at most."""
    run(workspace, min(SECONDS, 120), tell, pooler=SANITIZED)
