"""pgxc.read_routing = auto with a master and two slaves: what goes where, and that no read is stale."""

import contextlib
import os
import shutil
import signal
import threading
import time

import psycopg
import psycopg2
import pytest

import pgcluster
from causal import CausalLoad
from pgcluster import wait_for

AUTO = "-c pgxc.read_routing=auto"
# A million is behind PGXC_CAUSAL_READS=1000000.
READS = int(os.environ.get("PGXC_CAUSAL_READS", "10000"))


@pytest.fixture(scope="module")
def cluster(workspace):
    """Master 1, synchronous slave 2, asynchronous slave 3."""
    made = pgcluster.Cluster(workspace)
    made.make_datanode(1)
    made.make_coordinator(failover="off", pooler_workers=2)
    made.make_slave(2, 1)
    made.make_slave(3, 1)
    made.register(2, 1, "SYNCHRONOUS")
    made.register(3, 1, "ASYNCHRONOUS")
    made.wait_ready()
    made.masters[1].sql("""
        CREATE TABLE t (a int PRIMARY KEY, b text);
        INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i;
        CREATE UNLOGGED TABLE forgetful (a int);
        CREATE SEQUENCE numbers;
        CREATE VIEW hidden AS SELECT nextval('numbers') AS n, inet_server_port() AS port;
        CREATE FUNCTION harmless() RETURNS int LANGUAGE sql STABLE AS 'SELECT inet_server_port()'""")
    yield made
    made.destroy()


@contextlib.contextmanager
def client(cluster, options=AUTO, **more):
    with contextlib.closing(cluster.pooler(options=options, **more)) as connection, connection.cursor() as cursor:
        yield cursor


def ask(cursor, text, arguments=None):
    cursor.execute(text, arguments)
    return cursor.fetchone()[0]


def ports(cluster):
    return {cluster.slaves[2].port, cluster.slaves[3].port}


def port_now(cursor):
    return ask(cursor, "SELECT inet_server_port()")


def wait_for_slaves(cluster, cursor):
    """Until both slaves serve reads."""
    seen = set()

    def both():
        seen.add(port_now(cursor))
        return ports(cluster) <= seen
    wait_for(both, "reads at both slaves")


def begin_at_slave(cluster, cursor):
    """Begins a block whose first read is a slave's."""
    def begun():
        cursor.execute("BEGIN")
        if port_now(cursor) in ports(cluster):
            return True
        cursor.execute("ROLLBACK")
        return False
    wait_for(begun, "a block to begin at a slave")


def test_reads_are_spread_over_the_slaves(cluster):
    with client(cluster) as cursor:
        wait_for_slaves(cluster, cursor)

        def spread_evenly():
            seen = [port_now(cursor) for _ in range(100)]
            return all(30 <= seen.count(port) <= 70 for port in ports(cluster))
        # A slave that is behind for a moment serves less.
        wait_for(spread_evenly, "reads to be spread evenly")
        cursor.execute("INSERT INTO t VALUES (2000, 'y') RETURNING inet_server_port()")
        assert cursor.fetchone()[0] == cluster.masters[1].port
        assert ask(cursor, "SELECT count(*) FROM t WHERE a = 2000") == 1
        cursor.execute("DELETE FROM t WHERE a = 2000")


def test_what_means_the_master_goes_there(cluster):
    with client(cluster) as cursor:
        wait_for_slaves(cluster, cursor)
        for what in ("txid_current()", "pg_backend_pid()", "current_setting('port')", "nextval('numbers')",
                     "pg_try_advisory_xact_lock(1)", "harmless()"):
            for _ in range(3):
                assert ask(cursor, f"SELECT inet_server_port() FROM (SELECT {what}) x") == cluster.masters[1].port, what
        for text in ("SELECT inet_server_port() FROM t WHERE a = 1 FOR UPDATE",
                     "SELECT inet_server_port() FROM pg_stat_activity LIMIT 1",
                     "SELECT inet_server_port() FROM numbers WHERE last_value > 0"):
            assert ask(cursor, text) == cluster.masters[1].port, text


