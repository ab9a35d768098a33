"""Cancel requests, which come over a connection of their own and so to any of the pooler's workers."""

import contextlib
import threading

import psycopg2
import pytest

import pgcluster
from pgcluster import wait_for

CLIENTS = 16


@pytest.fixture(scope="module", params=[None, ""], ids=["with a Unix socket", "without"])
def cluster(workspace, request):
    directories = {} if request.param is None else {"pooler_socket_directories": request.param}
    made = pgcluster.standard_cluster(workspace, slaves=0, failover="off", pooler_workers=2, **directories)
    yield made
    made.destroy()


class Sleeper:
    """A client that sleeps until it is cancelled. `outcome`: the SQLSTATE that it got; None as long as it sleeps."""

    def __init__(self, cluster, number):
        self.name = f"sleeper{number}"
        self.connection = cluster.pooler(application_name=self.name)
        self.outcome = None
        self._thread = threading.Thread(target=self._sleep)
        self._thread.start()

    def _sleep(self):
        try:
            self.connection.cursor().execute("SELECT pg_sleep(300)")
            self.outcome = "00000"
        except psycopg2.Error as error:
            self.outcome = error.pgcode

    def cancel(self):
        self.connection.cancel()
        self._thread.join(pgcluster.PATIENCE_S)
        return self.outcome


def sleeping(cluster):
    return {name for (name,) in cluster.masters[1].sql(
        "SELECT application_name FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(300)'")}


def test_each_reaches_its_client_in_whichever_worker_it_is(cluster):
    with contextlib.ExitStack() as stack:
        sleepers = []
        for number in range(CLIENTS):
            sleepers.append(Sleeper(cluster, number))
            stack.callback(sleepers[-1].connection.close)
        wait_for(lambda: len(sleeping(cluster)) == CLIENTS, "all to sleep")
        wait_for(lambda: cluster.coordinator.value("SELECT count(*) FROM pgxc_pooler_clients "
                                                   "WHERE application_name LIKE 'sleeper%'") == CLIENTS, "their rows")
        assert cluster.coordinator.value("SELECT count(DISTINCT worker) FROM pgxc_pooler_clients "
                                         "WHERE application_name LIKE 'sleeper%'") == 2
        # One after the other, so that it shows who else was hit.
        for number, sleeper in enumerate(sleepers):
            assert sleeper.cancel() == "57014"
            assert [s.name for s in sleepers[number + 1:] if s.outcome] == []
            assert sleeping(cluster) == {s.name for s in sleepers[number + 1:]}
            with sleeper.connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                assert cursor.fetchone() == (1,)
