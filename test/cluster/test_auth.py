"""Logging in through the pooler: the same lines of pg_hba.conf, the same outcome as at the server itself."""

import contextlib
import os
import pwd
import time

import psycopg2
import pytest

import certificates
import login
import pgcluster
from pgcluster import HOST, wait_for

HBA = f"""
local   all          all                     trust
host    all          postgres   {HOST}/32    trust
hostssl all          tlsonly    {HOST}/32    scram-sha-256
hostssl all          certuser,othername {HOST}/32 cert
hostssl all          mapped     {HOST}/32    cert map=people
hostssl all          dnmapped   {HOST}/32    cert map=names clientname=DN
hostssl all          bothways       {HOST}/32    scram-sha-256 clientcert=verify-full
hostssl all          anycert    {HOST}/32    trust clientcert=verify-ca
hostnossl all        plainonly  {HOST}/32    trust
host    all          scrammer,expired,nopass,odd,nobody,nologin {HOST}/32 scram-sha-256
host    all          digest     {HOST}/32    md5
host    all          clear,cleardigest,clearexpired {HOST}/32 password
host    all          limited,truster  {HOST}/32 trust
host    all          +banned    {HOST}/32    reject
host    all          +staff     {HOST}/32    trust
host    sameuser     alone      {HOST}/32    trust
host    samerole     member     {HOST}/32    trust
host    "all"        quoted     {HOST}/32    trust
host    all          "+staff"   {HOST}/32    trust
host    all          masked     127.0.0.0    255.255.255.254 trust
host    all          elsewhere  10.0.0.0/8   trust
host    all          nearby     samenet      trust
host    all          here       samehost     trust
host    all          named      localhost    trust
host    all          othernamed db.invalid   trust
host    closed,none  truster2   {HOST}/32    trust
"""

IDENT = """
people  /^map_(.*)$           \\1
people  "with space"          mapped
names   "CN=dn person,O=tests"  dnmapped
boys    postgres              girl
boys    root                  girl
boys    /^(.*)$               is_\\1
"""


@pytest.fixture(scope="module")
def authority(workspace):
    made = certificates.Authority(workspace.path / "auth_certificates")
    made.issue("server", "the server")
    for file, name in {"certuser": "certuser", "map_mapped": "map_mapped", "dn": "dn person", "both": "bothways",
                       "space": "with space"}.items():
        made.issue(file, name)
    return made


