"""What drivers do, through the pooler, while other clients take its few server connections in between: prepared
statements, transactions, COPY, notices, LISTEN, cancel, errors, settings. Each scenario asks the same of the server
directly first: what it sees there is what it must see through the pooler."""

import contextlib
import io
import os
import pathlib
import shutil
import subprocess
import threading

import psycopg
import psycopg2
import psycopg2.extensions
import pytest

import pgcluster
from pgcluster import wait_for

ROLE = "driver"


@pytest.fixture(scope="module")
def cluster(workspace):
    """A master, reached as a role of which three server connections may be open."""
    made = pgcluster.Cluster(workspace)
    made.make_datanode(1)
    made.make_coordinator(max_pool_size=3, failover="off")
    for server in (made.coordinator, made.masters[1]):
        server.sql(f"CREATE ROLE {ROLE} LOGIN SUPERUSER")
    made.masters[1].sql("CREATE TABLE t (id serial PRIMARY KEY, v text); CREATE SCHEMA other; "
                        "CREATE TABLE other.t (id int, v text); CREATE ROLE plain; GRANT ALL ON t TO plain")
    made.wait_ready()
    yield made
    made.destroy()


@pytest.fixture
def busy(cluster):
    """Three more clients, with settings and prepared statements of their own, that take turns on the connections."""
    stop = threading.Event()
    troubles = []

    def work(number):
        try:
            with psycopg.connect(**cluster.pooler_dsn(user=ROLE), autocommit=True, prepare_threshold=0) as connection:
                connection.execute("SET search_path = other")
                connection.execute(f"SET extra_float_digits = -{number}")
                while not stop.is_set():
                    connection.execute("SELECT v FROM t WHERE id = %s", (number,))
                    zone, path = connection.execute(
                        "SELECT current_setting('extra_float_digits'), current_setting('search_path')").fetchone()
                    assert (zone, path) == (f"-{number}", "other"), (zone, path)
                    stop.wait(0.001)  # the machine is for others, too
        except Exception as error:  # pylint: disable=broad-except
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()
    assert not troubles


@pytest.fixture(params=["direct", "pooler"])
def dsn(request, cluster):
    if request.param == "direct":
        return cluster.masters[1].dsn(user=ROLE)
    request.getfixturevalue("busy")
    return cluster.pooler_dsn(user=ROLE)


# ---- psycopg2

