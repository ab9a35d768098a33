"""Datanodes of PostgreSQL 10 and 11: recovery.conf for real. And where settings live that a promotion has to rewrite, on
those and on the coordinator's own release."""

import contextlib
import re
import shutil

import psycopg2
import pytest

import old_server
from pgcluster import HOST, Cluster, Server, running_as_root, wait_for
from writer import Writer


@pytest.fixture(scope="module")
def old_programs(workspace):
    try:
        return old_server.fetch(old_server.VERSIONS, workspace.path)
    except old_server.Unavailable as reason:
        pytest.skip(str(reason))


class OldCluster(Cluster):
    """A coordinator of the workspace's server with datanodes of an old one."""

    def __init__(self, workspace, major, programs):
        super().__init__(workspace)
        self.major = major
        self.programs = programs

    def server(self, name):
        if name == "coordinator":
            return super().server(name)
        made = old_server.OldServer(self.workspace, f"{name}_{self.major}", programs=self.programs)
        self._made.append(made)
        return made

    def make_datanode(self, node_id, **settings):
        made = self.masters[node_id] = self.server(f"datanode{node_id}")
        made.init(f"datanode{node_id}_{self.major}", settings)
        made.start()
        return made


@pytest.fixture
def clusters(workspace, request):
    """Makes an empty cluster whose datanodes run that release; 15 stands for the workspace's own."""
    made = []

    def make(major):
        if major == 15:
            made.append(Cluster(workspace))
        else:
            made.append(OldCluster(workspace, major, request.getfixturevalue("old_programs")[major]))
        return made[-1]

    yield make
    for cluster in made:
        cluster.destroy()


old_releases = pytest.mark.parametrize("major", sorted(old_server.VERSIONS))


def begin(cluster, slaves=1, **settings):
    cluster.make_datanode(1)
    cluster.make_coordinator(**settings)
    cluster.masters[1].sql("CREATE TABLE load (client int, seq bigint)")
    for node_id in range(2, 2 + slaves):
        cluster.make_slave(node_id, 1)
        cluster.register(node_id, 1, "SYNCHRONOUS")
    return cluster.wait_ready()


def promote(cluster, tail="", node=2):
    cluster.coordinator.sql(f"ALTER DATANODE SLAVE {node} PROMOTE TO MASTER {tail}")


def refused(cluster, tail="", node=2):
    """What a promotion says that doesn't come about."""
    with pytest.raises(psycopg2.Error) as caught:
        promote(cluster, tail, node)
    return caught.value.diag


