"""Limits of the pooler, and what it shows of itself in SQL."""

import contextlib
import os
import select
import socket
import subprocess
import threading
import time

import psycopg2
import psycopg2.extensions
import pytest

import pgcluster
from pgcluster import HOST, wait_for

ROLES = ("watcher", "manager")


@pytest.fixture(scope="module")
def cluster(workspace):
    """Its pooler has two workers. The Unix socket is the first one's alone."""
    made = pgcluster.standard_cluster(workspace, failover="off", pooler_workers=2)
    for server in (made.coordinator, made.masters[1]):
        for role in ROLES:
            server.sql(f"CREATE ROLE {role} LOGIN")
    made.coordinator.sql("GRANT pgxc_admin TO manager")
    made.masters[1].sql("CREATE SEQUENCE turns; GRANT USAGE ON SEQUENCE turns TO PUBLIC")
    yield made
    made.destroy()


@pytest.fixture
def limited(cluster):
    """Changes settings for one test. Every limit counts for those who wait or idle already, so nobody needs to know
    when the workers have read them."""
    changed = []

    def set_all(commands):
        with contextlib.closing(cluster.coordinator.connect()) as session, session.cursor() as cursor:
            for command in commands:
                cursor.execute(command)
        cluster.coordinator.reload()

    def change(**settings):
        changed.extend(settings)
        set_all([f"ALTER SYSTEM SET pgxc.{name} = '{value}'" for name, value in settings.items()])

    yield change
    set_all([f"ALTER SYSTEM RESET pgxc.{name}" for name in changed])


