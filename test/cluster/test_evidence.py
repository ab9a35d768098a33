"""pgxc.failover_evidence tells why the monitor acted, and why it did not."""

from pgcluster import wait_for


def decisions(cluster, node_id=1):
    return cluster.coordinator.sql(
        f"SELECT decision, reason, facts FROM pgxc.failover_evidence WHERE node_id = {node_id} "
        "AND decision <> 'synchronous' ORDER BY evidence_id")


def wait_for_decision(cluster, decision):
    wait_for(lambda: any(row[0] == decision for row in decisions(cluster)), f"the decision '{decision}'")
    return [row for row in decisions(cluster) if row[0] == decision][-1]


def test_of_a_failover(make_cluster):
    cluster = make_cluster(probe_timeout="10s")
    old, new = cluster.masters[1], cluster.slaves[2]
    calm = wait_for(lambda: cluster.coordinator.sql("SELECT decision, reason FROM pgxc.failover_evidence WHERE node_id = 1"),
                    "what was made synchronous")
    assert all(row[0] == "synchronous" for row in calm), "in calm times only what is made synchronous"
    old.kill9()
    _, reason, facts = wait_for_decision(cluster, "fail over")
    assert "refuses connections" in reason
    assert facts["master"]["address"] == f"127.0.0.1:{old.port}" and facts["master"]["seen"] == "refused"
    assert [slave["address"] for slave in facts["slaves"]] == [f"127.0.0.1:{new.port}"]
    assert facts["slaves"][0]["in_recovery"] is True
    _, reason, _ = wait_for_decision(cluster, "promoted")
    assert f"127.0.0.1:{new.port} is the master" in reason
    assert cluster.coordinator.value(
        "SELECT epoch FROM pgxc.failover_evidence WHERE decision = 'promoted'") == 1


def test_of_none(make_cluster):
    cluster = make_cluster(restart_grace="60s")
    cluster.masters[1].restart("fast")
    wait_for_decision(cluster, "alive")
    assert "promoted" not in [row[0] for row in decisions(cluster)]
    assert wait_for_decision(cluster, "wait")[1]
    assert cluster.coordinator.value("SELECT count(*) FROM pgxc.failover_history") == 0


def test_of_a_failover_that_is_forbidden(make_cluster):
    cluster = make_cluster(failover="off", probe_timeout="10s")
    cluster.masters[1].kill9()
    _, reason, _ = wait_for_decision(cluster, "no failover")
    assert "pgxc.failover is off" in reason
    # It is said once, however long it stays true.
    cluster.wait_status(1, state="down")
    assert len([row for row in decisions(cluster) if row[0] == "no failover"]) == 1
