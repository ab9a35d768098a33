"""What the monitor costs while nothing happens: its CPU time (user + system, of /proc) over a minute.

Two runs: 8 nodes as they are (2 masters with 3 synchronous slaves each), and many node entries that point at those few
servers: each server listens on loopback addresses of its own, so that no two entries share host and port. What an entry
costs does not depend on which server answers; the cost of 1,000 is told from the two. pgxc.probe_interval is the default.
"""

import argparse
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test/cluster"))

import pgcluster  # noqa: E402
from pgcluster import wait_for  # noqa: E402
from result import tell  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
MASTERS, SLAVES = 2, 3


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(cluster, entries, seconds):
    """Percent of a core. The monitor must have seen every entry before, and be calm."""
    wait_for(lambda: cluster.coordinator.value(
        "SELECT count(*) = %s AND bool_and(state = 'up') FROM pgxc_node_status WHERE node_type = 'D'", (entries,)),
        "every entry to be up", 180)
    pid = cluster.coordinator.child_pid("pgxc", "monitor")
    assert pid, "no process of the monitor"
    wait_for(lambda: cluster.coordinator.value("SELECT bool_and(gate = 'open') FROM pgxc_node_status WHERE node_master_id = 0"),
             "open gates", 60)
    # What follows a registration is no idling.
    time.sleep(5)
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    used, took = cpu_seconds(pid) - before, time.monotonic() - began
    assert cluster.coordinator.child_pid("pgxc", "monitor") == pid, "the monitor was restarted meanwhile"
    return round(100 * used / took, 3)


def register_more(cluster, wanted):
    """More entries, asynchronous slaves of the masters in turn, until there are `wanted`."""
    servers = list(cluster.slaves.items())
    have = MASTERS * (1 + SLAVES)
    with cluster.coordinator.connect() as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET pgxc.check_nodes = off")
            for number in range(have, wanted):
                slave_id, server = servers[number % len(servers)]
                master = 1 + (slave_id - MASTERS - 1) // SLAVES
                address = f"127.0.{1 + number // 250}.{1 + number % 250}:{server.port}"
                cursor.execute(f"REGISTER DATANODE SLAVE IDENTIFIED BY ID {number + 1} WITH CONNECTION ('{address}') "
                               f"ON MASTER {master} REPLICATION TO ASYNCHRONOUS")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=200, help="of the second run (200); 0 leaves it out")
    parser.add_argument("--seconds", type=int, default=60, help="of each run (60)")
    parser.add_argument("--json", help="write the JSON there")
    parser.add_argument("--max-percent", type=float, help="fail if 8 nodes cost more of a core")
    wanted = parser.parse_args()
    workspace = pgcluster.Workspace()
    result = {"seconds": wanted.seconds}
    try:
        cluster = pgcluster.standard_cluster(workspace, datanodes=MASTERS, slaves=SLAVES)
        result["nodes"] = MASTERS * (1 + SLAVES)
        result["percent"] = measure(cluster, result["nodes"], wanted.seconds)
        print(f"{result['nodes']} nodes: {result['percent']} % of a core", flush=True)
        if wanted.entries:
            for server in cluster.slaves.values():
                server.configure({"listen_addresses": "*"})
                server.restart()
            register_more(cluster, wanted.entries)
            result["entries"] = wanted.entries
            result["percent_of_entries"] = measure(cluster, wanted.entries, wanted.seconds)
            each = (result["percent_of_entries"] - result["percent"]) / (wanted.entries - result["nodes"])
            result["percent_per_entry"] = round(each, 5)
            result["percent_for_1000_told"] = round(result["percent"] + each * (1000 - result["nodes"]), 1)
            print(f"{wanted.entries} entries: {result['percent_of_entries']} %; told from both: "
                  f"{result['percent_per_entry']} % for each, {result['percent_for_1000_told']} % for 1,000")
    finally:
        workspace.close()
    tell(result, wanted.json)
    if wanted.max_percent is not None and result["percent"] > wanted.max_percent:
        sys.exit(f"8 nodes cost {result['percent']} % of a core, more than {wanted.max_percent} %")


if __name__ == "__main__":
    main()
