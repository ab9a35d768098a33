"""Real servers on loopback for tests and measures.

A Workspace is a temporary folder with a private copy of the server (test/lib/server_tree.sh) in which our module is
installed; a Server is one data directory in it; a Cluster is a coordinator, datanodes and their slaves. Servers run
as the caller, or as `postgres` when that is root. Everything made here is stopped and removed by Workspace.close(),
by the ids of processes whose folder is one of its data directories, and by nothing else.
"""

import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
#: How long a test waits for something that should happen at once. Long, because the machine may be busy.
PATIENCE_S = 60.0
#: Settings for those who promote by hand: a pause of a busy machine isn't taken for silence.
PATIENT = {"probe_timeout": "5s"}
#: Settings for those who don't measure how soon a silence counts: a pause of a busy machine isn't taken for one, and a
#: dead server, which refuses, is found out as soon as ever.
UNHURRIED = {"probe_timeout": "2500ms"}
#: Whether servers wait for their disk: who measures wants that.
DURABLE = False


class Timeout(AssertionError):
    """What was waited for did not happen in time."""


def wait_for(condition, what, deadline_s=PATIENCE_S, interval_s=0.02):
    """Polls `condition` until it is true and returns what it gave; errors of a server that isn't there count as
    'not yet'. Fails with `what` and the last answer after `deadline_s`."""
    end = time.monotonic() + deadline_s
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except psycopg2.OperationalError as error:
            last = error
        if time.monotonic() >= end:
            raise Timeout(f"waited {deadline_s:g} s for {what}; last: {last!r}")
        time.sleep(interval_s)


def running_as_root():
    return os.geteuid() == 0


#: What servers get of our environment, though it begins as libpq's variables do.
PASSED_ON = {"PG_CONFIG", "PGXC_CRASH_POINTS"}


def as_server_user(user=None):
    """Arguments for subprocess that run a command as the server user, or as another one if the caller is root, free of
    the caller's libpq variables."""
    arguments = {"env": {k: v for k, v in os.environ.items() if not k.startswith("PG") or k in PASSED_ON}}
    if running_as_root():
        entry = pwd.getpwnam(user or "postgres")
        arguments |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        # libpq looks for certificates there, and takes it amiss if it may not.
        arguments["env"]["HOME"] = entry.pw_dir
    return arguments


def postmaster_pid_in(data, living):
    """The pid in that data directory's postmaster.pid if it is one of those processes, else None."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid in living else None


class Workspace:
    """A temporary folder, the private server in it, and all servers made from it."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="pgxc."))
        self.path.chmod(0o755)
        if running_as_root():
            shutil.chown(self.path, "postgres", "postgres")
        self._reserved = []
        self.servers = []
        given = os.environ.get("PGXC_SERVER_BIN")
        self.bin = pathlib.Path(given) if given else self._make_tree()

    def _make_tree(self):
        build = os.environ.get("PGXC_BUILD_DIR", str(ROOT / "build-dev"))
        made = subprocess.run([str(ROOT / "test/lib/server_tree.sh"), build, str(self.path / "tree")],
                              stdout=subprocess.PIPE, text=True, check=True)
        return pathlib.Path(made.stdout.strip())

    def folder_of(self, user):
        """A folder for the servers of another user, which nobody else can look into."""
        path = self.path / f"of_{user}"
        if not path.exists():
            path.mkdir(mode=0o700)
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        return path

    def run(self, program, *arguments, check=True, timeout=120, place=None, user=None, programs=None, **options):
        """Runs one of the server's programs (or of those in the folder `programs`) as the server user, or another, on
        the host `place` (netns.Host) if there is one, and returns the CompletedProcess."""
        command = [str((programs or self.bin) / program), *map(str, arguments)]
        runs_as = as_server_user(user)
        if place:
            command = place.command(*command, user=runs_as.pop("user"))
            runs_as = {"env": runs_as["env"]}
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=timeout, cwd=self.path, **runs_as, **options)
        except subprocess.TimeoutExpired as error:
            raise Timeout(f"{program} {arguments} takes longer than {timeout} s") from error
        if check and done.returncode != 0:
            raise AssertionError(f"{program} {arguments} failed ({done.returncode}):\n{done.stdout}")
        return done

    def free_port(self):
        """Reserves a port: the bound socket that is kept does not listen, so a server (which sets SO_REUSEADDR) can
        take the port, while neither another test nor an outgoing connection gets it."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        self._reserved.append(holder)
        return holder.getsockname()[1]

    def template(self, name, programs=None):
        """A freshly made data directory to copy, one for each name: copies share their system identifier."""
        path = self.path / f"template_{name}"
        if not path.exists():
            self.run("initdb", "-D", path, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
                     programs=programs)
        return path

    def forget(self, servers):
        """Stops these servers and removes what they left."""
        for server in servers:
            server.destroy()
            self.servers.remove(server)

    def close(self):
        for server in self.servers:
            server.destroy()
        self.servers.clear()
        for holder in self._reserved:
            holder.close()
        shutil.rmtree(self.path, ignore_errors=True)


def forget_shared_memory(data):
    """Removes the segment that a killed server left (line 7 of postmaster.pid: key and id): the system has few."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        lines = (pathlib.Path(data) / "postmaster.pid").read_text().splitlines()
        segment = int(lines[6].split()[1])
        subprocess.run(["ipcrm", "-m", str(segment)], stderr=subprocess.DEVNULL, check=False)


