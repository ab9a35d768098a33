"""The pooler as applications see it."""

import contextlib
import io
import os
import pathlib
import socket
import threading

import psycopg
import psycopg2
import psycopg2.extras
import pytest

import pgcluster
from pgcluster import HOST, wait_for

LARGE = 100 * 1000 * 1000


@pytest.fixture(scope="module")
def cluster(workspace):
    """Masters 1 and 2 with synchronous slaves 3 and 4."""
    made = pgcluster.standard_cluster(workspace, datanodes=2, slaves=1, failover="off")
    yield made
    made.destroy()


def port_seen(cluster, **options):
    return cluster.pooler_sql("SELECT inet_server_port()", **options)[0][0]


# ---- where a connection goes

def test_node_choice(cluster):
    assert port_seen(cluster, node=1) == cluster.masters[1].port
    assert port_seen(cluster, node=2) == cluster.masters[2].port
    cluster.coordinator.sql("CREATE TABLE here (i int)")
    assert cluster.pooler_sql("SELECT count(*) FROM pg_class WHERE relname = 'here'", node="C") == [(1,)]
    cluster.coordinator.sql("DROP TABLE here")


def test_without_choice_among_several_it_is_the_coordinator(cluster):
    assert cluster.pooler_sql("SELECT count(*) > 0 FROM pgxc_nodes", node=None) == [(True,)]


@pytest.mark.parametrize("node", ["77", "x", "-1"])
def test_no_such_node(cluster, node):
    with pytest.raises(psycopg2.OperationalError) as caught:
        cluster.pooler(node=node)
    assert "pgxc.node" in str(caught.value) or node in str(caught.value)


def test_unix_socket(cluster):
    assert cluster.pooler_sql("SELECT 1", host=str(cluster.workspace.path)) == [(1,)]


def test_our_statements_go_to_the_coordinator(cluster):
    with pytest.raises(psycopg2.errors.DuplicateObject):
        cluster.pooler_sql("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('h:1') ON MASTER 1", node=1)


# ---- logging in

@pytest.fixture(scope="module")
def scram_role(cluster):
    for server in (cluster.coordinator, cluster.masters[1]):
        server.sql("SET password_encryption = 'scram-sha-256'; CREATE ROLE secretive LOGIN PASSWORD 'open sesame'")
    hba = cluster.coordinator.data / "pg_hba.conf"
    old = hba.read_text()
    hba.write_text(f"host all secretive {HOST}/32 scram-sha-256\nhost all barred {HOST}/32 reject\n" + old)
    cluster.coordinator.reload()
    # The direct way shows when the server itself has read it.
    def in_force():
        try:
            cluster.coordinator.connect(user="secretive", password="wrong").close()
        except psycopg2.OperationalError:
            return True
        return False
    wait_for(in_force, "pg_hba.conf to be read")
    yield "secretive"
    hba.write_text(old)
    cluster.coordinator.reload()


def test_scram(cluster, scram_role):
    def logs_in():
        return cluster.pooler_sql("SELECT current_user", user=scram_role, password="open sesame") == [(scram_role,)]
    assert wait_for(logs_in, "a login by SCRAM")


@pytest.mark.parametrize("password", ["wrong", "", "open sesame "])
def test_scram_refuses(cluster, scram_role, password):
    def refused():
        try:
            cluster.pooler(user=scram_role, password=password or " ").close()
        except psycopg2.OperationalError as error:
            return "password authentication failed" in str(error) and str(error)
        return False
    wait_for(refused, "the wrong password to be refused")


def test_role_that_does_not_exist(cluster):
    with pytest.raises(psycopg2.OperationalError):
        cluster.pooler(user="nobody_of_that_name")


def test_rejected_by_hba(cluster, scram_role):
    cluster.coordinator.sql("CREATE ROLE barred LOGIN")
    with pytest.raises(psycopg2.OperationalError) as caught:
        cluster.pooler(user="barred")
    assert "pg_hba.conf" in str(caught.value)


def test_database_that_does_not_exist(cluster):
    with pytest.raises(psycopg2.OperationalError) as caught:
        cluster.pooler_sql("SELECT 1", dbname="no_such_database")
    assert "no_such_database" in str(caught.value)


