"""TLS towards clients and towards nodes."""

import contextlib
import io
import os
import shutil
import struct
import threading
import time

import psycopg2
import pytest

import certificates
import login
import pgcluster
from pgcluster import HOST, wait_for


@pytest.fixture(scope="module")
def authority(workspace):
    made = certificates.Authority(workspace.path / "tls_certificates")
    made.issue("server", "the server")
    made.issue("second", "the server again")
    made.issue("node", "a node")
    return made


def install(authority, name, server):
    for end in ("crt", "key"):
        target = server.data / f"server.{end}"
        shutil.copyfile(authority.folder / f"{name}.{end}", target)
        os.chmod(target, 0o600)
        if pgcluster.running_as_root():
            shutil.chown(target, "postgres", "postgres")


@pytest.fixture(scope="module")
def cluster(workspace, authority):
    made = pgcluster.Cluster(workspace)
    node = made.server("datanode1").init("datanode1", {"ssl": "on"})
    made.masters[1] = node
    install(authority, "node", node)
    node.start()
    made.make_coordinator(failover="off", node_conninfo=f"sslmode=verify-full sslrootcert={authority.root}",
                          **{".ssl": "off", ".authentication_timeout": "10s"})
    install(authority, "server", made.coordinator)
    made.coordinator.sql("ALTER SYSTEM SET ssl = on")
    made.coordinator.reload()
    wait_for(lambda: login.outcome(**made.pooler_dsn(sslmode="require"))[0] == "ok", "ssl to be on")
    made.wait_ready()
    yield made
    made.destroy()


def verified(authority, **more):
    return {"host": "localhost", "hostaddr": HOST, "sslmode": "verify-full", "sslrootcert": str(authority.root), **more}


# ---- towards clients

@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer", "require"])
def test_modes(cluster, sslmode):
    with contextlib.closing(cluster.pooler(sslmode=sslmode)) as client:
        assert client.info.ssl_in_use == (sslmode in ("prefer", "require"))


def test_verify_full(cluster, authority):
    with contextlib.closing(cluster.pooler(**verified(authority))) as client:
        assert client.info.ssl_in_use
    other = certificates.Authority(cluster.workspace.path / "other_authority", "another")
    with pytest.raises(psycopg2.OperationalError):
        cluster.pooler(**verified(authority, sslrootcert=str(other.root)))


def test_large_results_and_copies(cluster):
    with contextlib.closing(cluster.pooler(sslmode="require")) as client, client.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 50000000)")
        assert len(cursor.fetchone()[0]) == 50000000
        cursor.execute("CREATE TABLE copied (i int, t text)")
        rows = "".join(f"{i}\t{'y' * (i % 500)}\n" for i in range(50000))
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO(rows))
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM copied ORDER BY i) TO STDOUT", out)
        assert out.getvalue() == rows
        cursor.execute("DROP TABLE copied")


def test_many_clients_at_once(cluster):
    failures = []

    def work(number):
        try:
            with contextlib.closing(cluster.pooler(sslmode="require")) as client, client.cursor() as cursor:
                for i in range(50):
                    cursor.execute("SELECT %s::int", (number * 1000 + i,))
                    assert cursor.fetchone() == (number * 1000 + i,)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_certificates_are_reloaded(cluster, authority):
    first = login.certificate_at(HOST, cluster.pooler_port)
    with contextlib.closing(cluster.pooler(sslmode="require")) as old, old.cursor() as cursor:
        install(authority, "second", cluster.coordinator)
        cluster.coordinator.reload()
        second = wait_for(lambda: (now := login.certificate_at(HOST, cluster.pooler_port)) != first and now,
                          "the new certificate")
        # Who is connected stays so.
        cursor.execute("SELECT 1")
        # A broken one is not taken.
        before = cluster.coordinator.log_text().count("the old one stays in force")
        (cluster.coordinator.data / "server.crt").write_text("no certificate")
        cluster.coordinator.reload()
        wait_for(lambda: cluster.coordinator.log_text().count("the old one stays in force") > before, "the complaint")
        assert login.certificate_at(HOST, cluster.pooler_port) == second
        cursor.execute("SELECT 2")
    install(authority, "server", cluster.coordinator)
    cluster.coordinator.reload()
    wait_for(lambda: login.certificate_at(HOST, cluster.pooler_port) == first, "the first certificate")


