"""What the coordinator survives, and that our workers are not in the way of what administrators do to it."""

import contextlib
import os
import signal
import time

import pytest

from pgcluster import HOST, wait_for
from writer import Writer

CLIENTS = 100


def kill_worker(cluster, word):
    """kill -9 of a worker, and waits until the coordinator (F21) has another one."""
    pid = cluster.worker(word)
    os.kill(pid, signal.SIGKILL)
    cluster.wait_for_another(word, pid)


def test_without_nodes_it_is_logged_in_to(bare_cluster):
    bare_cluster.make_coordinator(extension=False)
    for node in (None, "C"):
        assert bare_cluster.pooler_sql("SELECT current_setting('port')", node=node) == [
            (str(bare_cluster.coordinator.port),)]


@pytest.mark.parametrize("word", ["pooler", "monitor"])
def test_killed_worker(make_cluster, word):
    cluster = make_cluster()
    nodes = cluster.nodes()
    kill_worker(cluster, word)
    wait_for(lambda: cluster.coordinator.value("SELECT 1"), "the coordinator")
    assert cluster.nodes() == nodes
    cluster.wait_ready()
    wait_for(lambda: cluster.pooler_sql("INSERT INTO load VALUES (0, 1); SELECT 1"), "the pooler")
    assert cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history") == 0
    # And it can still do its work.
    load = Writer(cluster.pooler_dsn(), 2).start()
    wait_for(lambda: load.acked_count() > 50, "the load to run")
    killed_at = cluster.masters[1].kill9()
    wait_for(lambda: load.acked_after(killed_at) == 2, "every client to write again")
    load.stop()
    assert load.verify(cluster.slaves[2].sql("SELECT client, seq FROM load WHERE seq > 0 AND NOT (client = 0 AND seq = 1)"
                                             " UNION ALL SELECT 0, 1")) == ([], [], [])


@pytest.mark.parametrize("pause_ms", [0, 20, 40, 60, 80])
def test_failover_in_progress_is_finished(make_cluster, pause_ms):
    """The monitor dies at some point of a failover; another one brings it to its end, once."""
    cluster = make_cluster()
    load = Writer(cluster.pooler_dsn(), 2).start()
    wait_for(lambda: load.acked_count() > 50, "the load to run")
    monitor = cluster.worker("monitor")
    cluster.masters[1].kill9()
    time.sleep(pause_ms / 1000)  # not a wait for anything: the point where the monitor dies
    os.kill(monitor, signal.SIGKILL)
    # The coordinator restarts for that; it may have ended the failover before.
    cluster.wait_for_another("monitor", monitor)
    wait_for(lambda: ("D", 1, HOST, cluster.slaves[2].port, 0, None) in cluster.nodes(), "the failover to be finished")
    cluster.wait_pooler()
    cluster.wait_status(1, state="up", role_seen="master", gate="open")
    # The coordinator's restart ended the clients' connections: those that could not connect at once gave up.
    load._stop.set()
    for thread in load._threads:
        thread.join()
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    assert load.verify(cluster.slaves[2].sql("SELECT client, seq FROM load WHERE client >= 0")) == ([], [], [])
    assert cluster.coordinator.value("SELECT node_epoch FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1") == 1
    assert cluster.slaves[2].value("SELECT timeline_id FROM pg_control_checkpoint()") <= 2


@contextlib.contextmanager
def hundred_clients(cluster, **options):
    with contextlib.ExitStack() as stack:
        clients = []
        for i in range(CLIENTS):
            # Half of them at a datanode, half at the coordinator itself, where they hold local backends.
            client = cluster.pooler(node=1 if i % 2 else "C", **options)
            stack.callback(client.close)
            client.cursor().execute("SELECT 1")
            clients.append(client)
        yield clients


@pytest.mark.timeout(900)
def test_administration_with_clients(make_cluster):
    """One cluster, one thing after the other: making 100 clients is what takes time."""
    cluster = make_cluster()
    server = cluster.coordinator
    with hundred_clients(cluster) as clients:
        # DROP DATABASE: waits for a barrier that every process must answer (F20), and for the database to be unused.
        server.sql("CREATE DATABASE doomed")
        with contextlib.closing(cluster.pooler(node="C", dbname="doomed")) as pooled:
            pooled.cursor().execute("SELECT 1")
        wait_for(lambda: server.sql_unless_in_use("DROP DATABASE doomed"), "DROP DATABASE")

        # A reload changes a setting and disturbs nobody.
        server.sql("ALTER SYSTEM SET pgxc.failover_hold = '31s'")
        server.reload()
        wait_for(lambda: server.value("SHOW pgxc.failover_hold") == "31s", "the reload")
        for client in clients:
            client.cursor().execute("SELECT 1")

        began = time.monotonic()
        server.restart("fast")
        assert time.monotonic() - began < 60
    cluster.wait_ready()
    for mode in ("smart", "fast", "immediate"):
        with hundred_clients(cluster):
            server.stop(mode, timeout_s=60)
            server.wait_gone()
        server.start()
        cluster.wait_ready()
        assert cluster.pooler_sql("SELECT 1") == [(1,)]
    assert server.value("SELECT count(*) FROM pgxc.failover_history") == 0


def test_killed_postmaster(make_cluster):
    """Workers notice that their postmaster is gone (F20): the port is free again and a new start works."""
    cluster = make_cluster()
    with contextlib.closing(cluster.pooler()) as client:
        client.cursor().execute("SELECT 1")
        cluster.coordinator.kill9()
        cluster.coordinator.wait_gone()
    cluster.coordinator.start()
    cluster.wait_ready()
    assert cluster.pooler_sql("SELECT 1") == [(1,)]