@pytest.fixture(scope="module")
def cluster(workspace, authority):
    made = pgcluster.Cluster(workspace)
    made.make_datanode(1)
    made.make_coordinator(failover="off", **{
        ".ssl": "on", ".ssl_cert_file": authority.folder / "server.crt", ".ssl_key_file": authority.folder / "server.key",
        ".ssl_ca_file": authority.root, ".log_connections": "on"})
    made.wait_ready()
    for server in (made.coordinator, made.masters[1]):
        server.sql("""
            SET password_encryption = 'scram-sha-256';
            CREATE ROLE scrammer LOGIN PASSWORD 'p'; CREATE ROLE tlsonly LOGIN PASSWORD 'p';
            CREATE ROLE bothways LOGIN PASSWORD 'p'; CREATE ROLE odd LOGIN PASSWORD E'\\u00AAx';
            CREATE ROLE expired LOGIN PASSWORD 'p' VALID UNTIL '2001-01-01';
            CREATE ROLE clearexpired LOGIN PASSWORD 'p' VALID UNTIL '2001-01-01';
            CREATE ROLE nologin PASSWORD 'p'; CREATE ROLE clear LOGIN PASSWORD 'p';
            SET password_encryption = 'md5';
            CREATE ROLE digest LOGIN PASSWORD 'p'; CREATE ROLE cleardigest LOGIN PASSWORD 'p';
            CREATE ROLE nopass LOGIN; CREATE ROLE limited LOGIN CONNECTION LIMIT 0; CREATE ROLE certuser LOGIN;
            CREATE ROLE othername LOGIN; CREATE ROLE mapped LOGIN; CREATE ROLE dnmapped LOGIN; CREATE ROLE anycert LOGIN;
            CREATE ROLE plainonly LOGIN; CREATE ROLE truster LOGIN; CREATE ROLE truster2 LOGIN; CREATE ROLE banned;
            CREATE ROLE staff; CREATE ROLE worker LOGIN IN ROLE staff; CREATE ROLE thief LOGIN IN ROLE staff, banned;
            CREATE ROLE alone LOGIN; CREATE ROLE postgres2; CREATE ROLE member LOGIN; CREATE ROLE quoted LOGIN;
            CREATE ROLE masked LOGIN; CREATE ROLE elsewhere LOGIN; CREATE ROLE nearby LOGIN; CREATE ROLE here LOGIN;
            CREATE ROLE named LOGIN; CREATE ROLE othernamed LOGIN; CREATE ROLE girl LOGIN; CREATE ROLE is_postgres LOGIN;
            CREATE ROLE grp; GRANT grp TO member;
        """)
        for name in ("alone", "grp", "closed"):
            server.sql(f"CREATE DATABASE {name}")
        server.sql("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    set_files(made, HBA, IDENT)
    yield made
    made.destroy()


def set_files(cluster, hba, ident=None):
    """Writes the files and waits until both the server and the pooler have read them."""
    coordinator = cluster.coordinator
    (coordinator.data / "pg_hba.conf").write_text(hba)
    if ident is not None:
        (coordinator.data / "pg_ident.conf").write_text(ident)
    # A line that only this version of the file has, for whom nothing else lets in.
    mark = f"mark{time.monotonic_ns()}"
    for server in (coordinator, cluster.masters[1]):
        server.sql(f"CREATE ROLE {mark} LOGIN")
    (coordinator.data / "pg_hba.conf").write_text(hba + f"host all {mark} {HOST}/32 trust\n")
    coordinator.reload()
    for port in (coordinator.port, cluster.pooler_port):
        wait_for(lambda: login.outcome(**coordinator.dsn(port=port, user=mark))[0] == "ok", "pg_hba.conf to be read")


def both_ways(cluster, **options):
    direct = login.outcome(**cluster.coordinator.dsn(**options))
    pooled = login.outcome(**cluster.pooler_dsn(node="C", **options))
    return direct, pooled


CASES = [
    # user, options, outcome
    ("scrammer", {"password": "p"}, "ok"),
    ("scrammer", {"password": "q"}, "28P01"),
    ("scrammer", {"password": "p", "sslmode": "require", "channel_binding": "require"}, "ok"),
    ("scrammer", {"password": "q", "sslmode": "require"}, "28P01"),
    ("scrammer", {"password": "p", "dbname": "no_such"}, "3D000"),
    ("scrammer", {"password": "q", "dbname": "no_such"}, "28P01"),
    ("odd", {"password": "ax"}, "ok"),  # the same by SASLprep
    ("expired", {"password": "p"}, "28P01"),
    ("nopass", {"password": "p"}, "28P01"),
    ("nobody", {"password": "p"}, "28P01"),
    ("nologin", {"password": "p"}, "28000"),
    ("nologin", {"password": "q"}, "28P01"),
    ("digest", {"password": "p", "sslmode": "disable"}, "ok"),
    ("digest", {"password": "q", "sslmode": "disable"}, "28P01"),
    ("clear", {"password": "p"}, "ok"),
    ("clear", {"password": "q"}, "28P01"),
    ("cleardigest", {"password": "p"}, "ok"),
    ("cleardigest", {"password": "q"}, "28P01"),
    ("clearexpired", {"password": "p"}, "28P01"),
    ("limited", {}, "53300"),
    ("truster", {}, "ok"),
    ("truster", {"dbname": "closed"}, "42501"),
    ("truster", {"dbname": "no_such"}, "3D000"),
    ("truster2", {"dbname": "closed"}, "42501"),
    ("truster2", {}, "28000"),
    ("worker", {}, "ok"),
    ("thief", {}, "28000"),
    ("alone", {"dbname": "alone"}, "ok"),
    ("alone", {}, "28000"),
    ("member", {"dbname": "grp"}, "ok"),
    ("member", {}, "28000"),
    ("quoted", {}, "28000"),
    ("masked", {}, "ok"),
    ("elsewhere", {}, "28000"),
    ("nearby", {}, "ok"),
    ("here", {}, "ok"),
    ("named", {}, "ok"),
    ("othernamed", {}, "28000"),
    ("stranger", {}, "28000"),
    ("plainonly", {"sslmode": "disable"}, "ok"),
    ("plainonly", {"sslmode": "require"}, "28000"),
    ("tlsonly", {"password": "p", "sslmode": "disable"}, "28000"),
    ("tlsonly", {"password": "p", "sslmode": "require"}, "ok"),
    ("tlsonly", {"password": "p", "sslmode": "prefer", "channel_binding": "require"}, "ok"),
    ("certuser", {"sslmode": "disable"}, "28000"),
    ("certuser", {"sslmode": "require"}, "28000"),
    ("certuser", {"sslmode": "require", "cert": "certuser"}, "ok"),
    ("othername", {"sslmode": "require", "cert": "certuser"}, "28000"),
    ("mapped", {"sslmode": "require", "cert": "map_mapped"}, "ok"),
    ("mapped", {"sslmode": "require", "cert": "space"}, "ok"),
    ("mapped", {"sslmode": "require", "cert": "certuser"}, "28000"),
    ("dnmapped", {"sslmode": "require", "cert": "dn"}, "ok"),
    ("dnmapped", {"sslmode": "require", "cert": "certuser"}, "28000"),
    ("bothways", {"sslmode": "require", "cert": "both", "password": "p"}, "ok"),
    ("bothways", {"sslmode": "require", "cert": "both", "password": "q"}, "28P01"),
    ("bothways", {"sslmode": "require", "cert": "certuser", "password": "p"}, "28P01"),
    ("bothways", {"sslmode": "require", "password": "p"}, "28000"),
    ("anycert", {"sslmode": "require", "cert": "certuser"}, "ok"),
    ("anycert", {"sslmode": "require"}, "28000"),
]


@pytest.mark.parametrize("user, options, expected", CASES, ids=lambda value: str(value)[:40])
def test_same_outcome_as_at_the_server(cluster, authority, user, options, expected):
    options = dict(options)
    if "cert" in options:
        options |= authority.mine(options.pop("cert"))
    elif options.get("sslmode") == "require":
        options |= {"sslcert": "/nowhere", "sslkey": "/nowhere"}
    direct, pooled = both_ways(cluster, user=user, **options)
    assert direct[0] == expected
    assert pooled == direct


def test_a_method_that_the_pooler_has_not_is_refused_by_name(cluster):
    set_files(cluster, HBA + f"host all truster3 {HOST}/32 pam\n")
    try:
        state, message = login.outcome(**cluster.pooler_dsn(node="C", user="truster3"))
        assert state == "0A000"
        assert '"pam"' in message and "line" in message
    finally:
        set_files(cluster, HBA)


def test_a_broken_file_leaves_the_old_rules(cluster):
    hba = cluster.coordinator.data / "pg_hba.conf"
    good = hba.read_text()
    before = cluster.coordinator.log_text().count("goes on with the rules it had")
    try:
        hba.write_text("host all all nonsense\n")
        cluster.coordinator.reload()
        wait_for(lambda: cluster.coordinator.log_text().count("goes on with the rules it had") > before,
                 "the pooler to complain")
        assert login.outcome(**cluster.pooler_dsn(node="C", user="truster"))[0] == "ok"
    finally:
        hba.write_text(good)
        cluster.coordinator.reload()


# ---- peer

def test_peer_with_maps(cluster):
    """The client is the user who runs this test: root or somebody."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    set_files(cluster, HBA.replace("local ", "local all girl,truster,is_postgres peer map=boys\nlocal ", 1), IDENT)
    try:
        where = {"host": str(cluster.workspace.path), "port": cluster.pooler_port, "dbname": "postgres"}
        direct = {**where, "port": cluster.coordinator.port}
        for user in ("girl", "truster", "is_postgres"):
            at_server = login.outcome(**direct, user=user)
            # The datanode lets everybody in: what is measured is the pooler's own answer.
            assert login.outcome(**where, user=user, options="-c pgxc.node=1") == at_server
        assert login.outcome(**where, user="truster")[0] == "28000"
        if me in ("root", "postgres"):
            assert login.outcome(**where, user="girl", options="-c pgxc.node=1")[0] == "ok"
    finally:
        set_files(cluster, HBA)


# ---- what is told, and how late

def test_guessing_takes_longer_and_longer(cluster):
    def guess():
        begun = time.monotonic()
        assert login.outcome(**cluster.pooler_dsn(node="C", user="scrammer", password="wrong"))[0] == "28P01"
        return time.monotonic() - begun
    times = [guess() for _ in range(7)]
    assert times[-1] > 1.5
    # Nobody else waits, not even that user with the right password.
    def know():
        begun = time.monotonic()
        assert login.outcome(**cluster.pooler_dsn(node="C", user="scrammer", password="p"))[0] == "ok"
        return time.monotonic() - begun
    assert min(know() for _ in range(3)) < 1.5


def test_the_log_says_who_where_and_why(cluster):
    login.outcome(**cluster.pooler_dsn(node="C", user="expired", password="p"))
    log = cluster.coordinator.log_text()
    line = [one for one in log.splitlines() if "refused" in one and '"expired"' in one][-1]
    assert HOST in line and "expired password" in line and "pg_hba.conf line" in line
    login.outcome(**cluster.pooler_dsn(node="C", user="scrammer", password="p", sslmode="require",
                                       application_name="the_log_test"))
    log = cluster.coordinator.log_text()
    line = [one for one in log.splitlines() if "connection authorized" in one and "the_log_test" in one
            and "pooler" in one][-1]
    assert "user=scrammer" in line and "method=scram-sha-256" in line and "SSL enabled (protocol=TLSv1" in line


def test_connection_limit_of_a_role_counts_clients(cluster):
    cluster.coordinator.sql("ALTER ROLE truster CONNECTION LIMIT 2")
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(contextlib.closing(cluster.pooler(node=1, user="truster")))
            state, message = login.outcome(**cluster.pooler_dsn(node=1, user="truster"))
            assert (state, message) == ("53300", 'too many connections for role "truster"')
    finally:
        cluster.coordinator.sql("ALTER ROLE truster CONNECTION LIMIT -1")


# ---- pass-through

@pytest.fixture
def role(cluster, request):
    """A role that datanode 1 asks for SCRAM; no passfile knows it. Of its own for each test: the sessions of a dropped
    one live on, here as at the server."""
    node = cluster.masters[1]
    name = "p_" + request.node.name[-50:]
    hba = node.data / "pg_hba.conf"
    old = hba.read_text()
    cluster.coordinator.sql(f"SET password_encryption = 'scram-sha-256'; CREATE ROLE {name} LOGIN PASSWORD 'one'")
    node.sql(f"CREATE ROLE {name} LOGIN")
    copy_secret(cluster, name)
    hba.write_text(f"host all {name} {HOST}/32 scram-sha-256\n" + old)
    node.reload()
    wait_for(lambda: login.outcome(**node.dsn(user=name, password="wrong"))[0] == "28P01", "the node to ask")
    set_files(cluster, HBA + f"host all {name} {HOST}/32 scram-sha-256\n")
    yield name
    hba.write_text(old)
    node.reload()
    set_files(cluster, HBA)


def copy_secret(cluster, role):
    secret = cluster.coordinator.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,))
    cluster.masters[1].sql(f"ALTER ROLE {role} PASSWORD '{secret}'")


def pooled(cluster, role):
    return {pid for (pid,) in cluster.masters[1].sql("SELECT pid FROM pg_stat_activity WHERE usename = %s", (role,))}


def end_pooled(cluster, role):
    """Ends the node's sessions of that role; the pooler may open others."""
    ended = pooled(cluster, role)
    cluster.masters[1].sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,))
    wait_for(lambda: not ended & pooled(cluster, role), "the node's sessions of that role to end")