def test_an_error_from_a_slave_is_no_answer(cluster):
    with client(cluster) as cursor:
        wait_for_slaves(cluster, cursor)
        # A volatile function in a view, a table without WAL: no text tells that.
        for _ in range(3):
            cursor.execute("SELECT port FROM hidden")
            assert cursor.fetchone()[0] == cluster.masters[1].port
            assert ask(cursor, "SELECT count(*) FROM forgetful") == 0
        begin_at_slave(cluster, cursor)
        cursor.execute("SELECT port, 1 FROM hidden")
        assert cursor.fetchone()[0] == cluster.masters[1].port
        cursor.execute("COMMIT")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            cursor.execute("SELECT 1/0")


def test_in_the_extended_protocol(cluster):
    with psycopg.connect(**cluster.pooler_dsn(options=AUTO), autocommit=True, prepare_threshold=None) as connection:
        seen = set()

        def both():
            seen.add(connection.execute("SELECT inet_server_port() FROM t WHERE a = %s", (1,)).fetchone()[0])
            return ports(cluster) <= seen
        wait_for(both, "reads at both slaves")
        assert connection.execute("UPDATE t SET b = %s WHERE a = 1 RETURNING inet_server_port()",
                                  ("z",)).fetchone()[0] == cluster.masters[1].port
        assert connection.execute("SELECT port, %s::int FROM hidden", (1,)).fetchone()[0] == cluster.masters[1].port
        with connection.transaction():
            first = connection.execute("SELECT inet_server_port(), %s::int", (1,)).fetchone()[0]
            connection.execute("UPDATE t SET b = %s WHERE a = 1", ("w",))
            assert connection.execute("SELECT inet_server_port(), b FROM t WHERE a = %s", (1,)).fetchone() == \
                (cluster.masters[1].port, "w")
        assert first in ports(cluster) | {cluster.masters[1].port}
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int, inet_server_port()", (i,)) for i in range(50)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))


def test_what_was_prepared_by_name_goes_where_its_text_may_be_done(cluster):
    master = cluster.masters[1].port
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(psycopg.connect(**cluster.pooler_dsn(options=AUTO), autocommit=True, prepare_threshold=0))
                   for _ in range(3)]
        read, write, hidden = ("SELECT inet_server_port(), b FROM t WHERE a = %s",
                               "UPDATE t SET b = %s WHERE a = %s RETURNING inet_server_port()", "SELECT port, %s::int FROM hidden")
        for connection in clients:
            connection.execute(read, (1,))
            assert connection.execute(write, ("named", 10)).fetchone()[0] == master
            assert connection.execute(hidden, (1,)).fetchone()[0] == master
        for connection in clients:
            seen = set()

            def at_both():
                port, value = connection.execute(read, (10,)).fetchone()
                assert value == "named"
                seen.add(port)
                return ports(cluster) <= seen
            wait_for(at_both, "reads at both slaves")
        for connection in clients:
            for value in range(5):
                with connection.transaction():
                    before = connection.execute(read, (11,)).fetchone()[0]
                    assert before in ports(cluster) | {master}
                    assert connection.execute(write, (f"moved {value}", 11)).fetchone()[0] == master
                    assert connection.execute(read, (11,)).fetchone() == (master, f"moved {value}")
                assert connection.execute(read, (11,)).fetchone()[1] == f"moved {value}"
    assert cluster.coordinator.value("SELECT count(*) FROM pgxc_pooler_clients WHERE state = 'pinned'") == 0


def test_a_block_moves_at_its_first_write(cluster):
    with client(cluster) as cursor:
        begin_at_slave(cluster, cursor)
        assert port_now(cursor) in ports(cluster)
        cursor.execute("SAVEPOINT s")
        cursor.execute("INSERT INTO t VALUES (3000, 'y')")
        assert port_now(cursor) == cluster.masters[1].port
        cursor.execute("ROLLBACK TO s")
        cursor.execute("INSERT INTO t VALUES (3001, 'y')")
        cursor.execute("COMMIT")
        assert cluster.masters[1].value("SELECT array_agg(a) FROM t WHERE a >= 3000") == [3001]
        cursor.execute("DELETE FROM t WHERE a = 3001")
        for level in ("REPEATABLE READ", "SERIALIZABLE"):
            cursor.execute(f"BEGIN ISOLATION LEVEL {level}")
            assert port_now(cursor) == cluster.masters[1].port
            cursor.execute("COMMIT")
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        assert port_now(cursor) in ports(cluster) | {cluster.masters[1].port}
        cursor.execute("COMMIT")


