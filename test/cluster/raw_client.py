"""A client that speaks the protocol by hand, so that it can stop, lie or die wherever it likes."""

import base64
import contextlib
import hashlib
import hmac
import os
import select
import socket
import ssl
import struct
import time

from bad_packets import message, startup

SSL_REQUEST = struct.pack("!II", 8, 80877103)
CANCEL_REQUEST = 80877102
#: Longer than anything here may take on a busy machine; who is silent for longer hangs.
PATIENCE_S = 60.0


class Ended(Exception):
    """The other side closed the connection; `fatal` is the SQLSTATE that it told before, if it did, `login_s` how long
    the login had lasted by then, 0 if it was over."""

    def __init__(self, fatal, login_s=0.0):
        super().__init__(f"the connection was closed ({fatal or 'without a word'}{login_s and f', after {login_s:.1f} s of login'})")
        self.fatal = fatal
        self.login_s = login_s


class Hung(AssertionError):
    """An answer didn't come."""


def sqlstate(body):
    """Of an ErrorResponse or NoticeResponse."""
    for field in body.split(b"\0"):
        if field[:1] == b"C":
            return field[1:].decode()
    return ""


def cstring(text):
    return text.encode() + b"\0"


class RawClient:
    """One connection. Errors are remembered (`errors`: SQLSTATEs since the last query), not raised."""

    def __init__(self, address, source=None, tls=False):
        self.errors = []
        self.key = None
        self.parameters = {}
        self._fatal = ""
        self._buffer = b""
        self._login_began = time.monotonic()
        self.socket = socket.create_connection(address, PATIENCE_S, source and (source, 0))
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self._begin_tls()
        except BaseException:
            self.socket.close()
            raise

    def _begin_tls(self):
        self.socket.sendall(SSL_REQUEST)
        if (answer := self.ssl_answer()) != b"S":
            raise AssertionError(f"SSLRequest was answered with {answer!r}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            self.socket = context.wrap_socket(self.socket)
        except TimeoutError as error:
            raise Hung(f"the handshake took more than {PATIENCE_S:g} s") from error
        except OSError as error:
            raise self._ended() from error

    def ssl_answer(self):
        """The one byte that answers SSL_REQUEST."""
        return self._receive(1)

    def _ended(self):
        return Ended(self._fatal, time.monotonic() - self._login_began if self.key is None else 0.0)

    # Messages

    def send(self, data):
        """Sends all of it; what the other side has said and closed is found by the next read."""
        try:
            self.socket.sendall(data)
        except TimeoutError as error:
            raise Hung(f"{len(data)} bytes were not taken in {PATIENCE_S:g} s") from error
        except OSError:
            with contextlib.suppress(Ended):
                while True:
                    self.read()
            raise self._ended() from None

    def read(self):
        """The next message as (kind, body)."""
        while True:
            if len(self._buffer) >= 5:
                length = struct.unpack_from("!I", self._buffer, 1)[0]
                if len(self._buffer) > length:
                    kind, body = self._buffer[:1], self._buffer[5:length + 1]
                    self._buffer = self._buffer[length + 1:]
                    self._note(kind, body)
                    return kind, body
            self.read_some()

    def read_some(self):
        """Takes what has come, at least one byte."""
        self._buffer += self._receive(65536)

    def _receive(self, size):
        try:
            more = self.socket.recv(size)
        except TimeoutError as error:
            raise Hung(f"nothing came for {PATIENCE_S:g} s; unread are {self._buffer[:200]!r}") from error
        except OSError:
            more = b""
        if not more:
            raise self._ended()
        return more

    def _more_comes(self, timeout_s):
        readable = select.poll()
        readable.register(self.socket, select.POLLIN)
        return bool(readable.poll(timeout_s * 1000))

    def forget_what_came(self):
        """Takes what has come, if anything, and reads none of it."""
        while self._more_comes(0):
            self._buffer = b""
            self.read_some()
        self._buffer = b""

    def _note(self, kind, body):
        if kind == b"E":
            self.errors.append(sqlstate(body))
            if b"SFATAL\0" in body or b"SPANIC\0" in body:
                self._fatal = sqlstate(body)
        elif kind == b"K":
            self.key = struct.unpack("!II", body)
        elif kind == b"S":
            name, value = body.split(b"\0")[:2]
            self.parameters[name.decode()] = value.decode()

    def until(self, *kinds):
        """All messages up to the next one of those kinds, or up to ReadyForQuery."""
        found = []
        while not found or found[-1][0] not in (*kinds, b"Z"):
            found.append(self.read())
        return found

    def readable(self, timeout_s):
        return bool(self._buffer) or self._more_comes(timeout_s)

    def until_closed(self, deadline_s=PATIENCE_S):
        """Reads on until the other side closes the connection; the SQLSTATEs that it told."""
        end = time.monotonic() + deadline_s
        try:
            while time.monotonic() < end:
                self.read()
        except Ended:
            return self.errors
        raise Hung(f"the connection is still open after {deadline_s:g} s")

    # Logging in

    def startup(self, user, options="", settings=None):
        """The packet with which this client begins. `settings`: by name, beside `options`."""
        asked = {"user": user, "database": "postgres", "application_name": "soak", **(settings or {}),
                 "options": f"-c pgxc.node=1 {options}".strip()}
        return startup(tuple(asked.items()))

    def login(self, user, options="", password=None, settings=None):
        self.send(self.startup(user, options, settings))
        kind, body = self.read()
        if kind == b"R" and body[:4] == b"\0\0\0\x0a":
            self.prove(password or "")
        elif kind != b"R":
            self.until()
            return self
        self.until()
        return self

    def prove(self, password):
        """The client's side of SCRAM, after AuthenticationSASL was read."""
        nonce = base64.b64encode(os.urandom(18)).decode()
        first = f"n=,r={nonce}"
        self.send(sasl_initial(first))
        kind, body = self.read()
        if kind != b"R":
            return  # refused before it was asked; what follows tells
        server_first = body[4:].decode()
        said = dict(part.split("=", 1) for part in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(said["s"]), int(said["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        last = f"c=biws,r={said['r']}"
        signature = hmac.digest(hashlib.sha256(client_key).digest(), f"{first},{server_first},{last}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
        self.send(message(b"p", f"{last},p={proof}".encode()))

    # Queries

    def query(self, text):
        """The rows of a simple query, each a list of its columns' texts; `errors` has what went wrong."""
        self.errors = []
        self.send(message(b"Q", cstring(text)))
        return rows(self.until())

    # Ends

    def terminate(self):
        with contextlib.suppress(OSError):
            self.socket.sendall(message(b"X", b""))
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends the connection as a machine does that has forgotten it (RST)."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def sasl_initial(first):
    return message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first) + 3) + b"n,," + first.encode())


def rows(messages):
    """The data rows among messages."""
    found = []
    for kind, body in messages:
        if kind == b"D":
            columns, at = [], 2
            for _ in range(struct.unpack_from("!H", body)[0]):
                length = struct.unpack_from("!i", body, at)[0]
                at += 4
                columns.append(None if length < 0 else body[at:at + length].decode())
                at += max(0, length)
            found.append(columns)
    return found


def parse(name, text, types=()):
    return message(b"P", cstring(name) + cstring(text) + struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(name, *values, portal=""):
    body = cstring(portal) + cstring(name) + struct.pack("!HH", 0, len(values))
    for value in values:
        body += struct.pack("!i", len(value)) + value.encode()
    return message(b"B", body + struct.pack("!H", 0))


def describe_portal(portal=""):
    return message(b"D", b"P" + cstring(portal))


def execute(portal="", limit=0):
    return message(b"E", cstring(portal) + struct.pack("!I", limit))


def close_statement(name):
    return message(b"C", b"S" + cstring(name))


SYNC = message(b"S", b"")
FLUSH = message(b"H", b"")


def cancel_packet(pid, secret):
    return struct.pack("!IIII", 16, CANCEL_REQUEST, pid, secret)
