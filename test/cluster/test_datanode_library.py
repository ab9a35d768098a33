"""Our library on datanodes whose files the coordinator can't reach: they belong to another operating system user."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time

import psycopg2
import pytest

from pgcluster import HOST, PATIENT, UNHURRIED, Cluster, running_as_root, wait_for
from writer import Writer

OTHER_USER = "nobody"


def other_user():
    with contextlib.suppress(KeyError):
        return running_as_root() and pwd.getpwnam(OTHER_USER)
    return None


pytestmark = pytest.mark.skipif(not other_user(), reason=f"only root can run servers as user {OTHER_USER}, too")


@pytest.fixture
def make_cluster(workspace):
    """Makes a ready cluster of datanodes whose files belong to another user, with our library loaded or without."""
    made = []

    def make(library=True, slaves=1, datanode=None, **settings):
        cluster = Cluster(workspace, user=OTHER_USER)
        made.append(cluster)
        port = workspace.free_port()
        loaded = {"shared_preload_libraries": "pgxc_ha", "pgxc.role": "datanode",
                  "pgxc.coordinators": f"1={HOST}:{port}"} if library else {}
        cluster.make_datanode(1, **loaded, **(datanode or {}))
        cluster.make_coordinator(port=port, **{**UNHURRIED, **settings})
        cluster.masters[1].sql("CREATE TABLE load (client int, seq bigint)")
        for node_id in range(2, 2 + slaves):
            cluster.make_slave(node_id, 1)
            cluster.register(node_id, 1, "SYNCHRONOUS")
        return cluster.wait_ready()

    yield make
    for cluster in made:
        cluster.destroy()


def history(cluster):
    return cluster.coordinator.sql("SELECT epoch FROM pgxc.failover_history ORDER BY history_id")


def promote(cluster, tail="", node_id=2):
    cluster.coordinator.sql(f"ALTER DATANODE SLAVE {node_id} PROMOTE TO MASTER {tail}")


def agent_log(server):
    log = server.data.with_name(server.data.name + ".pgxc_ha.log")
    return log.read_text() if log.exists() else ""


def switch(cluster, name, value):
    cluster.coordinator.sql(f"ALTER SYSTEM SET {name} = {value}")
    cluster.coordinator.sql("SELECT pg_reload_conf()")


def fail_over(cluster):
    """Kills the master, waits until it has been replaced and is gone; returns the old and the new one."""
    old, new = cluster.masters[1], cluster.slaves[2]
    cluster.wait_status(1, state="up", gate="open", why="")
    cluster.kill9_replicated()
    wait_for(lambda: history(cluster), "the failover")
    old.wait_gone()
    return old, new


def wait_for_slave(cluster, old, new, node_id=2):
    """Waits until `old` is registered as slave `node_id`, streams from `new` and counts."""
    wait_for(lambda: ("D", node_id, HOST, old.port, 1, "s") in cluster.nodes(),
             f"the old master to be registered: {cluster.status(node_id)}\n{agent_log(old)}")
    cluster.wait_status(node_id, state="up", role_seen="slave", why="")
    cluster.wait_status(1, state="up", role_seen="master", gate="open", why="")
    epoch = cluster.coordinator.value("SELECT node_epoch FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 1")
    wait_for(lambda: new.value("SHOW synchronous_standby_names") == f"ANY 1 (pgxc_d_{node_id}_e{epoch})",
             "the old master to count")
    wait_for(lambda: not old.data.with_name(old.data.name + ".pgxc_rejoin").exists(), "the journal to go")
    row = -time.monotonic_ns()
    cluster.pooler_sql("INSERT INTO load VALUES (-5, %s)", (row,))
    wait_for(lambda: old.value("SELECT count(*) FROM load WHERE seq = %s", (row,)) == 1, "a new row at the old master")
    assert {os.stat(path).st_uid for path in old.data.iterdir()} == {other_user().pw_uid}


def wait_for_why(cluster, part, node_id=2):
    """Waits until the status of a node has that reason: before, it may say that the node doesn't answer."""
    return wait_for(lambda: (lambda why: why if part in why else None)((cluster.status(node_id) or {}).get("why", "")),
                    f"\"{part}\" in the status")


#: What a server says that starts as a master because no coordinator answered it in time.
UNHEARD = "no coordinator tells whether this server is still a master"


