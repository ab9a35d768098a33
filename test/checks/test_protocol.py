"""docs/testing.md tells which test proves which rule of the failover protocol: the tests it names are there, and what is
there is named."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECTION = re.search(r"^## What proves which rule\n(.*?)^## ", (ROOT / "docs/testing.md").read_text(),
                    re.DOTALL | re.MULTILINE).group(1)
TABLES = [table.strip().splitlines()[2:] for table in re.findall(r"(?:^\|.*\n)+", SECTION, re.MULTILINE)]


def cells(row):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def known_tests():
    found = set()
    for path in ROOT.glob("test/**/*_test.cpp"):
        found |= {f"{suite}.{name}" for suite, name in
                  re.findall(r"^TEST(?:_F|_P)?\((\w+), (\w+)\)", path.read_text(), re.MULTILINE)}
    for path in ROOT.glob("test/cluster/test_*.py"):
        found |= {f"{path.stem}.{name}" for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    return found


def mutations():
    return set(re.findall(r'return "(\w+)";', (ROOT / "test/sim/world.cpp").read_text())) - {"none"}


def named(rows):
    return {word for row in rows for word in re.findall(r"`([^`]+)`", cells(row)[-1])}


def test_every_test_that_is_named_exists():
    there = known_tests() | {f"mutation:{name}" for name in mutations()}
    assert sorted(word for table in TABLES for word in named(table) if word not in there) == []


def test_every_row_names_a_test():
    rules, durable, traps = TABLES
    assert [cells(row)[0] for row in rules] == [str(number) for number in range(1, 15)]
    assert len(durable) >= 13 and len(traps) >= 20
    bare = [row for table in TABLES for row in table if not named([row]) and "not built" not in row]
    assert bare == []


def test_every_crash_point_belongs_to_a_row():
    points = set()
    for path in (ROOT / "src/replication").glob("*.cpp"):
        points |= set(re.findall(r'crash_point\("([^"]+)"\)', path.read_text()))
    listed = [word for row in TABLES[1] for word in re.findall(r"`([^`]+)`", cells(row)[2])]
    assert sorted(listed) == sorted(points)


def test_what_was_written_for_a_rule_is_named():
    """Suites that exist for the protocol's sake, and every part of a rule that the simulation can leave out."""
    all_named = set().union(*map(named, TABLES))
    written = {test for test in known_tests() if test.split(".")[0] in ("Traps", "Quorum", "Asynchronous")}
    assert sorted(written - all_named) == []
    assert sorted(mutations() - {word.removeprefix("mutation:") for word in all_named}) == []
