"""REGISTER and its family, against real nodes (issue of each: what it checks, what it leaves behind)."""

import threading

import psycopg2
import pytest

import pgcluster
from pgcluster import HOST, wait_for


@pytest.fixture(scope="module")
def cluster(workspace):
    """Masters 1 and 2; unregistered: 3 (slave of 1), 4 (slave of 3), 5 (slave of 2)."""
    made = pgcluster.standard_cluster(workspace, datanodes=2, slaves=0, **pgcluster.UNHURRIED)
    made.make_slave(3, 1)
    made.make_slave(4, 3)
    made.make_slave(5, 2)
    yield made
    made.destroy()


@pytest.fixture(autouse=True)
def only_masters_after(cluster):
    yield
    while True:
        leaves = cluster.coordinator.sql(
            "SELECT node_id FROM pgxc_nodes AS n WHERE node_type = 'D' AND node_master_id <> 0 AND NOT EXISTS "
            "(SELECT FROM pgxc_nodes AS s WHERE s.node_type = 'D' AND s.node_master_id = n.node_id)")
        if not leaves:
            break
        for (node_id,) in leaves:
            cluster.coordinator.sql(f"DROP DATANODE SLAVE {node_id}")


def slave_row(cluster, node_id):
    return next((row for row in cluster.nodes() if row[0] == "D" and row[1] == node_id and row[4] != 0), None)


def refused(cluster, statement, **options):
    """Runs a statement that must fail and must leave the catalog alone; returns the error's diagnostics."""
    before = cluster.nodes()
    with pytest.raises(psycopg2.Error) as caught:
        cluster.coordinator.sql(statement, **options)
    assert cluster.nodes() == before
    return caught.value.diag


def test_extension_enters_the_masters(cluster):
    assert cluster.nodes() == [
        ("C", 1, HOST, cluster.coordinator.port, 0, None),
        ("D", 1, HOST, cluster.masters[1].port, 0, None),
        ("D", 2, HOST, cluster.masters[2].port, 0, None),
    ]


def test_register_without_replication_asks_the_master(cluster):
    cluster.register(3, 1)
    assert slave_row(cluster, 3) == ("D", 3, HOST, cluster.slaves[3].port, 1, "a")