def wait_for_quick_answers(cluster):
    """A server that starts waits no longer than 1.5 s for a coordinator's answer."""
    def answers_quickly():
        began = time.monotonic()
        return all(cluster.coordinator.value("SELECT 1") for _ in range(2)) and time.monotonic() - began < 0.5
    wait_for(answers_quickly, "the coordinator to answer quickly")


def try_start(server):
    """Starts a server; whether it runs, and the end of its log."""
    size = len(server.log_text())
    runs = server.start(check=False).returncode == 0
    return runs, server.log_text()[size:]


def stop_at_once(server):
    """Before somebody begins to make a slave of it."""
    server.stop("immediate", check=False)
    server.wait_gone()


def start_refused(cluster, server):
    """Starts a server that refuses; the end of its log. Where there is a coordinator, a start that didn't hear it in time is
    tried again."""
    hears = cluster.coordinator.postmaster_pid()

    def refused():
        if hears:
            wait_for_quick_answers(cluster)
        runs, log = try_start(server)
        if runs:
            assert hears and UNHEARD in log, log
            stop_at_once(server)
        return not runs and log
    return wait_for(refused, "a start that hears the coordinator")


def diverge(server):
    """Starts a dead old master alone, out of the coordinator's sight, and has it write what the new line lacks."""
    conf = server.data / "postgresql.auto.conf"
    text = conf.read_text()
    right, server.port = server.port, server.workspace.free_port()
    conf.write_text(text + f"synchronous_standby_names = ''\nport = {server.port}\npgxc.coordinators = ''\n")
    server.start()
    server.sql("INSERT INTO load SELECT -6, g FROM generate_series(1, 1000) g")
    server.kill9()
    server.wait_gone()
    server.port = right
    conf.write_text(text)


def test_restart_promotion_takes_the_port_over(make_cluster):
    """The files are rewritten and the server is restarted by the library, on the dead master's port; that one comes back
    on the other port."""
    cluster = make_cluster(failover="off", **PATIENT)
    old, new = cluster.masters[1], cluster.slaves[2]
    text, port = new.conf_file.read_text(), old.port
    load = Writer(cluster.pooler_dsn(), clients=2).start()
    wait_for(lambda: load.acked_count() > 100, "the load to run")
    old.kill9()
    old.wait_gone()
    promote(cluster, f"WITH CONNECTION (':{port}')")
    done = load.acked_count()
    wait_for(lambda: load.acked_count() > done + 100, "the load to go on")
    load.stop()
    old.port, new.port = new.port, port
    assert new.value("SELECT pg_is_in_recovery()") is False
    assert [row for row in cluster.nodes() if row[0] == "D"][0] == ("D", 1, HOST, port, 0, None)
    assert load.verify(new.sql("SELECT client, seq FROM load WHERE client >= 0")) == ([], [], [])
    assert new.conf_file.read_text() == text.replace(f"port = {old.port}", f"port = {port}")
    assert new.conf_file.stat().st_uid == other_user().pw_uid
    assert new.sql("SHOW pgxc.node_answer")[0][0] and not (new.data / "pgxc_ha.restart").exists()
    log = start_refused(cluster, old)
    assert f"it is the one at {HOST}:{port}" in log
    wait_for_slave(cluster, old, new)


def test_planned_takeover_stops_the_master(make_cluster):
    """The old master lives and holds the port: its library stops it. Started, it is a slave on the other port."""
    cluster = make_cluster(**PATIENT)
    old, new = cluster.masters[1], cluster.slaves[2]
    port = old.port
    promote(cluster, f"WITH CONNECTION (':{port}')")
    wait_for(lambda: old.postmaster_pid() is None, "the old master to be gone")
    old.port, new.port = new.port, port
    assert new.value("SELECT pg_is_in_recovery()") is False
    row = wait_for(lambda: (lambda s: s if s and "start it there" in s["why"] else None)(cluster.status(2)),
                   "the status to say what is missing")
    assert row["state"] == "rejoining"
    start_refused(cluster, old)
    wait_for_slave(cluster, old, new)


