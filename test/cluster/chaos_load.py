"""The clients of a chaos run: each remembers every answer it had."""

import collections
import contextlib
import random
import threading
import time

import psycopg2

from writer import UNKNOWN

TABLE = """
    CREATE TABLE appended (
        client int, seq bigint,
        seen bigint,   -- the client's newest row as this transaction saw it
        line int DEFAULT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,  -- timeline
        port int DEFAULT current_setting('port')::int);
    CREATE INDEX ON appended (client, seq);
"""
#: Column `seen` chains a client's rows: a row that was acknowledged before and isn't seen was lost in between.
APPEND = """INSERT INTO appended (client, seq, seen)
            SELECT {client}, {seq}, coalesce(max(seq), 0) FROM appended WHERE client = {client} RETURNING line"""

#: All clients only read for so long at a time: while others write, the pooler can't know what a slave's answer may lack.
LULL_S = 1.5
LULL_EVERY_S = 12.0

Answer = collections.namedtuple("Answer", "seq result sent at code line")


def in_lull(now):
    return now % LULL_EVERY_S < LULL_S


def without_lulls(began, ended):
    """How much of that time is outside of lulls."""
    def until(moment):
        periods, rest = divmod(moment, LULL_EVERY_S)
        return periods * (LULL_EVERY_S - LULL_S) + max(rest - LULL_S, 0)
    return until(ended) - until(began)


class Appender:
    """A client of the pooler: appends its next numbers, alone or two in a block, and sometimes reads its newest."""

    def __init__(self, dsn, client, seed):
        self._dsn = dsn
        self.client = client
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self.answers = []
        self.last_acked_sent = 0.0  # when the newest acknowledged append was sent
        self._acked = 0  # its number
        self.reads = 0
        self.slave_reads = 0
        self.stale_reads = []
        self.read_times = []  # (sent, at) of each read, also of those that failed
        self.trouble = None
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"client {client}")

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()

    def join(self, deadline_s):
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), f"client {self.client} hangs"
        assert self.trouble is None, f"client {self.client}: {self.trouble!r}"

    def _run(self):
        connection = None
        seq = 0
        try:
            while not self._stop.is_set():
                if connection is None or connection.closed:
                    connection = self._connect()
                    continue
                choice = self._random.random()
                if choice < 0.1 or in_lull(time.monotonic()):
                    self._read(connection)
                elif choice < 0.3:
                    self._append(connection, [seq + 1, seq + 2])
                    seq += 2
                else:
                    self._append(connection, [seq + 1])
                    seq += 1
                self._stop.wait(0.004)  # the load needn't fill the machine
            if connection is not None:
                connection.close()
        except Exception as error:  # told by join(), in the thread that can fail the run
            self.trouble = error

    def _connect(self):
        """None where the coordinator isn't there, or doesn't let anybody in yet."""
        try:
            connection = psycopg2.connect(**self._dsn)
        except psycopg2.OperationalError:
            self._stop.wait(0.05)
            return None
        connection.autocommit = True
        return connection

    def _append(self, connection, numbers):
        in_block = len(numbers) > 1
        sent = time.monotonic()
        line = code = None
        may_be_committed = not in_block
        try:
            with connection.cursor() as cursor:
                if in_block:
                    cursor.execute("BEGIN")
                for seq in numbers:
                    cursor.execute(APPEND.format(client=self.client, seq=seq))
                    line = cursor.fetchone()[0]
                if in_block:
                    may_be_committed = True
                    cursor.execute("COMMIT")
            # A warning says that the wait for the slaves was cancelled: that is no acknowledgement.
            result = "unknown" if connection.notices else "acked"
        except psycopg2.Error as error:
            code = error.pgcode
            result = "unknown" if may_be_committed and code in UNKNOWN else "failed"
            if in_block or code is None:
                self._leave_block(connection, code)
        del connection.notices[:]
        at = time.monotonic()
        for seq in numbers:
            self.answers.append(Answer(seq, result, sent, at, code, line))
        if result == "acked":
            self._acked = numbers[-1]
            self.last_acked_sent = sent

    def _leave_block(self, connection, code):
        try:
            if code is None:
                connection.close()
            elif not connection.closed:
                connection.cursor().execute("ROLLBACK")
        except psycopg2.Error:
            connection.close()

    def _read(self, connection):
        """Every row that this client was promised must be seen, whoever answers."""
        promised = self._acked
        sent = time.monotonic()
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN READ ONLY")
                cursor.execute("SELECT coalesce(max(seq), 0), pg_is_in_recovery(), current_setting('port')::int FROM appended "
                               f"WHERE client = {self.client}")
                newest, by_slave, port = cursor.fetchone()
                cursor.execute("COMMIT")
        except psycopg2.Error as error:
            self._leave_block(connection, error.pgcode)
            return
        finally:
            self.read_times.append((sent, time.monotonic()))
        self.reads += 1
        self.slave_reads += by_slave
        if newest < promised:
            self.stale_reads.append((self.client, promised, newest, port))


class Witness:
    """Writes directly to one server as long as that lets it: to a former master that has woken or was started again.
    What it is told to be committed must be on the master in the end like everything else."""

    def __init__(self, server, client):
        self._server = server
        self.client = client
        self.answers = []
        self.sent = 0
        self._stop = threading.Event()
        self._connection = None
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"witness {client}")

    def connect(self):
        """Connects now, while the server still answers; not needed before start()."""
        with contextlib.suppress(psycopg2.OperationalError):
            self._connection = self._server.connect(connect_timeout=3, application_name="pgxc_witness")
        return self

    def start(self):
        self._thread.start()
        return self

    def end(self):
        self._stop.set()

    def alive(self):
        return self._thread.is_alive()

    def longest_wait(self, since):
        """The longest time without an acknowledgement from then to now."""
        times = [since, *(a.at for a in list(self.answers) if a.result == "acked" and a.at > since), time.monotonic()]
        return max(later - earlier for earlier, later in zip(times, times[1:]))

    def _run(self):
        seq = 0
        while not self._stop.is_set():
            if self._connection is None or self._connection.closed:
                self._connection = None
                self.connect()
                if self._connection is None:
                    self._stop.wait(0.1)
                    continue
            seq += 1
            self.sent += 1
            line = code = None
            sent = time.monotonic()
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(APPEND.format(client=self.client, seq=seq))
                    line = cursor.fetchone()[0]
                result = "unknown" if self._connection.notices else "acked"
            except psycopg2.Error as error:
                code = error.pgcode
                result = "unknown"  # directly connected clients are told less than those of the pooler
            del self._connection.notices[:]
            self.answers.append(Answer(seq, result, sent, time.monotonic(), code, line))
            self._stop.wait(0.05)
        if self._connection is not None:
            self._connection.close()