def timeline(server):
    return int(server.value("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16)


def values_in(text):
    """The settings of a recovery.conf."""
    return {name: value.replace("''", "'")
            for name, value in re.findall(r"(?m)^\s*(\w+)\s*=\s*'((?:[^'\n]|'')*)'", text)}


@contextlib.contextmanager
def running_load(cluster):
    """Two clients through the pooler that write until the end of the block; given is a function that waits until they
    write on."""
    load = Writer(cluster.pooler_dsn(), clients=2).start()

    def goes_on():
        done = load.acked_count()
        wait_for(lambda: load.acked_count() > done + 50, "the load to go on")

    goes_on()
    try:
        yield goes_on, load
    finally:
        load.stop()


def assert_nothing_lost(load, master):
    assert load.verify(master.sql("SELECT client, seq FROM load WHERE client >= 0")) == ([], [], [])


@old_releases
def test_port_taken_over(clusters, major):
    """Without a restore_command: cut off, restarted as a slave on the dead master's port, then promoted by pg_ctl."""
    cluster = begin(clusters(major), slaves=2, failover="off")
    slave, follower, port = cluster.slaves[2], cluster.slaves[3], cluster.masters[1].port
    assert slave.value("SHOW server_version_num")[:2] == str(major)
    # REGISTER ... SYNCHRONOUS has done what it says.
    conf = values_in(slave.recovery_conf.read_text())
    assert conf["primary_slot_name"] == "pgxc_d_2_e0" and "application_name=pgxc_d_2_e0" in conf["primary_conninfo"]
    assert conf["recovery_target_timeline"] == "latest" and conf["standby_mode"] == "on"
    assert slave.recovery_conf.read_text().startswith("# made by hand\n")
    assert slave.recovery_conf.stat().st_mode & 0o777 == 0o600
    assert cluster.masters[1].value("SHOW synchronous_standby_names") == "ANY 1 (pgxc_d_2_e0, pgxc_d_3_e0)"
    with running_load(cluster) as (goes_on, load):
        cluster.masters[1].kill9()
        cluster.masters[1].wait_gone()
        promote(cluster, f"WITH CONNECTION (':{port}')")
        goes_on()
    slave.port = port
    assert not slave.value("SELECT pg_is_in_recovery()") and timeline(slave) == 2
    assert_nothing_lost(load, slave)
    assert slave.recovery_done.exists() and not slave.recovery_conf.exists()
    # The other one follows over the change of timelines, and counts.
    assert slave.value("SHOW synchronous_standby_names") == "ANY 1 (pgxc_d_3_e1)"
    assert follower.value("SELECT received_tli FROM pg_stat_wal_receiver") == 2
    assert not list(slave.data.glob("pgxc_ha.restart"))


@old_releases
def test_restore_command_ends_recovery(clusters, major):
    """The classic way: standby_mode = off, a restart, and the server renames recovery.conf."""
    cluster = begin(clusters(major), failover="off")
    slave = cluster.slaves[2]
    slave.stop()
    text = slave.recovery_conf.read_text().replace(
        "# made by hand\n", "# made by hand\nrestore_command = 'cp ''/nowhere/%f'' %p'\t# from the archive\n")
    slave.recovery_conf.write_text(text)
    slave.start()
    cluster.wait_status(1, state="up", gate="open")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 1)")
    cluster.masters[1].kill9()
    cluster.masters[1].wait_gone()
    promote(cluster, "WITH RESTART")
    assert not slave.value("SELECT pg_is_in_recovery()") and timeline(slave) == 2
    assert slave.value("SELECT count(*) FROM load WHERE client = -1") == 1
    done = values_in(slave.recovery_done.read_text())
    assert done["standby_mode"] == "off" and done["restore_command"] == "cp '/nowhere/%f' %p"
    assert done["recovery_target_timeline"] == "latest" and "primary_conninfo" not in done
    assert not slave.recovery_conf.exists()
    assert "received promote request" not in slave.log_text()


@old_releases
def test_failover_and_switchover(clusters, major):
    """The monitor does it by itself where the files are reachable: a stop is the fence. Then back, with a live master."""
    cluster = begin(clusters(major), slaves=2)
    with running_load(cluster) as (goes_on, load):
        cluster.masters[1].kill9()
        goes_on()
        (address,) = cluster.coordinator.sql("SELECT node_port FROM pgxc_nodes WHERE node_id = 1 AND node_type = 'D'")[0]
        first = next(s for s in cluster.slaves.values() if s.port == address)
        other_id, other = next((n, s) for n, s in cluster.slaves.items() if s is not first)
        wait_for(lambda: first.value("SHOW synchronous_standby_names") == f"ANY 1 (pgxc_d_{other_id}_e1)",
                 "the other slave to count")
        assert timeline(first) == 2
        promote(cluster, node=other_id)
        goes_on()
    assert not other.value("SELECT pg_is_in_recovery()") and timeline(other) == 3
    assert_nothing_lost(load, other)
    # What a replaced master of before 13 can't be spared is told.
    wait_for(lambda: f"PostgreSQL {major} is older than 13" in "".join(why or "" for (why,) in cluster.coordinator.sql(
        "SELECT why FROM pgxc_node_status")), "its return to be told")


@old_releases
def test_files_out_of_reach(clusters, major):
    """As on another host: REGISTER tells what to write by hand, what is written counts, no failover, and said so."""
    cluster = clusters(major)
    cluster.make_datanode(1)
    cluster.make_coordinator()
    cluster.masters[1].sql("CREATE TABLE load (client int, seq bigint)")
    slave = cluster.make_slave(2, 1)
    # What tells that the folder is a server's: only a start reads it.
    mark = slave.data / "PG_VERSION"
    away = slave.data / "PG_VERSION.away"

    def hide():
        mark.rename(away)

    def find_again():
        away.rename(mark)

    hide()
    try:
        with pytest.raises(psycopg2.Error) as caught:
            cluster.register(2, 1, "SYNCHRONOUS")
        diag = caught.value.diag
        assert f"PostgreSQL {major}" in diag.message_primary and "not within reach" in diag.message_primary
        for words in ("pg_create_physical_replication_slot('pgxc_d_2_e0', true)", "primary_slot_name = 'pgxc_d_2_e0'",
                      "application_name=pgxc_d_2_e0", "recovery_target_timeline = 'latest'", "recovery.conf"):
            assert words in diag.message_hint
        assert not cluster.coordinator.value("SELECT count(*) FROM pgxc_nodes WHERE node_id = 2")
    finally:
        find_again()
    slave.stop()
    cluster.masters[1].sql("SELECT pg_create_physical_replication_slot('pgxc_d_2_e0', true)")
    conf = f"primary_conninfo = 'host={HOST} port={cluster.masters[1].port} user=postgres application_name=pgxc_d_2_e0'"
    slave.recovery_conf.write_text(f"standby_mode = on\n{conf}\nprimary_slot_name = 'pgxc_d_2_e0'\n"
                                   "recovery_target_timeline = 'latest'\n")
    slave.start()
    hide()
    try:
        started = slave.value("SELECT pg_postmaster_start_time()")
        cluster.register(2, 1, "SYNCHRONOUS")
        wait_for(lambda: cluster.masters[1].value("SHOW synchronous_standby_names") == "ANY 1 (pgxc_d_2_e0)",
                 "it to count")
        cluster.wait_ready()
        cluster.pooler_sql("INSERT INTO load VALUES (-1, 1)")
        cluster.masters[1].kill9()
        wait_for(lambda: re.search("no failover:.*not within reach", cluster.status(1)["why"] or ""), "the reason")
        assert slave.value("SELECT pg_is_in_recovery() AND pg_postmaster_start_time() = %s", (started,))
        assert cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_evidence WHERE reason LIKE "
                                         "'%%not within reach%%'") >= 1
        assert "not within reach" in refused(cluster).message_primary
    finally:
        find_again()
    # Reachable again, it is done.
    wait_for(lambda: not slave.value("SELECT pg_is_in_recovery()"), "the failover")
    wait_for(lambda: cluster.pooler_sql("SELECT count(*) FROM load WHERE client = -1") == [(1,)], "the row")


@old_releases
def test_started_again_after_the_monitor_died(clusters, major, monkeypatch):
    """A slave that was left stopped in the middle of a restart is started by the next monitor."""
    monkeypatch.setenv("PGXC_CRASH_POINTS", "1")
    cluster = begin(clusters(major), failover="on")
    slave = cluster.slaves[2]
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 1)")
    (cluster.coordinator.data / "pgxc_crash_point").write_text("slave stopped")
    cluster.masters[1].kill9()
    wait_for(lambda: not (cluster.coordinator.data / "pgxc_crash_point").exists(), "the monitor to be killed")
    wait_for(lambda: not slave.value("SELECT pg_is_in_recovery()"), "the failover")
    wait_for(lambda: cluster.pooler_sql("SELECT count(*) FROM load WHERE client = -1") == [(1,)], "the row")