class Server:
    """One PostgreSQL server of a workspace. Not started by its constructor. With `user` (and as root) it runs as that
    operating system user, and the other servers can't reach its files."""

    #: Settings of every server here; None: not set.
    common_settings = {}

    def __init__(self, workspace, name, port=None, place=None, folder=None, user=None, programs=None):
        """`place`: the host (netns.Host) that it runs on; `folder`: where its data directory is made; `programs`: the
        folder of its programs, if they aren't the workspace's."""
        self.programs = programs
        self.killed = None  # the pid of the postmaster that kill9() ended
        self.workspace = workspace
        self.name = name
        self.place = place
        self.host = place.address if place else HOST
        self.user = user
        self.port = port or workspace.free_port()
        self.folder = workspace.folder_of(user) if user else workspace.path
        self.data = (folder or self.folder) / f"{name}.{self.port}"
        self.log = self.folder / f"{name}.{self.port}.log"
        workspace.servers.append(self)

    def init(self, template, settings=None):
        """Makes the data directory from a template and appends settings to postgresql.conf."""
        subprocess.run(["cp", "-a", str(self.workspace.template(template, self.programs)), str(self.data)], check=True)
        if self.user:
            subprocess.run(["chown", "-R", f"{self.user}:", str(self.data)], check=True)
        wanted = {
            "port": self.port,
            "listen_addresses": self.host,
            "unix_socket_directories": self.folder,
            "max_connections": 150,
            "shared_buffers": "32MB",
            # In its own folder, which goes with it: what a killed server leaves in /dev/shm stays there.
            "dynamic_shared_memory_type": "mmap",
            # Servers are killed here, the machine isn't.
            "fsync": "on" if DURABLE else "off",
            "wal_log_hints": "on",
            "wal_keep_size": "256MB",
            "log_line_prefix": "%m [%p] %q%u@%d/%a ",
            "log_checkpoints": "off",
            **self.common_settings,
            **(settings or {}),
        }
        self.configure({name: value for name, value in wanted.items() if value is not None})
        if self.place:
            with open(self.data / "pg_hba.conf", "a", encoding="utf-8") as hba:
                hba.write("host all,replication all samenet trust\n")
        return self

    def init_from(self, master):
        """Makes the data directory by a plain `pg_basebackup -R` of `master`: nothing of ours is in it but the port."""
        # The workspace's own, whatever the server is: it serves all of them.
        self.workspace.run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
                           "-h", master.host, "-p", master.port, "-U", "postgres", place=self.place, user=self.user)
        text = re.sub(r"(?m)^port = \d+$", f"port = {self.port}", self.conf_file.read_text())
        self.conf_file.write_text(re.sub(r"(?m)^listen_addresses = .*$", f"listen_addresses = '{self.host}'", text))
        return self

    @property
    def conf_file(self):
        return self.data / "postgresql.conf"

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def configure(self, settings):
        """Appends settings to postgresql.conf (the last one of a name wins)."""
        with open(self.conf_file, "a", encoding="utf-8") as conf:
            for name, value in settings.items():
                conf.write(f"{name} = {value}\n" if isinstance(value, int)
                           else "{} = '{}'\n".format(name, str(value).replace("'", "''")))

    def _run(self, program, *arguments, **options):
        return self.workspace.run(program, *arguments, place=self.place, user=self.user, programs=self.programs,
                                  **options)

    def start(self, check=True):
        return self._run("pg_ctl", "start", "-D", self.data, "-l", self.log, "-w", "-t", "60", check=check)

    def stop(self, mode="fast", check=True, timeout_s=60):
        return self._run("pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-t", timeout_s, check=check)

    def restart(self, mode="fast"):
        return self._run("pg_ctl", "restart", "-D", self.data, "-m", mode, "-l", self.log, "-w", "-t", "60")

    def reload(self):
        return self._run("pg_ctl", "reload", "-D", self.data)

    def postmaster_pid(self):
        """The pid in postmaster.pid if that process lives in this data directory, else None."""
        return postmaster_pid_in(self.data, self.pids())

    def pids(self):
        """Every process of this server: each has the data directory as its current folder."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/cwd") == str(self.data):
                        found.append(int(entry))
        return found

    def child_pids(self, *words):
        """The server processes whose title has all of `words`, ignoring case."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                title = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").lower()
                if all(word.lower() in title for word in words):
                    found.append(pid)
        return found

    def child_pid(self, *words):
        """One of them; None if there is none."""
        return next(iter(self.child_pids(*words)), None)

    def kill9(self):
        """Kills the postmaster as the kernel would, and returns when that was (monotonic seconds)."""
        pid = self.postmaster_pid()
        assert pid, f"{self.name} is not running"
        self.killed = pid
        now = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return now

    def freeze(self):
        """Stops all processes of the server, as a machine that hangs."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def wait_gone(self):
        """Waits until no process of the server is left (children of a killed postmaster notice by themselves), and until
        the killed one is reaped: a zombie's pid in postmaster.pid keeps the server from starting again."""
        wait_for(self.gone, f"the processes of {self.name} to be gone")

    def gone(self):
        """No process of the server is left, and it could be started."""
        return not self.pids() and not (self.killed and os.path.exists(f"/proc/{self.killed}"))

    def dsn(self, **options):
        # Another host is out of our reach, its sockets' files aren't.
        merged = {"host": str(self.workspace.path) if self.place else HOST, "port": self.port, "user": "postgres", "dbname": "postgres", "connect_timeout": 10,
                  "application_name": "pgxc_test", **options}
        return {name: value for name, value in merged.items() if value is not None}

    def connect(self, autocommit=True, **options):
        connection = psycopg2.connect(**self.dsn(**options))
        connection.autocommit = autocommit
        return connection

    def sql(self, text, arguments=None, **options):
        """Runs `text` in a session of its own; the rows, or None if it gives none."""
        with contextlib.closing(self.connect(**options)) as connection, connection.cursor() as cursor:
            cursor.execute(text, arguments)
            return cursor.fetchall() if cursor.description else None

    def value(self, text, arguments=None, **options):
        """The only column of the only row, or None if there is no row."""
        rows = self.sql(text, arguments, **options)
        return rows[0][0] if rows else None

    def sql_unless_in_use(self, text):
        """Runs `text`; False where a session is in its way."""
        try:
            self.sql(text)
        except psycopg2.errors.ObjectInUse:
            return False
        return True

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def destroy(self):
        deadline = time.monotonic() + 10
        sent = None
        while self.pids():
            wanted = signal.SIGQUIT if time.monotonic() < deadline else signal.SIGKILL
            if wanted != sent or wanted == signal.SIGKILL:
                sent = wanted
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, wanted)
                        os.kill(pid, signal.SIGCONT)
            time.sleep(0.02)
        forget_shared_memory(self.data)
        shutil.rmtree(self.data, ignore_errors=True)