def test_cancel_over_tls(cluster):
    with login.over_tls(HOST, cluster.pooler_port) as client:
        client.sendall(login.startup("postgres", "postgres", options="-c pgxc.node=1"))
        key = dict(login.messages_until_ready(client))[b"K"]
        query = b"SELECT pg_sleep(60)\0"
        client.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
        wait_for(lambda: cluster.masters[1].value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)' "
                                                  "AND state = 'active' AND pid <> pg_backend_pid()"), "the query to run")
        with login.over_tls(HOST, cluster.pooler_port) as canceller:
            canceller.sendall(struct.pack("!II", 16, 80877102) + key)
            assert canceller.recv(1) == b""
        answers = login.messages_until_ready(client)
        assert any(kind == b"E" and b"57014" in body for kind, body in answers)


# ---- clients that don't behave

@contextlib.contextmanager
def unharmed(cluster):
    """Another client goes on meanwhile."""
    pid = cluster.coordinator.child_pid("pgxc", "pooler")
    with contextlib.closing(cluster.pooler(sslmode="require")) as client, client.cursor() as cursor:
        cursor.execute("SELECT 1")
        yield
        cursor.execute("SELECT 2")
        assert cursor.fetchall() == [(2,)]
    assert cluster.coordinator.child_pid("pgxc", "pooler") == pid