# ---- protocol

def test_errors_pass_through_and_the_connection_lives_on(cluster):
    with contextlib.closing(cluster.pooler()) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            cursor.execute("SELECT 1/0")
        with pytest.raises(psycopg2.errors.UndefinedTable) as caught:
            cursor.execute("SELECT * FROM no_such_table")
        assert caught.value.diag.statement_position == "15"
        cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)


def test_extended_protocol(cluster):
    with psycopg.connect(**cluster.pooler_dsn(), autocommit=True) as connection:
        for i in range(20):
            assert connection.execute("SELECT %s::int + 1", (i,)).fetchone() == (i + 1,)
            assert connection.execute("SELECT %s::text", (str(i),), prepare=True).fetchone() == (str(i),)
        with connection.cursor(binary=True) as cursor:
            assert cursor.execute("SELECT %s::bytea", (b"\x00\xff" * 1000,)).fetchone() == (b"\x00\xff" * 1000,)


def test_pipeline_of_extended_queries(cluster):
    with psycopg.connect(**cluster.pooler_dsn(), autocommit=True) as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (i,)) for i in range(200)]
        assert [cursor.fetchone() for cursor in cursors] == [(i,) for i in range(200)]


def test_several_statements_in_one_string(cluster):
    cluster.pooler_sql("CREATE TABLE several (i int); INSERT INTO several VALUES (1), (2); SELECT 1")
    assert cluster.masters[1].value("SELECT count(*) FROM several") == 2


def test_copy_both_ways(cluster):
    rows = 200_000
    with contextlib.closing(cluster.pooler()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copied (i int, t text)")
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("".join(f"{i}\tline {i}\n" for i in range(rows))))
        back = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM copied ORDER BY i) TO STDOUT", back)
        lines = back.getvalue().splitlines()
        assert len(lines) == rows and lines[0] == "0\tline 0" and lines[-1] == f"{rows - 1}\tline {rows - 1}"
        with pytest.raises(psycopg2.errors.BadCopyFileFormat):
            cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("1\n"))
        cursor.execute("SELECT count(*) FROM copied")
        assert cursor.fetchone() == (rows,)


def pooler_pid(cluster):
    return wait_for(lambda: cluster.coordinator.child_pid("pgxc", "pooler"), "a pooler process")


def memory_kb(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {name} of process {pid}")


@pytest.mark.parametrize("direction", ["to the client", "from the client"])
def test_large_rows_in_bounded_memory(cluster, direction):
    pid = pooler_pid(cluster)
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak
    before = memory_kb(pid, "VmRSS")
    if direction == "to the client":
        assert len(cluster.pooler_sql(f"SELECT repeat('x', {LARGE})")[0][0]) == LARGE
    else:
        assert cluster.pooler_sql("SELECT length(%s)", ("y" * LARGE,)) == [(LARGE,)]
    assert memory_kb(pid, "VmHWM") - before < 32 * 1024


def test_slow_reader_does_not_fill_the_memory(cluster):
    pid = pooler_pid(cluster)
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = memory_kb(pid, "VmRSS")
    with contextlib.closing(psycopg2.connect(**cluster.pooler_dsn(), async_=True)) as connection:
        psycopg2.extras.wait_select(connection)
        connection.cursor().execute(f"SELECT repeat('x', {LARGE})")
        # Nobody reads: the server must come to wait for its socket.
        wait_for(lambda: cluster.masters[1].value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND query LIKE 'SELECT repeat%'"),
            "back-pressure at the server")
        assert memory_kb(pid, "VmHWM") - before < 32 * 1024
        assert cluster.pooler_sql("SELECT 1") == [(1,)]


def test_cancel(cluster):
    with contextlib.closing(cluster.pooler()) as connection, connection.cursor() as cursor:
        def cancel_when_running():
            wait_for(lambda: cluster.masters[1].value(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(59)'"),
                "the query to run")
            connection.cancel()
        other = threading.Thread(target=cancel_when_running)
        other.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("SELECT pg_sleep(59)")
        other.join()
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_client_that_vanishes_in_a_transaction_is_rolled_back(cluster):
    connection = cluster.pooler(autocommit=False)
    connection.cursor().execute("CREATE TABLE vanished (i int)")
    with socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: cluster.masters[1].value("SELECT count(*) = 0 FROM pg_locks AS l JOIN pg_stat_activity USING (pid) "
                                              "WHERE query LIKE 'CREATE TABLE vanished%'"), "the rollback")
    assert cluster.masters[1].value("SELECT to_regclass('vanished')") is None


# ---- pooling

@pytest.fixture(scope="module")
def pooled_role(cluster):
    for server in (cluster.coordinator, cluster.masters[1]):
        server.sql("CREATE ROLE pooled LOGIN")
    cluster.masters[1].sql("GRANT pg_read_all_stats TO pooled")
    return "pooled"


def backends_of(cluster, role):
    return cluster.masters[1].value("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (role,))


def test_many_clients_few_servers(cluster, pooled_role):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(cluster.pooler(user=pooled_role))) for _ in range(60)]
        for _ in range(3):
            for client in clients:
                with client.cursor() as cursor:
                    cursor.execute("SELECT 1")
        assert 1 <= backends_of(cluster, pooled_role) <= 5


