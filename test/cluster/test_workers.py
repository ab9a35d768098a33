"""The library in the server: what is refused at start and when set, where it must not be in the way, and that the
pooler reads pg_hba.conf as the server itself does."""

import contextlib
import os
import signal

import psycopg2
import pytest

from pgcluster import Cluster, HOST, wait_for


@pytest.fixture
def coordinator(bare_cluster):
    bare_cluster.make_coordinator()
    return bare_cluster.coordinator


@pytest.fixture(scope="module")
def lasting_coordinator(workspace):
    """One for all tests that leave it as it was."""
    cluster = Cluster(workspace)
    cluster.make_coordinator()
    yield cluster.coordinator
    cluster.destroy()


def worker_pids(server):
    return {kind: pid for pid, kind in server.sql("SELECT pid, backend_type FROM pg_stat_activity "
                                                  "WHERE backend_type LIKE 'pgxc_ha %'")}


def wait_workers(server):
    return wait_for(lambda: (found := worker_pids(server)) and len(found) == 2 and found, "both workers")


@pytest.mark.parametrize("setting, complaint", [
    ("max_worker_processes = 1", "no room for background worker"),
    ("pgxc.pooler_port = {port}", "pgxc.pooler_port and port are both"),
])
def test_start_is_refused(coordinator, setting, complaint):
    coordinator.stop()
    with open(coordinator.conf_file, "a", encoding="utf-8") as conf:
        conf.write(setting.format(port=coordinator.port) + "\n")
    assert coordinator.start(check=False).returncode != 0
    assert complaint in coordinator.log_text()
    # pg_rewind runs a single-user server: that must start whatever is set for the postmaster.
    coordinator.workspace.run("postgres", "--single", "-D", coordinator.data, "postgres")


@pytest.mark.parametrize("name, value, complaint", [
    ("datanodes", "1=localhost", "the port is missing"),
    ("datanodes", "1=a:1, 1=b:1", "the node id comes twice"),
    ("coordinators", "0=a:1", "the node id must be a number"),
    ("arbiter", "etcd:http://127.0.0.1:2379", "not supported"),
    ("arbiter", "zookeeper", "An arbiter is 'local'"),
    ("node_conninfo", "host=elsewhere", "is set by the coordinator itself"),
    ("node_conninfo", "sslmode='require", "quoted value is not closed"),
    ("node_user", "", "A name is needed"),
    ("promotion", "never", "auto, promote, restart"),
    ("read_routing", "sometimes", "master, explicit, auto"),
    ("probe_interval", "1ms", "outside the valid range"),
    ("pooler_port", "70000", "outside the valid range"),
    ("node", "-1", "Give the id of a datanode"),
])
def test_nonsense_is_refused_when_set(lasting_coordinator, name, value, complaint):
    before = lasting_coordinator.value(f"SHOW pgxc.{name}")
    with pytest.raises(psycopg2.Error) as refused:
        lasting_coordinator.sql(f"ALTER SYSTEM SET pgxc.{name} = %s", (value,))
    refused = refused.value
    assert complaint in " ".join(filter(None, [str(refused), refused.diag.message_detail, refused.diag.message_hint]))
    assert lasting_coordinator.value(f"SHOW pgxc.{name}") == before


def test_connection_options_of_the_pooler_do_no_harm_in_a_direct_connection(lasting_coordinator):
    assert lasting_coordinator.value("SHOW pgxc.node", options="-c pgxc.node=7 -c pgxc.read_routing=master") == "7"
    with pytest.raises(psycopg2.OperationalError, match="pgxc.noode"):
        lasting_coordinator.connect(options="-c pgxc.noode=7")


def test_not_preloaded(coordinator):
    coordinator.configure({"shared_preload_libraries": ""})
    coordinator.restart()
    assert worker_pids(coordinator) == {}
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState) as refused:
        coordinator.sql("SELECT * FROM pgxc_pools")
    assert "shared_preload_libraries" in refused.value.diag.message_hint


def test_killed_worker_restarts_the_server_and_comes_back(coordinator):
    for kind in ("pgxc_ha pooler", "pgxc_ha monitor"):
        before = wait_workers(coordinator)
        os.kill(before[kind], signal.SIGKILL)
        wait_for(lambda: len(now := worker_pids(coordinator)) == 2 and now[kind] != before[kind], f"a new {kind}")


def test_terminated_worker_comes_back_alone(coordinator):
    session = coordinator.connect()
    with contextlib.closing(session), session.cursor() as cursor:
        for kind in ("pgxc_ha pooler", "pgxc_ha monitor"):
            before = wait_workers(coordinator)
            cursor.execute("SELECT pg_terminate_backend(%s)", (before[kind],))
            wait_for(lambda: len(now := worker_pids(coordinator)) == 2 and now[kind] != before[kind], f"a new {kind}")
        cursor.execute("SELECT 1")  # no other session was disturbed


