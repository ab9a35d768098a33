"""Datanodes of PostgreSQL 10 and 11: recovery.conf for real. And where settings live that a promotion has to rewrite, on
those and on the coordinator's own release."""

import contextlib
import os
import re
import shutil
import signal
import time

import psycopg2
import pytest

import old_server
from pgcluster import HOST, PATIENT, UNHURRIED, Cluster, running_as_root, wait_for
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

    def server(self, name, port=None, user=None):
        if name == "coordinator":
            return super().server(name, port, user)
        made = old_server.OldServer(self.workspace, f"{name}_{self.major}", port, user=user, programs=self.programs)
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


#: One release that has recovery.conf, and the coordinator's own, which has signal files.
both_ways = pytest.mark.parametrize("major", [10, 15])
old_releases = pytest.mark.parametrize("major", sorted(old_server.VERSIONS))


def begin(cluster, slaves=1, **settings):
    cluster.make_datanode(1)
    cluster.make_coordinator(**{**UNHURRIED, **settings})
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
    cluster = begin(clusters(major), slaves=2, failover="off", **PATIENT)
    slave, follower, port = cluster.slaves[2], cluster.slaves[3], cluster.masters[1].port
    assert slave.value("SHOW server_version_num")[:2] == str(major)
    # REGISTER ... SYNCHRONOUS has done what it says.
    conf = values_in(slave.recovery_conf.read_text())
    assert conf["primary_slot_name"] == "pgxc_d_2_e0" and "application_name=pgxc_d_2_e0" in conf["primary_conninfo"]
    assert conf["recovery_target_timeline"] == "latest" and conf["standby_mode"] == "on"
    assert slave.recovery_conf.read_text().startswith("# made by hand\n")
    assert slave.recovery_conf.stat().st_mode & 0o777 == 0o600
    wait_for(lambda: cluster.masters[1].value("SHOW synchronous_standby_names") == "ANY 1 (pgxc_d_2_e0, pgxc_d_3_e0)",
             "both to count")
    with running_load(cluster) as (goes_on, load):
        cluster.masters[1].kill9()
        cluster.masters[1].wait_gone()
        kept = 3
        try:
            promote(cluster, f"WITH CONNECTION (':{port}')")
        except psycopg2.Error as error:
            # One of two is enough for a commit: the other one may have what this one lacks, and is the one to promote.
            assert error.pgcode == "55000" and f"{follower.address} is further" in str(error)
            slave, follower, kept = follower, slave, 2
            promote(cluster, f"WITH CONNECTION (':{port}')", node=3)
        goes_on()
    slave.port = port
    assert not slave.value("SELECT pg_is_in_recovery()") and timeline(slave) == 2
    assert_nothing_lost(load, slave)
    assert slave.recovery_done.exists() and not slave.recovery_conf.exists()
    # The other one follows over the change of timelines, and counts.
    wait_for(lambda: slave.value("SHOW synchronous_standby_names") == f"ANY 1 (pgxc_d_{kept}_e1)", "it to count")
    wait_for(lambda: follower.value("SELECT received_tli FROM pg_stat_wal_receiver") == 2, "it to follow")
    assert not list(slave.data.glob("pgxc_ha.restart"))


@pytest.mark.parametrize("major", [10, 11, 15])
def test_restore_command_ends_recovery(clusters, major):
    """The classic way: standby_mode = off (from 12 on recovery.signal) and a restart that ends recovery by itself; before 12
    the server renames recovery.conf."""
    cluster = begin(clusters(major), failover="off", **PATIENT)
    slave = cluster.slaves[2]
    command = "cp '/nowhere/%f' %p"
    if major >= 12:
        slave.sql("ALTER SYSTEM SET restore_command = %s", (command,))
        slave.reload()
    else:
        slave.stop()
        text = slave.recovery_conf.read_text().replace(
            "# made by hand\n", "# made by hand\nrestore_command = 'cp ''/nowhere/%f'' %p'\t# from the archive\n")
        slave.recovery_conf.write_text(text)
        slave.start()
    cluster.wait_ready()
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 1)")
    cluster.masters[1].kill9()
    cluster.masters[1].wait_gone()
    promote(cluster, "WITH RESTART")
    assert not slave.value("SELECT pg_is_in_recovery()") and timeline(slave) == 2
    assert slave.value("SELECT count(*) FROM load WHERE client = -1") == 1
    # Nobody promoted it: recovery has ended.
    assert "received promote request" not in slave.log_text()
    if major >= 12:
        assert not list(slave.data.glob("*.signal"))
        assert slave.value("SHOW restore_command") == command
        return
    done = values_in(slave.recovery_done.read_text())
    assert done["standby_mode"] == "off" and done["restore_command"] == command
    assert done["recovery_target_timeline"] == "latest" and "primary_conninfo" not in done
    assert not slave.recovery_conf.exists()


