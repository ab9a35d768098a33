"""What the clients of the soak do to the pooler: what applications do, and how clients die and lie. Each deed is one or a
few connections from beginning to end, drawn from the client's own generator."""

import contextlib
import time

from bad_packets import AFTER_LOGIN, BEFORE_LOGIN, MALFORMED, message
from raw_client import (FLUSH, SSL_REQUEST, SYNC, Ended, Hung, RawClient, bind, cancel_packet, close_statement, cstring,
                        describe_portal, execute, parse, rows, sasl_initial)

#: More than a server connection keeps prepared (256), so that some have to go.
TEXTS = 400
#: What a client may be told when an administrator ended its server session.
KILLED = {"57P01", "08006", "08007"}
TABLE = "CREATE TABLE soak_rows (what text, n bigint)"
AUTO = "-c pgxc.read_routing=auto"


class Wrong(AssertionError):
    """An answer that no server may give."""


class Client:
    """One client of the soak after another, in one thread. `target`: what there is to connect to (soak.py)."""

    def __init__(self, target, number, random):
        self.target = target
        self.number = number
        self.random = random
        self.kept = self.maybe_kept = 0
        self._began = 0.0

    def do(self, deed):
        """One deed. Raises Wrong, Hung or Ended if the pooler misbehaved."""
        self._began = time.monotonic()
        try:
            deed(self)
        except (Ended, Wrong) as error:
            if self.was_too_slow(error):
                return
            if not self.may_be_killed() or isinstance(error, Wrong) and not KILLED & set(error.args[1:]):
                raise

    def was_too_slow(self, error):
        """Whether this client itself, on a busy machine, took longer than a login may."""
        return isinstance(error, Ended) and error.login_s >= self.target.login_timeout_s

    def may_be_killed(self):
        return self.target.killed_since(self._began)

    # Parts of deeds

    @contextlib.contextmanager
    def connection(self, login=True, options="", user=None, password=None, source=None, tls=None):
        if tls is None:
            tls = self.target.tls and self.random.random() < 0.15
        client = RawClient(self.target.address, source, tls)
        try:
            if login:
                client.login(user or self.target.user, options, password)
            yield client
        except BaseException:
            client.close()
            raise

    def some_source(self):
        """An address of ours that isn't everybody's: who guesses passwords is slowed down by address."""
        return f"127.0.1.{self.random.randrange(1, 100)}"

    def die(self, client):
        self.random.choice((client.close, client.reset, client.reset, client.terminate))()

    def leave(self, client):
        self.random.choice((client.terminate, client.terminate, client.close, client.reset))()

    def expect(self, found, wanted, client):
        if found != wanted:
            raise Wrong(f"{found!r} in place of {wanted!r}; told were {client.errors}", *client.errors)

    def do_all(self, client, *texts):
        """Each only where the one before has succeeded: without its BEGIN an INSERT is committed."""
        for text in texts:
            client.query(text)
            self.expect(client.errors, [], client)

    def expect_error(self, client, wanted):
        if client.errors != [wanted]:
            raise Wrong(f"told were {client.errors} in place of {wanted}", *client.errors)

    def keep(self, client, text, count):
        """Runs a statement that commits `count` rows."""
        self.maybe_kept += count
        client.query(text)
        if not client.errors:
            self.kept += count

    def texts(self):
        """The number of a statement's text: some are used often, all some time."""
        return int(TEXTS * self.random.random() ** 3)

    # What applications do

    def plain_queries(self):
        with self.connection(options=self.random.choice(("", AUTO))) as client:
            for _ in range(self.random.randrange(1, 12)):
                n = self.random.randrange(1000000)
                draw = self.random.random()
                if draw < 0.6:
                    self.expect(client.query(f"SELECT {n}"), [[str(n)]], client)
                elif draw < 0.7:
                    client.query("SELECT 1/0")
                    self.expect_error(client, "22012")
                elif draw < 0.8:
                    length = self.random.randrange(100000)
                    self.expect(client.query(f"SELECT length('{'y' * length}')"), [[str(length)]], client)
                elif draw < 0.9:
                    self.keep(client, f"INSERT INTO soak_rows VALUES ('kept', {n})", 1)
                else:
                    self.expect(client.query(f"SELECT {n}; SELECT {n + 1}"), [[str(n)], [str(n + 1)]], client)
            self.leave(client)

    def blocks(self):
        with self.connection(options=self.random.choice(("", AUTO))) as client:
            for _ in range(self.random.randrange(1, 4)):
                client.query(self.random.choice(("BEGIN", "BEGIN READ ONLY", "START TRANSACTION")))
                for _ in range(self.random.randrange(3)):
                    self.expect(client.query("SELECT count(*) > -1 FROM soak_rows"), [["t"]], client)
                if self.random.random() < 0.3:
                    client.query("SELECT no_such_column")
                    self.expect_error(client, "42703")
                client.query(self.random.choice(("COMMIT", "ROLLBACK")))
                self.expect(client.errors, [], client)
            self.leave(client)

    def prepared_statements(self):
        with self.connection(options=self.random.choice(("", AUTO))) as client:
            known = set()
            for _ in range(self.random.randrange(1, 30)):
                which, n = self.texts(), self.random.randrange(1000)
                client.errors = []
                name = self.random.choice((f"s{which}", ""))
                packets = b"" if name in known and name else parse(name, f"SELECT $1::int + {which}")
                if name:
                    known.add(name)
                packets += bind(name, str(n)) + describe_portal() + execute()
                if self.random.random() < 0.1:
                    # A part of the answer is waited for.
                    client.send(packets + FLUSH)
                    found = rows(client.until(b"C", b"E"))
                    packets = b""
                else:
                    found = []
                client.send(packets + SYNC)
                found += rows(client.until())
                self.expect(found, [[str(n + which)]], client)
                if known and self.random.random() < 0.1:
                    gone = self.random.choice(sorted(known))
                    known.discard(gone)
                    client.send(close_statement(gone) + SYNC)
                    client.until()
            self.leave(client)

    def pipelines(self):
        with self.connection() as client:
            wanted, packets = [], b""
            for _ in range(self.random.randrange(2, 40)):
                which, n = self.texts(), self.random.randrange(1000)
                packets += parse("", f"SELECT $1::int + {which}") + bind("", str(n)) + execute()
                if self.random.random() < 0.5:
                    packets += SYNC
                wanted.append([str(n + which)])
            syncs = packets.count(SYNC) + 1
            client.send(packets + SYNC)
            if self.random.random() < 0.2:
                return self.die(client)
            found = []
            for _ in range(syncs):
                found += rows(client.until())
            self.expect(found, wanted, client)
            client.errors = []
            client.send(parse("", "SELECT 1/$1::int") + bind("", "0") + execute() + execute() + SYNC)
            client.until()
            self.expect_error(client, "22012")
            self.leave(client)

    def copy_in(self):
        with self.connection() as client:
            count = self.random.choice((1, 10, 10, 100, 100, 2000))
            text = "COPY soak_rows FROM STDIN"
            how = self.random.choice(("whole", "whole", "fail", "die"))
            client.send(message(b"Q", cstring(text)))
            kind = client.until(b"G")[-1][0]
            if kind != b"G":
                raise Wrong(f"told were {client.errors}", *client.errors)
            what = "kept" if how == "whole" else "lost"
            data = "".join(f"{what}\t{i}\n" for i in range(count)).encode()
            parts = [data[i:i + 7000] for i in range(0, len(data), 7000)]
            if how == "die":
                half = b"".join(message(b"d", part) for part in parts)
                client.send(half[:self.random.randrange(len(half)) + 1])
                return self.die(client)
            if how == "whole":
                self.maybe_kept += count
            client.send(b"".join(message(b"d", part) for part in parts)
                        + (message(b"c", b"") if how == "whole" else message(b"f", b"no more\0")))
            client.until()
            if how == "fail":
                self.expect_error(client, "57014")
            elif not client.errors:
                self.kept += count
            else:
                raise Wrong(f"told were {client.errors}", *client.errors)
            self.leave(client)

    def copy_out(self):
        with self.connection() as client:
            count = self.random.choice((1, 100, 10000))
            client.send(message(b"Q", cstring(f"COPY (SELECT i, repeat('z', 50) FROM generate_series(1, {count}) i) TO STDOUT")))
            if self.random.random() < 0.3:
                client.read_some()
                return self.die(client)
            found = client.until()
            self.expect(sum(1 for kind, _ in found if kind == b"d"), count, client)
            self.leave(client)

    def passwords(self):
        """A login by SCRAM."""
        with self.connection(user=self.target.guarded, password=self.target.password, source=self.some_source()) as client:
            self.expect(client.query("SELECT 3"), [["3"]], client)
            self.leave(client)

    # How clients die

    def open_transaction_dies(self):
        with self.connection() as client:
            self.do_all(client, "BEGIN", "INSERT INTO soak_rows VALUES ('lost', 1)")
            if self.random.random() < 0.5:
                # In the middle of a statement.
                client.send(message(b"Q", cstring("INSERT INTO soak_rows SELECT 'lost', i FROM generate_series(1, 1000) i")))
            self.die(client)

    def pinned_dies(self):
        """What keeps a server connection goes with its client."""
        with self.connection() as client:
            for text in self.random.sample((
                    "LISTEN soak_channel", "SELECT pg_advisory_lock(1000 + {})", "CREATE TEMP TABLE soak_temporary (i int)",
                    "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT", "SET work_mem = '{}kB'", "SET ROLE soak_other",
                    "PREPARE soak_prepared AS SELECT 1"), self.random.randrange(1, 4)):
                client.query(text.format(2000 + self.number))
                self.expect(client.errors, [], client)
            if self.random.random() < 0.3:
                client.query("BEGIN")
            if self.random.random() < 0.2:
                client.query("DISCARD ALL")
            self.die(client)

    def nothing_is_left(self):
        """Whoever comes to a server connection finds nothing of those before."""
        with self.connection() as client:
            client.query("BEGIN")
            found = client.query("SELECT (SELECT count(*) FROM pg_listening_channels()), "
                                 "(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'), "
                                 "pg_my_temp_schema() <> 0 AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()), "
                                 "(SELECT count(*) FROM pg_cursors WHERE is_holdable), current_setting('work_mem'), "
                                 "current_user = session_user")
            self.expect(found, [["0", "0", "f", "0", "4MB", "t"]], client)
            client.query("COMMIT")
            self.leave(client)

    def unread_answer(self):
        """A client that stops reading a large answer, and dies once others have been served meanwhile."""
        with self.target.may_hold_one, self.connection() as client:
            client.send(message(b"Q", cstring("SELECT repeat('x', 100000) FROM generate_series(1, 200)")))
            client.read_some()
            with self.connection() as other:
                for _ in range(20):
                    self.expect(other.query("SELECT 5"), [["5"]], other)
                other.terminate()
            if self.random.random() < 0.2:
                client.until()
                self.leave(client)
            else:
                self.die(client)

    def half_closed(self):
        """A client that has said all, and only listens."""
        with self.connection(tls=False) as client:
            client.send(message(b"Q", cstring("SELECT repeat('x', 1000)")) + message(b"X", b""))
            client.socket.shutdown(1)
            client.until_closed()
            client.close()

    def half_startup(self):
        with self.connection(login=False, tls=False) as client:
            packet = client.startup(self.target.user)
            client.send(packet[:self.random.randrange(len(packet))])
            self.die(client)

    def half_message(self):
        with self.connection() as client:
            if self.random.random() < 0.5:
                self.do_all(client, "BEGIN", "INSERT INTO soak_rows VALUES ('lost', 2)")
            whole = self.random.choice((
                message(b"Q", cstring("INSERT INTO soak_rows SELECT 'lost', " + "3 + " * self.random.randrange(20000) + "3")),
                parse("half", "SELECT $1::int") + bind("half", "1") + execute(),
                bind("unknown", "x" * self.random.randrange(100000)),
                message(b"d", b"x" * 100)))
            # Not its last byte.
            client.send(whole[:self.random.randrange(1, len(whole))])
            self.die(client)

    def cut_anywhere(self):
        """A conversation of all kinds of messages, sent ahead of its answers and cut anywhere."""
        long = self.random.randrange(60000, 150000)
        parts = (
            lambda: message(b"Q", cstring(self.random.choice((
                "SELECT 1", "BEGIN", "BEGIN READ ONLY", "COMMIT", "ROLLBACK", "SELECT 1/0", "SELECT count(*) FROM soak_rows",
                "UPDATE soak_rows SET n = 1 WHERE false", "SET work_mem = '3MB'", "LISTEN soak_channel", "UNLISTEN *",
                "SAVEPOINT here", "SELECT 1; SELECT 2", "DISCARD ALL", "DEALLOCATE ALL", "BEGIN; SELECT 1; COMMIT")))),
            lambda: message(b"Q", cstring("SELECT '" + "x" * long + "'")),
            lambda: message(b"Q", cstring("SELECT repeat('x', 100000) FROM generate_series(1, 10)")),
            lambda: message(b"Q", cstring("COPY soak_rows FROM STDIN")) + message(b"d", b"lost\t5\n") + message(b"f", b"no\0"),
            lambda: parse("", f"SELECT $1::int + {self.texts()}") + bind("", "1") + describe_portal() + execute(),
            lambda: parse(f"c{self.random.randrange(5)}", self.random.choice(("SELECT $1::int", "COMMIT", "BEGIN", "nonsense"))),
            lambda: bind(f"c{self.random.randrange(5)}", "1") + execute("", self.random.choice((0, 1))),
            lambda: bind("", "x" * long),
            lambda: close_statement(f"c{self.random.randrange(5)}"),
            lambda: SYNC, lambda: SYNC, lambda: FLUSH,
        )
        with self.connection(options=self.random.choice(("", AUTO))) as client:
            said = b"".join(self.random.choice(parts)() for _ in range(self.random.randrange(1, 15)))
            with contextlib.suppress(Ended):
                while said:
                    # In pieces, with a look at what has come.
                    size = self.random.choice((len(said), self.random.randrange(len(said)) + 1))
                    client.send(said[:size])
                    said = said[size:]
                    client.forget_what_came()
                    if self.random.random() < 0.5:
                        break
            self.die(client)

    def half_login(self):
        """Half of an answer to a question for a password."""
        with self.connection(login=False) as client:
            client.send(client.startup(self.target.guarded))
            client.read()
            packet = sasl_initial("n=,r=" + "a" * 24)
            client.send(packet[:self.random.randrange(len(packet) + 1)])
            self.die(client)

    def half_tls(self):
        """A handshake that ends in the middle, and one that is none."""
        with self.connection(login=False, tls=False) as client:
            client.send(SSL_REQUEST)
            if client.ssl_answer() not in (b"S", b"N"):
                raise Wrong("SSLRequest was not answered")
            hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self.random.randbytes(500)
            client.send(hello[:self.random.randrange(len(hello))])
            self.die(client)

    def silence(self):
        """A client that doesn't go on with its login is ended in time."""
        begin = self.random.randrange(3)
        with self.connection(login=False, tls=begin == 2 and None) as client:
            if begin == 0:
                client.send(client.startup(self.target.user)[:self.random.randrange(20)])
            elif begin == 1:
                client.send(SSL_REQUEST)
                client.ssl_answer()
                client.send(b"\x16\x03" if self.target.tls else b"\0\0")
            else:
                client.send(client.startup(self.target.guarded))
                client.read()
                client.send(sasl_initial("n=,r=" + "a" * 24)[:9])
            client.until_closed(self.target.login_timeout_s + 30)
            client.close()

    # How clients lie

    def wrong_password(self):
        with self.connection(login=False, source=self.some_source()) as client:
            try:
                client.login(self.random.choice((self.target.guarded, "soak_nobody")), password="wrong")
            except Ended as error:
                # Wrong answers are held back, by who guesses much for longer than a login may take.
                if error.fatal not in ("28P01", "28000", "57014", "53300") and not self.was_too_slow(error):
                    raise Wrong(f"a wrong password gave {error}") from error
            else:
                raise Wrong("a wrong password was taken")
            client.close()

    def garbage_before_login(self):
        packet = BEFORE_LOGIN[self.random.choice(sorted(BEFORE_LOGIN))]
        if self.random.random() < 0.3:
            packet = self.random.randbytes(self.random.randrange(1, 300))
        with self.connection(login=False, tls=False) as client:
            with contextlib.suppress(Ended):
                client.send(packet)
            self.die(client)

    def garbage_after_login(self):
        packet = AFTER_LOGIN[self.random.choice(sorted(AFTER_LOGIN))]
        with self.connection() as client:
            with contextlib.suppress(Ended):
                client.send(packet)
                if self.random.random() < 0.5:
                    client.until_closed()
            self.die(client)

    def malformed(self):
        packet = MALFORMED[self.random.choice(sorted(MALFORMED))]
        with self.connection() as client:
            with contextlib.suppress(Ended):
                client.send(packet)
                while not client.errors:
                    client.read()
            self.die(client)

    def oversized(self):
        with self.connection() as client:
            with contextlib.suppress(Ended):
                client.send(message(self.random.choice((b"Q", b"P", b"d", b"S", b"z")), b"x" * 100,
                                    self.random.choice((0x3FFFFFFF, 0x7FFFFFFF, -5, 3, 100000))))
            self.die(client)

    # Cancelling

    def cancel_with(self, key):
        with self.connection(login=False, tls=False) as other:
            packet = cancel_packet(*key)
            other.send(packet if self.random.random() < 0.9 else packet[:self.random.randrange(16)])
            if self.random.random() < 0.7:
                with contextlib.suppress(Ended):
                    other.until_closed(self.target.login_timeout_s + 30)
            self.die(other)

    def cancel(self):
        with self.connection() as client:
            client.errors = []
            client.send(message(b"Q", cstring("SELECT pg_sleep(20)")))
            end = time.monotonic() + 60
            # The first may come before the server has begun.
            while not client.readable(0.2):
                if time.monotonic() > end:
                    raise Hung("a query could not be cancelled for 60 s")
                self.cancel_with(client.key)
            client.until()
            self.expect_error(client, "57014")
            self.leave(client)

    def cancel_late(self):
        """What comes too late must not reach the next one who has that server connection: he would tell."""
        with self.connection() as client:
            for _ in range(self.random.randrange(1, 4)):
                client.send(message(b"Q", cstring(f"SELECT pg_sleep({self.random.random() / 300:.5f})")))
                self.cancel_with(client.key)
                client.until()
            self.die(client)

    def cancel_wrongly(self):
        with self.connection() as client:
            pid, secret = client.key
            for _ in range(3):
                self.cancel_with(self.random.choice(((pid, secret ^ 1 << self.random.randrange(32)),
                                                     (pid ^ 1 << self.random.randrange(31), secret),
                                                     (self.random.randrange(1 << 31), self.random.randrange(1 << 32)))))
                self.expect(client.query("SELECT 7 FROM pg_sleep(0.001)"), [["7"]], client)
            self.leave(client)

    def cancel_and_die(self):
        with self.connection() as client:
            client.send(message(b"Q", cstring("SELECT pg_sleep(3)")))
            self.cancel_with(client.key)
            self.die(client)


#: How often each is drawn.
WEIGHTS = {
    Client.plain_queries: 12, Client.blocks: 8, Client.prepared_statements: 10, Client.pipelines: 6, Client.copy_in: 6,
    Client.copy_out: 4, Client.passwords: 2, Client.open_transaction_dies: 8, Client.pinned_dies: 6, Client.nothing_is_left: 4,
    Client.unread_answer: 2, Client.half_closed: 3, Client.half_startup: 6, Client.half_message: 6, Client.cut_anywhere: 8, Client.half_login: 4,
    Client.half_tls: 4, Client.silence: 1, Client.wrong_password: 1, Client.garbage_before_login: 5,
    Client.garbage_after_login: 5, Client.malformed: 4, Client.oversized: 4, Client.cancel: 3, Client.cancel_late: 4,
    Client.cancel_wrongly: 3, Client.cancel_and_die: 2,
}
