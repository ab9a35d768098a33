"""Who takes part in the measure of poolers: ours, PgBouncer, Pgpool-II and nobody (direct), at one and the same datanode."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test/cluster"))

from pgcluster import HOST, Cluster, as_server_user, running_as_root, wait_for  # noqa: E402

#: The title in tables, in the order of columns.
TITLES = {"ours": "ours", "ours2": "two workers", "pgbouncer": "PgBouncer", "pgpool": "Pgpool-II", "direct": "direct"}
#: Of Pgpool-II, which has one for each client: cells with more clients leave it out.
PGPOOL_PROCESSES = 72


def processor_ns(pid):
    """What a process and its threads have used so far, user and system; 0 once it has gone."""
    used = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            used += int((task / "schedstat").read_text().split()[0])
    return used


def descendants(pid):
    """A process and those that it started."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


class Entrant:
    """Where clients connect, and what that costs. `databases`: by protocol, where it isn't `postgres`. `most_clients`: that
    it can serve at a time; None = any number."""

    def __init__(self, name, port, pids=lambda: [], options="", databases=None, most_clients=None):
        self.name, self.port, self.pids, self.options, self.databases = name, port, pids, options, databases or {}
        self.most_clients = most_clients

    def serves(self, clients):
        return self.most_clients is None or clients <= self.most_clients

    def conninfo(self, protocol):
        database = self.databases.get(protocol, "postgres")
        return f"host={HOST} port={self.port} user=postgres dbname={database} options='{self.options}'"

    def processor_ns(self):
        return sum(map(processor_ns, self.pids()))

    def resident_kb(self, what="VmRSS"):
        """Of all its processes. `what`: VmRSS, or VmHWM for the highest since reset_peak()."""
        total = 0
        for pid in self.pids():
            # One that has gone meanwhile has none, and neither has one that nobody has waited for yet.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found = re.search(rf"^{what}:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
                total += int(found.group(1)) if found else 0
        return total

    def reset_peak(self):
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


class Field:
    """Starts the servers and those of `names` that are to be compared, and ends them."""

    def __init__(self, workspace, names, clients, pool_size):
        self.workspace, self.pool_size, self.clients = workspace, pool_size, clients
        self.processes = []
        self.entrants = {}
        self.cluster = Cluster(workspace)
        try:
            # Each pooler keeps its connections while another one is measured.
            self.room = 4 * pool_size + 3 * clients + 60
            self.datanode = self.cluster.make_datanode(1, max_connections=self.room, shared_buffers="512MB", autovacuum="off")
            for name in names:
                self.entrants[name] = getattr(self, f"_start_{name}")()
        except BaseException:
            self.destroy()
            raise

    def _start_direct(self):
        return Entrant("direct", self.datanode.port)

    def _start_ours(self, name="ours", workers=1):
        cluster = Cluster(self.workspace)
        cluster.masters[1] = self.datanode
        coordinator = cluster.make_coordinator(failover="off", max_pool_size=self.pool_size // workers, pooler_workers=workers,
                                               max_client_connections=10000, **{".max_connections": self.room})
        cluster.wait_ready()

        def all_workers():
            found = coordinator.child_pids("pgxc", "pooler")
            return found if len(found) == workers else None
        pids = wait_for(all_workers, "the pooler")
        return Entrant(name, cluster.pooler_port, lambda: pids, "-c pgxc.node=1")

    def _start_ours2(self):
        return self._start_ours("ours2", 2)

    def _start_program(self, name, command):
        # Debian keeps them where only root's PATH leads.
        program = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin")
        log = open(self.workspace.path / f"{name}.log", "w", encoding="utf-8")
        # In a session of its own, as a service is and as server processes are: the kernel may share processors by session
        # (sched_autogroup_enabled), and else it would have a part of pgbench's.
        process = subprocess.Popen([program, *map(str, command[1:])], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   cwd=self.workspace.path, start_new_session=True, **as_server_user())
        log.close()
        self.processes.append(process)
        return process

    def _ready(self, entrant, process):
        def answers():
            assert process.poll() is None, (self.workspace.path / f"{entrant.name}.log").read_text()
            return self.workspace.run("psql", "-X", "-q", "-h", HOST, "-p", entrant.port, "-U", "postgres", "-c", "SELECT 1",
                                      "postgres", check=False).returncode == 0
        wait_for(answers, f"{entrant.name} to answer")
        return entrant

    def _start_pgbouncer(self):
        port = self.workspace.free_port()
        folder = self.workspace.path
        # Its defaults otherwise. `session`: for what it can't do in transaction mode.
        (folder / "pgbouncer.ini").write_text(f"""[databases]
postgres = host={HOST} port={self.datanode.port} dbname=postgres
session = host={HOST} port={self.datanode.port} dbname=postgres pool_mode=session pool_size={self.clients}
[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/pgbouncer_users.txt
pool_mode = transaction
default_pool_size = {self.pool_size}
max_client_conn = 10000
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
""")
        (folder / "pgbouncer_users.txt").write_text('"postgres" ""\n')
        process = self._start_program("pgbouncer", ["pgbouncer", "-q", folder / "pgbouncer.ini"])
        return self._ready(Entrant("pgbouncer", port, lambda: [process.pid], databases={"prepared": "session"}), process)

    def _start_pgpool(self):
        port = self.workspace.free_port()
        folder = self.workspace.path / "pgpool"
        folder.mkdir()
        # A process for each client, with a server connection of its own; some more for psql and psycopg2.
        (folder / "pgpool.conf").write_text(f"""backend_clustering_mode = 'raw'
listen_addresses = '{HOST}'
port = {port}
socket_dir = '{folder}'
pcp_listen_addresses = ''
pcp_socket_dir = '{folder}'
pcp_port = {self.workspace.free_port()}
backend_hostname0 = '{HOST}'
backend_port0 = {self.datanode.port}
backend_data_directory0 = '{self.datanode.data}'
num_init_children = {PGPOOL_PROCESSES}
max_pool = 1
enable_pool_hba = off
pid_file_name = '{folder}/pid'
logdir = '{folder}'
work_dir = '{folder}'
""")
        for name in ("pcp.conf", "pool_hba.conf"):
            (folder / name).write_text("")
        if running_as_root():
            shutil.chown(folder, "postgres", "postgres")
        process = self._start_program("pgpool", ["pgpool", "-n", "-f", folder / "pgpool.conf", "-F", folder / "pcp.conf",
                                                 "-a", folder / "pool_hba.conf"])
        return self._ready(Entrant("pgpool", port, lambda: descendants(process.pid),
                                   most_clients=PGPOOL_PROCESSES - 8), process)

    def destroy(self):
        for process in self.processes:
            process.send_signal(signal.SIGINT)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []
