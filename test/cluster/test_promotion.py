"""Promotion by hand, by both methods."""

import os
import socket

import psycopg2
import pytest

from pgcluster import HOST, PATIENT, wait_for
from writer import Writer


def datanodes(cluster):
    return [row for row in cluster.nodes() if row[0] == "D"]


def promote(cluster, tail="", node_id=2):
    cluster.coordinator.sql(f"ALTER DATANODE SLAVE {node_id} PROMOTE TO MASTER {tail}")


def timeline(server):
    """The timeline that the server writes its WAL on."""
    return server.value("SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int")


def assert_is_master(cluster, server, port):
    # The one that it has replaced may be its slave already (test_rejoin.py).
    assert [row for row in datanodes(cluster) if row[4] == 0] == [("D", 1, HOST, port, 0, None)]
    assert server.port == port
    assert server.value("SELECT pg_is_in_recovery()") is False
    assert timeline(server) == 2
    cluster.wait_status(1, state="up", role_seen="master", gate="open")
    assert cluster.pooler_sql("SELECT inet_server_port()") == [(port,)]
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")


def test_promote_under_load(make_cluster):
    """A planned promotion: no client sees an error, nothing is lost."""
    cluster = make_cluster(**PATIENT)
    slave = cluster.slaves[2]
    started = slave.value("SELECT pg_postmaster_start_time()")
    load = Writer(cluster.pooler_dsn(), clients=4).start()
    wait_for(lambda: load.acked_count() > 200, "the load to run")
    promote(cluster)
    done = load.acked_count()
    wait_for(lambda: load.acked_count() > done + 200, "the load to go on")
    load.stop()
    assert_is_master(cluster, slave, slave.port)
    assert slave.value("SELECT pg_postmaster_start_time()") == started, "this method needs no restart"
    assert [answer for answer in load.answers() if answer.result != "acked"] == []
    rows = slave.sql("SELECT client, seq FROM load WHERE client >= 0")
    assert load.verify(rows) == ([], [], [])
    epoch, node, old, new, former = cluster.coordinator.sql(
        "SELECT epoch, node_id, old_address, new_address, promoted_from_id FROM pgxc.failover_history")[0]
    assert (node, old, new, former) == (1, cluster.masters[1].address, slave.address, 2)
    assert epoch == cluster.coordinator.value("SELECT node_epoch FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1") >= 1


def test_promote_when_the_master_is_dead(make_cluster):
    cluster = make_cluster(failover="off", **PATIENT)
    cluster.pooler_sql("INSERT INTO load VALUES (-2, 0)")
    cluster.masters[1].kill9()
    promote(cluster)
    assert_is_master(cluster, cluster.slaves[2], cluster.slaves[2].port)
    assert cluster.slaves[2].value("SELECT count(*) FROM load WHERE client = -2") == 1