@pytest.mark.parametrize("way", ["straight", "rewound", "copied"])
def test_started_old_master_becomes_a_slave(make_cluster, way):
    """It refuses to start as a master, and is made a slave on its own host."""
    cluster = make_cluster(datanode={"wal_log_hints": "off"} if way == "copied" else None)
    old, new = fail_over(cluster)
    own_text = old.conf_file.read_text()
    if way != "straight":
        diverge(old)
    size = len(old.log_text())
    log = start_refused(cluster, old)
    heard = UNHEARD not in old.log_text()[size:]
    assert f"replaced as the master of datanode 1: since epoch 1 it is the one at {new.address}" in log
    assert "made a slave" in log
    wait_for_slave(cluster, old, new)
    assert old.value("SELECT count(*) FROM load WHERE client = -6") == 0
    assert old.conf_file.read_text() == own_text
    # One that once heard no coordinator in time has been a master for a moment: it needs pg_rewind, too.
    if way != "straight" or heard:
        assert ("pg_rewind: servers diverged" in agent_log(old)) == (way == "rewound")
    assert old.data.with_name(old.data.name + ".pgxc_old").exists() == (way == "copied")
    assert old.value("SHOW pgxc.role") == "datanode"
    # As a slave it starts without any question.
    cluster.coordinator.stop()
    old.restart()
    assert old.value("SELECT pg_is_in_recovery()")


def test_frozen_master_that_wakes_becomes_a_slave(make_cluster):
    """It was never stopped: the coordinator asks its library."""
    cluster = make_cluster()
    old, new = cluster.masters[1], cluster.slaves[2]
    cluster.pooler_sql("INSERT INTO load VALUES (-1, 0)")
    old.freeze()
    try:
        wait_for(lambda: history(cluster), "the failover")
    finally:
        old.thaw()
    wait_for_slave(cluster, old, new)
    assert "its files are out of reach: the library on its host makes a slave of it" in cluster.coordinator.log_text()


def write_journal(server, stage):
    """What a return to a slave that has come so far leaves beside the data directory."""
    folder = server.data.with_name(server.data.name + ".pgxc_rejoin")
    folder.mkdir(mode=0o700)
    (folder / "journal").write_text(json.dumps({"stage": stage, "epoch": 1, "log_file": str(server.log)}))
    subprocess.run(["chown", "-R", f"{OTHER_USER}:", str(folder)], check=True)


def test_slave_that_finds_no_stream_is_copied(make_cluster):
    """It was made a slave and runs as one, but its WAL has left the new master's: its library is asked again."""
    cluster = make_cluster()
    old, new = fail_over(cluster)
    diverge(old)
    write_journal(old, "prepared")
    (old.data / "postgresql.auto.conf").write_text(
        f"primary_conninfo = 'host={HOST} port={new.port} user=postgres'\nsynchronous_standby_names = 'nobody'\n")
    (old.data / "standby.signal").touch()
    shutil.chown(old.data / "standby.signal", OTHER_USER)
    old.start()
    assert old.value("SELECT pg_is_in_recovery()")
    wait_for_slave(cluster, old, new)
    assert old.value("SELECT count(*) FROM load WHERE client = -6") == 0
    assert old.data.with_name(old.data.name + ".pgxc_old").exists()


def test_interrupted_return_goes_on(make_cluster):
    """The host went down in the middle of pg_rewind: what is left of that server never starts as a master, whether a
    coordinator can be asked or not, and then a copy takes its place."""
    cluster = make_cluster()
    old, new = fail_over(cluster)
    diverge(old)
    write_journal(old, "rewinding")
    cluster.coordinator.stop()
    assert "pg_rewind was begun on its files and has not come to its end" in start_refused(cluster, old)
    assert agent_log(old) == ""
    cluster.coordinator.start()
    cluster.wait_pooler()
    start_refused(cluster, old)
    wait_for_slave(cluster, old, new)
    assert old.data.with_name(old.data.name + ".pgxc_old").exists()


@pytest.fixture
def own_tree(workspace, monkeypatch):
    """Servers run from files that no other worker's tests run from: they may be changed."""
    bin_of_tree = next((workspace.path / "tree").glob("**/bin/postgres"), None)
    monkeypatch.setattr(workspace, "bin", bin_of_tree.parent if bin_of_tree else workspace._make_tree())


