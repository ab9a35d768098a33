"""Hosts for tests of cut links: network namespaces on one switch, which is a namespace, too.

Nothing of it has a name or an address outside: a namespace lives as long as its holder, a process that ends when its
standard input does, and the servers in it. So nothing is left behind, however the test ends. Needs root and iproute2.

All neighbours' addresses are entered by hand. A link is cut in one direction by entering a wrong one: what is sent then is
lost without a word, as behind a switch that drops it. A host whose cable is out loses everything and is told so.
"""

import os
import shutil
import subprocess

#: TEST-NET-2 of RFC 5737: nobody's addresses, and here only within the namespaces.
PREFIX = "198.51.100."
NOBODYS = "02:00:00:00:ff:ff"


def why_not():
    """What keeps namespaces from being made here; None if they can be."""
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    missing = [name for name in ("ip", "nsenter", "unshare", "setpriv", "mount") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Network() as network:
            network.host("first")
            network.host("second")
    except (AssertionError, OSError) as error:
        return str(error)
    return None


class Namespace:
    """Network and mounts of its own, as long as the holder lives."""

    def __init__(self):
        self._holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", "echo made; exec cat"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = self._holder.stdout.readline()
        if said != "made\n":
            self.close()
            raise AssertionError(f"no namespace can be made: {said.strip()}")

    @property
    def pid(self):
        return self._holder.pid

    def command(self, *command, user=None):
        """`command` as arguments of a program to start in here."""
        entered = ["nsenter", "--target", str(self.pid), "--net", "--mount"]
        if user:
            entered += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        return [*entered, *map(str, command)]

    def run(self, *command):
        done = subprocess.run(self.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.stdout.strip()}")

    def close(self):
        self._holder.stdin.close()
        self._holder.wait(30)
        self._holder.stdout.close()


class Host(Namespace):
    def __init__(self, network, number, name):
        super().__init__()
        self._network = network
        self.name = name
        self.number = number
        self.address = f"{PREFIX}{number}"
        self.ethernet = f"02:00:00:00:00:{number:02x}"
        self.port = f"port{number}"

    def __str__(self):
        return self.name

    def hide(self, folder):
        """What is in there can't be seen by those that are started here from now on."""
        self.run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder))


class Network:
    def __init__(self):
        self.hosts = []
        self._cut = set()  # (sender, receiver)
        self._out = set()  # hosts whose cable is out
        self._switch = Namespace()
        try:
            self._switch.run("ip", "link", "add", "switch", "type", "bridge")
            self._switch.run("ip", "link", "set", "switch", "up")
        except AssertionError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def host(self, name):
        made = Host(self, len(self.hosts) + 1, name)
        self.hosts.append(made)
        made.run("ip", "link", "set", "lo", "up")
        made.run("ip", "link", "add", "eth0", "address", made.ethernet, "type", "veth",
                 "peer", "name", made.port, "netns", str(self._switch.pid))
        made.run("ip", "address", "add", f"{made.address}/24", "dev", "eth0")
        made.run("ip", "link", "set", "eth0", "up")
        self._switch.run("ip", "link", "set", made.port, "master", "switch", "up")
        for other in self.hosts[:-1]:
            self._enter(made, other, other.ethernet)
            self._enter(other, made, made.ethernet)
        return made

    @staticmethod
    def _enter(sender, receiver, ethernet):
        sender.run("ip", "neighbour", "replace", receiver.address, "lladdr", ethernet, "nud", "permanent", "dev", "eth0")

    def cut(self, senders, receivers):
        """What these send to those is lost, until mend()."""
        for sender in senders:
            for receiver in receivers:
                if sender is not receiver:
                    self._cut.add((sender, receiver))
                    self._enter(sender, receiver, NOBODYS)

    def separate(self, some, others):
        """Loses what is sent between these two groups, in both directions."""
        self.cut(some, others)
        self.cut(others, some)

    def pull_cable(self, host):
        self._out.add(host)
        self._switch.run("ip", "link", "set", host.port, "down")

    def mend(self):
        """Everything is as it was before the first cut."""
        for host in list(self._out):
            self._switch.run("ip", "link", "set", host.port, "up")
            self._out.discard(host)
        for sender, receiver in list(self._cut):
            self._enter(sender, receiver, receiver.ethernet)
            self._cut.discard((sender, receiver))

    @property
    def whole(self):
        return not self._cut and not self._out

    def close(self):
        for each in [*self.hosts, self._switch]:
            each.close()