@pytest.mark.parametrize("major", [11])
def test_failover_and_switchover(clusters, major):
    """The monitor does it by itself where the files are reachable: a stop is the fence. Then back, with a live master."""
    cluster = begin(clusters(major), slaves=2, **PATIENT)
    with running_load(cluster) as (goes_on, load):
        cluster.masters[1].kill9()
        goes_on()
        wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history"), "the history")
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


@pytest.mark.parametrize("major", [10])
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
        # Without the file only the stream itself tells where it comes from.
        wait_for(lambda: slave.value("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"), "the stream")
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
        wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_evidence WHERE reason LIKE "
                                                   "'%%not within reach%%'"), "the evidence")
        assert "not within reach" in refused(cluster).message_primary
    finally:
        find_again()
    # Reachable again, it is done.
    wait_for(lambda: not slave.value("SELECT pg_is_in_recovery()"), "the failover")
    wait_for(lambda: cluster.pooler_sql("SELECT count(*) FROM load WHERE client = -1") == [(1,)], "the row")


@pytest.mark.parametrize("major", [11])
def test_one_that_hangs_holds_up_nobody(clusters, major):
    """Its sessions go on answering, but nobody can restart it; the others are enough."""
    # restart_timeout, 30 s, is what the failover must not wait for. Its best of a few times: the machine may be busy.
    assert any(fail_over_beside_one_that_hangs(clusters(major)) < 28 for _ in range(3))


def fail_over_beside_one_that_hangs(cluster):
    """How long the failover took, in seconds."""
    begin(cluster, slaves=3, sync_slaves=2)
    cluster.wait_status(1, state="up", gate="open", why="")
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    hanging = cluster.slaves[2]
    postmaster = int((hanging.data / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        began = time.monotonic()
        cluster.masters[1].kill9()
        wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history"), "the failover")
        took = time.monotonic() - began
    finally:
        os.kill(postmaster, signal.SIGCONT)
    cluster.wait_status(1, state="up", role_seen="master", gate="open")
    assert cluster.pooler_sql("SELECT seq FROM load WHERE client = -1") == [(0,)]
    return took


@pytest.mark.parametrize("major", [11])
def test_started_again_after_the_monitor_died(clusters, major, monkeypatch):
    """A slave that was left stopped in the middle of a restart is started by the next monitor."""
    monkeypatch.setenv("PGXC_CRASH_POINTS", "1")
    cluster = begin(clusters(major))
    slave = cluster.slaves[2]
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 1)")
    (cluster.coordinator.data / "pgxc_crash_point").write_text("slave stopped")
    cluster.masters[1].kill9()
    wait_for(lambda: not (cluster.coordinator.data / "pgxc_crash_point").exists(), "the monitor to be killed")
    wait_for(lambda: not slave.value("SELECT pg_is_in_recovery()"), "the failover")
    wait_for(lambda: cluster.pooler_sql("SELECT count(*) FROM load WHERE client = -1") == [(1,)], "the row")


@both_ways
def test_settings_wherever_they_are(clusters, workspace, major):
    """The port is changed on the one line that decides, and nothing else: Debian's layout (the configuration outside of
    the data directory), includes, a symbolic link, duplicates, quotes, comments, CRLF."""
    cluster = begin(clusters(major), failover="off", **PATIENT)
    slave, old, new = cluster.slaves[2], cluster.slaves[2].port, workspace.free_port()
    etc = workspace.path / f"etc{slave.port}"
    (etc / "conf.d").mkdir(parents=True)
    (etc / "real").mkdir()
    slave.stop()
    main = etc / "postgresql.conf"
    text = re.sub(r"(?m)^port = \d+$", "port = 1\t# not this one", slave.conf_file.read_text())
    main.write_bytes((text + f"data_directory = '{slave.data}'\nhba_file = '{slave.data}/pg_hba.conf'\n"
                      f"ident_file = '{slave.data}/pg_ident.conf'\ninclude 'more.conf'\ninclude_dir = 'conf.d'\n"
                      "include_if_exists = 'nothing.conf'\n").encode())
    (etc / "more.conf").write_bytes(b"port = '2'\r\n")
    (etc / "conf.d/10.conf").write_bytes(b"Port 3\n")
    linked = etc / "real/20.conf"
    decides = b"# it's mine\r\n  PORT = '%d' # the last 'one'\r\nwork_mem = 5MB\r\n#port = 4\r\n"
    linked.write_bytes(b"port = 5\r\n" + decides % old)
    linked.chmod(0o640)
    (etc / "conf.d/20.conf").symlink_to("../real/20.conf")
    slave.conf_file.unlink()
    own(etc)
    before = {path: path.read_bytes() for path in etc.rglob("*.conf")}
    slave._run("pg_ctl", "start", "-D", slave.data, "-l", slave.log, "-w", "-o", f"-c config_file={main}")
    cluster.wait_ready()
    promote(cluster, f"WITH CONNECTION (':{new}')")
    slave.port = new
    assert not slave.value("SELECT pg_is_in_recovery()")
    assert slave.value("SHOW config_file") == str(main)
    changed = {path for path, text in before.items() if path.read_bytes() != text}
    assert changed == {linked, etc / "conf.d/20.conf"}
    assert linked.read_bytes() == b"port = 5\r\n" + decides % new
    assert (etc / "conf.d/20.conf").is_symlink() and linked.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in etc.rglob(".*")) == []