def test_rewind_from_a_master_that_was_replaced_is_given_up(own_tree, make_cluster, workspace):
    """It may hang for hours: by then another one is to be followed."""
    cluster = make_cluster(slaves=2, **PATIENT)
    cluster.wait_status(3, state="up", role_seen="slave", why="")
    old, _ = fail_over(cluster)
    diverge(old)
    program = workspace.bin / "pg_rewind"
    aside, begun = program.with_name("pg_rewind.aside"), old.data.with_name("begun")
    program.rename(aside)
    try:
        program.write_text(f"#!/bin/sh\necho > {begun}\nexec sleep 600\n")
        program.chmod(0o755)
        start_refused(cluster, old)
        wait_for(begun.exists, f"pg_rewind: {agent_log(old)}")
    finally:
        aside.rename(program)
    left, = (node_id for kind, node_id, _, _, master, _ in cluster.nodes() if (kind, master) == ("D", 1))
    wait_for(lambda: f"pgxc_d_{left}_e1" in cluster.slaves[5 - left].value("SHOW synchronous_standby_names"),
             "the one that is left to count")
    promote(cluster, node_id=left)
    newest = cluster.slaves[left]
    wait_for(lambda: ("D", 5 - left, HOST, old.port, 1, "s") in cluster.nodes(),
             f"the old master's return: {agent_log(old)}")
    row = -time.monotonic_ns()
    cluster.pooler_sql("INSERT INTO load VALUES (-5, %s)", (row,))
    wait_for(lambda: old.value("SELECT count(*) FROM load WHERE seq = %s", (row,)) == 1, "a new row at the old master")
    assert newest.value("SELECT count(*) FROM load WHERE client = -6") == 0


def test_two_starts_at_once(make_cluster):
    """Whoever starts it repeatedly, as systemd would, disturbs nothing."""
    cluster = make_cluster()
    old, new = fail_over(cluster)
    diverge(old)
    start_refused(cluster, old)
    for _ in range(4):
        runs, log = try_start(old)
        if runs and UNHEARD in log:
            stop_at_once(old)
        elif runs:  # by then it had been made a slave
            assert old.value("SELECT pg_is_in_recovery()") is True
            break
    wait_for_slave(cluster, old, new)
    assert old.value("SELECT count(*) FROM load WHERE client = -6") == 0


def test_coordinator_killed_while_the_library_restarts(make_cluster, workspace):
    """The promotion is finished by the next monitor, wherever the restart was."""
    cluster = make_cluster()
    slave, port = cluster.slaves[2], workspace.free_port()
    old_port = slave.port
    monitor = cluster.worker("monitor")
    asking = threading.Thread(target=promote_quietly, args=(cluster, port))
    asking.start()
    journal = slave.data / "pgxc_ha.restart"
    wait_for(lambda: journal.exists() or not asking.is_alive(), "the restart to begin", interval_s=0.001)
    os.kill(monitor, signal.SIGKILL)
    asking.join()
    # Until then all that is asked below may be answered as it was before.
    cluster.wait_for_another("monitor", monitor)
    wait_for(lambda: history(cluster), "the promotion")
    row = cluster.wait_status(1, state="up", gate="open", role_seen="master")
    assert row["node_port"] in (port, old_port)
    slave.port = row["node_port"]
    assert slave.value("SELECT pg_is_in_recovery()") is False
    cluster.wait_pooler()
    cluster.pooler_sql("INSERT INTO load VALUES (-4, 0)")
    wait_for(lambda: not journal.exists(), "the journal to go")


def promote_quietly(cluster, port):
    with contextlib.suppress(psycopg2.Error):
        promote(cluster, f"WITH CONNECTION (':{port}')")


def test_refusal_without_return(make_cluster):
    """pgxc.rejoin is off: the server doesn't start, its files stay, and the message has the command; it can be started all
    the same by who says so."""
    cluster = make_cluster(rejoin="off")
    old, new = fail_over(cluster)
    (old.data / "postmaster.pid").unlink()

    def files_of(server):
        return {path.name: path.read_bytes() for path in server.data.iterdir() if path.is_file()}
    files = files_of(old)
    log = start_refused(cluster, old)
    assert "FATAL" in log and f"it is the one at {new.address}" in log
    assert f"pg_rewind -D {old.data}" in log
    assert files_of(old) == files
    assert agent_log(old) == ""
    why = wait_for_why(cluster, "pgxc.rejoin is off")
    assert "pgxc.rejoin is off" in why and f"pg_rewind -D {old.data}" in why
    old.configure({"pgxc.coordinators": ""})
    old.start()
    assert old.value("SELECT pg_is_in_recovery()") is False
    assert len(history(cluster)) == 1


