"""A replaced master becomes a slave by itself."""

import contextlib
import os
import re
import shutil
import signal
import time

import pytest

from pgcluster import HOST, PATIENT, wait_for
from writer import Writer


def history(cluster):
    return cluster.coordinator.sql("SELECT epoch FROM pgxc.failover_history ORDER BY history_id")


def promote(cluster, node_id=2, tail=""):
    cluster.coordinator.sql(f"ALTER DATANODE SLAVE {node_id} PROMOTE TO MASTER {tail}")


def wait_for_slave(cluster, old, new, node_id=2, replication="s"):
    """Waits until `old` is registered as slave `node_id` of datanode 1, streams from `new` and counts."""
    wait_for(lambda: ("D", node_id, HOST, old.port, 1, replication) in cluster.nodes(),
             f"the old master to be registered; {node_id} is {cluster.status(node_id)}")
    cluster.wait_status(node_id, state="up", role_seen="slave", why="")
    cluster.wait_status(1, state="up", role_seen="master", gate="open", why="")
    wait_for(lambda: old.value("SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'") == new.port,
             "the old master to stream from the new one")
    if replication == "s":
        epoch = cluster.coordinator.value("SELECT node_epoch FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1")
        name = f"pgxc_d_{node_id}_e{epoch}"
        wait_for(lambda: new.value("SHOW synchronous_standby_names") == f"ANY 1 ({name})", f"{name} to count")
        wait_for(lambda: new.value("SELECT sync_state FROM pg_stat_replication WHERE application_name = %s",
                                   (name,)) == "quorum", f"the sender of {name} to know that it counts")
        wait_for(lambda: new.sql("SELECT slot_name FROM pg_replication_slots") == [(name,)], "the right slots")
    assert old.value("SHOW synchronous_standby_names").startswith("ANY 1 (pgxc_nobody_")
    wait_for(lambda: old.sql("SELECT slot_name FROM pg_replication_slots") == [], "the old master's slots to go")
    wait_for(lambda: not list(old.data.parent.glob(f"{old.data.name}.pgxc_rejoin")), "the journal to go")
    row = -time.monotonic_ns()
    cluster.pooler_sql("INSERT INTO load VALUES (-5, %s)", (row,))
    wait_for(lambda: old.value("SELECT count(*) FROM load WHERE seq = %s", (row,)) == 1, "a new row at the old master")


def switch_on(cluster):
    cluster.coordinator.sql("ALTER SYSTEM SET pgxc.rejoin = on")
    cluster.coordinator.sql("SELECT pg_reload_conf()")


def log_of(cluster):
    return cluster.coordinator.log_text()


def diverge(cluster, old):
    """Starts a dead old master alone, out of the coordinator's sight, and has it write what the new line lacks."""
    conf = old.data / "postgresql.auto.conf"
    text = conf.read_text()
    conf.write_text(text + "synchronous_standby_names = ''\n" + "port = %d\n" % old.workspace.free_port())
    right, old.port = old.port, int(re.findall(r"(?m)^port = (\d+)", conf.read_text())[-1])
    old.start()
    old.sql("INSERT INTO load SELECT -6, g FROM generate_series(1, 1000) g")
    old.sql("CREATE TABLE only_here (x int)")
    old.kill9()
    old.wait_gone()
    old.port = right
    conf.write_text(text)


def test_killed_and_started_by_its_admin(make_cluster):
    cluster = make_cluster(rejoin="off")
    old, new = cluster.masters[1], cluster.slaves[2]
    load = Writer(cluster.pooler_dsn(), clients=4).start()
    wait_for(lambda: load.acked_count() > 200, "the load to run")
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    old.wait_gone()
    old.start()
    assert old.value("SELECT pg_is_in_recovery()") is False
    switch_on(cluster)
    wait_for_slave(cluster, old, new)
    load.stop()
    assert load.verify(new.sql("SELECT client, seq FROM load WHERE client >= 0")) == ([], [], [])
    wait_for(lambda: old.value("SELECT count(*) FROM load WHERE client >= 0")
             == new.value("SELECT count(*) FROM load WHERE client >= 0"), "both to have the same rows")
    assert new.value("SELECT 1") == 1 and len(history(cluster)) == 1


def test_killed_and_left_alone(make_cluster):
    """Found stopped with its files within reach: nobody need start it."""
    cluster = make_cluster()
    old, new = cluster.masters[1], cluster.slaves[2]
    cluster.kill9_replicated()
    wait_for_slave(cluster, old, new)
    assert "pg_rewind" not in log_of(cluster)



#: Planned promotions in a row; 20 are the acceptance, fewer keep the suite quick.
SWITCHOVERS = int(os.environ.get("PGXC_SWITCHOVERS", "6"))


