"""Clients that write and read alternately through the pooler, and the proof that no read was stale."""

import contextlib
import threading
import time

import psycopg
import psycopg2


class CausalLoad:
    """Each of `clients` counts its own row up (or is told not to, `write_share`), and then reads all rows: each must be at
    least what its writer had been told was committed when the read began."""

    def __init__(self, dsn, clients=16, reads_per_write=1, rest=None):
        """`rest` = (seconds, seconds): all write for so long, and then for so long they only read, in turn."""
        self.dsn = dsn
        self.reads_per_write = reads_per_write
        self.rest = rest
        self.acked = [0] * clients
        self.seen = [[0] * clients for _ in range(clients)]
        self.stale = []
        self.backwards = 0
        self.reads = {}  # server's port -> how many
        self.errors = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wanted = 0

    @staticmethod
    def prepare(server, clients=16):
        # One transaction: no slave ever has the table without its rows.
        server.sql("DROP TABLE IF EXISTS counted; CREATE TABLE counted (client int PRIMARY KEY, n int); "
                   "INSERT INTO counted SELECT i, 0 FROM generate_series(0, %s) i", (clients - 1,))

    def _connect(self, number):
        # Each second one by statements that are prepared by name.
        return psycopg.connect(**self.dsn, prepare_threshold=0) if number % 2 else psycopg2.connect(**self.dsn)

    def _may_write(self):
        return self.rest is None or (time.monotonic() - self._began) % sum(self.rest) < self.rest[0]

    def _write(self, cursor, number, mine):
        if mine % 3 == 0:
            # A block that begins with a read and goes on with a write.
            cursor.execute("BEGIN")
            cursor.execute("SELECT n FROM counted WHERE client = %s", (number,))
            if cursor.fetchone()[0] != mine - 1:
                self.stale.append((number, "own, in a block"))
        cursor.execute("UPDATE counted SET n = %s WHERE client = %s", (mine, number))
        if mine % 3 == 0:
            cursor.execute("COMMIT")

    def _client(self, number):
        try:
            with contextlib.closing(self._connect(number)) as connection, connection.cursor() as cursor:
                connection.autocommit = True
                mine = 0
                reads = {}
                while not self._stop.is_set():
                    if self._may_write():
                        mine += 1
                        self._write(cursor, number, mine)
                    self.acked[number] = mine
                    for _ in range(self.reads_per_write):
                        expected = list(self.acked)
                        cursor.execute("SELECT inet_server_port(), array_agg(n ORDER BY client) FROM counted")
                        port, now = cursor.fetchone()
                        reads[port] = reads.get(port, 0) + 1
                        if any(n < least for n, least in zip(now, expected)):
                            self.stale.append((number, port, expected, now))
                        if any(n < before for n, before in zip(now, self.seen[number])):
                            self.backwards += 1
                        self.seen[number] = now
                    with self._lock:
                        self._wanted -= self.reads_per_write
                        if self._wanted <= 0:
                            self._stop.set()
                with self._lock:
                    for port, count in reads.items():
                        self.reads[port] = self.reads.get(port, 0) + count
        except Exception as error:  # noqa: BLE001: told by run()
            self.errors.append(error)
            self._stop.set()

    def run(self, reads):
        self._wanted = reads
        self._began = time.monotonic()
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(len(self.acked))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds = time.monotonic() - self._began
        if self.errors:
            raise self.errors[0]
        return self
