"""The monitor is killed between any two steps of what it does; the next one finishes it, once, and nothing is lost.

The places are named in the source: environment_.crash_point("..."). Each is reached here by name."""

import contextlib
import pathlib
import re

import psycopg2
import pytest

from pgcluster import ROOT, wait_for

FAILOVER = ["failover decided", "one fenced", "all fenced", "promotion recorded", "names in force", "followers pointed",
            "server promoted", "gate proven", "promotion published", "promotion settled"]
CHANGE = ["configuration listed", "names changed", "names proven"]
OTHERS = ["slave stopped", "claimed", "slave streams"]


@pytest.fixture
def cluster(make_cluster, monkeypatch):
    monkeypatch.setenv("PGXC_CRASH_POINTS", "1")
    return make_cluster(slaves=2)


def armed(cluster):
    return cluster.coordinator.data / "pgxc_crash_point"


def arm(cluster, point):
    armed(cluster).write_text(point + "\n")
    armed(cluster).chmod(0o666)


def wait_fired(cluster, point):
    wait_for(lambda: not armed(cluster).exists(), f"the crash point '{point}'")
    wait_for(lambda: cluster.coordinator.value("SELECT 1"), "the coordinator")
    assert f"killed at the crash point {point}" in cluster.coordinator.log_text()


def everybody_counts(cluster):
    return cluster.coordinator.value(
        "SELECT count(*) = 3 AND bool_and(state = 'up' AND why = '') AND bool_and(gate = 'open') FILTER (WHERE node_id = 1) "
        "FROM pgxc_node_status WHERE node_type = 'D'") and counting(cluster) == 2


def counting(cluster):
    """How many slaves count, by a record in which nothing is under way; else None."""
    return cluster.coordinator.value(
        "SELECT jsonb_array_length(record->'configurations'->0->'slaves') FROM pgxc.node_record WHERE node_type = 'D' "
        "AND node_id = 1 AND record->>'pending' IS NULL AND jsonb_array_length(record->'configurations') = 1")


def master_of(cluster):
    port = cluster.coordinator.value("SELECT node_port FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1")
    return next(server for server in [*cluster.masters.values(), *cluster.slaves.values()] if server.port == port)


def test_every_place_is_known():
    found = set()
    for path in (ROOT / "src/replication").glob("*.cpp"):
        found |= set(re.findall(r'crash_point\("([^"]+)"\)', path.read_text()))
    assert found == set(FAILOVER + CHANGE + OTHERS)


def test_steps_of_a_failover(cluster):
    rows = []
    for number, point in enumerate(FAILOVER):
        wait_for(lambda: everybody_counts(cluster), f"two slaves to count before '{point}'")
        cluster.pooler_sql(f"INSERT INTO load VALUES (-1, {number})")
        rows.append((number,))
        arm(cluster, point)
        master_of(cluster).kill9()
        wait_fired(cluster, point)
        wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history") == number + 1,
                 f"the failover that was at '{point}' to be finished")
        cluster.wait_status(1, state="up", role_seen="master", gate="open")
        assert master_of(cluster).sql("SELECT seq FROM load WHERE client = -1 ORDER BY 1") == rows, point
    assert cluster.coordinator.value("SELECT node_epoch FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1") == \
        len(FAILOVER)


def test_a_follower_that_dies_during_the_promotion(cluster):
    """It counts in what the new master begins with: it must not hold up the promotion for ever."""
    wait_for(lambda: everybody_counts(cluster), "two slaves to count")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    arm(cluster, "names in force")
    master_of(cluster).kill9()
    wait_for(lambda: not armed(cluster).exists(), "the crash")
    chosen, other = sorted(cluster.slaves.values(), key=lambda server: "nobody" in server.value(
        "SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'"))
    other.kill9()
    wait_for(lambda: master_of(cluster) is chosen, "the promotion to be finished")
    cluster.wait_status(1, state="up", role_seen="master", gate="open")
    assert chosen.sql("SELECT seq FROM load WHERE client = -1") == [(0,)]


@pytest.mark.parametrize("point", CHANGE)
def test_steps_of_a_change(cluster, point):
    for mode, count in (("ASYNCHRONOUS", 1), ("SYNCHRONOUS", 2)):
        arm(cluster, point)
        with contextlib.suppress(psycopg2.Error):  # the statement's connection is lost with the coordinator
            cluster.coordinator.sql(f"ALTER DATANODE SLAVE 3 REPLICATION TO {mode}")
        wait_fired(cluster, point)
        wait_for(lambda: counting(cluster) == count, f"the change to {mode} to be finished")
        cluster.wait_status(1, state="up", gate="open", why="")
        cluster.pooler_sql(f"INSERT INTO load VALUES (-2, {count})")


def test_others(cluster):
    arm(cluster, "claimed")
    cluster.coordinator.restart("fast")
    wait_fired(cluster, "claimed")
    cluster.wait_ready()
    arm(cluster, "slave streams")
    with contextlib.suppress(psycopg2.Error):
        cluster.coordinator.sql("ALTER DATANODE SLAVE 3 ID TO 4")
    wait_fired(cluster, "slave streams")
    wait_for(lambda: everybody_counts(cluster), "both slaves to count")
    assert "pgxc_d_4_e0" in master_of(cluster).value("SHOW synchronous_standby_names")
