"""What the soak is done to: a cluster, or the pooler alone under a sanitizer; and what is left of clients there."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

import psycopg2

import certificates
import pgcluster
from pgcluster import HOST, wait_for
from soak_deeds import TABLE

USER, GUARDED, OTHER, PASSWORD = "soak", "soak_guarded", "soak_other", "open sesame"
LOGIN_TIMEOUT_S = 2
#: Fewer than clients, so that these wait in the queue, and die there.
POOL = 10
#: Queries of dead clients run on in their server sessions, 20 s at most.
QUIET_S = 90.0
CRASH = re.compile(r'PANIC|TRAP:|was terminated by signal|"pgxc_ha.* exited with exit code|server process .* exited|'
                   r"terminating any other active|invalid memory alloc|leaked|double free|corrupted")
#: Server sessions that a pooler has at a node: not ours, nor the monitor's.
SESSIONS = ("FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename IN ('soak', 'soak_guarded', 'soak_other', "
            "'bystander', 'postgres') AND pid <> pg_backend_pid() AND application_name NOT LIKE 'pgxc_ha%' "
            "AND application_name <> 'soak observer'")


class Target:
    """Servers with the soak's roles and table, and one client that is there all the time. `address`: the pooler's."""

    user, guarded, password, login_timeout_s = USER, GUARDED, PASSWORD, LOGIN_TIMEOUT_S
    tls = True
    #: Whether the process's memory says anything.
    memory_counts = True

    def __init__(self):
        self._killed = []
        self._observers = {}
        self.nodes = []  # servers that have server sessions of the pooler; the master first
        self.bystander = None
        #: Who keeps a server connection until it has got another one: if all did, none would ever get it.
        self.may_hold_one = threading.BoundedSemaphore(POOL // 2)

    def prepare_roles(self, server, secret=PASSWORD):
        """Returns the stored secret of the role with a password."""
        server.sql(f"CREATE ROLE {OTHER}; CREATE ROLE {USER} LOGIN; GRANT {OTHER} TO {USER}; CREATE ROLE bystander LOGIN; "
                   f"SET password_encryption = 'scram-sha-256'; CREATE ROLE {GUARDED} LOGIN PASSWORD '{secret}'")
        return server.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (GUARDED,))

    def prepare_table(self):
        self.nodes[0].sql(f"{TABLE}; GRANT ALL ON soak_rows TO PUBLIC")

    def observe(self, server, text, arguments=None):
        """Asks a server directly, over a connection that is kept."""
        connection = self._observers.get(server)
        if connection is None or connection.closed:
            connection = self._observers[server] = server.connect(application_name="soak observer")
        with connection.cursor() as cursor:
            cursor.execute(text, arguments)
            return cursor.fetchall() if cursor.description else None

    # Disturbing

    def end_a_session(self):
        """Ends the server session of somebody, if there is one; that of the bystander is left alone."""
        server = self.nodes[int(time.monotonic() * 1000) % len(self.nodes)]
        found = self.observe(server, f"SELECT pid {SESSIONS} AND usename <> 'bystander' ORDER BY random() LIMIT 1")
        if not found:
            return False
        self._killed.append(time.monotonic())
        self.observe(server, "SELECT pg_terminate_backend(%s)", found[0])
        self._killed.append(time.monotonic())
        return True

    def killed_since(self, began):
        """Whether a client that began then may have lost its server session."""
        return any(when > began - 3 for when in self._killed[-4:])

    def reload(self):
        """The configuration is read anew."""

    # What is left

    def left(self):
        """Sentences about what clients left behind; empty if all is as it was."""
        raise NotImplementedError

    def wait_quiet(self):
        """Waits until nothing is left."""
        end = time.monotonic() + QUIET_S
        while left := self.left():
            if time.monotonic() > end:
                raise pgcluster.Timeout(f"after {QUIET_S:g} s without load there are still: {'; '.join(left)}")
            time.sleep(0.1)
        with self.bystander.cursor() as cursor:
            cursor.execute("SELECT 42")
            assert cursor.fetchone() == (42,)

    def busy_sessions(self):
        """Sentences about sessions at the nodes that do something, though nobody is there."""
        found = []
        for server in self.nodes:
            found += [f"{server.name}: session {row}" for row in self.observe(
                server, f"SELECT pid, usename, state, left(query, 60) {SESSIONS} AND state <> 'idle'")]
            found += [f"{server.name}: lock {row}" for row in self.observe(
                server, f"SELECT pid, locktype, mode FROM pg_locks WHERE pid IN (SELECT pid {SESSIONS})")]
        return found

    def sessions(self, server):
        return {pid for (pid,) in self.observe(server, f"SELECT pid {SESSIONS}")}

    def wrong_rows(self, least, most):
        """Sentences about rows of transactions that were never committed, or lost ones; then there are none."""
        wrong = []
        kept, lost = self.observe(self.nodes[0], "SELECT count(*) FILTER (WHERE what = 'kept'), "
                                  "count(*) FILTER (WHERE what <> 'kept') FROM soak_rows")[0]
        if not least <= kept <= most or lost:
            which = self.observe(self.nodes[0], "SELECT n, count(*) FROM soak_rows WHERE what <> 'kept' GROUP BY n LIMIT 20")
            wrong.append(f"{kept} rows in place of {least} to {most}, and {lost} that nobody has committed: {which}")
        self.observe(self.nodes[0], "TRUNCATE soak_rows")
        return wrong

    def pooler_pid(self):
        raise NotImplementedError

    def sockets(self):
        """How many sockets the pooler has, and how many descriptors in all."""
        folder = f"/proc/{self.pooler_pid()}/fd"
        links = []
        for entry in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(f"{folder}/{entry}"))
        return sum(link.startswith("socket:") for link in links), len(links)

    def figures(self):
        text = pathlib.Path(f"/proc/{self.pooler_pid()}/smaps_rollup").read_text()
        return {"kB": int(re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE)[1]), "descriptors": self.sockets()[1],
                "server sessions": sum(len(self.sessions(server)) for server in self.nodes)}

    def crashes(self):
        """Lines of logs that should not be there."""
        return [f"{server.name}: {line}" for server in self.servers() for line in server.log_text().splitlines()
                if CRASH.search(line)][:20]

    def servers(self):
        return self.nodes

    def finish(self):
        """Ends what is to be proven by its end; sentences about what is wrong."""
        return []

    def close(self):
        for connection in self._observers.values():
            connection.close()
        if self.bystander:
            self.bystander.close()


def install_certificate(authority, name, server):
    for end in ("crt", "key"):
        copy = server.data / f"server.{end}"
        shutil.copyfile(authority.folder / f"{name}.{end}", copy)
        os.chmod(copy, 0o600)
        if pgcluster.running_as_root():
            shutil.chown(copy, "postgres", "postgres")


class ClusterTarget(Target):
    """A coordinator with TLS, a master, and a slave that serves reads."""

    def __init__(self, workspace):
        super().__init__()
        self.cluster = cluster = pgcluster.Cluster(workspace)
        try:
            authority = certificates.Authority(workspace.path / "soak_certificates")
            authority.issue("server", "the server")
            cluster.make_datanode(1)
            cluster.make_coordinator(failover="off", max_pool_size=POOL, client_login_timeout=f"{LOGIN_TIMEOUT_S}s")
            cluster.make_slave(2, 1)
            cluster.register(2, 1, "ASYNCHRONOUS")
            install_certificate(authority, "server", cluster.coordinator)
            hba = cluster.coordinator.data / "pg_hba.conf"
            hba.write_text(f"host all {GUARDED},soak_nobody 127.0.0.0/8 scram-sha-256\nhost all all 127.0.0.0/8 trust\n"
                           + hba.read_text())
            cluster.coordinator.sql("ALTER SYSTEM SET ssl = on")
            cluster.coordinator.reload()
            self.nodes = [cluster.masters[1], cluster.slaves[2]]
            secret = self.prepare_roles(cluster.masters[1])
            self.prepare_roles(cluster.coordinator, secret)
            self.prepare_table()
            cluster.wait_ready()
            self.address = (HOST, cluster.pooler_port)
            self._pid = wait_for(lambda: cluster.coordinator.child_pid("pgxc", "pooler"), "the pooler")
            wait_for(self._tls_is_on, "TLS and pg_hba.conf to be in force")
            self.bystander = cluster.pooler(user="bystander", application_name="bystander")
            wait_for(lambda: not self.left(), "nothing but the bystander")
            self._sockets = self._own_sockets()
        except BaseException:
            self.close()
            raise

    _sockets = None

    def _tls_is_on(self):
        try:
            self.cluster.pooler(user=GUARDED, sslmode="require", password="wrong").close()
        except psycopg2.OperationalError as error:
            return "password" in str(error)
        with contextlib.closing(self.cluster.pooler(user=USER, sslmode="require", password=PASSWORD)):
            return False

    def servers(self):
        return [self.cluster.coordinator, *self.nodes]

    def pooler_pid(self):
        return self._pid

    def reload(self):
        self.observe(self.cluster.coordinator, "SELECT pg_reload_conf()")

    def _pooler_servers(self):
        return self.observe(self.cluster.coordinator, "SELECT node_id, pid, state, user_name FROM pgxc_pooler_servers")

    def _own_sockets(self):
        """Sockets that are no server connections."""
        return self.sockets()[0] - len(self._pooler_servers())

    def left(self):
        ask = lambda text: self.observe(self.cluster.coordinator, text)
        found = [f"client {row}" for row in ask("SELECT client_id, user_name, state, why FROM pgxc_pooler_clients "
                                                "WHERE application_name <> 'bystander'")]
        found += [f"pool {row}" for row in ask("SELECT node_id, user_name, clients_active, clients_waiting, servers_active, "
                                               "servers_connecting FROM pgxc_pools WHERE clients_active + clients_waiting + "
                                               "servers_active + servers_connecting > 0")]
        servers = self._pooler_servers()
        found += [f"server connection {row}" for row in servers if row[2] != "idle"]
        found += self.busy_sessions()
        for number, server in enumerate(self.nodes, 1):
            known, there = {pid for node, pid, _, _ in servers if node == number and pid}, self.sessions(server)
            if known != there:
                found.append(f"{server.name}: sessions {sorted(there)}, of which the pooler knows {sorted(known)}")
        if self._sockets is not None and (own := self._own_sockets()) != self._sockets:
            found.append(f"{own} sockets beside the server connections in place of {self._sockets}")
        return found

    def crashes(self):
        wrong = super().crashes()
        if (pid := self.cluster.coordinator.child_pid("pgxc", "pooler")) != self._pid:
            wrong.append(f"the pooler is process {pid} in place of {self._pid}")
        return wrong

    def close(self):
        super().close()
        self.cluster.destroy()


class StandaloneTarget(Target):
    """The pooler alone (pooler_standalone, of a build with sanitizers) in front of a master and a slave. It ends in good
    order, so that what it has lost is reported."""

    #: AddressSanitizer keeps what was freed for a while.
    memory_counts = False

    def __init__(self, workspace, program):
        super().__init__()
        assert b"__asan_init" in program.read_bytes(), f"{program} is of no build with AddressSanitizer, which would report"
        self._pooler = None
        self._log = workspace.path / "pooler_standalone.log"
        self.cluster = cluster = pgcluster.Cluster(workspace)
        try:
            master = cluster.make_datanode(1)
            self.nodes = [master, cluster.make_slave(2, 1)]
            secret = self.prepare_roles(master)
            self.prepare_table()
            wait_for(lambda: self.nodes[1].value("SELECT to_regclass('soak_rows') IS NOT NULL"), "the slave to have the table")
            certificates.Authority(workspace.path / "soak_certificates").issue("server", "the server")
            port = workspace.free_port()
            self.address = (HOST, port)
            runs_as = pgcluster.as_server_user()
            runs_as["env"] |= {"ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
            with open(self._log, "wb") as log:
                self._pooler = subprocess.Popen(
                    [str(program.resolve()), str(port), master.address, "--slave", self.nodes[1].address, "--pool", str(POOL),
                     "--login-timeout", str(LOGIN_TIMEOUT_S * 1000), "--guarded", f"{GUARDED}={secret}",
                     "--tls", str(workspace.path / "soak_certificates")],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=workspace.path, **runs_as)
            self.bystander = wait_for(lambda: psycopg2.connect(
                host=HOST, port=port, user="bystander", dbname="postgres", application_name="bystander"), "the pooler")
            self.bystander.autocommit = True
            with self.bystander.cursor() as cursor:
                cursor.execute("SELECT 1")
            self._own = self.own_sockets()
        except BaseException:
            self.close()
            raise

    def pooler_pid(self):
        return self._pooler.pid

    def own_sockets(self):
        return self.sockets()[0] - sum(len(self.sessions(server)) for server in self.nodes)

    def left(self):
        found = self.busy_sessions()
        if (own := self.own_sockets()) != self._own:
            found.append(f"{own} sockets beside the server connections in place of {self._own}")
        return found

    def crashes(self):
        wrong = super().crashes()
        if self._pooler.poll() is not None:
            wrong.append(f"the pooler ended with status {self._pooler.returncode}: {self._report()}")
        return wrong

    def figures(self):
        return super().figures() if self._pooler.poll() is None else {"kB": 0, "descriptors": 0, "server sessions": 0}

    def _report(self):
        text = self._log.read_text(errors="replace")
        begin = re.search(r"==\d+==ERROR|runtime error", text)
        return text[begin.start():][:6000] if begin else text[-2000:]

    def finish(self):
        if self._pooler.poll() is not None:
            return []  # crashes() has told
        self.bystander.close()
        self._pooler.send_signal(signal.SIGTERM)
        status = self._pooler.wait(60)
        text = self._log.read_text(errors="replace")
        if status != 0 or "ERROR: " in text and "Sanitizer" in text or "runtime error" in text:
            return [f"the pooler ended with status {status}: {self._report()}"]
        return []

    def close(self):
        super().close()
        if self._pooler and self._pooler.poll() is None:
            self._pooler.kill()
            self._pooler.wait()
        self.cluster.destroy()
