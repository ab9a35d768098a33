"""Datanodes of PostgreSQL 10 and 11: recovery.conf for real."""

import contextlib
import re
import time

import psycopg2
import pytest

import old_server
from pgcluster import Cluster, wait_for
from writer import Writer


@pytest.fixture(scope="module")
def old_programs(workspace):
    try:
        return old_server.fetch(old_server.VERSIONS, workspace.path)
    except old_server.Unavailable as reason:
        pytest.skip(str(reason))


class OldCluster(Cluster):
    """A coordinator of the workspace's server with datanodes of an old one."""

    def __init__(self, workspace, major, programs):
        super().__init__(workspace)
        self.major = major
        self.programs = programs

    def server(self, name):
        if name == "coordinator":
            return super().server(name)
        made = old_server.OldServer(self.workspace, f"{name}_{self.major}", programs=self.programs)
        self._made.append(made)
        return made

    def make_datanode(self, node_id, **settings):
        made = self.masters[node_id] = self.server(f"datanode{node_id}")
        made.init(f"datanode{node_id}_{self.major}", settings)
        made.start()
        return made


@pytest.fixture(params=sorted(old_server.VERSIONS))
def old_cluster(request, workspace, old_programs):
    made = OldCluster(workspace, request.param, old_programs[request.param])
    yield made
    made.destroy()


def begin(cluster, slaves=1, replication="SYNCHRONOUS", **settings):
    cluster.make_datanode(1)
    cluster.make_coordinator(**settings)
    cluster.masters[1].sql("CREATE TABLE load (client int, seq bigint)")
    for node_id in range(2, 2 + slaves):
        cluster.make_slave(node_id, 1)
        cluster.register(node_id, 1, replication)
    return cluster.wait_ready()


def promote(cluster, tail="", node=2):
    cluster.coordinator.sql(f"ALTER DATANODE SLAVE {node} PROMOTE TO MASTER {tail}")


def timeline(server):
    return int(server.value("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16)


def test_registers_and_takes_over_the_port(old_cluster):
    cluster = begin(old_cluster, slaves=2, failover="off")
    assert cluster.masters[1].value("SHOW server_version_num").startswith(str(cluster.major))
    print(cluster.slaves[2].recovery_conf.read_text())
    print(cluster.masters[1].value("SHOW synchronous_standby_names"))
    slave, port = cluster.slaves[2], cluster.masters[1].port
    load = Writer(cluster.pooler_dsn(), clients=2).start()
    wait_for(lambda: load.acked_count() > 100, "the load to run")
    cluster.masters[1].kill9()
    cluster.masters[1].wait_gone()
    promote(cluster, f"WITH CONNECTION (':{port}')")
    done = load.acked_count()
    wait_for(lambda: load.acked_count() > done + 100, "the load to go on")
    load.stop()
    slave.port = port
    print(slave.recovery_done.read_text())
    assert timeline(slave) == 2
    assert load.verify(slave.sql("SELECT client, seq FROM load WHERE client >= 0")) == ([], [], [])
    wait_for(lambda: slave.value("SHOW synchronous_standby_names") == "ANY 1 (pgxc_d_3_e1)", "3 to count")
    print(cluster.coordinator.sql("select * from pgxc.failover_history"))
