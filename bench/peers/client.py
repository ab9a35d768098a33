"""A client of the peers: it connects to whichever server takes writes, as libpq offers it."""

import collections
import contextlib
import os
import socket
import threading
import time

import psycopg2

from pgcluster import HOST
from writer import Answer, Writer

#: A server that is shut down may say so (57P01, 57P02) when the commit is on disk already.
UNKNOWN = {None, "08007", "57P01", "57P02"}
#: A stopped process's kernel goes on acknowledging what is sent to it, so that neither keepalives nor tcp_user_timeout
#: end the wait: the client has to give up by itself. Both are the least that makes sense; libpq takes less than 2 s for 2 s.
ANSWER_DEADLINE_S = 1.0
CONNECT_TIMEOUT_S = 2
#: Between two attempts to connect that failed at once: a bare loop would take a processor from those that are measured.
RETRY_S = 0.02


def multi_host(nodes):
    """Connection options for the server among `nodes` that takes writes."""
    return {"host": ",".join(HOST for _ in nodes), "port": ",".join(str(node.port) for node in nodes), "user": "postgres",
            "dbname": "postgres", "target_session_attrs": "read-write", "connect_timeout": CONNECT_TIMEOUT_S}


class PeerWriter(Writer):
    """One thread for each of `dsns`, inserting (client, seq) into table `load`; reconnects until stopped. Gives up
    waiting for an answer after ANSWER_DEADLINE_S by closing the connection; clients in `patient` never do."""

    def __init__(self, dsns, patient=()):
        super().__init__(None, len(dsns))
        self._dsns = dsns
        self._deadlines = [None if client in patient else ANSWER_DEADLINE_S for client in range(len(dsns))]
        self._waiting = [None] * len(dsns)  # (since when, the connection's socket) of each client
        self.errors = collections.Counter()
        self._watchman = threading.Thread(target=self._watch, daemon=True)

    def start(self):
        self._watchman.start()
        return super().start()

    def acked_of(self, client):
        return sum(1 for answer in self._answers[client] if answer.result == "acked")

    def acked_by_client_after(self, client, when):
        return sum(1 for answer in self._answers[client] if answer.result == "acked" and answer.sent > when)

    def outage_ms(self, hit_at, taken_at):
        """Of client 0, who may go to whichever server takes writes: the longest silence that ended after the hit and began
        before a master took writes again."""
        times = [answer.at for answer in self._answers[0] if answer.result == "acked"]
        return max((later - earlier) * 1000 for earlier, later in zip(times, times[1:])
                   if later > hit_at and earlier < taken_at)

    def _watch(self):
        while any(thread.is_alive() for thread in self._threads) or not self._stop.is_set():
            for waiting, deadline_s in zip(list(self._waiting), self._deadlines):
                if waiting and deadline_s and time.monotonic() - waiting[0] > deadline_s:
                    with contextlib.suppress(OSError):
                        waiting[1].shutdown(socket.SHUT_RDWR)
            time.sleep(0.02)

    def _open(self, client):
        connection = psycopg2.connect(**self._dsns[client])
        connection.autocommit = True
        return connection, connection.cursor(), socket.socket(fileno=os.dup(connection.fileno()))

    def _insert(self, client, seq, cursor, wire):
        """One row; (result, SQLSTATE)."""
        sent = time.monotonic()
        self._waiting[client] = (sent, wire)
        try:
            cursor.execute("INSERT INTO load VALUES (%d, %d)" % (client, seq))
            return "acked", None
        except psycopg2.Error as error:
            deadline_s = self._deadlines[client]
            if error.pgcode is None and deadline_s and time.monotonic() - sent > deadline_s:
                self.errors["no answer"] += 1
            else:
                self.errors[error.pgcode or "connection lost"] += 1
            return "unknown" if error.pgcode in UNKNOWN else "failed", error.pgcode
        finally:
            self._waiting[client] = None

    def _run(self, client):
        try:
            connection = cursor = wire = None
            seq = 0
            while not self._stop.is_set():
                if connection is None:
                    try:
                        connection, cursor, wire = self._open(client)
                    except psycopg2.OperationalError:
                        self.errors["no connection"] += 1
                        self._stop.wait(RETRY_S)
                        continue
                seq += 1
                sent = time.monotonic()
                result, code = self._insert(client, seq, cursor, wire)
                self._answers[client].append(Answer(client, seq, result, sent, time.monotonic(), code))
                # A server that has become read only (25006) answers, and is left all the same.
                if connection.closed or code == "25006":
                    self.reconnects += 1
                    wire.close()
                    connection.close()
                    connection = None
            if connection is not None:
                wire.close()
                connection.close()
        except Exception as error:  # told by stop(), in the thread that can fail the measure
            self.trouble.append(f"client {client}: {error!r}")