def test_scram_is_passed_through(cluster, role):
    assert cluster.pooler_sql("SELECT current_user, inet_server_port()", user=role, password="one") == [
        (role, cluster.masters[1].port)]
    # A new password on both: the old keys are of no use, the new ones are.
    cluster.coordinator.sql(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE {role} PASSWORD 'two'")
    end_pooled(cluster, role)
    # On the coordinator only: told clearly, and at once; at login where no other client's connection has told the
    # pooler what the node answers there, else with the first statement.
    with pytest.raises(psycopg2.OperationalError) as caught:
        cluster.pooler_sql("SELECT 1", user=role, password="two")
    assert "has another secret" in str(caught.value)
    copy_secret(cluster, role)
    assert cluster.pooler_sql("SELECT current_user", user=role, password="two") == [(role,)]
    assert login.outcome(**cluster.pooler_dsn(user=role, password="one"))[0] == "28P01"


def test_an_open_client_outlives_its_server_connection(cluster, role):
    with contextlib.closing(cluster.pooler(user=role, password="one")) as client, client.cursor() as cursor:
        cursor.execute("SELECT 1")
        before = pooled(cluster, role)
        end_pooled(cluster, role)
        cursor.execute("SELECT 2")
        assert cursor.fetchall() == [(2,)]
        assert pooled(cluster, role) and not before & pooled(cluster, role)


def test_without_scram_there_is_nothing_to_pass(cluster, role):
    set_files(cluster, HBA + f"host all {role} {HOST}/32 trust\n")
    end_pooled(cluster, role)
    with pytest.raises(psycopg2.Error) as caught:
        cluster.pooler_sql("SELECT 1", user=role)
    assert "which it doesn't know" in str(caught.value)
