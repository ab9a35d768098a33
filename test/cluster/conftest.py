import pytest

import pgcluster

#: The property of a test's report that holds what it tells.
TOLD = "told"


@pytest.fixture(scope="session")
def workspace():
    made = pgcluster.Workspace()
    yield made
    made.close()


@pytest.fixture
def make_cluster(workspace):
    """Makes clusters that live as long as the test; arguments as of pgcluster.standard_cluster. They are in no hurry to
    take a silence for a death, unless told."""
    made = []

    def make(**options):
        made.append(pgcluster.standard_cluster(workspace, **{**pgcluster.UNHURRIED, **options}))
        return made[-1]

    yield make
    for cluster in made:
        cluster.destroy()


@pytest.fixture
def bare_cluster(workspace):
    """A cluster with nothing in it yet."""
    made = pgcluster.Cluster(workspace)
    yield made
    made.destroy()


@pytest.fixture
def tell(record_property):
    """Prints a line at the end of the whole run, of a good one, too."""
    return lambda line: record_property(TOLD, line)


def pytest_terminal_summary(terminalreporter):
    for reports in list(terminalreporter.stats.values()):
        for report in reports:
            for name, line in getattr(report, "user_properties", ()):
                if name == TOLD and report.when == "teardown":
                    terminalreporter.write_line(f"told: {line}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the ends of the servers' logs to the report of a failed test."""
    report = (yield).get_result()
    workspace = getattr(item, "funcargs", {}).get("workspace")
    if report.failed and workspace:
        for server in workspace.servers:
            report.sections.append((f"log of {server.name} ({server.port})", server.log_text()[-6000:]))