def test_switchovers_back_and_forth_under_load(make_cluster):
    """Planned promotions in a row: no client sees an error, nothing is lost or there twice, and each old master is back
    as a slave that counts before the next one. None needs pg_rewind: what is stopped has written nothing more."""
    cluster = make_cluster(**PATIENT)
    servers = [cluster.masters[1], cluster.slaves[2]]
    load = Writer(cluster.pooler_dsn(), clients=4).start()
    wait_for(lambda: load.acked_count() > 200, "the load to run")
    for _ in range(SWITCHOVERS):
        promote(cluster)
        servers.reverse()
        wait_for_slave(cluster, servers[1], servers[0])
    load.stop()
    assert [answer for answer in load.answers() if answer.result != "acked"] == []
    assert load.reconnects == 0
    assert load.verify(servers[0].sql("SELECT client, seq FROM load WHERE client >= 0")) == ([], [], [])
    for row in cluster.coordinator.sql("SELECT decide_ms, fence_ms, promote_ms, outage_ms FROM pgxc.failover_history"):
        print("decide {:.0f} fence {:.0f} promote {:.0f} outage {:.0f} ms".format(*row))
    outages = sorted(row[0] for row in cluster.coordinator.sql("SELECT outage_ms FROM pgxc.failover_history"))
    print(f"{SWITCHOVERS} switchovers: median outage {outages[len(outages) // 2]:.0f} ms; "
          f"{log_of(cluster).count('pg_rewind: servers')} rewinds")


def test_divergent_master_is_rewound(make_cluster):
    cluster = make_cluster(rejoin="off")
    old, new = cluster.masters[1], cluster.slaves[2]
    old.configure({"work_mem": "3MB"})
    own_text = old.conf_file.read_text()
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    old.wait_gone()
    diverge(cluster, old)
    switch_on(cluster)
    wait_for_slave(cluster, old, new)
    assert "pg_rewind: servers diverged" in log_of(cluster)
    assert old.value("SELECT count(*) FROM load WHERE client = -6") == 0
    assert old.value("SELECT to_regclass('only_here')") is None
    assert old.conf_file.read_text() == own_text and old.value("SHOW work_mem") == "3MB"
    assert not old.data.with_name(old.data.name + ".pgxc_old").exists()


def test_copied_where_rewind_cannot(make_cluster):
    """No hint bits in its WAL and no checksums: a fresh copy takes its place, and what was there is kept aside."""
    cluster = make_cluster(rejoin="off")
    old, new = cluster.masters[1], cluster.slaves[2]
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    old.wait_gone()
    old.configure({"wal_log_hints": "off", "work_mem": "3MB"})
    diverge(cluster, old)
    own_text = old.conf_file.read_text()
    switch_on(cluster)
    wait_for_slave(cluster, old, new)
    assert "pg_rewind: servers diverged" not in log_of(cluster)
    assert old.value("SELECT count(*) FROM load WHERE client = -6") == 0
    assert old.conf_file.read_text() == own_text and old.value("SHOW work_mem") == "3MB"
    aside = old.data.with_name(old.data.name + ".pgxc_old")
    assert (aside / "PG_VERSION").exists()
    shutil.rmtree(aside)


def test_copied_where_the_wal_is_gone(make_cluster):
    """A beginning of the new line, but the new master has removed the WAL that comes next."""
    cluster = make_cluster(rejoin="off")
    old, new = cluster.masters[1], cluster.slaves[2]
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    cluster.wait_status(1, state="up", gate="open")
    new.sql("ALTER SYSTEM SET wal_keep_size = 0")
    new.sql("SELECT pg_reload_conf()")
    segment = new.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    for _ in range(3):
        new.sql("SELECT pg_switch_wal()")
        new.sql("INSERT INTO load VALUES (-7, 0)")
        new.sql("CHECKPOINT")
    assert segment not in {name for (name,) in new.sql("SELECT pg_ls_dir('pg_wal')")}
    old.wait_gone()
    switch_on(cluster)
    wait_for_slave(cluster, old, new)
    assert "has no WAL any more" in log_of(cluster)
    shutil.rmtree(old.data.with_name(old.data.name + ".pgxc_old"))


def test_coordinator_killed_in_the_middle(make_cluster):
    """A restarted coordinator finishes what was begun, here a pg_rewind that has got nowhere yet."""
    cluster = make_cluster(rejoin="off")
    old, new, coordinator = cluster.masters[1], cluster.slaves[2], cluster.coordinator
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    old.wait_gone()
    diverge(cluster, old)
    journal = old.data.with_name(old.data.name + ".pgxc_rejoin") / "journal"

    def rewinding():
        with contextlib.suppress(FileNotFoundError):
            if "rewinding" in journal.read_text():
                return True
        return "pg_rewind: servers diverged" in log_of(cluster)  # and is over, on a busy machine
    switch_on(cluster)
    wait_for(rewinding, "pg_rewind to begin", interval_s=0.001)
    coordinator.kill9()
    coordinator.wait_gone()
    coordinator.start()
    wait_for_slave(cluster, old, new)
    assert len(history(cluster)) == 1
    shutil.rmtree(old.data.with_name(old.data.name + ".pgxc_old"), ignore_errors=True)


