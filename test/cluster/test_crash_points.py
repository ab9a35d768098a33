"""The monitor is killed between any two steps of what it does; the next one finishes it, once, and nothing is lost.

The places are named in the source: environment_.crash_point("..."). Each is reached here by name."""

import contextlib
import re

import psycopg2
import pytest

from pgcluster import ROOT, wait_for

FAILOVER = ["failover decided", "conninfo stored", "stream cut", "one fenced", "all fenced", "promotion recorded",
            "names in force", "slots made", "followers pointed", "server promoted", "gate proven", "promotion published",
            "promotion settled", "former registered"]
CHANGE = ["configuration listed", "names changed", "names proven", "older ones left"]
OTHERS = ["slave stopped", "claimed", "slave streams", "master proven", "prefix proven", "one unfenced", "master silenced",
          "server restarted", "unfinished published"]


@pytest.fixture
def make_mortal(make_cluster, monkeypatch):
    """Makes clusters whose monitor can be killed at a crash point."""
    monkeypatch.setenv("PGXC_CRASH_POINTS", "1")
    return make_cluster


@pytest.fixture
def cluster(make_mortal):
    return make_mortal(slaves=2)


def armed(cluster):
    return cluster.coordinator.data / "pgxc_crash_point"


def arm(cluster, point):
    cluster.log_at_arming = len(cluster.coordinator.log_text())
    armed(cluster).write_text(point + "\n")
    armed(cluster).chmod(0o666)


def wait_fired(cluster, point):
    """Waits until the monitor was killed there, and the coordinator and its pooler are back."""
    def restarted():
        log = cluster.coordinator.log_text()[cluster.log_at_arming:]
        fired, reinitializing = log.find(f"killed at the crash point {point}"), log.rfind("reinitializing")
        return 0 <= fired < reinitializing < log.rfind("ready to accept connections")

    wait_for(restarted, f"the crash point '{point}' and the restart")
    wait_for(lambda: cluster.coordinator.value("SELECT 1"), "the coordinator")
    cluster.wait_pooler()


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


@pytest.mark.timeout(900)
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


def test_steps_of_degrading(cluster):
    """Durable first, then let go: whoever goes on finds both configurations, and the commit that waits is let through
    only then."""
    for number, point in enumerate(CHANGE):
        wait_for(lambda: everybody_counts(cluster), f"two slaves to count before '{point}'")
        arm(cluster, point)
        cluster.slaves[3].kill9()
        wait_fired(cluster, point)
        wait_for(lambda: counting(cluster) == 1, f"the degrading that was at '{point}' to be finished")
        cluster.wait_status(1, state="up", gate="open")
        cluster.pooler_sql(f"INSERT INTO load VALUES (-3, {number})")
        cluster.slaves[3].wait_gone()
        cluster.slaves[3].start()
    assert cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history") == 0


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


def finished(cluster, rows=1):
    wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history") == rows, "the failover")
    cluster.wait_status(1, state="up", role_seen="master", gate="open")


def test_proving_a_restarted_master(make_mortal):
    cluster = make_mortal(slaves=2, restart_grace="60s")
    arm(cluster, "master proven")
    cluster.masters[1].restart("fast")
    wait_fired(cluster, "master proven")
    cluster.wait_status(1, state="up", gate="open")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    assert cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history") == 0


def test_giving_an_epochs_name(cluster):
    """A slave that isn't fenced follows after the proof that it is a beginning of the new master's line."""
    third = cluster.make_slave(4, 1)
    cluster.register(4, 1, "ASYNCHRONOUS")
    wait_for(lambda: counting(cluster) == 2, "two slaves to count")
    arm(cluster, "prefix proven")
    cluster.masters[1].kill9()
    wait_fired(cluster, "prefix proven")
    finished(cluster)
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    wait_for(lambda: third.value("SELECT count(*) FROM load WHERE client = -1") == 1, "it to follow")


def test_undoing_fences(cluster):
    """Too few could be fenced: whoever goes on takes the rest back, and fails over once there are enough."""
    wait_for(lambda: everybody_counts(cluster), "two slaves to count")
    stubborn = cluster.slaves[3]
    conninfo = stubborn.value("SHOW primary_conninfo")
    stubborn.stop()
    # What is on the command line can't be cut by a reload.
    options = " ".join(f"-c \"{name}={value}\"" for name, value in (("primary_conninfo", conninfo),))
    cluster.workspace.run("pg_ctl", "start", "-D", stubborn.data, "-l", stubborn.log, "-w", "-o", options)
    wait_for(lambda: everybody_counts(cluster), "both to count again")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    arm(cluster, "one unfenced")
    cluster.masters[1].kill9()
    wait_fired(cluster, "one unfenced")
    # The coordinator has restarted: at first there is no row.
    wait_for(lambda: "no failover" in ((cluster.status(1) or {}).get("why") or ""), "the refusal")
    stubborn.stop()
    stubborn.start()
    finished(cluster)
    assert master_of(cluster).sql("SELECT seq FROM load WHERE client = -1") == [(0,)]


def test_a_planned_promotion(cluster):
    """Between silencing the master and the record nothing is decided: it is opened again."""
    wait_for(lambda: everybody_counts(cluster), "two slaves to count")
    arm(cluster, "master silenced")
    with contextlib.suppress(psycopg2.Error):
        cluster.coordinator.sql("ALTER DATANODE SLAVE 2 PROMOTE TO MASTER")
    wait_fired(cluster, "master silenced")
    wait_for(lambda: everybody_counts(cluster), "all to be as before")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    assert cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history") == 0
    assert cluster.masters[1].value("SELECT count(*) FROM load WHERE client = -1") == 1


def test_a_restart(make_mortal):
    cluster = make_mortal(slaves=1, promotion="restart", rejoin="off")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    arm(cluster, "server restarted")
    port = cluster.masters[1].port
    cluster.masters[1].kill9()
    wait_fired(cluster, "server restarted")
    finished(cluster)
    assert cluster.coordinator.value("SELECT node_port FROM pgxc_nodes WHERE node_type = 'D'") == port
    assert cluster.pooler_sql("SELECT seq FROM load WHERE client = -1") == [(0,)]


def test_a_chosen_that_is_lost(make_mortal):
    """The next one is promoted in its place, by a monitor that knows only what is recorded."""
    # The coordinator stays down at first: the next monitor must not finish that promotion before its master is dead.
    cluster = make_mortal(slaves=3, sync_slaves=2, restart_grace="1s", **{".restart_after_crash": "off"})
    wait_for(lambda: counting(cluster) == 3, "three slaves to count")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    arm(cluster, "names in force")
    cluster.masters[1].kill9()
    cluster.coordinator.wait_gone()
    assert not armed(cluster).exists()
    chosen = next(server for server in cluster.slaves.values() if "nobody" not in server.value(
        "SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'"))
    chosen.kill9()
    arm(cluster, "unfinished published")
    cluster.coordinator.configure({"restart_after_crash": "on"})
    cluster.coordinator.start()
    wait_fired(cluster, "unfinished published")
    finished(cluster, 2)
    assert master_of(cluster) is not chosen
    assert master_of(cluster).sql("SELECT seq FROM load WHERE client = -1") == [(0,)]
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 1)")
