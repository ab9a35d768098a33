"""What idle clients cost the pooler in resident memory, and how many clients can log in by SCRAM in a second.

Memory: the private pages of the pooler's process (Private_Clean + Private_Dirty of /proc/PID/smaps_rollup; the memory that
all clients share, and the server's, is no client's) with a few clients, half of them, and all; each has run a query. The
cost of one is the slope between half and all: what is paid once is not in it. What the kernel needs for a socket is not
resident memory of anybody, and not measured.

Logins: each connects, proves itself by SCRAM (with iterations as the server makes them by default), and disconnects. Told is
also how much of a core the pooler used for that, and how much these clients did, which hash as much as it does.
"""

import argparse
import base64
import hashlib
import hmac
import multiprocessing
import os
import pathlib
import re
import resource
import selectors
import socket
import struct
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test/cluster"))

import pgcluster  # noqa: E402
from pgcluster import HOST, wait_for  # noqa: E402
from result import tell  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
PASSWORD = "open sesame"
QUERY = b"SELECT 1\0"
#: Clients that connect at the same time: the pooler's own limit of those who have not logged in is higher.
AT_ONCE = 200


def packet(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(user):
    words = ["user", user, "database", "postgres", "options", "-c pgxc.node=1", ""]
    body = struct.pack("!I", 196608) + b"\0".join(word.encode() for word in words) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def cpu_seconds(pids):
    fields = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS


def private_kb(pids):
    text = "".join(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(kb) for kb in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.MULTILINE))


class Idlers:
    """Clients that have run one query and now do nothing."""

    def __init__(self, address, spread):
        self.address, self.spread, self.sockets = address, spread, []

    def _connect(self, number):
        if isinstance(self.address, str):
            connection = socket.socket(socket.AF_UNIX)
        else:
            connection = socket.socket()
            if self.spread:
                # 28,000 ports for each address of ours.
                connection.bind((f"127.0.1.{1 + number % 200}", 0))
        connection.connect(self.address)
        connection.setblocking(False)
        connection.send(startup("idler"))
        return connection

    def grow(self, count):
        """Until there are `count`."""
        with selectors.DefaultSelector() as selector:
            pending = {}
            while len(self.sockets) + len(pending) < count or pending:
                while len(pending) < AT_ONCE and len(self.sockets) + len(pending) < count:
                    connection = self._connect(len(self.sockets) + len(pending))
                    pending[connection] = [b"", 0]
                    selector.register(connection, selectors.EVENT_READ)
                events = selector.select(30)
                assert events, f"nothing happens any more with {len(self.sockets)} clients there"
                for key, _ in events:
                    state = pending[key.fileobj]
                    data = key.fileobj.recv(65536)
                    assert data, f"a client was refused with {len(self.sockets)} there: {state[0]!r}"
                    state[0] += data
                    assert b"FATAL" not in state[0], state[0]
                    if not state[0].endswith(b"Z\0\0\0\x05I"):
                        continue
                    state[0], state[1] = b"", state[1] + 1
                    if state[1] == 1:
                        key.fileobj.send(packet(b"Q", QUERY))
                        continue
                    selector.unregister(key.fileobj)
                    del pending[key.fileobj]
                    self.sockets.append(key.fileobj)

    def close(self):
        for connection in self.sockets:
            connection.close()


def read_message(stream):
    head = stream.read(5)
    if len(head) < 5:
        raise ConnectionError("the connection was closed")
    body = stream.read(struct.unpack("!I", head[1:])[0] - 4)
    if head[:1] == b"E":
        raise ConnectionError(repr(body))
    return head[:1], body


def login_by_scram(address, keys):
    """One login. `keys` remembers the salted password, as a driver with a pool does not: so clear it for that."""
    with socket.create_connection(address) as connection, connection.makefile("rb") as stream:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(startup("secretive"))
        read_message(stream)
        nonce = base64.b64encode(os.urandom(18)).decode()
        first = f"n=,r={nonce}"
        initial = b"SCRAM-SHA-256\0" + struct.pack("!I", len(first) + 3) + b"n,," + first.encode()
        connection.sendall(packet(b"p", initial))
        server_first = read_message(stream)[1][4:].decode()
        said = dict(part.split("=", 1) for part in server_first.split(","))
        if said["s"] not in keys:
            keys[said["s"]] = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(said["s"]), int(said["i"]))
        client_key = hmac.digest(keys[said["s"]], b"Client Key", "sha256")
        last = f"c=biws,r={said['r']}"
        text = f"{first},{server_first},{last}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), text, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
        connection.sendall(packet(b"p", f"{last},p={proof}".encode()))
        while read_message(stream)[0] != b"Z":
            pass
        connection.sendall(packet(b"X", b""))


def connector(address, count, started, done):
    started.wait()
    keys = {}
    for _ in range(count):
        login_by_scram(address, keys)
    done.put(time.process_time())