def test_frozen_master_becomes_a_slave_when_it_wakes(make_cluster):
    cluster = make_cluster(probe_timeout="500ms")
    old, new = cluster.masters[1], cluster.slaves[2]
    old.freeze()
    wait_for(lambda: history(cluster), "the failover")
    cluster.wait_status(2, state="rejoining", why="it runs, but doesn't answer")
    old.thaw()
    wait_for_slave(cluster, old, new)


def test_out_of_reach_names_the_command(make_cluster):
    """As on another host: what is to be typed is told, and whoever types it need not register anything."""
    cluster = make_cluster()
    old, new = cluster.masters[1], cluster.slaves[2]
    hidden = old.data.with_name(old.data.name + ".elsewhere")
    record = "(SELECT record FROM pgxc.node_record WHERE node_type = 'D' AND node_id = 1)"
    wait_for(lambda: cluster.coordinator.value(f"SELECT {record}->'place'->>'data_directory'") == str(old.data),
             "the place to be known")
    # Hidden while it lives: else its return may begin before.
    old.killed = old.postmaster_pid()
    old.data.rename(hidden)
    os.kill(old.killed, signal.SIGKILL)
    wait_for(lambda: history(cluster), "the failover")
    row = cluster.wait_status(2, state="rejoining", node_master_id=1)
    wait_for(lambda: "pg_rewind" in cluster.status(2)["why"], "the command to be told")
    row = cluster.status(2)
    assert (row["node_host"], row["node_port"]) == (HOST, old.port)
    assert f"pg_rewind -D {old.data} -R --source-server='host={HOST} port={new.port} " in row["why"]
    hidden.rename(old.data)
    wait_for_slave(cluster, old, new)


def test_registered_by_hand_is_no_longer_waited_for(make_cluster):
    cluster = make_cluster(rejoin="off")
    old, new = cluster.masters[1], cluster.slaves[2]
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    cluster.wait_status(1, state="up", gate="open")
    row = cluster.wait_status(2, state="rejoining")
    wait_for(lambda: "pgxc.rejoin is off" in cluster.status(2)["why"], "the reason to be told")
    assert row["node_port"] == old.port
    cluster.masters[1] = new
    cluster.make_slave(2, 1)
    cluster.register(2, 1, "SYNCHRONOUS")
    cluster.wait_status(2, state="up", node_port=cluster.slaves[2].port)
    assert cluster.coordinator.value(
        "SELECT record->'formers' FROM pgxc.node_record WHERE node_type = 'D' AND node_id = 1") == []


def test_port_taken_over_and_given_back(make_cluster):
    """The slave takes over the master's port; the old master comes back where the slave was."""
    cluster = make_cluster(**PATIENT)
    old, new = cluster.masters[1], cluster.slaves[2]
    promote(cluster, tail=f"WITH CONNECTION (':{old.port}')")
    old.port, new.port = new.port, old.port
    wait_for_slave(cluster, old, new)


def test_force_leaves_the_old_master_alone(make_cluster):
    """It may have commits that nobody else has."""
    cluster = make_cluster(replication="ASYNCHRONOUS", failover="off", **PATIENT)
    old = cluster.masters[1]
    old.kill9()
    old.wait_gone()
    promote(cluster, tail="FORCE")
    lost = cluster.coordinator.value("SELECT lost_wal_bytes FROM pgxc.failover_history")
    if lost == 0:
        pytest.skip("the slave happened to have everything")
    wait_for(lambda: "which replaced it lacks" in cluster.status(2)["why"], "the reason to be told")
    assert not (old.data / "standby.signal").exists() and old.postmaster_pid() is None


def test_asynchronous_stays_asynchronous(make_cluster):
    cluster = make_cluster(slaves=2, replication="ASYNCHRONOUS", **PATIENT)
    cluster.coordinator.sql("ALTER DATANODE SLAVE 2 REPLICATION TO SYNCHRONOUS")
    old, new = cluster.masters[1], cluster.slaves[3]
    wait_for(lambda: old.value(
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"), "a synchronous slave")
    promote(cluster, 3, "FORCE")
    if cluster.coordinator.value("SELECT lost_wal_bytes FROM pgxc.failover_history") != 0:
        pytest.skip("FORCE left WAL behind")
    wait_for(lambda: ("D", 3, HOST, old.port, 1, "a") in cluster.nodes(), "the old master to be an asynchronous slave")
    wait_for(lambda: old.value("SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'") == new.port,
             "it to stream")
