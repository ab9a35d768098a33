"""Bad packets end their connection and disturb nobody; bad settings are refused when they are set."""

import contextlib
import resource
import select
import socket
import time

import psycopg2
import pytest

import pgcluster
from bad_packets import AFTER_LOGIN, BEFORE_LOGIN, MALFORMED, message, startup
from pgcluster import HOST, PATIENCE_S, wait_for

#: authentication_timeout of the coordinator, which ends a connection that does not log in.
LOGIN_TIMEOUT_S = 4


@pytest.fixture(scope="module")
def cluster(workspace):
    made = pgcluster.standard_cluster(workspace, slaves=0, failover="off",
                                      **{".authentication_timeout": f"{LOGIN_TIMEOUT_S}s"})
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def bystander(cluster):
    """A connection that is there all the time."""
    with contextlib.closing(cluster.pooler()) as connection:
        yield connection


def read_until_closed(connection, deadline_s):
    """What the pooler still says until it closes the connection; fails if it doesn't close it."""
    end = time.monotonic() + deadline_s
    said = b""
    # Not select(), which knows no more than 1024 descriptors.
    readable = select.poll()
    readable.register(connection, select.POLLIN)
    while True:
        in_time = readable.poll(max(0, end - time.monotonic()) * 1000)
        assert in_time, f"the connection is still open after {deadline_s} s; it said {said!r}"
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return said
        if not part:
            return said
        said += part


def log_in(cluster):
    raw = socket.create_connection((HOST, cluster.pooler_port), PATIENCE_S)
    raw.sendall(startup())
    read_until_ready(raw)
    return raw


def read_until_ready(raw):
    """All up to ReadyForQuery outside of a transaction."""
    said = b""
    while not said.endswith(message(b"Z", b"I")):
        part = raw.recv(65536)
        assert part, f"the connection was closed; it said {said!r}"
        said += part
    return said


def assert_nobody_is_disturbed(cluster, bystander):
    with bystander.cursor() as cursor:
        cursor.execute("SELECT 42")
        assert cursor.fetchone() == (42,)
    assert cluster.pooler_sql("SELECT 43") == [(43,)]


@pytest.mark.parametrize("packet", BEFORE_LOGIN.values(), ids=BEFORE_LOGIN.keys())
def test_before_login(cluster, bystander, packet):
    with socket.create_connection((HOST, cluster.pooler_port), PATIENCE_S) as raw:
        raw.sendall(packet)
        if packet in (b"", startup()[:20]):
            raw.shutdown(socket.SHUT_WR)
        said = read_until_closed(raw, LOGIN_TIMEOUT_S + PATIENCE_S)
    # Nothing, the answers to SSLRequest, or a complete ErrorResponse, and never a login.
    assert b"Z\0\0\0\5I" not in said
    said = said.lstrip(b"N")
    assert said == b"" or said[:1] == b"E"
    assert_nobody_is_disturbed(cluster, bystander)


@pytest.mark.parametrize("packet", AFTER_LOGIN.values(), ids=AFTER_LOGIN.keys())
def test_after_login(cluster, bystander, packet):
    with log_in(cluster) as raw:
        raw.sendall(packet)
        said = read_until_closed(raw, PATIENCE_S)
    assert said == b"" or said[:1] == b"E" and b"C08P01\0" in said
    assert_nobody_is_disturbed(cluster, bystander)


@pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_body(cluster, bystander, packet):
    """The frame is right, the body isn't: an error, after which the connection may be kept or closed."""
    with log_in(cluster) as raw:
        raw.sendall(packet)
        said = b""
        while b"ERROR" not in said and b"FATAL" not in said:
            part = raw.recv(65536)
            assert part, f"closed without an error; it said {said!r}"
            said += part
    assert_nobody_is_disturbed(cluster, bystander)