def ended(connection):
    """Reads to the end; what came."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while more := connection.recv(4096):
            received += more
    return received


def test_garbage_in_place_of_a_handshake(cluster):
    with unharmed(cluster), login.ask_for_tls(HOST, cluster.pooler_port) as bad:
        bad.sendall(b"GET / HTTP/1.0\r\n\r\n" * 10)
        ended(bad)
    wait_for(lambda: "could not accept SSL connection" in cluster.coordinator.log_text(), "the log line")


def test_half_a_handshake_ends_with_the_timeout(cluster):
    begun = time.monotonic()
    with unharmed(cluster), login.ask_for_tls(HOST, cluster.pooler_port) as bad:
        bad.sendall(b"\x16\x03\x01\x02\x00\x01")
        ended(bad)
        assert time.monotonic() - begun > 1


def test_plain_bytes_behind_the_request_are_refused(cluster):
    with unharmed(cluster):
        for behind in (login.startup("postgres", "postgres"), b"\x16\x03\x01\x02\x00\x01"):
            with contextlib.closing(pgcluster.socket.create_connection((HOST, cluster.pooler_port), timeout=60)) as bad:
                bad.sendall(login.SSL_REQUEST + behind)
                # Not one byte of an answer that believes them.
                assert ended(bad) in (b"", b"S")
        wait_for(lambda: "received unencrypted data after SSL request" in cluster.coordinator.log_text(), "the log line")


def test_plain_startup_where_tls_was_agreed(cluster):
    with unharmed(cluster), login.ask_for_tls(HOST, cluster.pooler_port) as bad:
        bad.sendall(login.startup("postgres", "postgres"))
        assert b"R\0\0\0\x08" not in ended(bad)


def test_a_second_request_within_tls_is_not_our_protocol(cluster):
    with unharmed(cluster), login.over_tls(HOST, cluster.pooler_port) as bad:
        bad.sendall(login.SSL_REQUEST)
        assert ended(bad) == b""


# ---- towards nodes

def session_of(cluster, **options):
    return cluster.pooler_sql("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", **options)


def set_node_conninfo(cluster, text):
    """Sets it, and waits until new server connections are made by it."""
    cluster.coordinator.sql(f"ALTER SYSTEM SET pgxc.node_conninfo = '{text}'")
    cluster.coordinator.reload()


def fresh(cluster, name):
    """A role whose pool is empty."""
    for server in (cluster.coordinator, cluster.masters[1]):
        server.sql(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN")
    return name


def test_a_verified_node(cluster):
    ssl, version = session_of(cluster)[0]
    assert ssl and version.startswith("TLSv1")


def test_cancel_reaches_a_node_over_tls(cluster):
    node = cluster.masters[1]
    with contextlib.closing(cluster.pooler()) as client, client.cursor() as cursor:
        timer = threading.Timer(0, lambda: (wait_for(
            lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(61)' AND "
                               "state = 'active' AND pid <> pg_backend_pid()"), "the query"), client.cancel()))
        timer.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("SELECT pg_sleep(61)")
        timer.join()


def test_a_node_whose_certificate_is_for_another_host(cluster, authority):
    node = cluster.masters[1]
    authority.issue("elsewhere", "elsewhere", names="DNS:elsewhere.invalid")
    install(authority, "elsewhere", node)
    node.reload()
    try:
        wait_for(lambda: b"elsewhere" in login.certificate_at(HOST, node.port), "the node's new certificate")
        state, message = login.outcome(**cluster.pooler_dsn(user=fresh(cluster, "mistaken")))
        assert state == "08006"
        assert "does not match host name" in message
    finally:
        install(authority, "node", node)
        node.reload()
        wait_for(lambda: b"a node" in login.certificate_at(HOST, node.port), "the node's own certificate")


@pytest.mark.parametrize("sslmode, line, encrypted", [
    ("prefer", "host", True), ("allow", "host", False), ("disable", "host", False), ("require", "host", True),
    # The node's pg_hba.conf has the last word where both would do.
    ("prefer", "hostnossl", False), ("allow", "hostssl", True)])
def test_node_modes(cluster, sslmode, line, encrypted):
    node = cluster.masters[1]
    user = fresh(cluster, f"mode_{sslmode}_{line}")
    hba = node.data / "pg_hba.conf"
    old = hba.read_text()
    hba.write_text(f"{line} all {user} {HOST}/32 trust\nhost all {user} {HOST}/32 reject\n" + old)
    node.reload()
    before = cluster.coordinator.value("SHOW pgxc.node_conninfo")
    set_node_conninfo(cluster, f"sslmode={sslmode}")
    try:
        def as_wanted():
            try:
                found = session_of(cluster, user=user)[0][0]
            except psycopg2.Error:
                return False
            if found != encrypted:
                # Made by the old setting: it goes, and the next one is made by the new one.
                node.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (user,))
            return found == encrypted
        wait_for(as_wanted, f"a connection by sslmode={sslmode}")
    finally:
        set_node_conninfo(cluster, before)
        hba.write_text(old)
        node.reload()


def test_scram_with_channel_binding_towards_a_node(cluster):
    node = cluster.masters[1]
    cluster.coordinator.sql("SET password_encryption = 'scram-sha-256'; CREATE ROLE bound LOGIN PASSWORD 'p'")
    secret = cluster.coordinator.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'bound'")
    node.sql(f"CREATE ROLE bound LOGIN PASSWORD '{secret}'")
    for server in (cluster.coordinator, node):
        hba = server.data / "pg_hba.conf"
        hba.write_text(f"hostssl all bound {HOST}/32 scram-sha-256\n" + hba.read_text())
        server.reload()
    before = cluster.coordinator.value("SHOW pgxc.node_conninfo")
    wait_for(lambda: login.outcome(**cluster.pooler_dsn(user="bound", password="wrong"))[0] == "28P01", "the reload")
    set_node_conninfo(cluster, before + " channel_binding=prefer")
    assert wait_for(lambda: session_of(cluster, user="bound", password="p", sslmode="require",
                                       channel_binding="require")[0][0], "a bound session")
    set_node_conninfo(cluster, before)