def test_a_transaction_keeps_its_server(cluster, pooled_role):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(cluster.pooler(user=pooled_role, autocommit=False)))
                   for _ in range(5)]
        cursors = [client.cursor() for client in clients]
        first = []
        for cursor in cursors:
            cursor.execute("SELECT pg_backend_pid()")
            first.append(cursor.fetchone())
        assert len(set(first)) == len(clients)
        for cursor, pid in reversed(list(zip(cursors, first))):
            cursor.execute("SELECT pg_backend_pid()")
            assert cursor.fetchone() == pid


def test_more_clients_than_the_pool_has(workspace):
    cluster = pgcluster.standard_cluster(workspace, slaves=0, failover="off", max_pool_size=3)
    try:
        for server in (cluster.coordinator, cluster.masters[1]):
            server.sql("CREATE ROLE pooled LOGIN")
        most = 0
        errors = []

        def client():
            try:
                with contextlib.closing(cluster.pooler(user="pooled")) as connection, connection.cursor() as cursor:
                    for _ in range(5):
                        cursor.execute("SELECT pg_sleep(0.02)")
            except psycopg2.Error as error:
                errors.append(error)
        threads = [threading.Thread(target=client) for _ in range(20)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, backends_of(cluster, "pooled"))
        assert not errors
        assert 1 <= most <= 3
    finally:
        cluster.destroy()


# ---- read routing

def test_read_only_transactions_go_to_a_slave(cluster):
    with contextlib.closing(cluster.pooler(autocommit=False)) as connection, connection.cursor() as cursor:
        for begin in ("BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"):
            connection.autocommit = True

            def read():
                cursor.execute(begin)
                cursor.execute("SELECT pg_is_in_recovery(), inet_server_port()")
                place = cursor.fetchone()
                cursor.execute("COMMIT")
                return place == (True, cluster.slaves[3].port)
            # Only when the position of the last commit is known is a slave known to have it.
            wait_for(read, f"{begin} to be routed to the slave")
        cursor.execute("SELECT inet_server_port()")
        assert cursor.fetchone() == (cluster.masters[1].port,)


def test_read_routing_master(cluster):
    with contextlib.closing(cluster.pooler(options="-c pgxc.read_routing=master")) as connection:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN READ ONLY")
            cursor.execute("SELECT pg_is_in_recovery()")
            assert cursor.fetchone() == (False,)
            cursor.execute("COMMIT")


def test_a_read_sees_every_commit_before_it(cluster):
    cluster.masters[1].sql("CREATE TABLE causal (i int)")
    wait_for(lambda: cluster.slaves[3].value("SELECT to_regclass('causal') IS NOT NULL"), "the table on the slave")
    with contextlib.closing(cluster.pooler()) as writer, contextlib.closing(cluster.pooler()) as reader:
        with writer.cursor() as write, reader.cursor() as read:
            for i in range(1, 101):
                write.execute("INSERT INTO causal VALUES (%s)", (i,))
                read.execute("BEGIN READ ONLY")
                read.execute("SELECT count(*) FROM causal")
                assert read.fetchone() == (i,)
                read.execute("COMMIT")