def test_database_of_the_monitor_can_be_renamed_and_dropped(bare_cluster):
    cluster = bare_cluster
    cluster.make_coordinator(extension=False, database="ha")
    server = cluster.coordinator
    server.sql("CREATE DATABASE ha")
    attached = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'ha' AND backend_type = 'pgxc_ha monitor'"
    for command in ("ALTER DATABASE ha RENAME TO other", "DROP DATABASE other"):
        if "RENAME" in command:
            wait_for(lambda: server.value(attached) == 1, "the monitor in its database")
        # The server itself gives up after 5 s if the monitor stays, or can't go in time on a busy machine.
        wait_for(lambda: server.sql_unless_in_use(command), command)
    server.sql("CREATE DATABASE ha")
    wait_for(lambda: server.value(attached) == 1, "the monitor in its new database")
    # Somebody who may not drop it doesn't disturb the monitor by trying.
    pid = worker_pids(server)["pgxc_ha monitor"]
    server.sql("CREATE ROLE nobody_special LOGIN")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        server.sql("DROP DATABASE ha", user="nobody_special")
    assert worker_pids(server)["pgxc_ha monitor"] == pid


HBA = """\
local   all              postgres                       trust
host    all              postgres     127.0.0.1/32      trust
local   all              old,no_login                   scram-sha-256
local   all              +boss                          md5
host    all              +boss        127.0.0.1/32      reject
host    sameuser         all          127.0.0.1/32      trust
host    "all"            all          127.0.0.1/32      trust
host    samerole         app          127.0.0.1/32      trust
hostssl all              all          all               trust
host    all              app          samehost          scram-sha-256
"""


def test_pg_hba_is_read_as_the_server_reads_it(bare_cluster):
    cluster = bare_cluster
    cluster.make_coordinator()
    server = cluster.coordinator
    for statement in ("CREATE ROLE boss", "CREATE ROLE app LOGIN PASSWORD 'secret'",
                      "CREATE ROLE clerk LOGIN PASSWORD 'secret' IN ROLE boss",
                      "CREATE ROLE old LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01'",
                      "CREATE ROLE no_login PASSWORD 'secret'", "CREATE DATABASE app", 'CREATE DATABASE "all"'):
        server.sql(statement)
    (server.data / "pg_hba.conf").write_text(HBA)
    server.reload()
    socket_directory = str(server.workspace.path)

    def verdict(port, host, user, database, password):
        options = {"host": host, "port": port, "user": user, "dbname": database, "password": password}
        try:
            with contextlib.closing(psycopg2.connect(
                    **options, options="-c pgxc.node=C" if port == cluster.pooler_port else None)) as connection:
                return connection.get_parameter_status("server_version") is not None
        except psycopg2.OperationalError as error:
            # Where it failed and the words for it, but not the port.
            return str(error).split("failed: ", 1)[1].strip()

    wait_for(lambda: verdict(cluster.pooler_port, socket_directory, "app", "postgres", "secret") is not True,
             "the pooler's new rules")
    seen = set()
    for host in (HOST, socket_directory):
        for user in ("postgres", "app", "clerk", "old", "no_login", "stranger"):
            # Where the server itself would ask a client of the pooler for a password again (its rules for local
            # sessions are stricter here), the verdicts can't be compared: databases are those that stay clear of it.
            for database in ("postgres", "all") if user != "app" or host != HOST else ("postgres",):
                for password in ("secret", "wrong"):
                    direct = verdict(server.port, host, user, database, password)
                    pooled = verdict(cluster.pooler_port, host, user, database, password)
                    if direct is True and "asks the pooler for the password" in str(pooled):
                        continue
                    if "no pg_hba.conf entry for host \"[local]\"" in str(pooled) and direct is True:
                        continue
                    assert pooled == direct, (host, user, database, password)
                    seen.add(pooled if pooled is True else pooled.split(":", 1)[1].split("\"", 1)[0])
    assert len(seen) >= 4, seen  # let in, rejected, no entry, wrong password

    # One bad line: everything stays as it was.
    (server.data / "pg_hba.conf").write_text("host all all nonsense\n" + HBA)
    server.reload()
    wait_for(lambda: "goes on with the rules it had" in server.log_text(), "the pooler's complaint")
    assert verdict(cluster.pooler_port, HOST, "postgres", "postgres", None) is True


def test_details_of_other_roles_clients_are_hidden(bare_cluster):
    cluster = bare_cluster
    cluster.make_coordinator()
    server = cluster.coordinator
    server.sql("CREATE ROLE plain LOGIN")
    with contextlib.closing(cluster.pooler(node="C")) as client:
        client.cursor().execute("SELECT 1")
        query = "SELECT user_name, state IS NULL, application_name FROM pgxc_pooler_clients"
        wait_for(lambda: ("postgres", False, "pgxc_test") in server.sql(query), "the row of the client")
        assert ("postgres", True, "<insufficient privilege>") in server.sql(query, user="plain")
        server.sql("GRANT pg_read_all_stats TO plain")
        assert ("postgres", False, "pgxc_test") in server.sql(query, user="plain")
