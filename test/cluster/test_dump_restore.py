"""The catalog outlives pg_dump and restore; DROP EXTENSION leaves nothing."""

import psycopg2
import pytest

import pgcluster


@pytest.fixture(scope="module")
def cluster(workspace):
    made = pgcluster.standard_cluster(workspace, datanodes=2, slaves=1, **pgcluster.UNHURRIED)
    yield made
    made.destroy()


def contents(server):
    return (server.sql("SELECT * FROM pgxc_nodes ORDER BY node_type, node_id"),
            server.sql("SELECT * FROM pgxc.failover_history ORDER BY history_id"))


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_dump_and_restore(cluster, workspace, form):
    dump = workspace.path / f"dump.{form}"
    workspace.run("pg_dump", "-h", pgcluster.HOST, "-p", cluster.coordinator.port, "-U", "postgres", "-F", form[0],
                  "-f", dump, "postgres")
    settings = {"shared_preload_libraries": "pgxc_ha", "max_prepared_transactions": 64, "pgxc.failover": "off",
                "pgxc.pooler_port": workspace.free_port()}
    for masters in ({}, {"pgxc.datanodes": f"1={cluster.masters[1].address}"}):
        # With and without masters in the settings, which CREATE EXTENSION has entered before the rows come.
        restored = pgcluster.Server(workspace, "restored").init("restored", {**settings, **masters})
        restored.start()
        try:
            arguments = ("-h", pgcluster.HOST, "-p", restored.port, "-U", "postgres", "-d", "postgres")
            if form == "plain":
                workspace.run("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", dump, *arguments)
            else:
                workspace.run("pg_restore", "--exit-on-error", *arguments, dump)
            assert contents(restored) == contents(cluster.coordinator)
            with pytest.raises(psycopg2.Error):
                restored.sql("DELETE FROM pgxc_nodes")
        finally:
            workspace.forget([restored])


def test_drop_extension_leaves_nothing(cluster, workspace):
    server = pgcluster.Server(workspace, "dropping").init("dropping", {
        "shared_preload_libraries": "pgxc_ha", "pgxc.pooler_port": 0, "pgxc.failover": "off"})
    server.start()
    count_all = """SELECT
        (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_type),
        (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_constraint),
        (SELECT count(*) FROM pg_event_trigger), (SELECT count(*) FROM pg_depend), (SELECT count(*) FROM pg_extension)"""
    try:
        before = server.sql(count_all)
        server.sql("CREATE EXTENSION pgxc_ha")
        assert server.sql(count_all) != before
        server.sql("DROP EXTENSION pgxc_ha")
        assert server.sql(count_all) == before
        server.sql("CREATE EXTENSION pgxc_ha")
        server.sql("SELECT * FROM pgxc_nodes")
    finally:
        workspace.forget([server])