def test_psycopg2(dsn):
    with contextlib.closing(psycopg2.connect(**dsn)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE t RESTART IDENTITY")
            cursor.execute("INSERT INTO t (v) VALUES (%s) RETURNING id", ("one",))
            assert cursor.fetchone() == (1,)
        with pytest.raises(psycopg2.errors.UniqueViolation), connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (1, 'again')")
        with connection, connection.cursor() as cursor:
            cursor.copy_expert("COPY t (v) FROM STDIN", io.StringIO("two\nthree\n"))
        with connection, connection.cursor() as cursor:
            out = io.StringIO()
            cursor.copy_expert("COPY (SELECT v FROM t ORDER BY id) TO STDOUT", out)
            assert out.getvalue() == "one\ntwo\nthree\n"
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE NOTICE 'heard'; END $$")
            assert any("heard" in notice for notice in connection.notices)
            cursor.execute("PREPARE p (int) AS SELECT v FROM t WHERE id = $1")
            for number, text in ((1, "one"), (2, "two")):
                cursor.execute("EXECUTE p (%s)", (number,))
                assert cursor.fetchone() == (text,)
            cursor.execute("SELECT name, statement FROM pg_prepared_statements")
            assert cursor.fetchall() == [("p", "PREPARE p (int) AS SELECT v FROM t WHERE id = $1")]
            cursor.execute("DEALLOCATE p")
            with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
                cursor.execute("EXECUTE p (1)")


def test_psycopg2_named_cursor_with_hold(dsn):
    with contextlib.closing(psycopg2.connect(**dsn)) as connection:
        with connection.cursor("held", withhold=True) as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            connection.commit()
            cursor.itersize = 7
            assert sum(row[0] for row in cursor) == 5050


def test_listen(dsn):
    with contextlib.closing(psycopg2.connect(**dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("LISTEN news")
            with contextlib.closing(psycopg2.connect(**dsn)) as other, other, other.cursor() as speaker:
                speaker.execute("NOTIFY news, 'extra'")

            def heard():
                connection.poll()
                return [notify.payload for notify in connection.notifies]
            assert wait_for(heard, "the notification") == ["extra"]
            cursor.execute("UNLISTEN *")


# ---- settings, roles, and what pins

def test_settings_are_transactional(dsn):
    with psycopg.connect(**dsn, autocommit=True) as connection:
        def show(name):
            return connection.execute(f"SHOW {name}").fetchone()[0]
        connection.execute("SET work_mem = '1234kB'")
        connection.execute("SET app.tenant = 'a''b'")
        connection.execute("SET statement_timeout = '77s'")
        connection.execute("SELECT set_config('app.second', 'x y', false)")
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            connection.execute("SET work_mem = '99MB'")
            connection.execute("SAVEPOINT s")
            connection.execute("SET app.tenant = 'lost'")
            connection.execute("ROLLBACK TO s")
            assert show("app.tenant") == "a'b"
            raise ZeroDivisionError
        with connection.transaction():
            connection.execute("SET LOCAL work_mem = '77MB'")
            connection.execute("SAVEPOINT s")
            connection.execute("SET extra_float_digits = 0")
            connection.execute("ROLLBACK TO s")
            connection.execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(20):
            assert (show("work_mem"), show("app.tenant"), show("app.second"), show("statement_timeout")) == (
                "1234kB", "a'b", "x y", "77s")
            assert (show("extra_float_digits"), show("TimeZone")) == ("1", "Asia/Tokyo")
        connection.execute("RESET work_mem")
        assert show("work_mem") == "4MB"
        connection.execute("RESET ALL")
        assert (show("statement_timeout"), show("app.tenant")) == ("0", "")


def test_role_and_session_authorization(dsn):
    with psycopg.connect(**dsn, autocommit=True) as connection:
        def who():
            return connection.execute("SELECT session_user::text, current_user::text").fetchone()
        connection.execute("SET work_mem = '5MB'")
        connection.execute("SET log_min_messages = 'warning'")
        connection.execute("SET ROLE plain")
        for _ in range(20):
            assert who() == (ROLE, "plain")
        assert connection.execute("SHOW log_min_messages").fetchone() == ("warning",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE ROLE never")
        connection.execute("RESET ROLE")
        assert who() == (ROLE, ROLE)
        connection.execute("SET SESSION AUTHORIZATION plain")
        for _ in range(20):
            assert who() == ("plain", "plain")
        connection.execute("RESET SESSION AUTHORIZATION")
        assert who() == (ROLE, ROLE)
        connection.execute("DISCARD ALL")
        assert connection.execute("SHOW work_mem").fetchone() == ("4MB",)


def client_row(cluster, name):
    rows = cluster.coordinator.sql("SELECT state, why FROM pgxc_pooler_clients WHERE application_name = %s", (name,))
    return rows[0] if rows else None


@pytest.mark.parametrize("begin, reason, end", [
    # First: a server session that has used temporary tables refuses to change it.
    ("SET temp_buffers = 200", "SET temp_buffers", "RESET temp_buffers"),
    ("LISTEN x", "LISTEN", "UNLISTEN *"),
    ("CREATE TEMP TABLE kept (i int)", "temporary object", "DROP TABLE kept"),
    ("SELECT 1 AS i INTO TEMPORARY kept", "temporary object", "DISCARD TEMP"),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "WITH HOLD cursor", "CLOSE ALL"),
    ("SELECT pg_advisory_lock(7)", "session advisory lock", "SELECT pg_advisory_unlock(7)"),
    # What other settings would make another text of stays where it was prepared.
    (r"PREPARE p AS SELECT E'\\134'", "PREPARE", "DEALLOCATE p"),
    ("DO $$ BEGIN CREATE TEMP TABLE kept (i int); END $$", "temporary object", "DO $$ BEGIN DROP TABLE kept; END $$"),
    ("LOAD 'plpgsql'", "LOAD", "DISCARD ALL"),
])
def test_pinned_for_as_long_as_there_is_a_reason(cluster, busy, begin, reason, end):
    name = "pin_" + reason.replace(" ", "_")
    with psycopg.connect(**{**cluster.pooler_dsn(user=ROLE), "application_name": name}, autocommit=True) as connection:
        def pid():
            return connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        connection.execute(begin)
        assert len({pid() for _ in range(20)}) == 1
        wait_for(lambda: client_row(cluster, name) == ("pinned", reason), f"{name} to be pinned")
        connection.execute(end)
        wait_for(lambda: client_row(cluster, name) == ("idle", ""), f"{name} to be released")


def test_what_is_prepared_in_sql_is_there_on_every_server_connection(cluster, busy):
    name = "prepared_in_sql"
    settings = {**cluster.pooler_dsn(user=ROLE), "application_name": name}
    with psycopg.connect(**settings, autocommit=True, prepare_threshold=None) as connection, \
            psycopg.connect(**cluster.pooler_dsn(user=ROLE), autocommit=True, prepare_threshold=None) as other:
        connection.execute("PREPARE p (int) AS SELECT pg_backend_pid(), $1 + 1")
        connection.execute("PREPARE q AS SELECT 'q'")
        wait_for(lambda: client_row(cluster, name) == ("idle", ""), f"{name} not to be pinned")
        def run(number):
            # Somebody else may take the connection that it had before.
            with other.transaction(), pytest.raises(psycopg.errors.InvalidSqlStatementName), other.transaction():
                other.execute("EXECUTE p (1)")
            return connection.execute(f"EXECUTE p ({number})").fetchone()
        answers = [run(number) for number in range(20)]
        assert [sum_ for _, sum_ in answers] == list(range(1, 21))
        assert connection.execute("EXECUTE q").fetchone() == ("q",)
        names = "SELECT name FROM pg_prepared_statements ORDER BY name"
        assert connection.execute(names).fetchall() == [("p",), ("q",)]
        assert other.execute(names).fetchall() == []
        connection.execute("DEALLOCATE p")
        assert connection.execute(names).fetchall() == [("q",)]
        connection.execute("DISCARD ALL")
        assert connection.execute(names).fetchall() == []


def test_what_ends_with_its_transaction_pins_nobody(cluster, busy):
    name = "pin_nothing"
    with psycopg.connect(**{**cluster.pooler_dsn(user=ROLE), "application_name": name}, autocommit=True) as connection:
        with connection.transaction():
            connection.execute("CREATE TEMP TABLE gone (i int) ON COMMIT DROP")
            connection.execute("DECLARE c CURSOR FOR SELECT 1")
            connection.execute("SELECT pg_advisory_xact_lock(8)")
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            connection.execute("LISTEN never")
            connection.execute("CREATE TEMP TABLE never (i int)")
            raise ZeroDivisionError
        wait_for(lambda: client_row(cluster, name) == ("idle", ""), "the client to be idle")


def test_a_temporary_table_that_a_function_drops_is_noticed(cluster):
    name = "pin_noticed"
    cluster.masters[1].sql("CREATE OR REPLACE FUNCTION drop_kept() RETURNS int LANGUAGE plpgsql AS "
                           "'BEGIN DROP TABLE kept; RETURN 1; END'")
    with psycopg.connect(**{**cluster.pooler_dsn(user=ROLE), "application_name": name}, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE kept (i int)")
        wait_for(lambda: client_row(cluster, name) == ("pinned", "temporary object"), "the client to be pinned")
        connection.execute("SELECT drop_kept()")
        wait_for(lambda: client_row(cluster, name) == ("idle", ""), "the client to be released")


def test_sequence_values_are_the_clients_own(cluster, busy):
    with psycopg.connect(**cluster.pooler_dsn(user=ROLE), autocommit=True) as one, \
            psycopg.connect(**cluster.pooler_dsn(user=ROLE), autocommit=True) as two:
        # Whoever asks first without a value of its own hears that, never of another's.
        two.execute("INSERT INTO t (v) VALUES ('x')")
        with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            one.execute("SELECT lastval()")
        for _ in range(20):
            mine = one.execute("INSERT INTO t (v) VALUES ('x') RETURNING id").fetchone()
            two.execute("INSERT INTO t (v) VALUES ('x')")
            assert one.execute("SELECT lastval()").fetchone() == mine
            assert one.execute("SELECT currval('t_id_seq')").fetchone() == mine


# ---- psycopg 3

def test_psycopg3_prepared(dsn):
    with psycopg.connect(**dsn, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("TRUNCATE t RESTART IDENTITY")
        for i in range(50):
            assert connection.execute("INSERT INTO t (v) VALUES (%s) RETURNING v", (str(i),)).fetchone() == (str(i),)
            assert connection.execute("SELECT %s::int + 1", (i,)).fetchone() == (i + 1,)
        with connection.transaction():
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (50,)
            with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
                connection.execute("SELECT 1 / %s::int", (0,))
            assert connection.execute("SELECT 1 / %s::int", (1,)).fetchone() == (1,)
        # More of them than the driver keeps: it deallocates the oldest.
        for i in range(250):
            assert connection.execute(f"SELECT {i} + %s::int", (1,)).fetchone() == (i + 1,)
        with connection.cursor().copy("COPY t (v) FROM STDIN") as copy:
            copy.write_row(("copied",))
        assert connection.execute("SELECT v FROM t WHERE v = %s", ("copied",)).fetchone() == ("copied",)


def test_psycopg3_schema_changes_under_prepared_statements(dsn):
    with psycopg.connect(**dsn, autocommit=True, prepare_threshold=0) as connection:
        for sql in ("DROP TABLE IF EXISTS changing", "CREATE TABLE changing (a int)", "INSERT INTO changing VALUES (1)"):
            connection.execute(sql)
        assert connection.execute("SELECT a FROM changing WHERE a = %s", (1,)).fetchone() == (1,)
        connection.execute("ALTER TABLE changing ADD b int")
        assert connection.execute("SELECT a FROM changing WHERE a = %s", (1,)).fetchone() == (1,)
        connection.execute("DROP TABLE changing")
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT a FROM changing WHERE a = %s", (1,))
        connection.execute("CREATE TABLE changing (a int)")
        assert connection.execute("SELECT a FROM changing WHERE a = %s", (1,)).fetchone() is None


def test_whoever_prepares_again_gets_the_new_columns(cluster, busy):
    pq = psycopg.pq
    info = psycopg.conninfo.make_conninfo(**cluster.pooler_dsn(user=ROLE)).encode()
    one, two = pq.PGconn.connect(info), pq.PGconn.connect(info)
    with contextlib.closing(psycopg2.connect(**cluster.masters[1].dsn())) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        cursor.execute("DROP TABLE IF EXISTS widened; CREATE TABLE widened AS SELECT 1 AS a")
        for connection in (one, two):
            assert connection.prepare(b"s", b"SELECT * FROM widened").status == pq.ExecStatus.COMMAND_OK
            assert connection.exec_prepared(b"s", []).nfields == 1
        cursor.execute("ALTER TABLE widened ADD b int")
        # Where it was prepared before the server refuses it, as it does directly.
        wait_for(lambda: one.exec_prepared(b"s", []).error_field(pq.DiagnosticField.SQLSTATE) == b"0A000",
                 "a server connection that has the old one", interval_s=0)
        for connection in (one, two):
            connection.exec_(b"DEALLOCATE s")
            assert connection.prepare(b"s", b"SELECT * FROM widened").status == pq.ExecStatus.COMMAND_OK
            for _ in range(10):
                assert connection.exec_prepared(b"s", []).nfields == 2
        cursor.execute("DROP TABLE widened")
    one.finish()
    two.finish()


def test_psycopg3_pipeline(dsn):
    with psycopg.connect(**dsn, autocommit=True, prepare_threshold=0) as connection:
        for _ in range(5):
            with connection.pipeline():
                cursors = [connection.execute("SELECT %s::int * 2", (i,)) for i in range(100)]
                assert [cursor.fetchone()[0] for cursor in cursors] == [2 * i for i in range(100)]
        with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():
            connection.execute("SELECT 1 / %s::int", (0,))
            connection.execute("SELECT %s::text", ("skipped",))
        assert connection.execute("SELECT %s::text AS again", ("on",)).fetchone() == ("on",)
    # A new one: psycopg 3.1 believes that it has prepared what was skipped.
    with psycopg.connect(**dsn, autocommit=True, prepare_threshold=0) as connection:
        with connection.pipeline(), connection.transaction():
            connection.execute("TRUNCATE t RESTART IDENTITY")
            for i in range(120):  # more statements than the driver keeps
                connection.execute(f"INSERT INTO t (v) VALUES ({i} || %s)", ("x",))
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (120,)


def test_cancel(dsn, cluster):
    with psycopg.connect(**dsn, autocommit=True, prepare_threshold=0) as connection:
        def cancel():
            wait_for(lambda: cluster.masters[1].value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
                                                      "AND usename = %s", (ROLE,)), "the statement to run")
            connection.cancel()
        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(%s)", (60,))
        canceller.join()
        assert connection.execute("SELECT %s::int", (1,)).fetchone() == (1,)


# ---- libpq itself

def results(connection, count):
    """The next `count` results of a libpq connection (None between two queries counts too)."""
    connection.send_flush_request()
    connection.flush()
    found = []
    while len(found) < count:
        found.append(connection.get_result())
    return found


def test_libpq_prepared_statements(dsn):
    pq = psycopg.pq
    connection = pq.PGconn.connect(psycopg.conninfo.make_conninfo(**dsn).encode())
    assert connection.status == pq.ConnStatus.OK
    ok, failed = pq.ExecStatus.COMMAND_OK, pq.ExecStatus.FATAL_ERROR

    def code(result):
        return result.error_field(pq.DiagnosticField.SQLSTATE)
    assert connection.prepare(b"s", b"SELECT $1::int + 1").status == ok
    twice = connection.prepare(b"s", b"SELECT 2")
    assert (twice.status, code(twice)) == (failed, b"42P05")
    assert b'"s" already exists' in twice.error_message
    assert code(connection.prepare(b"bad", b"SELECT * FROM no_such_table")) == b"42P01"
    assert code(connection.exec_prepared(b"bad", [])) == b"26000"
    missing = connection.exec_prepared(b"missing", [])
    assert b'prepared statement "missing" does not exist' in missing.error_message
    for i in range(20):
        assert connection.exec_prepared(b"s", [b"%d" % i]).get_value(0, 0) == b"%d" % (i + 1)
        described = connection.describe_prepared(b"s")
        assert (described.nparams, described.param_type(0), described.nfields) == (1, 23, 1)
    # SQL knows it by its name.
    assert connection.exec_(b"EXECUTE s(41)").get_value(0, 0) == b"42"
    listed = connection.exec_(b"SELECT name, statement, from_sql FROM pg_prepared_statements")
    assert [listed.get_value(0, column) for column in range(listed.nfields)] == [b"s", b"SELECT $1::int + 1", b"f"]
    assert listed.ntuples == 1
    assert connection.exec_prepared(b"s", [b"1"]).get_value(0, 0) == b"2"
    assert connection.exec_(b"DEALLOCATE ALL").command_status == b"DEALLOCATE ALL"
    assert code(connection.exec_prepared(b"s", [b"1"])) == b"26000"
    assert connection.prepare(b"s", b"SELECT 'new'").status == ok
    assert connection.exec_prepared(b"s", []).get_value(0, 0) == b"new"
    assert connection.exec_(b"DEALLOCATE s").command_status == b"DEALLOCATE"
    assert code(connection.exec_(b"DEALLOCATE s")) == b"26000"
    # The unnamed statement lives until the next simple query.
    assert connection.prepare(b"", b"SELECT $1::text").status == ok
    for i in range(5):
        assert connection.exec_prepared(b"", [b"%d" % i]).get_value(0, 0) == b"%d" % i
    connection.exec_(b"SELECT 1")
    assert code(connection.exec_prepared(b"", [b"1"])) == b"26000"
    # More than a server connection keeps.
    for i in range(400):
        assert connection.prepare(b"n%d" % i, b"SELECT %d" % i).status == ok
    for i in range(400):
        assert connection.exec_prepared(b"n%d" % i, []).get_value(0, 0) == b"%d" % i
    # One that is too large to be remembered.
    large = b"SELECT '" + b"x" * 100_000 + b"'"
    assert connection.prepare(b"large", large).status == ok
    assert len(connection.exec_prepared(b"large", []).get_value(0, 0)) == 100_000
    connection.finish()


def test_libpq_pipeline(dsn):
    pq = psycopg.pq
    connection = pq.PGconn.connect(psycopg.conninfo.make_conninfo(**dsn).encode())
    connection.enter_pipeline_mode()
    for round_ in range(5):
        name = b"p%d" % round_
        connection.send_prepare(name, b"SELECT $1::int / $2::int")
        connection.send_query_prepared(name, [b"6", b"3"])
        prepared, gap, divided, gap2 = results(connection, 4)
        assert prepared.status == pq.ExecStatus.COMMAND_OK and gap is None and gap2 is None
        assert divided.get_value(0, 0) == b"2"
        # An error aborts the rest up to the sync, a statement that is prepared there too.
        connection.send_query_prepared(name, [b"1", b"0"])
        connection.send_prepare(b"never%d" % round_, b"SELECT 1")
        connection.send_query_prepared(name, [b"9", b"3"])
        connection.pipeline_sync()
        connection.send_query_prepared(b"never%d" % round_, [])
        connection.pipeline_sync()
        connection.send_query_prepared(name, [b"8", b"4"])
        connection.pipeline_sync()
        connection.flush()
        states = []
        while states.count(pq.ExecStatus.PIPELINE_SYNC) < 3:
            result = connection.get_result()
            if result is not None:
                states.append(result.status)
        bad, skipped = pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED
        sync, rows = pq.ExecStatus.PIPELINE_SYNC, pq.ExecStatus.TUPLES_OK
        assert states == [bad, skipped, skipped, sync, bad, sync, rows, sync]
    connection.finish()


# ---- others

JAVA = r"""
import java.sql.*;
import java.util.*;

public class Scenario {
    static void check(boolean ok, String what) { if (!ok) throw new AssertionError(what); }
    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.put("user", args[1]);
        p.put("prepareThreshold", "1");
        if (!args[2].isEmpty()) p.put("options", args[2]);
        try (Connection c = DriverManager.getConnection(args[0], p)) {
            try (Statement s = c.createStatement()) { s.execute("TRUNCATE t RESTART IDENTITY"); }
            try (PreparedStatement in = c.prepareStatement("INSERT INTO t (v) VALUES (?)", Statement.RETURN_GENERATED_KEYS);
                 PreparedStatement out = c.prepareStatement("SELECT v FROM t WHERE id = ?")) {
                for (int i = 1; i <= 50; i++) {
                    in.setString(1, "v" + i);
                    in.executeUpdate();
                    try (ResultSet keys = in.getGeneratedKeys()) { keys.next(); check(keys.getInt(1) == i, "key"); }
                    out.setInt(1, i);
                    try (ResultSet r = out.executeQuery()) { r.next(); check(r.getString(1).equals("v" + i), "row"); }
                }
                for (int i = 0; i < 500; i++) { in.setString(1, "b" + i); in.addBatch(); }
                check(in.executeBatch().length == 500, "batch");
            }
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("SELECT 1 / ?")) {
                s.setInt(1, 0);
                try { s.executeQuery(); check(false, "no error"); }
                catch (SQLException e) { check(e.getSQLState().equals("22012"), e.getSQLState()); }
                c.rollback();
                s.setInt(1, 1);
                try (ResultSet r = s.executeQuery()) { r.next(); check(r.getInt(1) == 1, "after"); }
                c.commit();
            }
            try (PreparedStatement s = c.prepareStatement("SELECT id FROM t ORDER BY id")) {
                s.setFetchSize(7);
                int n = 0;
                try (ResultSet r = s.executeQuery()) { while (r.next()) n++; }
                check(n == 550, "cursor " + n);
                c.commit();
            }
            c.setReadOnly(true);
            try (PreparedStatement s = c.prepareStatement("SELECT count(*) FROM t"); ResultSet r = s.executeQuery()) {
                r.next();
                check(r.getInt(1) == 550, "read only");
            }
            c.commit();
            c.setReadOnly(false);
            c.setSchema("other");
            c.commit();
            for (int i = 0; i < 20; i++) { check(c.getSchema().equals("other"), "schema"); c.commit(); }
        }
        System.out.println("done");
    }
}
"""


only_if_asked = pytest.mark.skipif(os.environ.get("PGXC_ALL_DRIVERS") != "1",
                                   reason="a JVM and node cost more than all the rest: PGXC_ALL_DRIVERS=1 runs it")


@only_if_asked
def test_jdbc(dsn, tmp_path):
    jar = next((path for path in (os.environ.get("PGXC_JDBC_JAR", ""), "/usr/share/java/postgresql.jar")
                if path and pathlib.Path(path).exists()), None)
    if not shutil.which("javac"):
        pytest.skip("no javac: a JDK is needed")
    if not jar:
        pytest.skip("no JDBC driver: package libpostgresql-jdbc-java, or PGXC_JDBC_JAR")
    (tmp_path / "Scenario.java").write_text(JAVA)
    done = subprocess.run(["java", "-cp", jar, str(tmp_path / "Scenario.java"),
                           f"jdbc:postgresql://{dsn['host']}:{dsn['port']}/postgres", ROLE, dsn.get("options") or ""],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "done"


NODE = r"""
const { Client } = require('pg');
const assert = require('assert');
(async () => {
  const [host, port, user, options] = process.argv.slice(2);
  const c = new Client({ host, port: +port, user, database: 'postgres', options: options || undefined });
  await c.connect();
  await c.query('TRUNCATE t RESTART IDENTITY');
  for (let i = 1; i <= 50; i++) {
    await c.query({ name: 'put', text: 'INSERT INTO t (v) VALUES ($1)', values: ['v' + i] });
    const r = await c.query({ name: 'get', text: 'SELECT v FROM t WHERE id = $1', values: [i] });
    assert.strictEqual(r.rows[0].v, 'v' + i);
  }
  await assert.rejects(c.query('SELECT 1 / $1::int', [0]), (e) => e.code === '22012');
  await c.query('BEGIN');
  await c.query('INSERT INTO t (v) VALUES ($1)', ['gone']);
  await c.query('ROLLBACK');
  assert.strictEqual((await c.query('SELECT count(*)::int AS n FROM t')).rows[0].n, 50);
  const heard = new Promise((resolve) => c.on('notification', (n) => resolve(n.payload)));
  const notice = new Promise((resolve) => c.on('notice', (n) => resolve(n.message)));
  await c.query('LISTEN node_news');
  await c.query("SELECT pg_notify('node_news', $1)", ['hello']);
  assert.strictEqual(await heard, 'hello');
  await c.query("DO $$ BEGIN RAISE NOTICE 'seen'; END $$");
  assert.strictEqual(await notice, 'seen');
  await c.end();
  console.log('done');
})().catch((e) => { console.log(e); process.exit(1); });
"""


@pytest.fixture(scope="module")
def node_pg(tmp_path_factory):
    """A folder with the npm package pg."""
    folder = tmp_path_factory.mktemp("node")
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node and npm")
    got = subprocess.run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "pg@8"], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    if got.returncode != 0:
        pytest.skip(f"the npm package pg can't be had: {got.stdout[-200:]}")
    (folder / "scenario.js").write_text(NODE)
    return folder


@only_if_asked
def test_node_postgres(dsn, node_pg):
    done = subprocess.run(["node", "scenario.js", dsn["host"], str(dsn["port"]), ROLE, dsn.get("options") or ""],
                          cwd=node_pg, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "done"