def test_the_time_in_a_block_does_not_change(cluster):
    with client(cluster) as cursor:
        begin_at_slave(cluster, cursor)
        began = ask(cursor, "SELECT now()")
        cursor.execute("INSERT INTO t VALUES (4000, 'y')")
        assert ask(cursor, "SELECT now()") == began
        cursor.execute("ROLLBACK")


def test_what_goes_along_with_the_begin_of_a_block(cluster):
    """Its first statement reaches the server with it, and behind what the pooler itself has to do there first."""
    with client(cluster) as one, client(cluster) as other:
        one.execute("PREPARE mine AS SELECT inet_server_port()")
        one.execute("BEGIN")
        assert ask(one, "EXECUTE mine") == cluster.masters[1].port
        one.execute("ROLLBACK")
        one.execute("DEALLOCATE mine")

        for cursor in (one, other):
            cursor.execute("BEGIN")
            drawn = ask(cursor, "SELECT nextval('numbers')")
            assert ask(cursor, "SELECT currval('numbers')") == drawn
            cursor.execute("COMMIT")
        one.execute("BEGIN")
        assert ask(one, "SELECT lastval()") == drawn - 1
        one.execute("COMMIT")

        one.execute("START TRANSACTION")
        assert one.statusmessage == "START TRANSACTION"
        with pytest.raises(psycopg2.errors.UndefinedTable):
            one.execute("INSERT INTO nowhere VALUES (1)")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            one.execute("INSERT INTO t VALUES (7000)")
        one.execute("ROLLBACK")
        assert ask(one, "SELECT count(*) FROM t WHERE a = 7000") == 0


def test_a_default_of_strict_isolation_is_respected(cluster):
    cluster.masters[1].sql("CREATE ROLE strict LOGIN; ALTER ROLE strict SET default_transaction_isolation = 'repeatable read'")
    cluster.coordinator.sql("CREATE ROLE strict LOGIN")
    cluster.masters[1].sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO strict")
    with client(cluster, user="strict") as cursor:
        for _ in range(5):
            cursor.execute("BEGIN")
            assert port_now(cursor) == cluster.masters[1].port
            assert ask(cursor, "SHOW transaction_isolation") == "repeatable read"
            cursor.execute("COMMIT")


def run_causal(cluster, reads, share=0.0, **options):
    """Reads, of which none may be stale. On a busy machine slaves are behind more often, so they are repeated until that
    `share` of them was at slaves."""
    def enough():
        return run_causal_once(cluster, reads, **options) >= share
    wait_for(enough, f"a share of {share:.0%} at slaves", 300)


def run_causal_once(cluster, reads, **options):
    CausalLoad.prepare(cluster.masters[1])
    load = CausalLoad(cluster.pooler_dsn(options=AUTO), **options).run(reads)
    at_slaves = sum(count for port, count in load.reads.items() if port in ports(cluster))
    share = at_slaves / max(1, sum(load.reads.values()))
    print(f"{sum(load.reads.values())} reads, {share:.1%} at slaves, {len(load.stale)} stale, "
          f"{load.backwards} went back, {load.seconds:.1f} s")
    assert load.stale == []
    return share


def test_no_stale_reads_among_writers(cluster):
    run_causal(cluster, READS, share=0.0001)


def test_reads_among_few_writes_are_the_slaves(cluster):
    run_causal(cluster, READS, share=0.2, reads_per_write=50)


def set_delay(cluster, value):
    for slave in cluster.slaves.values():
        slave.sql(f"ALTER SYSTEM SET recovery_min_apply_delay = '{value}'")
        slave.reload()
        wait_for(lambda: slave.value("SHOW recovery_min_apply_delay") == value, "the delay to be in force")


