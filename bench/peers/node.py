"""The machine of one node, played by a folder: every process that is started here has the folder, or one below it, as
its current folder, and so have its children. That is how they are found, frozen and ended."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

import psycopg2

from pgcluster import HOST, forget_shared_memory, postmaster_pid_in, running_as_root, wait_for

#: Debian's own programs: the peers' packages are built for this server, whatever PG_CONFIG says.
BIN = pathlib.Path("/usr/lib/postgresql/15/bin")

#: The same for every server of the peers, and the same as test/cluster/pgcluster.py gives to ours.
SERVER_SETTINGS = {"shared_buffers": "32MB", "max_connections": "150", "wal_log_hints": "on", "wal_keep_size": "256MB",
                   "log_line_prefix": "%m [%p] %q%u@%d/%a "}


def pids_in(folder):
    """Every process whose current folder is `folder` or below it."""
    top = str(folder)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                where = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
                if where == top or where.startswith(top + "/"):
                    found.append(int(entry))
    return found


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Node:
    """A folder with one server's data directory and the programs that look after it."""

    def __init__(self, workspace, name):
        self.name = name
        self.port = workspace.free_port()
        self.folder = workspace.path / f"{name}.{self.port}"
        self.data = self.folder / "data"
        self.folder.mkdir()
        if running_as_root():
            shutil.chown(self.folder, "postgres", "postgres")
        self._children = []

    @property
    def address(self):
        return f"{HOST}:{self.port}"

    def _as_server_user(self, path=BIN, extra=None):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("PG", "XDG_", "PATRONI", "ETCD"))}
        here = str(self.folder)
        # Nothing may be written elsewhere: not to the home of postgres, not to /run, not to /tmp. (pg_autoctl takes the
        # directory of its servers' sockets from PG_REGRESS_SOCK_DIR.)
        environment = {**kept, "PATH": f"{path}:{BIN}:/usr/bin:/bin", "HOME": here, "TMPDIR": here, "LC_ALL": "C.UTF-8",
                       "XDG_CONFIG_HOME": here, "XDG_DATA_HOME": here, "XDG_RUNTIME_DIR": here,
                       "PG_REGRESS_SOCK_DIR": here, "PYTHONDONTWRITEBYTECODE": "1",
                       **(extra or {})}
        arguments = {"env": environment, "cwd": self.folder, "stdin": subprocess.DEVNULL, "start_new_session": True}
        if running_as_root():
            arguments |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        return arguments

    def run(self, *command, check=True, timeout=120, **more):
        """Runs a command on this node to its end; its output. It may leave servers behind, so the output is a file."""
        log = self.folder / "run.log"
        with open(log, "w", encoding="utf-8") as out:
            done = subprocess.run([*map(str, command)], stdout=out, stderr=subprocess.STDOUT, timeout=timeout,
                                  **self._as_server_user(**more))
        text = log.read_text(errors="replace")
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{text[-4000:]}")
        return text

    def spawn(self, *command, **more):
        """Starts a program that stays; its output goes to a log in the node's folder."""
        log = self.folder / f"{pathlib.Path(str(command[0])).name}.log"
        with open(log, "a", encoding="utf-8") as out:
            child = subprocess.Popen([*map(str, command)], stdout=out, stderr=subprocess.STDOUT,
                                     **self._as_server_user(**more))
        self._children.append(child)
        return child

    def write(self, name, text, mode=0o644):
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        if running_as_root():
            shutil.chown(path, "postgres", "postgres")
        return path

    def pids(self):
        return pids_in(self.folder)

    def postmaster_pid(self):
        return postmaster_pid_in(self.data, self.pids())

    def supervisor_pids(self):
        """Every process of the node that is not PostgreSQL's."""
        servers = set(pids_in(self.data))
        return [pid for pid in self.pids() if pid not in servers]

    def kill9(self, with_supervisor):
        """kill -9 of the postmaster, and just before of what would start it again; when that was (monotonic)."""
        pid = self.postmaster_pid()
        assert pid, f"{self.name} is not running"
        now = time.monotonic()
        send([*(self.supervisor_pids() if with_supervisor else []), pid], signal.SIGKILL)
        return now

    def freeze(self):
        now = time.monotonic()
        stopped = set()
        # Again until nobody is left: one that wasn't stopped yet may have had a child.
        while fresh := set(self.pids()) - stopped:
            send(fresh, signal.SIGSTOP)
            stopped |= fresh
        return now

    def thaw(self):
        send(self.pids(), signal.SIGCONT)
        return time.monotonic()

    def dsn(self, **more):
        return {"host": HOST, "port": self.port, "user": "postgres", "dbname": "postgres", "connect_timeout": 2, **more}

    def sql(self, text, **more):
        with contextlib.closing(psycopg2.connect(**self.dsn(**more))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else None

    def value(self, text, **more):
        rows = self.sql(text, **more)
        return rows[0][0] if rows else None

    def is_master(self):
        """Whether the server answers and takes writes."""
        try:
            return self.value("SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'")
        except psycopg2.Error:
            return False

    def logs(self, length=3000):
        """The ends of the logs, to be told when something fails."""
        return "".join(f"--- {path.name} of {self.name}:\n{path.read_text(errors='replace')[-length:]}\n"
                       for path in sorted([*self.folder.glob("*.log"), *self.data.glob("*.log"), *self.data.glob("log/*")]))

    def destroy(self):
        """Ends every process of the node and removes its folder."""
        def ended():
            send(self.pids(), signal.SIGKILL)
            for child in self._children:
                child.poll()
            return not self.pids()
        wait_for(ended, f"the processes of {self.name} to end", 30)
        forget_shared_memory(self.data)
        shutil.rmtree(self.folder, ignore_errors=True)