class Cluster:
    """One coordinator and datanodes with slaves. Node ids: masters 1, 2, ...; slaves as they are registered."""

    def __init__(self, workspace, network=None, user=None):
        """`network` (netns.Network): each server gets a host of its own, and the coordinator can't see the datanodes'
        files. `user`: of the datanodes and their slaves, on one host."""
        self.workspace = workspace
        self.network = network
        self.user = user
        self.coordinator = None
        self.pooler_port = None
        self.masters = {}
        self.slaves = {}
        self._made = []

    def server(self, name, port=None, user=None):
        place = folder = None
        if self.network:
            place = self.network.host(name)
            if name == "coordinator":
                place.hide(self._apart())
            else:
                folder = self._apart()
        made = Server(self.workspace, name, port, place=place, folder=folder, user=user)
        self._made.append(made)
        return made

    def _apart(self):
        """Where the datanodes' data directories are if they have hosts of their own."""
        folder = self.workspace.path / "apart"
        if not folder.exists():
            folder.mkdir(mode=0o755)
            shutil.chown(folder, "postgres", "postgres")
        return folder

    def make_datanode(self, node_id, **settings):
        """A started master that knows nothing of us."""
        self.masters[node_id] = self.server(f"datanode{node_id}", user=self.user).init(f"datanode{node_id}", settings)
        self.masters[node_id].start()
        return self.masters[node_id]

    def make_coordinator(self, extension=True, **settings):
        """A started coordinator that knows the datanodes made so far. Settings of pgxc are given without `pgxc.`
        (pooler_port=0), those of the server with a dot in front (**{'.jit': 'off'})."""
        self.pooler_port = settings.pop("pooler_port", None)
        if self.pooler_port is None:
            self.pooler_port = self.workspace.free_port()
        server = self.server("coordinator", settings.pop("port", None))
        ours = {
            "node_id": 1,
            "coordinators": f"1={server.address}",
            "datanodes": ", ".join(f"{n}={m.address}" for n, m in self.masters.items()),
            "pooler_port": self.pooler_port,
            **settings,
        }
        self.coordinator = server.init("coordinator", {
            "shared_preload_libraries": "pgxc_ha",
            "max_prepared_transactions": 64,
            **{(name[1:] if name.startswith(".") else f"pgxc.{name}"): value for name, value in ours.items()},
        })
        server.start()
        if extension:
            self.coordinator.sql("CREATE EXTENSION pgxc_ha")
        self.wait_pooler()
        return server

    def make_slave(self, node_id, master_id):
        """A started slave of a master or slave, made by pg_basebackup -R, not registered."""
        upstream = self.masters.get(master_id) or self.slaves[master_id]
        self.slaves[node_id] = self.server(f"slave{node_id}", user=self.user).init_from(upstream)
        self.slaves[node_id].start()
        return self.slaves[node_id]

    def register(self, node_id, master_id, replication=None):
        """Types REGISTER DATANODE SLAVE for a slave made before; `replication` is SYNCHRONOUS, ASYNCHRONOUS or None."""
        tail = f" REPLICATION TO {replication}" if replication else ""
        self.coordinator.sql(f"REGISTER DATANODE SLAVE IDENTIFIED BY ID {node_id} "
                             f"WITH CONNECTION ('{self.slaves[node_id].address}') ON MASTER {master_id}{tail}")

    def pooler_dsn(self, node=1, options="", **more):
        """Connection options that lead through the pooler to datanode group `node` ('C': the coordinator)."""
        choice = f"-c pgxc.node={node}" if node is not None else ""
        return self.coordinator.dsn(port=self.pooler_port, options=f"{choice} {options}".strip() or None, **more)

    def pooler(self, node=1, autocommit=True, options="", **more):
        connection = psycopg2.connect(**self.pooler_dsn(node, options, **more))
        connection.autocommit = autocommit
        return connection

    def pooler_sql(self, text, arguments=None, node=1, **more):
        with contextlib.closing(self.pooler(node, **more)) as connection, connection.cursor() as cursor:
            cursor.execute(text, arguments)
            return cursor.fetchall() if cursor.description else None

    def status(self, node_id, node_type="D"):
        """The node's row of pgxc_node_status as a dictionary; None if there is none."""
        with contextlib.closing(self.coordinator.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM pgxc_node_status WHERE node_type = %s AND node_id = %s", (node_type, node_id))
            row = cursor.fetchone()
            return dict(zip((column.name for column in cursor.description), row)) if row else None

    def wait_status(self, node_id, deadline_s=PATIENCE_S, node_type="D", **wanted):
        """Waits until the node's row has all the given values, and returns it."""
        def reached():
            row = self.status(node_id, node_type)
            return row if row and all(row[name] == value for name, value in wanted.items()) else None
        try:
            return wait_for(reached, f"node {node_type}{node_id} to be {wanted}", deadline_s)
        except Timeout as error:
            raise Timeout(f"{error}; it is {self.status(node_id, node_type)}") from None

    def kill9_replicated(self, node_id=1):
        """Kills a master that has no WAL which its synchronous slaves lack: who writes some unasked stands still since the
        last commit."""
        master = self.masters[node_id]
        for pid in [*master.child_pids("background writer"), *master.child_pids("checkpointer")]:
            os.kill(pid, signal.SIGSTOP)
        self.pooler_sql("INSERT INTO load VALUES (-1, 0)", node=node_id)
        master.kill9()
        master.thaw()

    def worker(self, word):
        """The pid of the coordinator's `pooler` or `monitor`."""
        return wait_for(lambda: self.coordinator.child_pid("pgxc_ha", word), f"the {word} worker")

    def wait_for_another(self, word, pid):
        wait_for(lambda: self.coordinator.child_pid("pgxc_ha", word) not in (None, pid), f"a new {word} worker")

    def wait_pooler(self):
        """Waits until the pooler, a process of its own that starts after the server, takes connections."""
        host = self.coordinator.dsn()["host"]
        family, address = (socket.AF_UNIX, f"{host}/.s.PGSQL.{self.pooler_port}") if host.startswith("/") \
            else (socket.AF_INET, (host, self.pooler_port))

        def listens():
            with socket.socket(family) as probe:
                probe.settimeout(10)
                return probe.connect_ex(address) == 0

        if self.pooler_port != 0:
            wait_for(listens, "the pooler to listen")

    def wait_ready(self):
        """Waits until the pooler listens, the monitor has seen all nodes up, the pooler may route to all masters, and every
        synchronous slave counts."""
        self.wait_pooler()
        for node_id in self.masters:
            self.wait_status(node_id, state="up", gate="open")
        for (node_id,) in self.coordinator.sql("SELECT node_id FROM pgxc_nodes WHERE node_type = 'D'"):
            self.wait_status(node_id, state="up")
        # A slave that was away for a moment, or slow to begin, is not relied on until it streams.
        wait_for(lambda: self.coordinator.value(
            "SELECT bool_and(record->>'pending' IS NULL AND jsonb_array_length(record->'configurations') = 1 "
            "AND jsonb_array_length(record->'configurations'->0->'slaves') = (SELECT count(*) FROM pgxc_nodes AS slave "
            "WHERE slave.node_type = 'D' AND slave.node_master_id = node_record.node_id AND slave.node_replication = 's')) "
            "IS NOT FALSE FROM pgxc.node_record WHERE node_type = 'D'"), "every synchronous slave to count")
        return self

    def nodes(self):
        """pgxc_nodes without the epochs: (type, id, host, port, master, replication), ordered."""
        return self.coordinator.sql("SELECT node_type, node_id, node_host, node_port, node_master_id, node_replication "
                                    "FROM pgxc_nodes ORDER BY node_type, node_id")

    def destroy(self):
        self.workspace.forget(self._made)
        self._made = []


def standard_cluster(workspace, datanodes=1, slaves=1, replication="SYNCHRONOUS", network=None, **settings):
    """A ready cluster: masters 1..datanodes, `slaves` registered slaves for each, with ids from datanodes + 1 on in
    the order of their masters; and a table `load` on each master."""
    cluster = Cluster(workspace, network)
    try:
        for node_id in range(1, datanodes + 1):
            cluster.make_datanode(node_id)
        cluster.make_coordinator(**settings)
        slave_id = datanodes
        for master_id in range(1, datanodes + 1):
            cluster.masters[master_id].sql("CREATE TABLE load (client int, seq bigint)")
            for _ in range(slaves):
                slave_id += 1
                cluster.make_slave(slave_id, master_id)
                cluster.register(slave_id, master_id, replication)
        return cluster.wait_ready()
    except BaseException:
        for server in cluster._made:
            print(f"--- end of the log of {server.name}:\n{server.log_text()[-4000:]}")
        cluster.destroy()
        raise