@pytest.mark.parametrize("sent", [1, 4, 5, 9])
def test_half_a_message_and_a_hang_up(cluster, bystander, sent):
    whole = message(b"Q", b"BEGIN; SELECT pg_sleep(0)\0")
    for _ in range(20):
        with log_in(cluster) as raw:
            raw.sendall(whole[:sent])
    wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc_pooler_clients") == 1, "the clients to be gone")
    assert cluster.masters[1].value("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == 0
    assert_nobody_is_disturbed(cluster, bystander)


def test_hang_up_in_the_middle_of_copy(cluster, bystander):
    cluster.pooler_sql("CREATE TABLE half_copied (t text)")
    with log_in(cluster) as raw:
        raw.sendall(message(b"Q", b"COPY half_copied FROM STDIN\0"))
        assert raw.recv(100)[:1] == b"G"
        raw.sendall(message(b"d", b"a row\n") + b"d\0\0")
    wait_for(lambda: cluster.masters[1].value(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'COPY half_copied%' AND state = 'active'"),
        "the COPY to end")
    assert cluster.masters[1].value("SELECT count(*) FROM half_copied") == 0
    assert_nobody_is_disturbed(cluster, bystander)


def test_a_copy_that_fails_in_the_middle_of_a_message(cluster, bystander):
    """The server waits for the rest of that message: nobody else's may be taken for it."""
    cluster.pooler_sql("CREATE TABLE numbers_only (i int)")
    with log_in(cluster) as raw:
        raw.sendall(message(b"Q", b"COPY numbers_only FROM STDIN\0"))
        assert raw.recv(100)[:1] == b"G"
        raw.sendall(message(b"d", b"no number\n") + message(b"d", b"1\n", 100000))
        said = read_until_ready(raw)
        assert b"C22P02\0" in said
        assert_nobody_is_disturbed(cluster, bystander)
        # The rest of it, and then the connection is as good as before.
        raw.sendall(b"1\n" * 49997 + message(b"c", b"") + message(b"Q", b"SELECT 44\0"))
        said = read_until_ready(raw)
        assert b"44" in said
    assert_nobody_is_disturbed(cluster, bystander)


@pytest.fixture
def patient_login(cluster):
    """More time to log in, for those who have to beside many; how many seconds."""
    seconds = 15
    cluster.coordinator.sql(f"ALTER SYSTEM SET authentication_timeout = '{seconds}s'")
    cluster.coordinator.reload()
    yield seconds
    cluster.coordinator.sql("ALTER SYSTEM RESET authentication_timeout")
    cluster.coordinator.reload()


def test_a_thousand_connections_that_say_nothing(cluster, bystander, patient_login):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((HOST, cluster.pooler_port), PATIENCE_S)) for _ in range(1000)]
        began = time.monotonic()
        for _ in range(10):
            assert_nobody_is_disturbed(cluster, bystander)
        assert time.monotonic() - began < PATIENCE_S
        end = time.monotonic() + patient_login + PATIENCE_S
        for connection in silent:
            read_until_closed(connection, max(0.1, end - time.monotonic()))
    assert_nobody_is_disturbed(cluster, bystander)


@pytest.mark.parametrize("name,value", [
    ("datanodes", "nonsense"), ("datanodes", "1=host"), ("datanodes", "0=h:1"), ("datanodes", "1=h:1, 1=h:2"),
    ("datanodes", "1=h:1, 2=h:1"), ("datanodes", "1=h:70000"), ("coordinators", "x=h:1"),
    ("read_routing", "sometimes"), ("promotion", "perhaps"), ("arbiter", "oracle"), ("arbiter", "etcd:"),
    ("probe_interval", "0"), ("probe_interval", "-1"), ("probe_timeout", "0"), ("probe_retries", "-1"),
    ("failover_hold", "-5s"), ("max_pool_size", "0"), ("sync_slaves", "-1"), ("max_read_lag", "-1"),
    ("node_conninfo", "sslmode"), ("failover", "maybe"), ("pooler_port", "65536"), ("node_id", "0"),
    ("no_such_setting", "1"),
])
def test_settings_with_nonsense(cluster, name, value):
    with pytest.raises(psycopg2.Error) as caught:
        cluster.coordinator.sql(f"ALTER SYSTEM SET pgxc.{name} = '{value}'")
    assert caught.value.pgcode in ("22023", "42704", "42602", "0A000")
    auto = (cluster.coordinator.data / "postgresql.auto.conf").read_text()
    assert f"pgxc.{name}" not in auto


def test_node_choice_with_nonsense(cluster):
    with pytest.raises(psycopg2.Error):
        cluster.coordinator.sql("SET pgxc.node = 'somewhere'")
