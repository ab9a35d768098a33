"""How a login ends: by libpq itself, since its wrappers don't tell the SQLSTATE of one that fails; and by hand, for
clients that don't behave."""

import ctypes
import ctypes.util
import select
import socket
import ssl
import struct
import time

import psycopg2.extensions

SSL_REQUEST = struct.pack("!II", 8, 80877103)

_pq = None


def _libpq():
    global _pq
    if _pq is None:
        _pq = ctypes.CDLL(ctypes.util.find_library("pq"))
        _pq.PQconnectStart.restype = ctypes.c_void_p
        _pq.PQerrorMessage.restype = ctypes.c_char_p
        for name in ("PQconnectPoll", "PQsocket", "PQerrorMessage", "PQfinish", "PQstatus"):
            getattr(_pq, name).argtypes = [ctypes.c_void_p]
        _pq.PQconnectStart.argtypes = [ctypes.c_char_p]
        _pq.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return _pq


def outcome(deadline_s=60, **dsn):
    """("ok", "") or (SQLSTATE, message); ("", message) where libpq gave up by itself."""
    pq = _libpq()
    connection = pq.PQconnectStart(psycopg2.extensions.make_dsn(**dsn).encode())
    try:
        pq.PQsetErrorVerbosity(connection, 2)
        end = time.monotonic() + deadline_s
        state = 2  # PGRES_POLLING_WRITING
        while state in (1, 2) and time.monotonic() < end:
            fd = pq.PQsocket(connection)
            reading, writing = ([fd], []) if state == 1 else ([], [fd])
            select.select(reading, writing, [], max(0, end - time.monotonic()))
            state = pq.PQconnectPoll(connection)
        if state == 3:
            return "ok", ""
        text = pq.PQerrorMessage(connection).decode()
        for line in reversed(text.splitlines()):
            if "FATAL:  " in line:
                sqlstate, _, message = line.split("FATAL:  ", 1)[1].partition(": ")
                return sqlstate, message
        return "", text
    finally:
        pq.PQfinish(connection)


def ask_for_tls(host, port):
    """A socket whose SSLRequest was answered with 'S'."""
    connection = socket.create_connection((host, port), timeout=60)
    connection.sendall(SSL_REQUEST)
    assert connection.recv(1) == b"S"
    return connection


def over_tls(host, port):
    """A connection in TLS, nothing sent in it yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(ask_for_tls(host, port))


def certificate_at(host, port):
    """The certificate that is offered, as bytes."""
    with over_tls(host, port) as connection:
        return connection.getpeercert(binary_form=True)


def startup(user, database, **options):
    body = struct.pack("!I", 196608)
    for name, value in {"user": user, "database": database, **options}.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def messages_until_ready(connection):
    """All messages up to ReadyForQuery, as (type, body)."""
    received = b""
    found = []
    while True:
        while len(received) >= 5:
            length = struct.unpack("!I", received[1:5])[0]
            if len(received) < length + 1:
                break
            found.append((received[:1], received[5:length + 1]))
            received = received[length + 1:]
            if found[-1][0] == b"Z":
                return found
        more = connection.recv(65536)
        if not more:
            raise EOFError(f"the connection ended after {found}")
        received += more
