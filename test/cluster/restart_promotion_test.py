#!/usr/bin/env python3
"""Restart promotion on real servers: port taken over, new timeline, failed starts undone.

    restart_promotion_test.py --driver PATH [--bindir DIR] [--rounds N]

Runs as any user but root; as root it runs itself again as `postgres`. Leaves nothing running.
"""
import argparse
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

ARGS = None
DEADLINE_S = 60


def run(*command, check=True, env=None):
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            stdin=subprocess.DEVNULL, timeout=DEADLINE_S, env=env)
    if check and result.returncode != 0:
        raise AssertionError(f"{command} failed:\n{result.stdout}")
    return result


def reserved_port():
    """A bound socket that doesn't listen, and its port: a server (which sets SO_REUSEADDR) can take the port, while
    neither another test nor an outgoing connection gets it."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder, holder.getsockname()[1]


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def wait_until(what, condition):
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"timed out waiting until {what}")


class Server:
    def __init__(self, root, name):
        self.data = root / name
        self.log = root / f"{name}.log"
        self.sockets = root
        self.holder, self.port = reserved_port()

    def program(self, name):
        return pathlib.Path(ARGS.bindir) / name

    def start(self, *options):
        # Its log is a file of its own, as pg_ctl -l and Debian's pg_ctlcluster do it.
        started = run(self.program("pg_ctl"), "start", "-D", self.data, "-l", self.log, "-w", *options, check=False)
        if started.returncode != 0:
            raise AssertionError(f"{self.data.name} does not start:\n{started.stdout}\n{self.log.read_text()}")

    def stop(self, mode="immediate"):
        run(self.program("pg_ctl"), "stop", "-D", self.data, "-m", mode, "-w", check=False)

    def sql(self, text, port=None):
        result = run(self.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p",
                     port or self.port, "-d", "postgres", "-c", text)
        return result.stdout.strip()

    def append(self, text):
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as f:
            f.write(text)

    def pid(self):
        return int((self.data / "postmaster.pid").read_text().split("\n")[0])

    def timeline(self):
        out = run(self.program("pg_controldata"), self.data).stdout
        return int(re.search(r"Latest checkpoint's TimeLineID: +(\d+)", out).group(1))

    def files(self):
        names = ("postgresql.conf", "postgresql.auto.conf")
        texts = {n: (self.data / n).read_bytes() for n in names}
        texts["signals"] = sorted(p.name for p in self.data.glob("*.signal"))
        return texts


class RestartPromotionTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="pgxc_restart_"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.master = Server(self.root, "master")
        self.slave = Server(self.root, "slave")
        run(self.master.program("initdb"), "-D", self.master.data, "-A", "trust", "-N", "-U", "postgres")
        self.master.append(f"port = {self.master.port}\t\t# clients know it\n"
                           f"unix_socket_directories = '{self.root}'\nlisten_addresses = '127.0.0.1'\n"
                           "wal_retrieve_retry_interval = 100ms\n")
        os.environ["PGUSER"] = "postgres"
        for server in (self.master, self.slave):
            self.addCleanup(server.holder.close)
            self.addCleanup(server.stop)
        self.master.start()
        self.clone(self.slave)

    def clone(self, slave):
        run(slave.program("pg_basebackup"), "-D", slave.data, "-R", "-h", self.root, "-p", self.master.port, "-c",
            "fast", "-N")
        conf = slave.data / "postgresql.conf"
        conf.write_text(conf.read_text().replace(f"port = {self.master.port}", f"port = {slave.port}"))
        slave.start()
        self.wait_for_slave(slave)

    def wait_for_slave(self, slave):
        wait_until("the slave streams", lambda: slave.sql(
            "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "1")

    def driver(self, *arguments, check=True):
        return run(ARGS.driver, *arguments, check=check, env={"PATH": "/usr/bin:/bin"})

    def promote_by_sql(self, port):
        self.slave.sql("SELECT pg_promote(false)", port)
        wait_until("it is the master", lambda: self.slave.sql("SELECT pg_is_in_recovery()", port) == "f")

    def test_takes_over_the_port_of_the_dead_master(self):
        self.master.sql("CREATE TABLE t AS SELECT 1 AS x")
        wait_until("the slave has it", lambda: self.slave.sql("SELECT to_regclass('t') IS NOT NULL") == "t")
        os.kill(self.master.pid(), signal.SIGKILL)
        wait_until("the master is gone", lambda: not listens(self.master.port))
        before = self.slave.files()
        out = self.driver("plan", self.slave.data, self.slave.data / "postgresql.conf", self.slave.port,
                          self.master.port).stdout
        self.assertIn("step restart server", out)
        self.assertEqual(self.slave.sql("SELECT pg_is_in_recovery()", self.master.port), "t")
        self.promote_by_sql(self.master.port)
        self.slave.sql("INSERT INTO t VALUES (2); CHECKPOINT", self.master.port)
        self.assertEqual(self.slave.sql("SELECT count(*) FROM t", self.master.port), "2")
        self.assertEqual(self.slave.timeline(), 2)
        after = self.slave.files()
        self.assertEqual(after["postgresql.conf"],
                         before["postgresql.conf"].replace(b"port = %d" % self.slave.port,
                                                           b"port = %d" % self.master.port))
        self.assertEqual(after["postgresql.auto.conf"], before["postgresql.auto.conf"])
        self.assertEqual(self.driver("unfinished", self.slave.data).stdout.strip(), "(none)")
        # It goes on writing to the log it had, and holds none of our descriptors.
        self.assertEqual(os.readlink(f"/proc/{self.slave.pid()}/fd/2"), str(self.slave.log))

    def test_restore_command_ends_recovery_by_itself(self):
        self.slave.sql("ALTER SYSTEM SET restore_command = 'false'")
        self.slave.sql("SELECT pg_reload_conf()")
        self.master.stop()
        out = self.driver("plan", self.slave.data, "", self.slave.port, self.master.port, "restore_command").stdout
        self.assertIn("recovery.signal", out)
        wait_until("it is the master", lambda: self.slave.sql("SELECT pg_is_in_recovery()", self.master.port) == "f")
        self.slave.sql("CHECKPOINT", self.master.port)
        self.assertEqual(self.slave.timeline(), 2)
        self.assertEqual(self.slave.files()["signals"], [])

    def test_port_in_use_is_refused_before_the_server_is_touched(self):
        before, pid = self.slave.files(), self.slave.pid()
        result = self.driver("plan", self.slave.data, "", self.slave.port, self.master.port, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("ERROR 55006", result.stdout)
        self.assertEqual((self.slave.files(), self.slave.pid()), (before, pid))

    def test_failed_start_is_undone(self):
        # It runs with a value that the next start refuses: pg_ctl fails, and the old files fail as well until the
        # port's own line is what breaks it. So break by port only: a socket lock of a living process.
        self.master.stop()
        blocker = self.root / f".s.PGSQL.{self.master.port}.lock"
        blocker.write_text(f"{os.getpid()}\n{self.root}\n1\n{self.master.port}\n{self.root}\n")
        before = self.slave.files()
        result = self.driver("plan", self.slave.data, "", self.slave.port, self.master.port, check=False)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(f"did not start on port {self.master.port}", result.stdout)
        self.assertIn("lock file", result.stdout)  # the server's own words
        self.assertIn(f"runs again on port {self.slave.port}", result.stdout)
        self.assertEqual(self.slave.files(), before)
        self.assertEqual(self.slave.sql("SELECT pg_is_in_recovery()"), "t")
        self.assertEqual(self.driver("unfinished", self.slave.data).stdout.strip(), "(none)")

    def test_invalid_setting_fails_both_ways_and_says_so(self):
        self.master.stop()
        self.slave.append("work_mem = nonsense\n")
        before = self.slave.files()
        result = self.driver("plan", self.slave.data, "", self.slave.port, self.master.port, check=False)
        self.assertIn("work_mem", result.stdout)
        self.assertIn("does not start with them either", result.stdout)
        self.assertEqual(self.slave.files(), before)

    def test_command_line_port_is_refused(self):
        self.slave.stop("fast")
        self.slave.start("-o", f"-p {self.slave.port}")
        self.master.stop()
        result = self.driver("plan", self.slave.data, "", self.slave.port, self.master.port, check=False)
        self.assertIn("ERROR 55000", result.stdout)
        self.assertIn("command line", result.stdout)

    def test_configuration_outside_the_data_directory(self):
        # As Debian has it: -D data -c config_file=/etc/...
        self.slave.stop("fast")
        etc = self.root / "etc"
        etc.mkdir()
        conf = etc / "postgresql.conf"
        shutil.move(self.slave.data / "postgresql.conf", conf)
        with conf.open("a", encoding="utf-8") as f:
            f.write(f"data_directory = '{self.slave.data}'\nhba_file = '{self.slave.data}/pg_hba.conf'\n"
                    f"ident_file = '{self.slave.data}/pg_ident.conf'\ninclude_dir 'conf.d'\n")
        (etc / "conf.d").mkdir()
        (etc / "conf.d/10.conf").write_text(f"port {self.slave.port}\n")
        self.slave.start("-o", f"-c config_file={conf} -c cluster_name='it is mine'")
        self.wait_for_slave(self.slave)
        self.master.stop()
        self.driver("plan", self.slave.data, conf, self.slave.port, self.master.port)
        self.assertEqual((etc / "conf.d/10.conf").read_text(), f"port {self.master.port}\n")
        self.assertEqual(self.slave.sql("SHOW config_file", self.master.port), str(conf))
        self.promote_by_sql(self.master.port)

    def test_decider_killed_in_the_middle(self):
        self.master.stop()
        before = self.slave.files()
        # Killed as soon as its journal is there; what it reached differs from run to run, the outcome must not.
        driver = subprocess.Popen([ARGS.driver, "plan", self.slave.data, "", str(self.slave.port),
                                   str(self.master.port)], stdout=subprocess.DEVNULL)
        with contextlib.suppress(AssertionError):
            wait_until("it has begun", lambda: (self.slave.data / "pgxc_ha.restart").exists()
                       or driver.poll() is not None)
        driver.kill()
        driver.wait()
        # A child that it was just making, or the program that it ran, may hold its lock a little longer.
        undone = []

        def unlocked():
            undone[:] = [self.driver("undo", self.slave.data, check=False)]
            return "ERROR 55P03" not in undone[0].stdout
        wait_until("nobody works on it", unlocked)
        self.assertEqual(undone[0].returncode, 0, undone[0].stdout)
        running = (self.slave.data / "postmaster.pid").exists()
        if running and self.slave.files() == before:
            self.assertEqual(self.driver("unfinished", self.slave.data).stdout.strip(), "(none)")
        port = self.slave.port if self.slave.files() == before else self.master.port
        self.driver("plan", self.slave.data, "", port, self.master.port, "restart")
        self.promote_by_sql(self.master.port)

    def test_again_and_again(self):
        self.master.stop()
        times = []
        ports = [self.slave.port, self.master.port]
        for round_number in range(ARGS.rounds):
            old, new = ports[round_number % 2], ports[(round_number + 1) % 2]
            begin = time.monotonic()
            out = self.driver("plan", self.slave.data, "", old, new).stdout
            times.append((time.monotonic() - begin) * 1000)
            print(out.splitlines()[-1], file=sys.stderr)
        print(f"restart with port change: median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms",
              file=sys.stderr)
        self.promote_by_sql(ports[ARGS.rounds % 2])


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", required=True)
    parser.add_argument("--bindir", default=None)
    parser.add_argument("--rounds", type=int, default=10)
    ARGS, rest = parser.parse_known_args()
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            sys.exit("servers don't run as root, and there is no user postgres")
        os.execvp("setpriv", ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", sys.executable,
                              "-B", os.path.abspath(__file__), *sys.argv[1:]])
    if ARGS.bindir is None:
        ARGS.bindir = run("pg_config", "--bindir").stdout.strip()
    ARGS.driver = os.path.abspath(ARGS.driver)
    os.chdir("/")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