def measure_connects(address, pids, total, parallel):
    context = multiprocessing.get_context("fork")
    started, done = context.Event(), context.Queue()
    each = total // parallel
    children = [context.Process(target=connector, args=(address, each, started, done)) for _ in range(parallel)]
    for child in children:
        child.start()
    login_by_scram(address, {})  # the pooler and its pool are warm
    before, began = cpu_seconds(pids), time.monotonic()
    started.set()
    clients = sum(done.get(timeout=300) for _ in children)
    took, used = time.monotonic() - began, cpu_seconds(pids) - before
    for child in children:
        child.join()
    return {"logins": each * parallel, "parallel": parallel, "seconds": round(took, 2),
            "logins_per_second": round(each * parallel / took), "pooler_cpu_percent": round(100 * used / took),
            "pooler_us_per_login": round(1e6 * used / (each * parallel)), "clients_cpu_percent": round(100 * clients / took)}


def measure_idle(idlers, pids, total):
    result, before = {"clients": total}, cpu_seconds(pids)
    steps = []
    for count in (min(200, total // 4), total // 2, total):
        began = time.monotonic()
        idlers.grow(count)
        steps.append((count, private_kb(pids)))
        print(f"{count} idle clients: {steps[-1][1]} kB private ({time.monotonic() - began:.1f} s to connect)", flush=True)
    result["private_kb"] = dict(steps)
    result["kb_per_client"] = round((steps[2][1] - steps[1][1]) / (steps[2][0] - steps[1][0]), 2)
    result["cpu_seconds_to_connect"] = round(cpu_seconds(pids) - before, 2)
    before, began = cpu_seconds(pids), time.monotonic()
    time.sleep(10)  # nothing is waited for: this is what idling costs
    result["cpu_percent_while_idle"] = round(100 * (cpu_seconds(pids) - before) / (time.monotonic() - began), 2)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10000, help="idle ones (10000)")
    parser.add_argument("--connects", type=int, default=4000, help="logins by SCRAM (4000)")
    parser.add_argument("--parallel", type=int, default=16, help="of them at a time (16)")
    parser.add_argument("--workers", type=int, default=1, help="of the pooler; only the first one is at the Unix socket (1)")
    parser.add_argument("--tcp", action="store_true", help="idle clients come over loopback")
    parser.add_argument("--json", help="write the JSON there")
    parser.add_argument("--max-kb", type=float, help="fail if an idle client costs more")
    wanted = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 2 * wanted.clients // wanted.workers + 2000:
        print(f"the limit of open files ({hard}) may be too low for {wanted.clients} clients", file=sys.stderr)
    workspace = pgcluster.Workspace()
    result = {}
    try:
        cluster = pgcluster.standard_cluster(workspace, slaves=0, failover="off", max_client_connections=wanted.clients + 100,
                                              pooler_workers=wanted.workers)
        secret = None
        for server in (cluster.coordinator, cluster.masters[1]):
            server.sql("CREATE ROLE idler LOGIN")
            server.sql(f"SET password_encryption = 'scram-sha-256'; CREATE ROLE secretive LOGIN PASSWORD '{secret or PASSWORD}'")
            secret = server.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'secretive'")
        hba = cluster.coordinator.data / "pg_hba.conf"
        hba.write_text(f"host all secretive {HOST}/32 scram-sha-256\nhost all idler 127.0.0.0/16 trust\n" + hba.read_text())
        cluster.coordinator.reload()

        def workers():
            found = cluster.coordinator.child_pids("pgxc", "pooler")
            return found if len(found) == wanted.workers else None
        pids = wait_for(workers, "the pooler")
        address = (HOST, cluster.pooler_port)
        if wanted.connects:
            result["logins"] = measure_connects(address, pids, wanted.connects, wanted.parallel)
            print("{logins_per_second} logins by SCRAM per second, {parallel} at a time; {pooler_cpu_percent} % of a core for "
                  "the pooler ({pooler_us_per_login} us each), {clients_cpu_percent} % for the clients"
                  .format(**result["logins"]), flush=True)
        if wanted.clients:
            unix = f"{workspace.path}/.s.PGSQL.{cluster.pooler_port}"
            idlers = Idlers(address if wanted.tcp else unix, wanted.tcp)
            result["idle"] = measure_idle(idlers, pids, wanted.clients)
            print("{kb_per_client} kB of resident memory for each idle client; {cpu_percent_while_idle} % of a core while idle"
                  .format(**result["idle"]))
            idlers.close()
        assert workers() == pids, "the pooler was restarted meanwhile"
    finally:
        workspace.close()
    tell(result, wanted.json)
    if wanted.max_kb is not None and result["idle"]["kb_per_client"] > wanted.max_kb:
        sys.exit(f"an idle client costs {result['idle']['kb_per_client']} kB, more than {wanted.max_kb}")


if __name__ == "__main__":
    main()
