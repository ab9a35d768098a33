"""Random faults; chaos.py says which, and what must hold. PGXC_CHAOS_SECONDS says for how long (two minutes in all), 0 leaves
them out; PGXC_CHAOS_SEED repeats a seed. For longer: test/cluster/chaos.py --seconds 600."""

import os
import random

import pytest

import chaos
import netns

SECONDS = float(os.environ.get("PGXC_CHAOS_SECONDS", "120"))
#: Beside the faults: making the cluster, healing it, and waits that have limits of their own, of two minutes and more.
TIMEOUT_S = int(SECONDS) + 900


def run(workspace, seconds, apart, tell):
    seed = int(os.environ.get("PGXC_CHAOS_SEED", random.SystemRandom().randrange(1_000_000)))
    options = f"--seconds {seconds:g} --seed {seed}{' --apart' if apart else ''}"
    print(options)
    summary = chaos.run(workspace, seed, seconds, apart=apart)
    print(chaos.tell(summary))
    tell(f"chaos.py {options}: {chaos.one_line(summary)}")
    assert summary["wrong"] == []


@pytest.fixture(scope="session")
def why_not_apart():
    return netns.why_not()


@pytest.mark.skipif(SECONDS == 0, reason="PGXC_CHAOS_SECONDS is 0")
@pytest.mark.timeout(TIMEOUT_S)
def test_nothing_acknowledged_is_lost_on_one_host(workspace, why_not_apart, tell):
    run(workspace, SECONDS if why_not_apart else SECONDS / 2, apart=False, tell=tell)


@pytest.mark.skipif(SECONDS == 0, reason="PGXC_CHAOS_SECONDS is 0")
@pytest.mark.timeout(TIMEOUT_S)
def test_nothing_acknowledged_is_lost_when_links_are_cut(workspace, why_not_apart, tell):
    if why_not_apart:
        tell(f"chaos: links between servers are not cut here: {why_not_apart}")
        pytest.skip(why_not_apart)
    run(workspace, SECONDS / 2, apart=True, tell=tell)