@pytest.fixture
def first_worker(cluster):
    """Connects to the first worker."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            contextlib.closing(cluster.pooler(host=str(cluster.workspace.path), **options)))


def execute(connection, text):
    with connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchall() if cursor.description else None


def servers(cluster, user, **wanted):
    """Rows of pgxc_pooler_servers of the first worker for that role, as dictionaries."""
    with contextlib.closing(cluster.coordinator.connect()) as session, session.cursor() as cursor:
        cursor.execute("SELECT * FROM pgxc_pooler_servers WHERE worker = 0 AND user_name = %s", (user,))
        rows = [dict(zip((column.name for column in cursor.description), row)) for row in cursor.fetchall()]
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def stats(cluster, user):
    with contextlib.closing(cluster.coordinator.connect()) as session, session.cursor() as cursor:
        cursor.execute("SELECT * FROM pgxc_pooler_stats WHERE user_name = %s AND node_type = 'D' AND node_id = 1", (user,))
        row = cursor.fetchone()
        return dict(zip((column.name for column in cursor.description), row)) if row else None


# ---- settings

@pytest.mark.parametrize("name, value", [
    ("query_wait_timeout", "-1"), ("query_wait_timeout", "soon"), ("query_wait_timeout", "2d"),
    ("server_idle_timeout", "-1ms"), ("server_lifetime", "never"), ("client_idle_timeout", "-5s"),
    ("client_login_timeout", "-2"),
])
def test_nonsense_is_refused(cluster, name, value):
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match=name):
        cluster.coordinator.sql(f"ALTER SYSTEM SET pgxc.{name} = '{value}'")


# ---- the queue

def test_who_waits_too_long_is_told_and_stays_connected(cluster, limited, first_worker):
    limited(max_pool_size=1)
    holder = first_worker(user="watcher", autocommit=False)
    # The pool has one connection as soon as the workers know that it may have no more.
    execute(holder, "SELECT 1")
    waiting = first_worker(user="watcher")
    # Only now: a connection that is being opened is waited for, too, and may take longer on a busy machine.
    limited(query_wait_timeout="1s")
    refused = wait_for(lambda: failure_of(waiting, "SELECT 1"), "the wait to end")
    assert isinstance(refused, psycopg2.errors.TooManyConnections)
    assert "datanode 1" in str(refused) and "pgxc.query_wait_timeout" in str(refused)
    assert "pgxc.max_pool_size is 1" in refused.diag.message_hint
    holder.commit()
    limited(query_wait_timeout="60s")
    assert execute(waiting, "SELECT 2") == [(2,)]
    assert wait_for(lambda: (row := stats(cluster, "watcher")) and row["errors"] > 0 and row, "the error to be counted")
    assert wait_for(lambda: stats(cluster, "watcher")["wait_p99_ms"] > 500, "the wait to be counted")


def failure_of(connection, text):
    try:
        execute(connection, text)
    except psycopg2.Error as error:
        return error
    return None


def test_first_come_first_served(cluster, limited, first_worker):
    limited(max_pool_size=1)
    wait_for(lambda: len(servers(cluster, "watcher")) <= 1, "the smaller pool")
    holder = first_worker(user="watcher", autocommit=False)
    execute(holder, "SELECT 1")
    waiting = "SELECT clients_waiting FROM pgxc_pools WHERE worker = 0 AND user_name = 'watcher' AND node_type = 'D'"
    turns = {}
    threads = []
    for number in range(5):
        connection = first_worker(user="watcher")
        thread = threading.Thread(target=lambda n=number, c=connection: turns.update(
            {n: execute(c, "SELECT nextval('turns')")[0][0]}))
        thread.start()
        threads.append(thread)
        wait_for(lambda: cluster.coordinator.value(waiting) == number + 1, f"client {number} to wait")
    holder.commit()
    for thread in threads:
        thread.join(20)
    assert [turns[number] for number in range(5)] == sorted(turns.values())


# ---- server connections

def test_many_short_transactions_take_turns_where_that_is_better_and_off_means_off(cluster, limited):
    script = cluster.workspace.path / "one.sql"
    script.write_text("SELECT 1;\n")

    def seen(where):
        return cluster.coordinator.value(f"SELECT count(*) FROM pgxc_pools WHERE node_id = 1 AND node_type = 'D' AND {where}")

    def transactions():
        return cluster.coordinator.value("SELECT sum(transactions) FROM pgxc_pooler_stats WHERE node_id = 1 AND node_type = 'D'")

    with subprocess.Popen([cluster.workspace.bin / "pgbench", "-n", "-f", script, "-c", "10", "-T", "600",
                           psycopg2.extensions.make_dsn(**cluster.pooler_dsn(host=str(cluster.workspace.path)))],
                          stdout=subprocess.DEVNULL, **pgcluster.as_server_user()) as load:
        try:
            # They begin with four.
            wait_for(lambda: seen("concurrency_limit IS NOT NULL"), "a limit to be in force")
            wait_for(lambda: seen("clients_waiting > 0 AND servers_active <= concurrency_limit"), "some to wait for it")
            limited(adaptive_concurrency="off")
            wait_for(lambda: seen("servers_active > 4 AND concurrency_limit IS NULL"), "more to run at once")
            for _ in range(3):
                before = transactions()
                wait_for(lambda: transactions() > before + 1000, "more transactions")
                assert not seen("concurrency_limit IS NOT NULL")
        finally:
            load.terminate()


def test_idle_server_connections_are_closed_but_the_minimum(cluster, limited, first_worker):
    busy = [first_worker(user="watcher", autocommit=False) for _ in range(3)]
    for connection in busy:
        execute(connection, "SELECT 1")
    wait_for(lambda: len(servers(cluster, "watcher", state="active")) == 3, "three server connections")
    for connection in busy:
        connection.commit()
    limited(server_idle_timeout="1s")
    wait_for(lambda: len(servers(cluster, "watcher")) == 1, "all but one to be closed")
    limited(min_pool_size=0)
    wait_for(lambda: servers(cluster, "watcher") == [], "that one to be closed, too")
    assert execute(busy[0], "SELECT 3") == [(3,)]


def test_old_server_connections_are_replaced(cluster, limited, first_worker):
    client = first_worker(user="watcher")
    execute(client, "SELECT 1")
    first = wait_for(lambda: servers(cluster, "watcher", state="idle"), "a server connection")[0]["pid"]
    limited(server_lifetime="1s")
    # Nobody asks for it: the minimum is kept warm.
    other = wait_for(lambda: [row for row in servers(cluster, "watcher", state="idle") if row["pid"] != first],
                     "another one in its place")
    assert other[0]["transactions"] == 0
    assert execute(client, "SELECT 2") == [(2,)]


# ---- logging in

def test_login_timeout(cluster, limited):
    limited(client_login_timeout="1s")
    def closed_in_time():
        began = time.monotonic()
        with contextlib.closing(socket.create_connection((HOST, cluster.pooler_port), timeout=5)) as silent:
            try:
                return silent.recv(1) == b"" and time.monotonic() - began
            except TimeoutError:
                return False  # it began before the workers had read the setting
    assert wait_for(closed_in_time, "a silent client to be closed") > 0.5


# ---- what is shown

def test_statistics_add_up_over_the_workers(cluster):
    began = cluster.coordinator.value("SELECT clock_timestamp()")
    cluster.coordinator.sql("SELECT pgxc.reset_pooler_stats()", user="manager")
    for _ in range(8):  # each lands in one of the workers
        with contextlib.closing(cluster.pooler(user="manager")) as client:
            for number in range(5):
                execute(client, f"SELECT {number}")
            execute(client, "BEGIN; SELECT 1; COMMIT")
            assert isinstance(failure_of(client, "SELECT 1/0"), psycopg2.errors.DivisionByZero)
    row = wait_for(lambda: (row := stats(cluster, "manager")) and row["queries"] >= 8 * 7 and row, "the counters")
    assert (row["transactions"], row["queries"], row["errors"]) == (8 * 7, 8 * 7, 8)
    assert row["role"] == "master" and row["database"] == "postgres"
    assert row["bytes_in"] > 8 * 7 * len("SELECT 1") and row["bytes_out"] > row["bytes_in"]
    assert 0 < row["query_p50_ms"] <= row["query_p95_ms"] <= row["query_p99_ms"] <= row["query_ms"] * 17 / 16
    assert 0 <= row["wait_p50_ms"] <= row["wait_p95_ms"] <= row["wait_p99_ms"]
    assert cluster.coordinator.value("SELECT since FROM pgxc_pooler_stats WHERE user_name = 'manager'") >= began


def test_statistics_begin_anew_on_request(cluster, first_worker):
    client = first_worker(user="watcher")
    execute(client, "SELECT 1")
    wait_for(lambda: (row := stats(cluster, "watcher")) and row["queries"] > 0, "something to be counted")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cluster.coordinator.sql("SELECT pgxc.reset_pooler_stats()", user="watcher")
    cluster.coordinator.sql("SELECT pgxc.reset_pooler_stats()", user="manager")
    # What was before is gone at once, whether or not the workers have begun anew.
    assert (row := stats(cluster, "watcher")) is None or row["queries"] == 0
    wait_for(lambda: execute(client, "SELECT 1") and (row := stats(cluster, "watcher")) and row["queries"] > 0,
             "something to be counted again")


def test_server_connections_are_shown(cluster, first_worker):
    client = first_worker(user="watcher", autocommit=False)
    (pid,) = execute(client, "SELECT pg_backend_pid()")[0]
    row = wait_for(lambda: servers(cluster, "watcher", state="active", pid=pid), "the server connection")[0]
    assert (row["node_type"], row["node_id"], row["database"]) == ("D", 1, "postgres")
    assert row["address"] == cluster.masters[1].address
    assert row["idle_since"] is None and row["connected_at"] is not None and row["tls"] is False
    own = "SELECT user_name, state FROM pgxc_pooler_clients WHERE worker = 0 AND client_id = {}"
    assert cluster.coordinator.sql(own.format(row["client_id"])) == [("watcher", "active")]
    client.commit()
    idle = wait_for(lambda: servers(cluster, "watcher", state="idle", pid=pid), "the connection to be idle")[0]
    assert idle["idle_since"] is not None and idle["client_id"] is None
    # Others see that it is there.
    assert cluster.coordinator.sql("SELECT state, transactions FROM pgxc_pooler_servers WHERE pid = %s AND worker = 0",
                                   (pid,), user="manager") == [(None, None)]
    assert cluster.coordinator.sql("SELECT state FROM pgxc_pooler_servers WHERE pid = %s AND worker = 0",
                                   (pid,), user="watcher") == [("idle",)]


# ---- clients (the last one, for what it leaves in force a moment longer would end others' clients)

def test_idle_client_is_told_why_it_goes(cluster, limited, first_worker):
    idle = first_worker(user="watcher")
    execute(idle, "SELECT 1")
    in_transaction = first_worker(user="watcher", autocommit=False)
    execute(in_transaction, "SELECT 1")
    limited(client_idle_timeout="1s")
    # What libpq makes of it depends on whether its next query can still be written.
    with socket.socket(fileno=os.dup(idle.fileno())) as raw:
        assert select.select([raw], [], [], 20)[0], "it was not ended"
        told = raw.recv(4096)
        assert b"C57P05\0" in told and b"pgxc.client_idle_timeout" in told and b"\0H" in told
        assert raw.recv(1) == b""
    assert execute(in_transaction, "SELECT 1") == [(1,)]
    in_transaction.commit()


def test_databases_of_a_node_that_are_wanted_alone_are_left(cluster):
    master = cluster.masters[1]

    def visit(database):
        with contextlib.ExitStack() as stack:
            for _ in range(8):  # each lands in one of the workers
                client = stack.enter_context(contextlib.closing(cluster.pooler(dbname=database)))
                client.cursor().execute("SELECT 1")
        assert master.value(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'") > 0

    visit("template1")
    for database, command in ((None, "CREATE DATABASE \"Doomed\""),
                              ("Doomed", "CREATE DATABASE copied TEMPLATE \"Doomed\""),
                              ("Doomed", "ALTER DATABASE \"Doomed\" RENAME TO doomed"),
                              ("doomed", "DROP DATABASE Doomed"),
                              ("copied", "DROP DATABASE IF EXISTS copied")):
        if database:
            visit(database)
        cluster.pooler_sql(command)
    assert master.value("SELECT count(*) FROM pg_database WHERE datname IN ('Doomed', 'doomed', 'copied')") == 0
