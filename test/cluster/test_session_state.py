"""What a client has set, prepared, opened or locked is there for itself and for nobody else: clients that share server
connections hear what each would hear alone, whatever they do and in whatever order."""

import contextlib
import os
import random

import pytest

import pgcluster
from pgcluster import HOST
from raw_client import SYNC, RawClient, bind, close_statement, cstring, execute, message, parse, sqlstate

STEPS = 1500
#: Which one that is depends on DateStyle and TimeZone.
MOMENT = "02/03/2024 04:05"
#: Clients that may keep a server connection to themselves, and others, which share what is left.
KEEPERS, OTHERS = 3, 4
#: What a login asks for, by client in turn.
LOGINS = [{}, {"TimeZone": "Asia/Tokyo", "application_name": "one"}, {"search_path": "theirs", "work_mem": "5MB"},
          {"DateStyle": "SQL, DMY"}]


@pytest.fixture(scope="module", params=["master", "auto"])
def cluster(workspace, request):
    made = pgcluster.standard_cluster(workspace, slaves=int(request.param == "auto"), failover="off", max_pool_size=KEEPERS + 1,
                                      read_routing=request.param)
    yield made
    made.destroy()


def query(*texts):
    return b"".join(message(b"Q", cstring(text)) for text in texts), len(texts)


def synced(*parts):
    return b"".join(parts) + SYNC, 1


def unit(text):
    return parse("", text) + bind("") + execute()


class Deeds:
    """What a client may do: bytes, and how many ReadyForQuery answer them. `key`: of advisory locks, which a server's
    clients share, whichever way they come."""

    def __init__(self, choice, key, keeps):
        self.choice, self.key, self.keeps_some = choice, key, keeps

    def setting(self):
        name, values = self.choice.choice([
            ("work_mem", ["1MB", "2MB", "3MB"]), ("search_path", ["a", "b", "public"]), ("TimeZone", ["UTC", "Europe/Berlin"]),
            ("application_name", ["x", "y"]), ("app.tenant", ["1", "2"]), ("DateStyle", ["ISO", "German"]),
            ("transaction_read_only", ["off"]), ("statement_timeout", ["60s", "70s"])])
        return name, self.choice.choice(values)

    def sets(self):
        name, value = self.setting()
        text = self.choice.choice([f"SET {name} = '{value}'", f"SET SESSION {name} TO '{value}'",
                                   f"SET LOCAL {name} = '{value}'", f"SELECT set_config('{name}', '{value}', false)",
                                   f"SELECT set_config('{name}', '{value}', true)"])
        return self.choice.choice([query(text), synced(unit(text)), synced(parse("", text), bind(""), execute(limit=1))])

    def resets(self):
        name, _ = self.setting()
        return query(self.choice.choice([f"RESET {name}", f"SET {name} TO DEFAULT", "RESET ALL", "SET TIME ZONE DEFAULT"]))

    def look(self):
        # A setting of nobody's own that was set once is empty for good in that server session, and no error any more.
        return f"SELECT coalesce(current_setting('{self.setting()[0]}', true), '')"

    def looks(self):
        text = self.look()
        return self.choice.choice([query(text), synced(unit(text))])

    def prepares_unnamed(self):
        name, value = self.setting()
        return synced(parse("", self.choice.choice([f"SELECT set_config('{name}', '{value}', false)", self.look(),
                                                    f"SELECT {self.choice.randrange(9)}"])), message(b"D", b"S" + cstring("")))

    def runs_unnamed(self):
        return synced(bind("") + execute())

    def prepares(self):
        name, value = self.setting()
        texts = [f"SELECT set_config('{name}', '{value}', false)", "SELECT 1", "SELECT 2", "COMMIT", "ROLLBACK",
                 "DISCARD ALL", "DEALLOCATE ALL", "EXECUTE p"]
        return synced(parse(self.name(), self.choice.choice(texts)))

    def prepares_a_moment(self):
        # A text that others have prepared, too, under settings by which it means something else.
        text = f"SELECT extract(epoch FROM timestamptz '{MOMENT}')"
        return synced(parse("moment", text), bind("moment"), execute(), close_statement("moment"))

    def name(self):
        return f"n{self.choice.randrange(3)}"

    def runs(self):
        # Those that SQL has prepared, too. What EXECUTE gives is known when it is parsed, which elsewhere is done anew.
        in_sql = self.choice.choice("pq")
        name = self.choice.choice([self.name(), self.name(), in_sql])
        return self.choice.choice([synced(bind(name) + execute()), synced(message(b"D", b"S" + cstring(in_sql))),
                                   synced(unit("SELECT 1"), bind(name) + execute())])

    def closes(self):
        return synced(close_statement(self.name()))

    def transaction(self):
        return query(self.choice.choice(["BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s",
                                         "ROLLBACK AND CHAIN", "BEGIN; SET LOCAL work_mem = '9MB'; COMMIT"]))

    def prepares_in_sql(self):
        name, value = self.setting()
        return query(self.choice.choice([
            f"PREPARE q AS SELECT set_config('{name}', '{value}', false)",
            "PREPARE p AS SELECT 'sql'", "PREPARE q (int) AS SELECT $1 + 1", f"PREPARE q AS {self.look()}", "EXECUTE p",
            "EXECUTE p", "EXECUTE q", "EXECUTE q (2)", "DEALLOCATE p", "DEALLOCATE PREPARE q",
            "PREPARE n1 AS SELECT 'sql'"]))

    def fails(self):
        return query("SELECT 1 / 0")

    def keeps(self):
        return query(self.choice.choice([
            "LISTEN l", "UNLISTEN *", "SELECT pg_listening_channels()", "CREATE TEMP TABLE kept (i int)",
            "DROP TABLE IF EXISTS pg_temp.kept", "SELECT to_regclass('pg_temp.kept') IS NULL",
            "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 3)", "FETCH c", "CLOSE c",
            f"SELECT pg_try_advisory_lock({self.key})", f"SELECT pg_advisory_unlock({self.key})",
            "PREPARE p AS SELECT 'sql'", "EXECUTE p", "DEALLOCATE p", "EXECUTE n1", "DEALLOCATE n1",
            "SELECT 1; EXECUTE p", "DO $$BEGIN EXECUTE 'EXECUTE p'; END$$",
            "SELECT count(*) FROM pg_prepared_statements",
            "SELECT name FROM pg_prepared_statements WHERE from_sql ORDER BY name"]))

    def discards(self):
        name, value = self.setting()
        new = parse("new", "SELECT 3") + bind("new") + execute() + close_statement("new")
        return self.choice.choice([
            query("DISCARD ALL"), query("DISCARD ALL", f"SET {name} = '{value}'", self.look()), synced(unit("DISCARD ALL")),
            query("DEALLOCATE ALL"), query("DISCARD TEMP"), synced(unit("DEALLOCATE ALL"), new)])

    def any(self):
        deeds = [self.sets, self.sets, self.looks, self.looks, self.looks, self.prepares_unnamed, self.runs_unnamed,
                 self.runs_unnamed, self.prepares, self.runs, self.runs, self.closes, self.fails, self.discards,
                 self.prepares_in_sql, self.prepares_a_moment]
        # Until a transaction block ends, RESET goes back to what the server has, and not to what the login said.
        deeds += [self.transaction, self.transaction, self.keeps, self.keeps] if self.keeps_some else [self.resets]
        several = [self.choice.choice(deeds)() for _ in range(self.choice.choice([1, 1, 1, 3]))]
        return b"".join(data for data, _ in several), sum(units for _, units in several)


