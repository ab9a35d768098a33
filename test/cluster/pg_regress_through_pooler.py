#!/usr/bin/python3
"""PostgreSQL's own regression suite, directly and through the pooler, compared test by test.

    pg_regress_through_pooler.py                     all of it, to a datanode
    pg_regress_through_pooler.py --node C            to the coordinator itself
    pg_regress_through_pooler.py --slaves 1 --set read_routing=auto
                                                     the same, with reads at a slave
    pg_regress_through_pooler.py --tests guc,temp    some (with what they need before them)

The suite's SQL is in the server's source package, which is fetched by apt-get into a temporary folder and never kept
elsewhere (--source names one that is there already). pg_regress is that of the server's -dev package. Each run has
servers of its own. A test differs if what psql printed through the pooler is not, byte for byte, what it printed
directly. Exit status 0: none differs.
"""

import argparse
import contextlib
import difflib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pgcluster  # noqa: E402

#: Tests that all others build on.
FOUNDATION = ["test_setup", "create_index", "create_misc", "create_function_c"]


def command(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def fetch_source(folder, major):
    """Unpacks the regression tests of the newest source package of that major version that the machine's mirrors
    have, asked for by apt-get with a list of sources of its own. Prefers the version that is installed."""
    lists = folder / "lists" / "partial"
    lists.mkdir(parents=True)
    lines = set()
    targets = command("apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages")
    for line in targets.splitlines():
        site, release, component = line.split("|")
        if component == "main" and re.fullmatch(r"[a-z]+(-security|-updates)?", release):
            lines.add(f"deb-src {site} {release} {component}")
    (folder / "sources.list").write_text("\n".join(sorted(lines)) + "\n")
    options = ["-o", f"Dir::Etc::SourceList={folder}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
               "-o", f"Dir::State::Lists={folder}/lists", "-q"]
    subprocess.run(["apt-get", *options, "update"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    known = re.findall(r"^Version: (\S+)", command("apt-cache", *options, "showsrc", f"postgresql-{major}"), re.M)
    installed = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", f"postgresql-{major}"], stdout=subprocess.PIPE,
                               text=True, check=False).stdout
    known.sort(key=lambda version: (version == installed, [int(n) for n in re.findall(r"\d+", version)]), reverse=True)
    for version in known:
        done = subprocess.run(["apt-get", *options, "--download-only", "source", f"postgresql-{major}={version}"],
                              cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        packed = list(folder.glob("*.orig.tar.*"))
        if done.returncode == 0 and packed:
            print(f"the tests are of the source package {version}; the server is {installed or 'another'}")
            with tarfile.open(packed[0]) as archive:
                wanted = [m for m in archive if "/src/test/regress/" in m.name]
                archive.extractall(folder, members=wanted)
            return next(folder.glob("*/src/test/regress"))
    sys.exit(f"no source package of postgresql-{major} could be had: is there a mirror? --source names a folder")


def make_library(source, folder, pg_config):
    """The suite's own C functions, and the two modules that it expects beside them."""
    folder.mkdir()
    subprocess.run(["gcc", "-O1", "-fPIC", "-shared", "-w", f"-I{command(pg_config, '--includedir-server').strip()}",
                    f"-I{source}", "-o", folder / "regress.so", source / "regress.c"], check=True)
    for module in ("refint", "autoinc"):
        shutil.copy(pathlib.Path(command(pg_config, "--pkglibdir").strip()) / f"{module}.so", folder)
    return folder


class Run:
    """One run of pg_regress: its folder, and what it said of each test."""

    def __init__(self, work, name, workspace, source, library, pg_regress):
        self.name = name
        self.folder = work / name
        self.workspace, self.source, self.library, self.pg_regress = workspace, source, library, pg_regress
        self.said = {}
        self.output = ""

    def go(self, port, tests, options):
        self.folder.mkdir()
        (self.folder / "results").mkdir()
        (self.folder / "sql").mkdir()
        (self.folder / "expected").mkdir()
        if pgcluster.running_as_root():
            command("chown", "-R", "postgres:", self.folder)
        words = [self.pg_regress, f"--inputdir={self.source}", f"--outputdir={self.folder}", f"--bindir={self.workspace.bin}",
                 f"--dlpath={self.library}", "--host=127.0.0.1", f"--port={port}", "--user=postgres",
                 "--max-concurrent-tests=20", "--dbname=regression"]
        words += tests or [f"--schedule={self.source}/parallel_schedule"]
        how = pgcluster.as_server_user()
        how["env"] = {**how["env"], "PGOPTIONS": options, "PGTZ": "PST8PDT", "LC_ALL": "C"}
        started = time.monotonic()
        done = subprocess.run([str(word) for word in words], cwd=self.folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **how)
        self.output = done.stdout
        (self.folder / "output.txt").write_text(done.stdout)
        for line in done.stdout.splitlines():
            found = re.match(r"(?:test |\s+)(\w+)\s+\.\.\. (ok|FAILED|failed)", line)
            if found:
                self.said[found[1]] = found[2].lower()
        if not self.said:
            sys.exit(f"pg_regress ran nothing {self.name}:\n{done.stdout[-2000:]}")
        failed = sum(word != "ok" for word in self.said.values())
        print(f"{self.name}: {len(self.said) - failed} passed, {failed} failed, {time.monotonic() - started:.0f} s", flush=True)

    def result(self, test):
        path = self.folder / "results" / f"{test}.out"
        return path.read_text(errors="replace").splitlines() if path.exists() else None


def compare(direct, through, diffs):
    """The tests whose output differs, with the number of differing lines."""
    differing = {}
    with open(diffs, "w", encoding="utf-8") as out:
        for test in direct.said:
            ours, theirs = through.result(test), direct.result(test)
            if ours == theirs:
                continue
            lines = list(difflib.unified_diff(theirs or [], ours or [], f"direct/{test}", f"through/{test}", lineterm=""))
            differing[test] = sum(line[0] in "+-" for line in lines[2:])
            out.write("\n".join(lines) + "\n")
    return differing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, help="an unpacked src/test/regress")
    parser.add_argument("--node", default="1", help="1: a datanode (default); C: the coordinator itself")
    parser.add_argument("--tests", help="only these, comma-separated, one after the other")
    parser.add_argument("--direct", type=pathlib.Path, help="a kept folder `direct` to compare with, instead of a run")
    parser.add_argument("--slaves", type=int, default=0, help="slaves of the datanode, for --set read_routing=auto")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="setting of the coordinator")
    parser.add_argument("--keep", type=pathlib.Path, help="where to leave outputs and differences")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    pg_config = os.environ.get("PG_CONFIG", "/usr/lib/postgresql/15/bin/pg_config")
    version = command(pg_config, "--version").split()[1]
    major = version.split(".")[0]
    pg_regress = pathlib.Path(command(pg_config, "--pgxs").strip()).parent.parent / "test/regress/pg_regress"

    workspace = pgcluster.Workspace()
    with contextlib.closing(workspace):
        work = workspace.path / "suite"
        work.mkdir()
        source = arguments.source or fetch_source(work, major)
        # The server user reads it.
        shutil.copytree(source, work / "regress")
        library = make_library(work / "regress", work / "library", pg_config)
        command("chmod", "-R", "a+rX", work)
        tests = None
        if arguments.tests:
            wanted = arguments.tests.split(",")
            tests = [name for name in FOUNDATION if name not in wanted] + wanted

        settings = {"max_prepared_transactions": 2, "shared_buffers": "128MB", "log_autovacuum_min_duration": -1}
        runs = []
        for name in ("direct", "through"):
            run = Run(work, name, workspace, work / "regress", library, pg_regress)
            runs.append(run)
            if name == "direct" and arguments.direct:
                run.folder = arguments.direct
                run.said = json.loads((arguments.direct / "said.json").read_text())
                if tests:
                    run.said = {test: run.said[test] for test in tests}
                continue
            cluster = pgcluster.Cluster(workspace)
            try:
                server = cluster.make_datanode(1, **settings)
                port, options = server.port, ""
                if name == "through" or arguments.node == "C":
                    given = dict(pair.split("=", 1) for pair in arguments.set)
                    cluster.make_coordinator(**given, **{f".{key}": value for key, value in settings.items()})
                    for slave in range(2, 2 + arguments.slaves if name == "through" else 2):
                        cluster.make_slave(slave, 1)
                        cluster.register(slave, 1, "ASYNCHRONOUS")
                    cluster.wait_ready()
                    port, options = cluster.coordinator.port, ""
                if name == "through":
                    port, options = cluster.pooler_port, f"-c pgxc.node={arguments.node}"
                run.go(port, tests, options)
                (run.folder / "said.json").write_text(json.dumps(run.said))
            finally:
                for made in cluster._made:
                    shutil.copy(made.log, work / f"{name}.{made.name}.log")
                cluster.destroy()
        direct, through = runs
        differing = compare(direct, through, work / "differences.diff")
        if arguments.keep:
            shutil.rmtree(arguments.keep, ignore_errors=True)
            shutil.copytree(work, arguments.keep, symlinks=True)
        for test, lines in differing.items():
            print(f"  differs: {test:24} {lines:6} lines   directly {direct.said[test]}, through the pooler "
                  f"{through.said.get(test, 'not run')}")
        for test, word in direct.said.items():
            if word != "ok" and test not in differing:
                print(f"  fails in both ways alike: {test}")
        same = len(direct.said) - len(differing)
        print(f"{len(direct.said)} tests: {same} the same through the pooler, {len(differing)} differing")
        if arguments.json:
            arguments.json.write_text(json.dumps({
                "tests": len(direct.said), "same": same, "differing": differing,
                "passed_directly": sum(word == "ok" for word in direct.said.values()),
                "passed_through": sum(word == "ok" for word in through.said.values())}, indent=1) + "\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