def own(folder):
    """Gives a folder that the test made to the server user."""
    if running_as_root():
        for path in [folder, *folder.rglob("*")]:
            shutil.chown(path, "postgres", "postgres")


@both_ways
def test_refused_before_anything_is_touched(clusters, workspace, major):
    """Permission denied, a file with an error, a port on the command line: told, and everything is as it was."""
    cluster = begin(clusters(major), failover="off", **PATIENT)
    slave, new = cluster.slaves[2], workspace.free_port()
    etc = workspace.path / f"etc{slave.port}"
    etc.mkdir()
    slave.stop()
    text = slave.conf_file.read_text()
    slave.conf_file.write_text(re.sub(r"(?m)^port = .*\n", "", text) + f"include '{etc}/port.conf'\n"
                               f"include 'own/port.conf'\n")
    folder = slave.data / "own"
    folder.mkdir()
    (folder / "port.conf").write_text(f"port = {slave.port}\n")
    (etc / "port.conf").write_text("work_mem = 5MB\n")
    own(etc)
    own(folder)
    slave.start()
    cluster.wait_ready()
    files = [path for path in slave.data.glob("*.conf*")] + [folder / "port.conf"]
    files = [path for path in files if not path.name.endswith(".pid")]
    before = {path: path.read_bytes() for path in files}
    started = slave.value("SELECT pg_postmaster_start_time()")
    nodes = cluster.nodes()

    def unchanged():
        assert {path: path.read_bytes() for path in files} == before
        assert sorted(path.name for path in folder.iterdir()) == ["port.conf"]
        assert slave.value("SELECT pg_is_in_recovery() AND pg_postmaster_start_time() = %s", (started,))
        assert cluster.nodes() == nodes
        cluster.wait_status(1, state="up", gate="open")
        cluster.pooler_sql("INSERT INTO load VALUES (-1, 1)")

    folder.chmod(0o555)
    try:
        diag = refused(cluster, f"WITH CONNECTION (':{new}')")
    finally:
        folder.chmod(0o755)
    assert diag.sqlstate == "42501" and "port.conf" in diag.message_primary and diag.message_hint
    unchanged()

    (etc / "port.conf").write_text("work_mem = = 5MB\n")
    diag = refused(cluster, f"WITH CONNECTION (':{new}')")
    assert diag.sqlstate == "F0000" and f"{etc}/port.conf" in diag.message_primary and "line 1" in diag.message_primary
    (etc / "port.conf").write_text("work_mem = 5MB\n")
    unchanged()

    slave.stop()
    slave._run("pg_ctl", "start", "-D", slave.data, "-l", slave.log, "-w", "-o", f"-c port={slave.port}")
    cluster.wait_ready()
    started = slave.value("SELECT pg_postmaster_start_time()")
    diag = refused(cluster, f"WITH CONNECTION (':{new}')")
    assert diag.sqlstate == "55000" and "command line" in diag.message_primary
    unchanged()