def heard(client, deed):
    """What it is told; of errors the SQLSTATE alone, and nothing of settings, which are looked at. That a name is taken may
    be told in a failed block where a server says that the block has failed."""
    data, units = deed
    client.send(data)
    told = []
    while units:
        kind, body = client.read()
        units -= kind == b"Z"
        if (kind, body) == (b"Z", b"E") and told and told[-1] == (b"E", "42P05"):
            told[-1] = (b"E", "25P02")
        if kind != b"S":
            told.append((kind, sqlstate(body) if kind in (b"E", b"N") else body))
    return told


def test_sessions_of_their_own(cluster):
    seed = int(os.environ.get("PGXC_SEED", "5"))
    choice = random.Random(seed)
    with contextlib.ExitStack() as stack:
        def connect(port, settings):
            client = stack.enter_context(contextlib.closing(RawClient((HOST, port))))
            return client.login("postgres", settings=settings)
        ports = (cluster.pooler_port, cluster.masters[1].port)
        pairs = [[connect(port, LOGINS[number % len(LOGINS)]) for port in ports] for number in range(KEEPERS + OTHERS)]
        done = [[] for _ in pairs]
        for step in range(STEPS):
            number = choice.randrange(len(pairs))
            drawn = choice.getrandbits(64)
            pooled, direct = (Deeds(random.Random(drawn), key, number < KEEPERS).any() for key in (1, 2))
            wanted = heard(pairs[number][1], direct)
            try:
                given = heard(pairs[number][0], pooled)
            except Exception as error:
                given = repr(error)
            done[number].append((pooled[0], given))
            assert given == wanted, (f"seed {seed}, step {step}, client {number} heard {given} in place of {wanted} in the end "
                                     f"of: {done[number][-24:]}")