def test_other_slaves_follow(make_cluster):
    cluster = make_cluster(slaves=2, replication="ASYNCHRONOUS", **PATIENT)
    cluster.coordinator.sql("ALTER DATANODE SLAVE 2 REPLICATION TO SYNCHRONOUS")
    wait_for(lambda: cluster.masters[1].value(
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"), "a synchronous slave")
    promote(cluster)
    follower = cluster.slaves[3]
    wait_for(lambda: follower.value("SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'")
             == cluster.slaves[2].port, "the other slave to stream from the new master")
    assert ("D", 3, HOST, follower.port, 1, "a") in datanodes(cluster)
    cluster.pooler_sql("INSERT INTO load VALUES (-3, 0)")
    wait_for(lambda: follower.value("SELECT count(*) FROM load WHERE client = -3") == 1, "the row at the follower")


def test_asynchronous_slave_needs_force(make_cluster):
    cluster = make_cluster(replication="ASYNCHRONOUS", **PATIENT)
    before = cluster.nodes()
    with pytest.raises(psycopg2.Error) as caught:
        promote(cluster)
    assert "FORCE" in caught.value.diag.message_hint
    assert cluster.nodes() == before
    assert cluster.slaves[2].value("SELECT pg_is_in_recovery()")
    promote(cluster, "FORCE")
    assert_is_master(cluster, cluster.slaves[2], cluster.slaves[2].port)


def test_with_restart(make_cluster):
    cluster = make_cluster(**PATIENT)
    slave = cluster.slaves[2]
    started = slave.value("SELECT pg_postmaster_start_time()")
    promote(cluster, "WITH RESTART")
    assert_is_master(cluster, slave, slave.port)
    assert slave.value("SELECT pg_postmaster_start_time()") > started
    assert not (slave.data / "standby.signal").exists()


def test_port_taken_over(make_cluster):
    cluster = make_cluster(failover="off", **PATIENT)
    slave, port = cluster.slaves[2], cluster.masters[1].port
    text = slave.conf_file.read_text()
    mode = slave.conf_file.stat().st_mode
    owner = slave.conf_file.stat().st_uid
    load = Writer(cluster.pooler_dsn(), clients=2).start()
    wait_for(lambda: load.acked_count() > 100, "the load to run")
    cluster.masters[1].kill9()
    cluster.masters[1].wait_gone()
    promote(cluster, f"WITH CONNECTION (':{port}')")
    done = load.acked_count()
    wait_for(lambda: load.acked_count() > done + 100, "the load to go on")
    load.stop()
    old_port, slave.port = slave.port, port
    assert_is_master(cluster, slave, port)
    assert load.verify(slave.sql("SELECT client, seq FROM load WHERE client >= 0")) == ([], [], [])
    # Comments, order, mode and owner are as before; only the port differs.
    assert slave.conf_file.read_text() == text.replace(f"port = {old_port}", f"port = {port}")
    assert (slave.conf_file.stat().st_mode, slave.conf_file.stat().st_uid) == (mode, owner)


def test_refused_restart_changes_nothing(make_cluster):
    cluster = make_cluster(failover="off", **PATIENT)
    slave, before = cluster.slaves[2], cluster.nodes()
    files = {name: (slave.data / name).read_bytes() for name in ("postgresql.conf", "standby.signal")}
    with socket.socket() as squatter:
        squatter.bind((HOST, 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        with pytest.raises(psycopg2.Error) as caught:
            promote(cluster, f"WITH CONNECTION (':{port}')")
    assert str(port) in caught.value.diag.message_primary and "in use" in caught.value.diag.message_primary
    assert {name: (slave.data / name).read_bytes() for name in files} == files
    assert cluster.nodes() == before
    # Nothing is broken: the slave is still one, and the master takes writes that wait for it.
    assert slave.value("SELECT pg_is_in_recovery()")
    cluster.wait_status(1, state="up", gate="open")
    cluster.pooler_sql("INSERT INTO load VALUES (-4, 0)")


def test_failed_start_restores_the_files(make_cluster, workspace):
    """A start that fails after the promotion is recorded: the files are as before, and it is promoted where it was."""
    cluster = make_cluster(**PATIENT)
    slave, old_port, new_port = cluster.slaves[2], cluster.slaves[2].port, workspace.free_port()
    text = slave.conf_file.read_text()
    # A living process owns the lock of the socket that the new port would get: the server refuses to start there.
    lock = workspace.path / f".s.PGSQL.{new_port}.lock"
    lock.write_text(f"{cluster.coordinator.postmaster_pid()}\n{cluster.coordinator.data}\n0\n{new_port}\n"
                    f"{workspace.path}\n")
    owner = slave.conf_file.stat()
    os.chown(lock, owner.st_uid, owner.st_gid)
    try:
        with pytest.raises(psycopg2.Error) as caught:
            promote(cluster, f"WITH CONNECTION (':{new_port}')")
    finally:
        lock.unlink()
    diag = caught.value.diag
    assert "restored" in f"{diag.message_primary} {diag.message_detail} {diag.message_hint}"
    assert slave.conf_file.read_text() == text
    assert_is_master(cluster, slave, old_port)
    cluster.wait_status(1, state="up", gate="open")
    cluster.pooler_sql("INSERT INTO load VALUES (-4, 0)")
