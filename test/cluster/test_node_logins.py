"""What the pooler proves itself with at real servers: md5, password, scram-sha-256 by a password file, a client
certificate, and peer at its own coordinator."""

import getpass
import os
import shutil
from unittest import mock

import psycopg2
import pytest

import certificates
import login
import pgcluster
from pgcluster import HOST

#: Role: the secret's form at the node, the line of pg_hba.conf there, the password in the password file.
BY_PASSWORD = {
    "clear": ("scram-sha-256", "host all clear all password", "p"),
    "cleardigest": ("md5", "host all cleardigest all password", "p"),
    "digest": ("md5", "host all digest all md5", "p"),
    "digestscram": ("scram-sha-256", "host all digestscram all md5", "p"),
    "scrammer": ("scram-sha-256", "host all scrammer all scram-sha-256", "p"),
    "odd": ("scram-sha-256", "host all odd all scram-sha-256", r"a\:b\\c"),
    "clearwrong": ("scram-sha-256", "host all clearwrong all password", "wrong"),
    "digestwrong": ("md5", "host all digestwrong all md5", "wrong"),
    "scramwrong": ("scram-sha-256", "host all scramwrong all scram-sha-256", "wrong"),
    "clearnone": ("scram-sha-256", "host all clearnone all password", None),
    "digestnone": ("md5", "host all digestnone all md5", None),
    "scramnone": ("scram-sha-256", "host all scramnone all scram-sha-256", None),
}
BY_CERTIFICATE = {
    "theuser": "hostssl all theuser all cert",
    "mapped": "hostssl all mapped all cert map=nodes",
    "bothways": "hostssl all bothways all scram-sha-256 clientcert=verify-ca",
    "another": "hostssl all another all cert",
}


def system_user():
    return "postgres" if pgcluster.running_as_root() else getpass.getuser()


@pytest.fixture(scope="module")
def authority(workspace):
    made = certificates.Authority(workspace.path / "login_certificates")
    made.issue("server", "a node")
    made.issue("pooler", "theuser")
    return made


@pytest.fixture(scope="module")
def cluster(workspace, authority):
    made = pgcluster.Cluster(workspace)
    node = made.server("datanode1").init("datanode1", {
        "ssl": "on", "ssl_cert_file": authority.folder / "server.crt", "ssl_key_file": authority.folder / "server.key",
        "ssl_ca_file": authority.root})
    made.masters[1] = node
    lines = [line for _, line, _ in BY_PASSWORD.values()] + list(BY_CERTIFICATE.values())
    (node.data / "pg_hba.conf").write_text("\n".join([*lines, "local all postgres trust", f"host all postgres {HOST}/32 trust"])
                                           + "\n")
    (node.data / "pg_ident.conf").write_text("nodes theuser mapped\n")
    node.start()
    passfile = workspace.path / "login_passfile"
    known = {name: password for name, (_, _, password) in BY_PASSWORD.items()} | {"bothways": "p"}
    passfile.write_text("".join(f"{HOST}:{node.port}:postgres:{name}:{password}\n"
                                for name, password in known.items() if password is not None))
    os.chmod(passfile, 0o600)
    if pgcluster.running_as_root():
        shutil.chown(passfile, "postgres", "postgres")
    with mock.patch.object(pgcluster, "PASSED_ON", (*pgcluster.PASSED_ON, "PGPASSFILE")), \
            mock.patch.dict(os.environ, PGPASSFILE=str(passfile)):
        made.make_coordinator(failover="off", node_conninfo="sslmode=require "
                              f"sslcert={authority.folder}/pooler.crt sslkey={authority.folder}/pooler.key")
    made.wait_ready()
    for server in (node, made.coordinator):
        for name, (form, _, _) in BY_PASSWORD.items():
            secret = "a:b\\c" if name == "odd" else "p"
            server.sql(f"SET password_encryption = '{form}'; CREATE ROLE {name} LOGIN PASSWORD '{secret}'")
        for name in BY_CERTIFICATE:
            server.sql(f"SET password_encryption = 'scram-sha-256'; CREATE ROLE {name} LOGIN PASSWORD 'p'")
    yield made
    made.destroy()


@pytest.mark.parametrize("role", [*BY_PASSWORD, *BY_CERTIFICATE])
def test_at_a_datanode(cluster, role):
    """Clients are trusted here, so nothing but the files of the pooler can open the node."""
    if role.endswith("wrong"):
        state, message = login.outcome(**cluster.pooler_dsn(user=role))
        assert (state, "password authentication failed" in message or "has another secret" in message) == ("28P01", True)
    elif role.endswith("none"):
        state, message = login.outcome(**cluster.pooler_dsn(user=role))
        assert state == "28P01"
        assert "which it doesn't know" in message
    elif role == "another":
        state, message = login.outcome(**cluster.pooler_dsn(user=role))
        assert state == "28000"
        assert "certificate authentication failed" in message
    else:
        assert cluster.pooler_sql("SELECT current_user, inet_server_port(), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
                                  user=role) == [(role, cluster.masters[1].port, True)]


@pytest.fixture
def by_peer(cluster):
    """The coordinator's local lines ask who the operating system says it is."""
    hba, ident = cluster.coordinator.data / "pg_hba.conf", cluster.coordinator.data / "pg_ident.conf"
    before = hba.read_text(), ident.read_text()
    user = system_user()
    made = {user, "friend", "stranger"}
    for name in made - {"postgres"}:
        cluster.coordinator.sql(f"CREATE ROLE {name} LOGIN")
    ident.write_text(f"friends {user} friend\n")
    hba.write_text("local all friend peer map=friends\nlocal all all peer\nhost all all all trust\n")
    cluster.coordinator.reload()
    yield user
    hba.write_text(before[0])
    ident.write_text(before[1])
    cluster.coordinator.reload()
    pgcluster.wait_for(lambda: login.outcome(**cluster.pooler_dsn(node="C", user="theuser"))[0] == "ok", "the old lines")
    for name in made - {"postgres"}:
        cluster.coordinator.sql(f"DROP ROLE {name}")


def test_peer_at_its_own_coordinator(cluster, by_peer):
    def refused():
        return login.outcome(**cluster.pooler_dsn(node="C", user="stranger"))
    pgcluster.wait_for(lambda: refused()[0] == "28000", "the lines of pg_hba.conf")
    assert "Peer authentication failed" in refused()[1]
    for name in (by_peer, "friend"):
        assert cluster.pooler_sql("SELECT current_user, inet_client_addr()", node="C", user=name) == [(name, None)]
    with pytest.raises(psycopg2.OperationalError, match="Peer authentication failed"):
        cluster.pooler(node="C", user="stranger")
