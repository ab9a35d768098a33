"""The statements from every kind of client. What parses and what doesn't is the unit tests' matter."""

import subprocess

import psycopg
import psycopg2
import pytest

import pgcluster


def make_bare(workspace, **settings):
    """A coordinator with one master that nobody has to reach: statements run with pgxc.check_nodes = off."""
    cluster = pgcluster.Cluster(workspace)
    cluster.make_datanode(1)
    cluster.make_coordinator(**{"failover": "off", "check_nodes": "off", **settings})
    return cluster


@pytest.fixture(scope="module")
def cluster(workspace):
    made = make_bare(workspace)
    yield made
    made.destroy()


@pytest.fixture(autouse=True)
def no_slaves_after(request):
    yield
    if "cluster" in request.fixturenames:
        coordinator = request.getfixturevalue("cluster").coordinator
        for (node_id,) in coordinator.sql("SELECT node_id FROM pgxc_nodes WHERE node_master_id <> 0"):
            coordinator.sql(f"CALL pgxc.drop_slave('D', {node_id})")


def register(node_id):
    return (f"REGISTER DATANODE SLAVE IDENTIFIED BY ID {node_id} WITH CONNECTION ('h:{5000 + node_id}') ON MASTER 1 "
            "REPLICATION TO ASYNCHRONOUS")


def slave_ids(cluster):
    return [row[1] for row in cluster.nodes() if row[4] != 0]


def test_psql(cluster):
    text = ("/* a comment; /* nested */ */ regISTER -- another\n datanode Slave IDENTIFIED by id 7 with CONNECTION\n"
            "(E'h:\\x35007') On Master 1 REPLICATION TO ASYNCHRONOUS;\nSELECT 'still ' || $$here$$;\n")
    done = subprocess.run([cluster.workspace.bin / "psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-h", pgcluster.HOST, "-p",
                           str(cluster.coordinator.port), "-U", "postgres", "postgres"], input=text, text=True,
                          capture_output=True, **pgcluster.as_server_user())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "still here"
    assert ("D", 7, "h", 5007, 1, "a") in cluster.nodes()


def test_extended_protocol(cluster):
    with psycopg.connect(**cluster.coordinator.dsn(), autocommit=True) as connection:
        result = connection.pgconn.exec_params(register(7).encode(), [])
        assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, result.error_message
        # A named prepared statement, executed twice: the second finds the node there.
        assert connection.pgconn.prepare(b"ours", register(8).encode()).status == psycopg.pq.ExecStatus.COMMAND_OK
        assert connection.pgconn.exec_prepared(b"ours", []).status == psycopg.pq.ExecStatus.COMMAND_OK
        again = connection.pgconn.exec_prepared(b"ours", [])
        assert again.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42710"
    assert slave_ids(cluster) == [7, 8]


def test_plpgsql_execute(cluster):
    cluster.coordinator.sql("DO $do$ BEGIN EXECUTE $$" + register(7) + "$$; END $do$")
    assert slave_ids(cluster) == [7]


def test_batch_of_ours(cluster):
    cluster.coordinator.sql(f"{register(7)}; {register(8)};; DROP DATANODE SLAVE 7;")
    assert slave_ids(cluster) == [8]


@pytest.mark.parametrize("text", ["{}; SELECT 1", "SELECT 1; {}"])
def test_batch_with_others_is_an_error(cluster, text):
    with pytest.raises(psycopg2.Error):
        cluster.coordinator.sql(text.format(register(7)))
    assert slave_ids(cluster) == []


def test_in_a_transaction_that_is_rolled_back(cluster):
    with cluster.coordinator.connect(autocommit=False) as connection:
        with connection.cursor() as cursor:
            cursor.execute(register(7))
        connection.rollback()
    assert slave_ids(cluster) == []


def test_syntax_error_has_a_position(cluster):
    text = "REGISTER DATANODE SLAVE IDENTIFIED BY NAME 7"
    with pytest.raises(psycopg2.errors.SyntaxError) as caught:
        cluster.coordinator.sql(text)
    assert int(caught.value.diag.statement_position) == text.index("NAME") + 1
    told = f"{caught.value.diag.message_primary} {caught.value.diag.message_detail} {caught.value.diag.message_hint}"
    assert "ID" in told


def test_other_statements_are_untouched(cluster):
    server = cluster.coordinator
    server.sql("CREATE TABLE datanode (slave int); ALTER TABLE datanode ADD COLUMN register text; DROP TABLE datanode")
    assert server.value("SELECT 1 AS register") == 1
    for text in ("REGISTER", "REGISTER ME", "CREATE DATANODES", "ALTER THING 1"):
        with pytest.raises(psycopg2.errors.SyntaxError):
            server.sql(text)


def test_extension_missing_in_this_database(cluster):
    cluster.coordinator.sql("CREATE DATABASE elsewhere")
    with pytest.raises(psycopg2.Error) as caught:
        cluster.coordinator.sql(register(7), dbname="elsewhere")
    assert "pgxc_ha" in f"{caught.value.diag.message_primary} {caught.value.diag.message_hint}"
    cluster.coordinator.sql("DROP DATABASE elsewhere")


def test_promote_not_in_a_transaction_block(cluster):
    with cluster.coordinator.connect(autocommit=False) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.Error) as caught:
            cursor.execute("ALTER DATANODE SLAVE 7 PROMOTE TO MASTER")
        assert caught.value.pgcode in ("25001", "2D000")


def test_grammar_off(workspace):
    made = make_bare(workspace, grammar="off")
    try:
        with pytest.raises(psycopg2.errors.SyntaxError):
            made.coordinator.sql(register(7))
        made.coordinator.sql("CALL pgxc.register_slave('D', 7, ARRAY['h:5007'], 1, 'a')")
        assert slave_ids(made) == [7]
        made.coordinator.sql("CALL pgxc.set_slave_id('D', 7, 8)")
        made.coordinator.sql("CALL pgxc.drop_slave('D', 8)")
        assert slave_ids(made) == []
    finally:
        made.destroy()
