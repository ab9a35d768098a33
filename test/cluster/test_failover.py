"""Automatic failover. bench/failover.sh measures how long it takes; here it must be right."""

import contextlib
import json
import os
import select
import signal
import threading
import time

import psycopg
import psycopg2
import pytest

from pgcluster import HOST, wait_for
from writer import Writer

CLIENTS = 8


def start_load(cluster, clients=CLIENTS):
    load = Writer(cluster.pooler_dsn(), clients).start()
    wait_for(lambda: load.acked_count() > 50 * clients, "the load to run")
    return load


def finish_load(load, since, server):
    """Waits until every client has written again after `since`, stops the load and checks what it was promised."""
    wait_for(lambda: load.acked_after(since) == len(load._threads), "every client to write again")
    load.stop()
    lost, duplicated, phantom = load.verify(server.sql("SELECT client, seq FROM load WHERE client >= 0"))
    assert (lost, duplicated, phantom) == ([], [], [])


def history(cluster):
    with contextlib.closing(cluster.coordinator.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM pgxc.failover_history ORDER BY history_id")
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def masters(cluster):
    """The datanodes' masters; a replaced one may be back as a slave already (test_rejoin.py)."""
    return [row for row in cluster.nodes() if row[0] == "D" and row[4] == 0]


class PreparedClient:
    """A libpq connection with statements of the protocol, settings and a role, which a thread uses without a pause."""

    def __init__(self, dsn):
        self.pq = psycopg.pq
        self.connection = self.pq.PGconn.connect(psycopg.conninfo.make_conninfo(**dsn).encode())
        self.codes = set()
        self.wrong = []
        self.answers_on = {}  # port of the server: how many
        self._stop = threading.Event()
        for text in (b"SET search_path = kept, public", b"SET work_mem = '1234kB'", b"SET app.tenant = 'seven'",
                     b"SET ROLE kept"):
            assert self.connection.exec_(text).status == self.pq.ExecStatus.COMMAND_OK, text
        for name, text in ((b"who", b"SELECT inet_server_port(), current_user, current_setting('work_mem'), "
                                    b"current_setting('app.tenant'), $1::int + 1"),
                           (b"put", b"INSERT INTO marks VALUES ($1)")):
            assert self.connection.prepare(name, text).status == self.pq.ExecStatus.COMMAND_OK, name
        self._thread = threading.Thread(target=self._work)

    def _work(self):
        number = 0
        while not self._stop.is_set():
            number += 1
            self.use(number)

    def use(self, number):
        put = self.connection.exec_prepared(b"put", [b"%d" % number])
        who = self.connection.exec_prepared(b"who", [b"%d" % number])
        for result in (put, who):
            if result.status == self.pq.ExecStatus.FATAL_ERROR:
                self.codes.add(result.error_field(self.pq.DiagnosticField.SQLSTATE))
        if who.status == self.pq.ExecStatus.TUPLES_OK:
            port, *rest = (who.get_value(0, column) for column in range(5))
            if rest != [b"kept", b"1234kB", b"seven", b"%d" % (number + 1)]:
                self.wrong.append(rest)
            self.answers_on[int(port)] = self.answers_on.get(int(port), 0) + 1

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()
        self._thread.join()


def test_killed_master_under_load(make_cluster):
    cluster = make_cluster()
    cluster.masters[1].sql("CREATE SCHEMA kept; CREATE TABLE kept.marks (n int); CREATE ROLE kept; "
                           "GRANT ALL ON SCHEMA kept TO kept; GRANT ALL ON kept.marks TO kept")
    slave = cluster.slaves[2]
    listener = cluster.coordinator.connect()
    listener.cursor().execute("LISTEN pgxc_failover")
    idle = cluster.pooler()
    idle.cursor().execute("SELECT 1")
    in_block = cluster.pooler(autocommit=False)
    in_block.cursor().execute("INSERT INTO load VALUES (-1, 1)")
    quiet, busy = PreparedClient(cluster.pooler_dsn()), PreparedClient(cluster.pooler_dsn()).start()
    load = start_load(cluster)
    killed_at = cluster.masters[1].kill9()

    finish_load(load, killed_at, slave)
    assert load.reconnects == 0, "clients keep their connections"
    # What clients have prepared and set is there on the new master, over the same connections.
    wait_for(lambda: busy.answers_on.get(slave.port, 0) > 10, "the prepared statements to be answered by the new master")
    busy.stop()
    assert busy.answers_on.keys() == {cluster.masters[1].port, slave.port}
    assert busy.codes <= {b"08006", b"08007"}
    quiet.use(1)
    assert not busy.wrong and not quiet.wrong
    assert (quiet.answers_on, quiet.codes) == ({slave.port: 1}, set())
    assert load.outage_ms(killed_at) < 30_000
    assert {answer.code for answer in load.answers() if answer.result != "acked"} <= {"08006", "08007"}

    # The catalog: the slave has the master's node id. Clients write before it is written down.
    wait_for(lambda: history(cluster), "the history")
    assert masters(cluster) == [("D", 1, HOST, slave.port, 0, None)]
    assert cluster.coordinator.value("SELECT node_epoch FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1") == 1
    cluster.wait_status(1, state="up", role_seen="master", gate="open", timeline=2)

    # An idle client notices nothing; one in a block is told that it wasn't committed, and can go on.
    with idle.cursor() as cursor:
        cursor.execute("SELECT inet_server_port()")
        assert cursor.fetchone() == (slave.port,)
    with pytest.raises(psycopg2.Error) as caught:
        in_block.cursor().execute("INSERT INTO load VALUES (-1, 2)")
    assert caught.value.pgcode == "08006" and caught.value.diag.message_hint
    in_block.rollback()
    assert in_block.closed == 0
    in_block.cursor().execute("INSERT INTO load VALUES (-1, 3)")
    in_block.commit()
    assert slave.sql("SELECT seq FROM load WHERE client = -1") == [(3,)]

    # The history row, and the same as a notification.
    (row,) = history(cluster)
    assert (row["epoch"], row["node_type"], row["node_id"]) == (1, "D", 1)
    assert (row["old_address"], row["new_address"]) == (cluster.masters[1].address, slave.address)
    assert (row["promoted_from_id"], row["lost_wal_bytes"]) == (2, 0)
    assert row["cause"] and row["decided_by"] and row["method"]
    for phase in ("detect_ms", "decide_ms", "fence_ms", "promote_ms"):
        assert 0 <= row[phase] <= row["outage_ms"], phase
    assert row["publish_ms"] >= 0
    assert select.select([listener], [], [], 60)[0], "no notification"
    listener.poll()
    payload = json.loads(listener.notifies[0].payload)
    assert payload.keys() == row.keys()
    assert (payload["history_id"], payload["new_address"]) == (row["history_id"], slave.address)
    for connection in (listener, idle, in_block):
        connection.close()
    for client in (quiet, busy):
        client.connection.finish()


def test_port_taken_over_by_itself(make_cluster):
    """promotion = restart: the promoted slave listens where the dead master did."""
    cluster = make_cluster(promotion="restart")
    slave, port = cluster.slaves[2], cluster.masters[1].port
    load = start_load(cluster)
    killed_at = cluster.masters[1].kill9()
    wait_for(lambda: history(cluster), "the failover")
    slave.port = port
    finish_load(load, killed_at, slave)
    assert load.reconnects == 0
    assert masters(cluster) == [("D", 1, HOST, port, 0, None)]
    assert history(cluster)[0]["method"] == "restart"


def test_frozen_master_can_acknowledge_nothing_when_it_wakes(make_cluster):
    cluster = make_cluster(probe_timeout="500ms", rejoin="off")
    master, slave = cluster.masters[1], cluster.slaves[2]
    direct = master.connect()
    load = start_load(cluster)
    frozen_at = time.monotonic()
    master.freeze()
    wait_for(lambda: history(cluster), "the failover")
    master.thaw()

    acknowledged = threading.Event()

    def write_directly():
        with contextlib.suppress(psycopg2.Error):
            direct.cursor().execute("INSERT INTO load VALUES (-9, 0)")
            if not any("canceling wait" in notice for notice in direct.notices):
                acknowledged.set()
    thread = threading.Thread(target=write_directly, daemon=True)
    thread.start()
    finish_load(load, frozen_at, slave)
    assert not acknowledged.is_set()
    wait_for(lambda: master.value("SELECT count(*) FROM pg_stat_replication") == 0, "its senders to end")
    # Routing stays with the new master though the old one answers again.
    assert cluster.pooler_sql("SELECT inet_server_port()") == [(slave.port,)]
    assert len(history(cluster)) == 1


def test_twice(make_cluster):
    """The second failover finds what the first left: a new slave makes the node safe again."""
    cluster = make_cluster(rejoin="off")
    first = cluster.slaves[2]
    killed_at = cluster.masters[1].kill9()
    wait_for(lambda: history(cluster), "the first failover")
    cluster.wait_status(1, state="up", gate="open")
    cluster.masters[1] = first
    second = cluster.make_slave(3, 1)
    cluster.register(3, 1, "SYNCHRONOUS")
    cluster.wait_status(3, state="up")
    load = start_load(cluster)
    killed_at = first.kill9()
    finish_load(load, killed_at, second)
    # Clients write before it is written down.
    wait_for(lambda: [row["epoch"] for row in history(cluster)] == [1, 2], "the history")
    assert masters(cluster) == [("D", 1, HOST, second.port, 0, None)]
    cluster.wait_status(1, timeline=3)


def test_two_nodes_at_once(make_cluster):
    cluster = make_cluster(datanodes=2)
    killed_at = [cluster.masters[n].kill9() for n in (1, 2)]
    assert killed_at
    wait_for(lambda: len(history(cluster)) == 2, "both failovers")
    for node_id, slave_id in ((1, 3), (2, 4)):
        cluster.wait_status(node_id, state="up", gate="open")
        cluster.pooler_sql("INSERT INTO load VALUES (0, 0)", node=node_id)
        assert cluster.slaves[slave_id].value("SELECT count(*) FROM load") == 1


def wait_for_rounds(cluster, rounds=10):
    """Lets the monitor look at the node `rounds` times: for what must not happen."""
    for _ in range(rounds):
        seen = cluster.coordinator.value("SELECT max(last_seen) FROM pgxc_node_status WHERE node_type = 'D'")
        wait_for(lambda: cluster.coordinator.value(
            "SELECT max(last_seen) > %s FROM pgxc_node_status WHERE node_type = 'D'", (seen,)), "a round of probes")


def test_failover_off(make_cluster):
    cluster = make_cluster(failover="off")
    cluster.masters[1].kill9()
    cluster.wait_status(1, state="down")
    wait_for_rounds(cluster)
    assert history(cluster) == []
    assert cluster.slaves[2].value("SELECT pg_is_in_recovery()")


def test_asynchronous_slave_is_not_promoted_by_itself(make_cluster):
    cluster = make_cluster(replication="ASYNCHRONOUS", failover_hold="2s")
    cluster.masters[1].kill9()
    row = cluster.wait_status(1, state="down")
    wait_for_rounds(cluster)
    assert history(cluster) == []
    assert row["why"]
    assert cluster.slaves[2].value("SELECT pg_is_in_recovery()")
    # Held clients are let go with an error once pgxc.failover_hold has passed, not kept for ever.
    with pytest.raises(psycopg2.Error) as caught:
        cluster.pooler_sql("SELECT 1")
    assert (caught.value.pgcode or "08").startswith(("08", "57"))


def test_crash_of_a_backend_is_no_reason(make_cluster):
    """The master restarts by itself: it answers, or refuses for a moment, and stays the master."""
    cluster = make_cluster(restart_grace="60s")
    master = cluster.masters[1]
    load = start_load(cluster)
    victim = master.connect()
    os.kill(victim.info.backend_pid, signal.SIGKILL)
    # Until the server notices, which may take a while, its clients write on.
    wait_for(lambda: "all server processes terminated; reinitializing" in master.log_text(), "the server to start anew")
    finish_load(load, time.monotonic(), master)
    assert history(cluster) == []
    assert masters(cluster) == [("D", 1, HOST, master.port, 0, None)]


def test_restart_of_the_master_is_no_reason(make_cluster):
    cluster = make_cluster(restart_grace="60s")
    load = start_load(cluster)
    began = time.monotonic()
    cluster.masters[1].restart("fast")
    finish_load(load, began, cluster.masters[1])
    assert history(cluster) == []


def test_frozen_slave_holds_up_commits_for_the_detection_time_only(make_cluster):
    """To its master it streams for wal_sender_timeout, a minute; that it flushes nothing is what counts."""
    cluster = make_cluster(slaves=2, sync_slaves=2)
    frozen = cluster.slaves[3]
    load = start_load(cluster)
    frozen.freeze()
    began = time.monotonic()
    wait_for(lambda: load.acked_after(began) == CLIENTS, "every client to write again")
    names = "SELECT current_setting('synchronous_standby_names')"
    assert cluster.masters[1].value(names) == "ANY 1 (pgxc_d_2_e0)"
    assert cluster.masters[1].value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2
    frozen.thaw()
    wait_for(lambda: cluster.masters[1].value(names) == "ANY 2 (pgxc_d_2_e0, pgxc_d_3_e0)", "it to count again")
    finish_load(load, time.monotonic(), cluster.masters[1])
    assert history(cluster) == []


def test_old_master_that_returns_is_not_routed_to(make_cluster):
    cluster = make_cluster(rejoin="off")
    old, slave = cluster.masters[1], cluster.slaves[2]
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    cluster.wait_status(1, state="up", gate="open")
    old.wait_gone()
    old.start(check=False)
    for _ in range(50):
        assert cluster.pooler_sql("SELECT inet_server_port()") == [(slave.port,)]
    assert len(history(cluster)) == 1