def test_no_coordinator_keeps_a_datanode_from_starting(make_cluster):
    cluster = make_cluster(restart_grace="60s")
    master = cluster.masters[1]
    cluster.coordinator.stop()
    began, size = time.monotonic(), len(master.log_text())
    master.restart()
    assert UNHEARD in master.log_text()[size:]
    # One that takes connections and never says anything.
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        master.configure({"pgxc.coordinators": f"1={HOST}:{silent.getsockname()[1]}, 2={cluster.coordinator.address}"})
        master.restart()
    assert master.value("SELECT pg_is_in_recovery()") is False
    assert time.monotonic() - began < 100
    # Back in contact the present master starts, and goes on.
    master.configure({"pgxc.coordinators": f"1={cluster.coordinator.address}"})
    cluster.coordinator.start()

    def starts_in_contact():
        cluster.wait_ready()
        wait_for_quick_answers(cluster)
        size = len(master.log_text())
        master.restart()
        return UNHEARD not in master.log_text()[size:]
    wait_for(starts_in_contact, "a restart that hears the coordinator")
    cluster.wait_ready()
    cluster.pooler_sql("INSERT INTO load VALUES (-2, 0)")


def request_of(cluster, kind, **changes):
    record = cluster.coordinator.value("SELECT record FROM pgxc.node_record WHERE node_type = 'D' AND node_id = 1")
    return {"request": kind, "ticket": f"test {time.monotonic_ns()}", "group": {"type": "D", "id": 1},
            "cluster_id": record["cluster_id"], "claim": record["claim"], "claim_owner": record["claim_owner"],
            "epoch": record["epoch"], "port": 0, "stream_failed": False, "time_limit_ms": 10000, **changes}


def answer_to(server, request):
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT set_config('pgxc.node_request', %s, false)", (json.dumps(request),))
        assert cursor.fetchone() == ("",)

    def answered():
        answer = json.loads(server.value("SHOW pgxc.node_answer") or "{}")
        return answer if answer.get("ticket") == request["ticket"] else None
    return wait_for(answered, f"an answer to {request}")


def test_bad_requests_change_nothing(make_cluster):
    cluster = make_cluster()
    master, slave = cluster.masters[1], cluster.slaves[2]
    master.sql("CREATE ROLE somebody LOGIN")
    wait_for(lambda: slave.value("SELECT count(*) FROM pg_roles WHERE rolname = 'somebody'") == 1, "the role")
    started = {server: server.value("SELECT pg_postmaster_start_time()") for server in (master, slave)}
    files = {server: {name: (server.data / name).read_bytes() for name in ("postgresql.conf", "postgresql.auto.conf")}
             for server in started}
    for server in started:
        good = json.dumps(request_of(cluster, "rejoin"))
        for options, text, code in (({"user": "somebody"}, good, "42501"), ({}, "nonsense", "22023"),
                                    ({}, "{}", "22023"), ({}, good.replace('"rejoin"', '"format"'), "22023"),
                                    ({}, json.dumps(request_of(cluster, "can restart", port="x")), "22023")):
            with pytest.raises(psycopg2.Error) as caught:
                server.sql("SELECT set_config('pgxc.node_request', %s, false)", (text,), **options)
            assert caught.value.pgcode == code, text
        for statement in ("ALTER SYSTEM SET pgxc.node_request = %s", "ALTER ROLE somebody SET pgxc.node_request = %s"):
            if server is master or "SYSTEM" in statement:
                with pytest.raises(psycopg2.Error):
                    server.sql(statement, (good,))
        with pytest.raises(psycopg2.Error) as caught:
            server.sql("SHOW pgxc.node_answer", user="somebody")
        assert caught.value.pgcode == "42501"
        # Well formed, and not what the record says.
        for kind, changes, says in (
                ("rejoin", {"cluster_id": "00000000"}, "another cluster"),
                ("rejoin", {"claim": 1, "claim_owner": "me"}, "claimed anew"),
                ("rejoin", {"epoch": 7}, "epoch"),
                ("rejoin", {"group": {"type": "D", "id": 9}}, "no record"),
                ("rejoin", {}, "does not wait for this server"),
                ("restart", {"port": cluster.workspace.free_port()}, "no promotion by a restart"),
                ("stop", {}, "no promotion is recorded")):
            # Who doesn't hear from a coordinator in time says that.
            answer = wait_for(lambda: "no coordinator" not in (answer := answer_to(server, request_of(
                cluster, kind, **changes)))["error"]["message"] and answer, "a coordinator to be heard")
            assert not answer["done"] and says in answer["error"]["message"], answer
    # What only looks is answered at once.
    slave.sql("SELECT set_config('pgxc.node_request', %s, false)",
              (json.dumps(request_of(cluster, "can restart", port=cluster.workspace.free_port())),))
    with pytest.raises(psycopg2.Error) as caught:
        slave.sql("SELECT set_config('pgxc.node_request', %s, false)",
                  (json.dumps(request_of(cluster, "can restart", port=master.port)),))
    assert caught.value.pgcode == "55006"
    assert {server: server.value("SELECT pg_postmaster_start_time()") for server in started} == started
    assert {server: {name: (server.data / name).read_bytes() for name in ("postgresql.conf", "postgresql.auto.conf")}
            for server in started} == files
    cluster.wait_status(1, state="up", gate="open", why="")
    assert history(cluster) == []