def test_register_synchronous_does_it_on_both_servers(cluster):
    master, slave = cluster.masters[1], cluster.slaves[3]
    assert master.value("SHOW synchronous_standby_names") == ""
    cluster.register(3, 1, "SYNCHRONOUS")
    assert slave_row(cluster, 3)[5] == "s"
    name, state = wait_for(lambda: next(iter(master.sql(
        "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming' "
        "AND sync_state IN ('sync', 'quorum')")), None), "the slave to be synchronous")
    assert name.startswith("pgxc_d_3_e")
    assert name in master.value("SHOW synchronous_standby_names")
    assert name in slave.value("SHOW primary_conninfo")
    slot = slave.value("SHOW primary_slot_name")
    assert slot and master.value("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (slot,))
    assert slave.value("SHOW wal_retrieve_retry_interval") == "100ms"
    # What the slave would do if somebody else promoted it: acknowledge nothing.
    assert "pgxc_nobody" in slave.value("SHOW synchronous_standby_names")


def test_commits_wait_for_the_synchronous_slave(cluster):
    """With sync_degrade off: a commit that the slave doesn't confirm is not acknowledged until it does."""
    cluster.coordinator.sql("ALTER SYSTEM SET pgxc.sync_degrade = off")
    cluster.coordinator.reload()
    cluster.register(3, 1, "SYNCHRONOUS")
    wait_for(lambda: cluster.masters[1].value(
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"), "a synchronous slave")
    acknowledged = threading.Event()

    def write():
        cluster.masters[1].sql("INSERT INTO load VALUES (0, 0)")
        acknowledged.set()
    writer = threading.Thread(target=write)
    cluster.slaves[3].freeze()
    try:
        writer.start()
        wait_for(lambda: cluster.masters[1].value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'"),
            "the commit to wait for the slave")
        assert not acknowledged.is_set()
    finally:
        cluster.slaves[3].thaw()
        cluster.coordinator.sql("ALTER SYSTEM RESET pgxc.sync_degrade")
        cluster.coordinator.reload()
    writer.join(pgcluster.PATIENCE_S)
    assert acknowledged.is_set()


def test_replication_to(cluster):
    cluster.register(3, 1, "ASYNCHRONOUS")
    assert slave_row(cluster, 3)[5] == "a"
    cluster.coordinator.sql("ALTER DATANODE SLAVE 3 REPLICATION TO SYNCHRONOUS")
    assert slave_row(cluster, 3)[5] == "s"
    wait_for(lambda: cluster.masters[1].value(
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"), "a synchronous slave")
    cluster.coordinator.sql("ALTER DATANODE SLAVE 3 REPLICATION TO ASYNCHRONOUS")
    assert slave_row(cluster, 3)[5] == "a"
    wait_for(lambda: cluster.masters[1].value(
        "SELECT count(*) = 0 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"), "no synchronous slave")


def test_id_to(cluster):
    cluster.register(3, 1)
    cluster.coordinator.sql("ALTER DATANODE SLAVE 3 ID TO 33")
    assert slave_row(cluster, 3) is None
    assert slave_row(cluster, 33) == ("D", 33, HOST, cluster.slaves[3].port, 1, "a")


def test_cascading_slave_and_on_master(cluster):
    cluster.register(3, 1)
    upstream_wrong = refused(cluster, "REGISTER DATANODE SLAVE IDENTIFIED BY ID 4 "
                                      f"WITH CONNECTION ('{cluster.slaves[4].address}') ON MASTER 1")
    assert upstream_wrong.message_hint
    cluster.register(4, 3)
    assert slave_row(cluster, 4)[4] == 3
    assert refused(cluster, "ALTER DATANODE SLAVE 4 REPLICATION TO SYNCHRONOUS").sqlstate == "0A000"
    assert refused(cluster, "DROP DATANODE SLAVE 3").sqlstate == "2BP01"
    cluster.coordinator.sql("ALTER DATANODE SLAVE 4 ON MASTER 1")
    assert slave_row(cluster, 4)[4] == 1
    wait_for(lambda: cluster.slaves[4].value(
        "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'") == cluster.masters[1].port,
        "slave 4 to stream from master 1")


@pytest.mark.parametrize("verb", ["DROP", "UNREGISTER"])
def test_drop(cluster, verb):
    cluster.register(3, 1, "SYNCHRONOUS")
    cluster.coordinator.sql(f"{verb} DATANODE SLAVE 3")
    assert slave_row(cluster, 3) is None
    wait_for(lambda: cluster.masters[1].value("SHOW synchronous_standby_names") == "", "commits not to wait any more")


def test_primary_and_standby_are_the_same_words(cluster):
    cluster.coordinator.sql("REGISTER DATANODE STANDBY IDENTIFIED BY ID 3 "
                            f"WITH CONNECTION ('{cluster.slaves[3].address}') ON PRIMARY 1")
    cluster.coordinator.sql("DROP DATANODE STANDBY 3")


def test_create_is_the_later_spelling(cluster):
    cluster.coordinator.sql("CREATE DATANODE SLAVE IDENTIFIED BY ID 3 "
                            f"WITH CONNECTION ('{cluster.slaves[3].address}') ON MASTER 1")
    assert slave_row(cluster, 3)


def test_unreachable_node(cluster, workspace):
    port = workspace.free_port()
    statement = f"REGISTER DATANODE SLAVE IDENTIFIED BY ID 9 WITH CONNECTION ('{HOST}:{port}') ON MASTER 1"
    error = refused(cluster, statement)
    assert error.sqlstate.startswith("08") and str(port) in error.message_primary and error.message_hint
    with cluster.coordinator.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET pgxc.check_nodes = off")
        cursor.execute(statement + " REPLICATION TO ASYNCHRONOUS")
    assert slave_row(cluster, 9)


def test_a_master_is_not_a_slave(cluster, workspace):
    stranger = pgcluster.Server(workspace, "stranger").init("stranger")
    stranger.start()
    try:
        error = refused(cluster, "REGISTER DATANODE SLAVE IDENTIFIED BY ID 9 "
                                 f"WITH CONNECTION ('{stranger.address}') ON MASTER 1")
        assert "recovery" in error.message_primary or "master" in error.message_primary
    finally:
        workspace.forget([stranger])


def test_a_slave_of_another_master(cluster):
    error = refused(cluster, "REGISTER DATANODE SLAVE IDENTIFIED BY ID 5 "
                             f"WITH CONNECTION ('{cluster.slaves[5].address}') ON MASTER 1")
    assert "system identifier" in f"{error.message_primary} {error.message_detail}"


@pytest.mark.parametrize("statement,sqlstate", [
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('{slave}') ON MASTER 77", "42704"),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 1 WITH CONNECTION ('{slave}') ON MASTER 1", "42710"),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('{master}') ON MASTER 1", "23505"),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 0 WITH CONNECTION ('{slave}') ON MASTER 1", None),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 99999999999 WITH CONNECTION ('{slave}') ON MASTER 1", None),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('{slave}', '{slave}') ON MASTER 1", None),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('localhost') ON MASTER 1", None),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION (':1') ON MASTER 1", None),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('h:65536') ON MASTER 1", None),
    ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('::1:5432') ON MASTER 1", None),
    ("ALTER DATANODE SLAVE 77 ID TO 78", "42704"),
    ("ALTER DATANODE SLAVE 77 PROMOTE TO MASTER", "42704"),
    ("DROP DATANODE SLAVE 77", "42704"),
    ("DROP DATANODE MASTER 77", "42704"),
])
def test_bad_requests_change_nothing(cluster, statement, sqlstate):
    error = refused(cluster, statement.format(slave=cluster.slaves[3].address, master=cluster.masters[2].address))
    if sqlstate:
        assert error.sqlstate == sqlstate
    else:
        assert error.sqlstate[:2] in ("22", "42")
    assert error.message_hint or error.statement_position


def test_both_counts_are_told(cluster):
    error = refused(cluster, "REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('a:1', 'b:2') ON MASTER 1")
    told = f"{error.message_primary} {error.message_detail} {error.message_hint}"
    assert "2" in told and "1" in told


def test_master_with_slaves_is_not_dropped(cluster):
    cluster.register(3, 1)
    assert refused(cluster, "DROP DATANODE MASTER 1").sqlstate == "2BP01"


@pytest.mark.parametrize("statement", [
    "DELETE FROM pgxc_nodes", "UPDATE pgxc_nodes SET node_port = 1", "TRUNCATE pgxc_nodes",
    "INSERT INTO pgxc_nodes (node_type, node_id, node_host, node_port, node_master_id, node_epoch) "
    "VALUES ('D', 50, 'h', 1, 0, 0)",
])
def test_direct_changes_are_refused(cluster, statement):
    assert refused(cluster, statement).message_hint


def test_who_may_change(cluster):
    cluster.coordinator.sql("CREATE ROLE plain LOGIN; CREATE ROLE trusted LOGIN IN ROLE pgxc_admin")
    try:
        statement = ("REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 "
                     f"WITH CONNECTION ('{cluster.slaves[3].address}') ON MASTER 1")
        assert refused(cluster, statement, user="plain").sqlstate == "42501"
        assert len(cluster.coordinator.sql("SELECT * FROM pgxc_nodes", user="plain")) == 3
        cluster.coordinator.sql(statement, user="trusted")
        assert slave_row(cluster, 3)
    finally:
        cluster.coordinator.sql("DROP ROLE plain, trusted")
