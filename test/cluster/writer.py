"""A load that knows what it was promised: clients that insert one row per transaction without pause, and the proof
that no acknowledged row is missing and none is there twice."""

import collections
import threading
import time

import psycopg2

#: One answer to one insert. `result` is "acked", "failed" (the server says it did not commit) or "unknown".
Answer = collections.namedtuple("Answer", "client seq result sent at code")

#: SQLSTATEs that leave open whether the transaction was committed; an answer without one (the connection broke) does.
UNKNOWN = {None, "08007"}


class Writer:
    """`clients` threads, each with one connection by `dsn`, inserting (client, seq) into table `load`."""

    def __init__(self, dsn, clients=1):
        self._dsn = dsn
        self._stop = threading.Event()
        self._answers = [[] for _ in range(clients)]
        self.reconnects = 0
        self.trouble = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, deadline_s=60.0):
        self._stop.set()
        for thread in self._threads:
            thread.join(deadline_s)
            assert not thread.is_alive(), "a client of the load hangs"
        assert not self.trouble, self.trouble
        return self

    def answers(self):
        return [answer for of_client in self._answers for answer in of_client]

    def acked_count(self):
        return sum(1 for answer in self.answers() if answer.result == "acked")

    def acked_after(self, when):
        """How many clients have had a commit acknowledged after `when`."""
        return sum(1 for of_client in self._answers
                   if any(answer.result == "acked" and answer.sent > when for answer in of_client[-50:]))

    def _connect(self):
        connection = psycopg2.connect(**self._dsn)
        connection.autocommit = True
        return connection, connection.cursor()

    def _run(self, client):
        try:
            connection, cursor = self._connect()
            seq = 0
            while not self._stop.is_set():
                seq += 1
                code = None
                sent = time.monotonic()
                try:
                    cursor.execute("INSERT INTO load VALUES (%d, %d)" % (client, seq))
                    result = "acked"
                except psycopg2.Error as error:
                    code = error.pgcode
                    result = "unknown" if code in UNKNOWN else "failed"
                self._answers[client].append(Answer(client, seq, result, sent, time.monotonic(), code))
                if connection.closed:
                    self.reconnects += 1
                    connection, cursor = self._connect()
            connection.close()
        except Exception as error:  # told by stop(), in the thread that can fail the test
            self.trouble.append(f"client {client}: {error!r}")

    def outage_ms(self, killed_at):
        """Milliseconds from the last acknowledged commit that was sent before `killed_at` to the first one sent
        after it was known that something is wrong: the longest silence that begins at or spans the kill."""
        times = sorted(answer.at for answer in self.answers() if answer.result == "acked")
        after = [(later - earlier) * 1000 for earlier, later in zip(times, times[1:]) if later > killed_at]
        assert after, "no commit was acknowledged after the kill"
        return max(after)

    def verify(self, rows):
        """Compares with all rows (client, seq) of the table. Returns (lost, duplicated, phantom): acknowledged rows
        that are missing; rows that are there more than once; rows whose insert was answered with 'not committed'."""
        there = collections.Counter((client, seq) for client, seq in rows)
        acked = {(a.client, a.seq) for a in self.answers() if a.result == "acked"}
        failed = {(a.client, a.seq) for a in self.answers() if a.result == "failed"}
        lost = sorted(acked - there.keys())
        duplicated = sorted(row for row, times in there.items() if times > 1)
        phantom = sorted(failed & there.keys())
        return lost, duplicated, phantom