def test_refused_restart_changes_nothing(make_cluster):
    """What the library finds is what the statement says."""
    cluster = make_cluster(failover="off")
    slave, before = cluster.slaves[2], cluster.nodes()
    text = slave.conf_file.read_bytes()
    with socket.socket() as squatter:
        squatter.bind((HOST, 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        with pytest.raises(psycopg2.Error) as caught:
            promote(cluster, f"WITH CONNECTION (':{port}')")
    assert f"port {port} of this host is in use" in caught.value.diag.message_primary
    assert slave.conf_file.read_bytes() == text and cluster.nodes() == before
    assert slave.value("SELECT pg_is_in_recovery()")
    cluster.wait_status(1, state="up", gate="open")


def test_failed_restart_is_undone(make_cluster, workspace):
    """The start fails after the promotion is recorded: the library puts the files back, and says so."""
    cluster = make_cluster()
    slave, port = cluster.slaves[2], workspace.free_port()
    text = slave.conf_file.read_text()
    lock = slave.folder / f".s.PGSQL.{port}.lock"
    lock.write_text(f"{cluster.masters[1].postmaster_pid()}\n{cluster.masters[1].data}\n0\n{port}\n{slave.folder}\n")
    shutil.chown(lock, OTHER_USER)
    try:
        with pytest.raises(psycopg2.Error) as caught:
            promote(cluster, f"WITH CONNECTION (':{port}')")
    finally:
        lock.unlink()
    diag = caught.value.diag
    assert "restored" in f"{diag.message_primary} {diag.message_detail} {diag.message_hint}"
    assert slave.conf_file.read_text() == text
    assert slave.value("SELECT pg_is_in_recovery()") is False
    cluster.wait_status(1, state="up", gate="open")
    cluster.pooler_sql("INSERT INTO load VALUES (-4, 0)")


def test_missing_program_is_named(own_tree, make_cluster, workspace):
    """A module that was copied without its program says so, to the coordinator and at a start, and changes nothing."""
    cluster = make_cluster(failover="off")
    master, slave, before = cluster.masters[1], cluster.slaves[2], cluster.nodes()
    program, = workspace.path.glob("tree/**/pgxc_ha_node")
    aside = program.with_name("pgxc_ha_node.aside")
    program.rename(aside)
    try:
        with pytest.raises(psycopg2.Error) as caught:
            promote(cluster, f"WITH CONNECTION (':{workspace.free_port()}')")
        assert f'the program "{program}" of pgxc_ha can\'t be executed' in str(caught.value)
        assert "cmake --install" in str(caught.value)
        assert cluster.nodes() == before and slave.value("SELECT pg_is_in_recovery()")
        size = len(master.log_text())
        master.restart()
        assert str(program) in master.log_text()[size:] and "cmake --install" in master.log_text()[size:]
        cluster.wait_status(1, state="up", gate="open")
    finally:
        aside.rename(program)


def test_without_the_library_the_command_is_named(make_cluster):
    """Everything but the work on files goes over the network, and what needs files says what to type."""
    cluster = make_cluster(library=False)
    old, new, before = cluster.masters[1], cluster.slaves[2], cluster.nodes()
    for tail in ("WITH RESTART", f"WITH CONNECTION (':{old.port}')",
                 f"WITH CONNECTION (':{cluster.workspace.free_port()}')"):
        with pytest.raises(psycopg2.Error) as caught:
            promote(cluster, tail)
        diag = caught.value.diag
        assert "within reach" in diag.message_primary, diag.message_primary
        assert f"pg_ctl restart -D {new.data}" in diag.message_hint, diag.message_hint
        assert "Nothing was changed" in diag.message_detail
    assert cluster.nodes() == before
    cluster.wait_status(1, state="up", gate="open", why="")
    old.kill9()
    wait_for(lambda: history(cluster), "the failover")
    why = wait_for_why(cluster, "on its host:")
    assert f"on its host: pg_ctl stop -D {old.data}" in why and f"pg_rewind -D {old.data}" in why
    cluster.pooler_sql("INSERT INTO load VALUES (-4, 0)")