def test_reads_without_a_live_slave_go_to_the_master(cluster):
    cluster.slaves[4].stop("immediate")
    try:
        with contextlib.closing(cluster.pooler(node=2)) as connection, connection.cursor() as cursor:
            for _ in range(20):
                cursor.execute("BEGIN READ ONLY")
                cursor.execute("SELECT 1")
                cursor.execute("COMMIT")
    finally:
        cluster.slaves[4].start()
        cluster.wait_status(4, state="up")


# ---- seeing it

def test_views(cluster):
    with contextlib.closing(cluster.pooler(application_name="to be seen")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        wait_for(lambda: cluster.coordinator.value(
            "SELECT count(*) FROM pgxc_pooler_clients AS c WHERE to_jsonb(c)::text LIKE '%to be seen%'") == 1,
            "the client in pgxc_pooler_clients")
        assert cluster.coordinator.value(
            "SELECT count(*) > 0 FROM pgxc_pools AS p WHERE to_jsonb(p)::text LIKE '%postgres%'")
    wait_for(lambda: cluster.coordinator.value(
        "SELECT count(*) FROM pgxc_pooler_clients AS c WHERE to_jsonb(c)::text LIKE '%to be seen%'") == 0,
        "the client to leave pgxc_pooler_clients")


# ---- commits that are on no slave

@pytest.fixture(scope="module")
def waited_for(workspace):
    """A master whose only slave can be frozen, and is waited for then."""
    made = pgcluster.standard_cluster(workspace, failover="off", sync_degrade="off")
    made.masters[1].sql("CREATE TABLE written (a text)")
    yield made
    made.destroy()


@pytest.mark.parametrize("level", ["notice", "error", "SET error", "SET LOCAL error", "SET 'PANIC'", "set_config error",
                                   "among several error"])
@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_a_commit_whose_wait_for_slaves_is_cancelled_is_no_success(waited_for, level, protocol):
    master, slave = waited_for.masters[1], waited_for.slaves[2]
    try:
        master.sql("TRUNCATE written")
        options = "" if " " in level else f"-c client_min_messages={level}"
        module = psycopg2 if protocol == "simple" else psycopg
        with contextlib.closing(module.connect(**waited_for.pooler_dsn(options=options))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            if level.startswith("set_config"):
                cursor.execute("SELECT set_config('client_min_messages', 'error', false)")
            elif level.startswith("among"):
                cursor.execute("/* app */ SET work_mem = '1MB'; SET client_min_messages = error")
            elif level.startswith("SET") and "LOCAL" not in level:
                cursor.execute(f"SET client_min_messages = {level.removeprefix('SET ')}")
            if level != "notice" and "LOCAL" not in level:
                notices = connection.notices if protocol == "simple" else []
                if protocol != "simple":
                    connection.add_notice_handler(notices.append)
                cursor.execute("DO $$ BEGIN RAISE WARNING 'not wanted'; END $$")
                assert notices == []
            slave.freeze()
            failed = []

            def write():
                try:
                    if "LOCAL" in level:
                        cursor.execute("BEGIN")
                        cursor.execute(level.replace("LOCAL", "LOCAL client_min_messages ="))
                    cursor.execute("INSERT INTO written VALUES ('x')")
                    if "LOCAL" in level:
                        cursor.execute("COMMIT")
                except (psycopg2.Error, psycopg.Error) as error:
                    failed.append(error)
            writing = threading.Thread(target=write)
            writing.start()
            waiting = wait_for(lambda: master.value("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
                                                    "AND backend_type = 'client backend' "
                                                    "AND application_name NOT LIKE 'pgxc_ha%'"), "the commit to wait")
            master.sql("SELECT pg_cancel_backend(%s)", (waiting,))
            writing.join(30)
            assert failed, "it was told to be committed"
            assert (failed[0].pgcode if protocol == "simple" else failed[0].sqlstate) == "08007"
            assert master.value("SELECT count(*) FROM written") == 1
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
    finally:
        slave.thaw()