def test_no_stale_reads_from_slaves_that_replay_late(cluster):
    set_delay(cluster, "500ms")
    try:
        run_causal(cluster, READS)
        # While nobody writes they catch up, and are used until somebody does.
        run_causal(cluster, READS, share=0.05, rest=(0.2, 0.8))
        # Some pauses, in which the slaves catch up and are used again.
        CausalLoad.prepare(cluster.masters[1])
        with client(cluster) as cursor:
            for round in range(3):
                # Before it: the delay counts from the time of the commit.
                began, seen = time.monotonic(), {}
                cursor.execute("UPDATE counted SET n = %s", (round,))

                def at_slave():
                    cursor.execute("SELECT inet_server_port(), min(n) FROM counted")
                    port, n = cursor.fetchone()
                    assert n == round
                    seen.setdefault(port, time.monotonic() - began)
                    return port in ports(cluster)
                wait_for(at_slave, "a slave to have caught up")
                assert cluster.masters[1].port in seen or min(seen.values()) > 0.5
    finally:
        set_delay(cluster, "0")


def test_asynchronous_commits_are_seen_too(cluster):
    cluster.masters[1].sql("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        # Some new server connections, for which the role's setting holds.
        ended = [pid for pid, _ in cluster.masters[1].sql(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid() AND application_name <> 'pgxc_ha control' AND pid % 2 = 0")]
        wait_for(lambda: not cluster.masters[1].value("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", (ended,)),
                 "them to end")
        run_causal(cluster, READS // 4)
    finally:
        cluster.masters[1].sql("ALTER ROLE postgres RESET synchronous_commit")


def test_a_slave_that_dies_leaves_the_rotation_and_comes_back(cluster):
    with client(cluster) as cursor:
        wait_for_slaves(cluster, cursor)
        slave = cluster.slaves[3]
        slave.kill9()
        slave.wait_gone()
        for _ in range(100):
            assert port_now(cursor) != slave.port
        slave.start()
        wait_for(lambda: port_now(cursor) == slave.port, "the slave to serve again")


def test_a_slave_that_lags_leaves_the_rotation_and_comes_back(cluster):
    cluster.coordinator.sql("ALTER SYSTEM SET pgxc.max_read_lag = '64kB'")
    cluster.coordinator.sql("ALTER SYSTEM SET pgxc.causal_reads = off")
    cluster.coordinator.reload()
    slave = cluster.slaves[3]
    try:
        with client(cluster) as cursor:
            wait_for_slaves(cluster, cursor)
            slave.sql("SELECT pg_wal_replay_pause()")
            cluster.masters[1].sql("CREATE TABLE IF NOT EXISTS filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
            wait_for(lambda: all(port_now(cursor) != slave.port for _ in range(50)), "the slave to be left out")
            slave.sql("SELECT pg_wal_replay_resume()")
            wait_for(lambda: port_now(cursor) == slave.port, "the slave to serve again")
    finally:
        slave.sql("SELECT pg_wal_replay_resume()")
        for name in ("max_read_lag", "causal_reads"):
            cluster.coordinator.sql(f"ALTER SYSTEM RESET pgxc.{name}")
        cluster.coordinator.reload()


def test_explain_route(cluster):
    def explain(text):
        with contextlib.closing(cluster.coordinator.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM pgxc.explain_route(%s, '1', 'auto')", (text,))
            return cursor.fetchone()
    with client(cluster) as cursor:
        wait_for_slaves(cluster, cursor)
        kind, target, reason = wait_for(lambda: (port_now(cursor), row := explain("SELECT 1")) and
                                        "datanode 1 " not in row[1] and row, "a read to be a slave's")
    assert (kind, reason) == ("read", "it only reads")
    assert target.startswith(("datanode 2 (", "datanode 3 ("))
    kind, target, reason = explain("INSERT INTO t VALUES (1)")
    assert (kind, target, reason) == ("write", f"datanode 1 ({cluster.masters[1].address})", "it changes rows")
    assert explain("BEGIN") == ("begin", "that of the next statement", "it begins a transaction: the next statement decides")


def test_pause_and_resume(cluster):
    with client(cluster) as running, contextlib.closing(cluster.coordinator.connect()) as admin:
        running.execute("BEGIN")
        running.execute("UPDATE t SET b = 'running' WHERE a = 5")
        paused = []

        def pause():
            admin.cursor().execute("CALL pgxc.pause('1')")
            paused.append(time.monotonic())
        pausing = threading.Thread(target=pause)
        pausing.start()
        cluster.wait_status(1, gate="paused")
        done = []

        def wait_and_write():
            cluster.pooler_sql("UPDATE t SET b = 'waited' WHERE a = 6")
            done.append(time.monotonic())
        waiting = [threading.Thread(target=wait_and_write),
                   threading.Thread(target=lambda: done.append(cluster.pooler_sql("SELECT 1", options=AUTO)))]
        for thread in waiting:
            thread.start()
        wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc_pooler_clients WHERE state = 'held' "
                                                   "AND why LIKE 'paused by %'") >= 1, "the held client to be shown")
        assert not paused and not done
        running.execute("COMMIT")
        pausing.join(30)
        assert paused and not done
        # A monitor that is killed by an error of its own starts anew; the pause is not its.
        assert cluster.coordinator.sql("SELECT why FROM pgxc_node_status WHERE node_id = 1 AND node_type = 'D'")[0][0] \
            .startswith("paused by postgres: CALL pgxc.resume('1')")
        admin.cursor().execute("CALL pgxc.resume('1')")
        for thread in waiting:
            thread.join(30)
        assert len(done) == 2
        cluster.wait_status(1, gate="open")


def test_a_pause_that_is_cancelled_is_no_pause(cluster):
    with client(cluster) as running, contextlib.closing(cluster.coordinator.connect()) as admin:
        running.execute("BEGIN")
        running.execute("UPDATE t SET b = 'running' WHERE a = 5")
        with admin.cursor() as cursor:
            cursor.execute("SET statement_timeout = '300ms'")
            with pytest.raises(psycopg2.errors.QueryCanceled):
                cursor.execute("CALL pgxc.pause('1')")
        running.execute("COMMIT")
        assert cluster.pooler_sql("SELECT 1") == [(1,)]
        assert cluster.status(1)["gate"] == "open"


@pytest.mark.parametrize("group", ["1", "'1'"])
def test_a_group_to_pause_is_named_by_number_or_text(cluster, group):
    # A new client's login could have to wait for the end of the pause.
    with client(cluster) as session:
        session.execute(f"CALL pgxc.pause({group})")
        try:
            cluster.wait_status(1, gate="paused")
        finally:
            session.execute(f"CALL pgxc.resume({group})")
    cluster.wait_status(1, gate="open")


def test_a_pause_ends_with_the_session_that_waits_for_it(cluster):
    with client(cluster) as running, contextlib.closing(cluster.coordinator.connect()) as admin:
        running.execute("BEGIN")
        running.execute("UPDATE t SET b = 'running' WHERE a = 5")
        admin_pid = admin.get_backend_pid()

        def pause():
            with pytest.raises(psycopg2.Error):
                admin.cursor().execute("CALL pgxc.pause('1')")
        pausing = threading.Thread(target=pause)
        pausing.start()
        cluster.wait_status(1, gate="paused")
        assert cluster.coordinator.value("SELECT pg_terminate_backend(%s)", (admin_pid,))
        pausing.join(30)
        cluster.wait_status(1, gate="open")
        running.execute("COMMIT")
        assert cluster.pooler_sql("SELECT 1") == [(1,)]


def test_a_pause_of_a_group_that_is_dropped_ends(cluster):
    with contextlib.closing(cluster.coordinator.connect()) as admin, admin.cursor() as cursor:
        cursor.execute("SET pgxc.check_nodes = off")
        cursor.execute("REGISTER DATANODE MASTER IDENTIFIED BY ID 7 WITH CONNECTION ('127.0.0.1:1')")
    cluster.wait_status(7)
    cluster.coordinator.sql("CALL pgxc.pause('7')")
    cluster.coordinator.sql("UNREGISTER DATANODE MASTER 7")
    wait_for(lambda: not cluster.coordinator.value("SELECT count(*) FROM pgxc_node_status WHERE node_id = 7"),
             "the group to be gone")
    cluster.coordinator.sql("CALL pgxc.resume('7')")
    with pytest.raises(psycopg2.Error, match="does not exist"):
        cluster.coordinator.sql("CALL pgxc.resume('7')")


def test_a_pause_outlives_the_monitor(cluster):
    cluster.coordinator.sql("CALL pgxc.pause('1')")
    try:
        monitor = cluster.coordinator.child_pid("pgxc", "monitor")
        os.kill(monitor, signal.SIGTERM)
        wait_for(lambda: cluster.coordinator.child_pid("pgxc", "monitor") not in (None, monitor), "another monitor")
        cluster.wait_status(1, gate="paused")
    finally:
        cluster.coordinator.sql("CALL pgxc.resume('1')")
    cluster.wait_status(1, gate="open")
    assert cluster.pooler_sql("SELECT 1") == [(1,)]


def test_a_pause_waits_for_no_worker_that_has_no_socket(workspace):
    made = pgcluster.Cluster(workspace)
    try:
        made.make_datanode(1)
        made.make_coordinator(failover="off", pooler_workers=2)
        # Only Unix sockets are left, which the first worker has.
        made.coordinator.configure({"pgxc.pooler_listen_addresses": ""})
        made.coordinator.restart()
        made.wait_status(1, state="up", gate="open")
        made.coordinator.sql("CALL pgxc.pause('1')", options="-c statement_timeout=20s")
    finally:
        made.destroy()


def test_a_group_that_failed_over_and_is_registered_anew_reads_at_its_slaves(workspace):
    made = pgcluster.standard_cluster(workspace, pooler_workers=2)
    try:
        made.coordinator.sql("ALTER DATANODE SLAVE 2 PROMOTE TO MASTER")
        made.wait_status(1, state="up", gate="open")
        host_port = "SELECT node_host || ':' || node_port FROM pgxc_nodes WHERE node_type = 'D' AND node_id = %s"
        with client(made) as cursor:
            slave_port = made.masters[1].port
            wait_for(lambda: port_now(cursor) == slave_port, "a read at the slave")
            master, slave = (made.coordinator.value(host_port % node_id) for node_id in (1, 2))
            made.coordinator.sql("DROP DATANODE SLAVE 2")
            made.coordinator.sql("DROP DATANODE MASTER 1")
            made.coordinator.sql(f"REGISTER DATANODE MASTER IDENTIFIED BY ID 1 WITH CONNECTION ('{master}')")
            made.coordinator.sql(f"REGISTER DATANODE SLAVE IDENTIFIED BY ID 2 WITH CONNECTION ('{slave}') ON MASTER 1")
            assert made.coordinator.value("SELECT node_epoch FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1") == 0
            made.wait_status(1, state="up", gate="open")
            wait_for(lambda: port_now(cursor) == slave_port, "a read at the slave of the group registered anew")
    finally:
        made.destroy()


def test_a_slave_made_while_commits_wait_serves_once_it_shows_them(workspace):
    """A standby that was made from a base backup while commits wait for standbys has them, but doesn't show them before
    a later transaction ends."""
    made = pgcluster.Cluster(workspace)
    writers = 8
    try:
        made.make_datanode(1)
        made.make_coordinator(failover="off", sync_degrade="off")
        made.make_slave(2, 1)
        made.register(2, 1, "SYNCHRONOUS")
        made.wait_ready()
        master = made.masters[1]
        master.sql("CREATE TABLE waited (a int)")
        made.slaves[2].stop("immediate")
        threads = [threading.Thread(target=made.pooler_sql, args=("INSERT INTO waited VALUES (%s)", (i,)))
                   for i in range(writers)]
        for thread in threads:
            thread.start()
        wait_for(lambda: master.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == writers,
                 "the commits to wait")
        slave = made.slaves[2]
        shutil.rmtree(slave.data)
        slave.init_from(master).start()
        for thread in threads:
            thread.join()
        end = master.value("SELECT pg_current_wal_flush_lsn()")
        wait_for(lambda: slave.value("SELECT pg_last_wal_replay_lsn() >= %s", (end,)), "everything to be replayed")
        assert slave.value("SELECT count(*) FROM waited") == 0, "PostgreSQL shows them: nothing is tested"
        with client(made) as cursor:
            def at_slave():
                cursor.execute("SELECT inet_server_port(), count(*) FROM waited")
                port, count = cursor.fetchone()
                assert count == writers
                return port == slave.port
            wait_for(at_slave, "reads at the slave")
    finally:
        made.destroy()
