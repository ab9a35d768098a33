"""Pipelines in which anything may fail, of clients that share one server connection: each hears what it would hear alone."""

import contextlib
import os
import random

import pytest

import pgcluster
from pgcluster import HOST
from raw_client import FLUSH, SYNC, RawClient, bind, close_statement, cstring, execute, message, parse, sqlstate

STEPS = 400
END = b"the end"


@pytest.fixture(scope="module")
def cluster(workspace):
    made = pgcluster.standard_cluster(workspace, slaves=0, failover="off", max_pool_size=1)
    yield made
    made.destroy()


def connect(stack, port):
    client = stack.enter_context(contextlib.closing(RawClient((HOST, port))))
    return client.login("postgres")


def describe_statement(name):
    return message(b"D", b"S" + cstring(name))


def run(name):
    return bind(name) + execute()


def heard(client, sent):
    """What it is told of that and of what follows it, up to a row with END; of errors the SQLSTATE alone."""
    client.send(sent + SYNC + message(b"Q", cstring(f"SELECT '{END.decode()}'")))
    told = []
    while not told or told[-1][0] != b"Z" or not any(kind == b"D" and END in body for kind, body in told):
        kind, body = client.read()
        told.append((kind, sqlstate(body) if kind in (b"E", b"N") else body))
    return told


def test_a_parse_that_was_skipped_defines_nothing(cluster):
    with contextlib.ExitStack() as stack:
        other, one = (connect(stack, cluster.pooler_port) for _ in range(2))
        heard(other, parse("theirs", "SELECT 42"))
        told = heard(one, parse("bad", "SELECT (") + parse("mine", "SELECT 42") + SYNC + run("mine"))
        assert [body for kind, body in told if kind == b"E"] == ["42601", "26000"]


def test_random_pipelines(cluster):
    seed = int(os.environ.get("PGXC_SEED", "20261128"))
    choice = random.Random(seed)
    with contextlib.ExitStack() as stack:
        pairs = [(connect(stack, cluster.pooler_port), connect(stack, cluster.masters[1].port)) for _ in range(3)]
        for step in range(STEPS):
            parts = []
            for _ in range(choice.randint(1, 12)):
                name = f"n{choice.randrange(3)}"
                text = choice.choice(["SELECT 1 / 0", *(f"SELECT {n}" for n in range(4))])
                # Of a name that is taken the pooler tells before anybody has read the text, a server afterwards.
                parts.append(choice.choice([
                    parse(name, text), parse(name, text), parse("bad", "SELECT ("), run(name), run(name), run(name),
                    describe_statement(name), close_statement(name), message(b"Q", cstring(text)), FLUSH, SYNC, SYNC, SYNC]))
            sent = b"".join(parts)
            pooled, direct = pairs[choice.randrange(len(pairs))]
            assert heard(pooled, sent) == heard(direct, sent), f"seed {seed}, step {step}: {parts}"
