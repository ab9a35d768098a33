"""postgres_fdw in another server whose foreign server is the pooler."""

import contextlib

import psycopg2
import pytest

import pgcluster


@pytest.fixture(scope="module", params=["explicit", "auto"])
def cluster(workspace, request):
    """Two server connections for all. The foreign tables are in the coordinator's own database `elsewhere`."""
    made = pgcluster.standard_cluster(workspace, failover="off", max_pool_size=2, read_routing=request.param)
    made.masters[1].sql("CREATE TABLE goods (id int PRIMARY KEY, name text NOT NULL)")
    made.coordinator.sql("CREATE DATABASE elsewhere")
    made.coordinator.sql(f"""
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER pooled FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '{pgcluster.HOST}', port '{made.pooler_port}', dbname 'postgres', options '-c pgxc.node=1');
        CREATE USER MAPPING FOR postgres SERVER pooled OPTIONS (user 'postgres');
        IMPORT FOREIGN SCHEMA public LIMIT TO (goods) FROM SERVER pooled INTO public;
    """, dbname="elsewhere")
    yield made
    made.destroy()


@pytest.fixture
def far(cluster):
    """A session that has the foreign table, which is empty."""
    cluster.masters[1].sql("TRUNCATE goods")
    with contextlib.closing(cluster.coordinator.connect(dbname="elsewhere")) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor


def there(cluster):
    return cluster.masters[1].sql("SELECT id, name FROM goods ORDER BY id")


def here(cursor):
    cursor.execute("SELECT id, name FROM goods ORDER BY id")
    return cursor.fetchall()


def test_rows_go_both_ways(cluster, far):
    far.execute("INSERT INTO goods SELECT g, 'good ' || g FROM generate_series(1, 500) AS g")
    assert there(cluster) == here(far) == [(i, f"good {i}") for i in range(1, 501)]
    far.execute("UPDATE goods SET name = upper(name) WHERE id = 7")
    far.execute("DELETE FROM goods WHERE id % 100 <> 7")
    far.execute("INSERT INTO goods VALUES (1000, 'by returning') RETURNING name")
    assert far.fetchall() == [("by returning",)]
    expected = [(7, "GOOD 7"), (107, "good 107"), (207, "good 207"), (307, "good 307"), (407, "good 407"), (1000, "by returning")]
    assert there(cluster) == here(far) == expected


def test_transactions(cluster, far):
    far.execute("INSERT INTO goods VALUES (1, 'kept')")
    far.execute("BEGIN; INSERT INTO goods VALUES (2, 'taken back')")
    assert here(far) == [(1, "kept"), (2, "taken back")]
    assert there(cluster) == [(1, "kept")]
    far.execute("ROLLBACK")
    assert there(cluster) == here(far) == [(1, "kept")]
    far.execute("BEGIN; INSERT INTO goods VALUES (3, 'kept, too'); SAVEPOINT s; UPDATE goods SET name = 'lost'; ROLLBACK TO s")
    assert here(far) == [(1, "kept"), (3, "kept, too")]
    far.execute("COMMIT")
    assert there(cluster) == here(far) == [(1, "kept"), (3, "kept, too")]


def test_an_error_ends_the_transaction_and_not_the_session(cluster, far):
    far.execute("INSERT INTO goods VALUES (1, 'there')")
    far.execute("BEGIN; INSERT INTO goods VALUES (2, 'lost')")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        far.execute("INSERT INTO goods VALUES (1, 'again')")
    far.execute("ROLLBACK")
    with pytest.raises(psycopg2.errors.NotNullViolation):
        far.execute("INSERT INTO goods VALUES (3, NULL)")
    assert there(cluster) == here(far) == [(1, "there")]


def test_several_take_turns_with_ordinary_clients(cluster, far):
    """What postgres_fdw sets and prepares is its own session's, whichever connection it gets."""
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(contextlib.closing(cluster.coordinator.connect(dbname="elsewhere"))) for _ in range(3)]
        client = stack.enter_context(contextlib.closing(cluster.pooler())).cursor()
        client.execute("SET search_path = public; SET TimeZone = 'Asia/Tokyo'")
        for turn in range(5):
            for number, other in enumerate(others):
                with other, other.cursor() as cursor:
                    cursor.execute("INSERT INTO goods VALUES (%s, 'shared')", (10 * turn + number,))
                    assert (10 * turn + number, "shared") in here(cursor)
                client.execute("SELECT count(*), current_setting('search_path'), current_setting('TimeZone') FROM goods")
                assert client.fetchone() == (3 * turn + number + 1, "public", "Asia/Tokyo")
        assert len(here(far)) == 15
