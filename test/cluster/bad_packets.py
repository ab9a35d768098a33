"""Packets of the protocol made by hand: right ones, and all kinds of wrong ones."""

import struct


def startup(options=(("user", "postgres"), ("database", "postgres"), ("options", "-c pgxc.node=1")), version=196608):
    body = struct.pack("!I", version) + b"".join(f"{k}\0{v}\0".encode() for k, v in options) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def message(kind, body, length=None):
    return kind + struct.pack("!i", len(body) + 4 if length is None else length) + body


BEFORE_LOGIN = {
    "nothing but a hang-up": b"",
    "an http request": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "a tls record without SSLRequest": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 500,
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "length 4": struct.pack("!I", 4),
    "length 0": struct.pack("!II", 0, 196608),
    "length 7": struct.pack("!I", 7) + b"\0\3\0",
    "the largest length": struct.pack("!II", 0x7FFFFFFF, 196608) + b"x" * 1000,
    "a negative length": struct.pack("!II", 0x80000000, 196608),
    "one byte more than allowed": struct.pack("!II", 10001, 196608) + b"x" * 9993,
    "protocol 2.0": startup(version=131072),
    "protocol 9.0": startup(version=9 << 16),
    "no terminator": struct.pack("!II", 8 + 13, 196608) + b"user\0postgres",
    "a name without a value": struct.pack("!II", 8 + 6, 196608) + b"user\0\0",
    "no user": startup((("database", "postgres"),)),
    "an empty user": startup((("user", ""), ("database", "postgres"))),
    "a replication connection": startup((("user", "postgres"), ("database", "postgres"), ("replication", "true"))),
    "a cancel request of odd length": struct.pack("!III", 13, 80877102, 1) + b"x",
    "a cancel request of nobody": struct.pack("!IIII", 16, 80877102, 1, 2),
    "SSLRequest twice": struct.pack("!II", 8, 80877103) * 2,
    "GSSENCRequest and then garbage": struct.pack("!II", 8, 80877104) + b"\xff" * 8,
    "a query instead of a startup": message(b"Q", b"SELECT 1\0"),
    "half a startup": startup()[:20],
}

AFTER_LOGIN = {
    "an unknown kind of message": message(b"z", b"x"),
    "a server's message": message(b"T", b"\0\0"),
    "length 3": message(b"Q", b"", 3),
    "length 0": message(b"Q", b"SELECT 1\0", 0),
    "a negative length": message(b"Q", b"SELECT 1\0", -1),
    "the largest length": message(b"Q", b"SELECT 1\0", 0x7FFFFFFF),
    "an oversized Sync": message(b"S", b"", 0x3FFFFFFF),
    "a zero byte": b"\0" * 10,
    "a startup packet again": startup(),
}

#: The frame is right, the body isn't: an error, after which the connection may be kept or closed.
MALFORMED = {
    "a query without its terminator": message(b"Q", b"SELECT 1"),
    "a bind that ends too early": message(b"P", b"\0SELECT 1\0\0\0") + message(b"B", b"\0\0\0\5") + message(b"S", b""),
    "a bind with a negative count": message(b"P", b"\0SELECT 1\0\0\0") + message(b"B", b"\0\0\0\0\xff\xff\0\0")
    + message(b"S", b""),
    "a parse without a query": message(b"P", b"\0") + message(b"S", b""),
    "a describe of nothing": message(b"D", b"X\0") + message(b"S", b""),
    "a password nobody asked for": message(b"p", b"secret\0"),
}
