"""What the documentation says of the code is compared with the code: settings, procedures, links."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

WHEN = {"PGC_POSTMASTER": "start", "PGC_SIGHUP": "reload", "PGC_USERSET": "session"}
UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "kB": 1, "MB": 1024}
#: Defaults that are another setting's value.
BORROWED = {"pooler_listen_addresses": "as `listen_addresses`",
            "pooler_socket_directories": "as `unix_socket_directories`"}


def name_of(path):
    return str(path.relative_to(ROOT))


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text)


def settings_of_the_code():
    """{name: (default, values, when)} as src/pg/guc.cpp defines them; a default is text, or a number in the unit."""
    code = without_comments((ROOT / "src/pg/guc.cpp").read_text())
    limits = without_comments((ROOT / "src/base/limits.h").read_text())
    variables = {name: value.strip() for name, value in
                 re.findall(r"^(?:int|bool|char\*) (\w+) = ([^;]+);", code, re.MULTILINE)}
    numbers = {"INT_MAX": 2**31 - 1}
    numbers |= {f"limits::{name}": int(value) for name, value in re.findall(r"(\w+) = (\d+);", limits)}
    for name, product in re.findall(r"constexpr int (\w+) = ([\d* ]+);", code):
        numbers[name] = 1
        for factor in product.split("*"):
            numbers[name] *= int(factor)

    def number(text):
        text = re.sub(r"^static_cast<int>\((.*)\)$", r"\1", text)
        return numbers[text] if text in numbers else int(text)

    def words_of(options):
        body = re.search(rf"{options}\[\] = \{{(.*?)\}};", code, re.DOTALL).group(1)
        return [word for word, hidden in re.findall(r'\{"(\w+)",[^{}]*?, (true|false)\}', body) if hidden == "false"]

    found = {}
    for kind, name, rest in re.findall(r'define\.(\w+)\(\s*"pgxc\.(\w+)",\s*(?:"(?:[^"\\]|\\.)*"\s*)+,(.*?)\);', code,
                                       re.DOTALL):
        arguments = [argument.strip() for argument in rest.split(",")]
        variable = arguments[0].lstrip("&")
        initial = variables[variable]
        context = next(argument for argument in arguments if argument in WHEN)
        if kind == "integer":
            unit = {"GUC_UNIT_MS": " ms", "GUC_UNIT_KB": " kB"}.get(arguments[-1], "")
            default = number(initial)
            values = f"{number(arguments[1])} .. {number(arguments[2])}{unit}"
        elif kind == "boolean":
            default, values = {"true": "on", "false": "off"}[initial], "`on`, `off`"
        elif kind == "choice":
            words = words_of(arguments[1])
            default = re.search(r"::(\w+)\)", initial).group(1).lower()
            values = ", ".join(f"`{word}`" for word in words)
        else:
            default, values = arguments[1].strip('"') or "''", "text"
        found[name] = (BORROWED.get(name, default), values, WHEN[context])
    return found


def settings_of_the_docs():
    """The same from the tables of docs/settings.md."""
    found = {}
    for line in (ROOT / "docs/settings.md").read_text().splitlines():
        row = re.fullmatch(r"\| `pgxc\.(\w+)` \| (.*?) \| (.*?) \| (\w+) \| .+ \|", line)
        if row is None:
            assert "`pgxc." not in line.split("|")[1:2], f"not a row as the others: {line}"
            continue
        name, default, values, when = row.groups()
        assert name not in found, f"pgxc.{name} is there twice"
        default = default if default.startswith("as ") else default.strip("`")
        amount = re.fullmatch(r"(-?\d+)(\w*)", default)
        if amount:
            default = int(amount.group(1)) * (UNITS[amount.group(2)] if amount.group(2) else 1)
        found[name] = (default, values, when)
    return found


def test_settings():
    code = settings_of_the_code()
    definitions = (ROOT / "src/pg/guc.cpp").read_text().count('"pgxc.')
    assert len(code) == definitions, "a definition has a form that this test can't read"
    assert settings_of_the_docs() == code


def requests_of_the_library():
    """Settings that carry messages between a coordinator and the library on a datanode, in no file and no table."""
    return set(re.findall(r'DefineCustom\w+Variable\(\s*"pgxc\.(\w+)"', (ROOT / "src/pg/node_library.cpp").read_text()))


def test_requests_of_the_library_are_explained():
    made = requests_of_the_library()
    assert made
    text = (ROOT / "docs/settings.md").read_text()
    assert [name for name in made if f"`pgxc.{name}`" not in text] == []


def test_settings_named_elsewhere_exist():
    """A setting that some document mentions is one that there is."""
    procedures_and_tables = set(re.findall(r"pgxc\.(\w+)", "\n".join(p.read_text() for p in ROOT.glob("sql/**/*.sql"))))
    known = settings_of_the_code().keys() | requests_of_the_library() | procedures_and_tables
    unknown = [f"{name_of(path)}: pgxc.{word}" for path in DOCUMENTS
               for word in re.findall(r"\bpgxc\.([a-z]\w*)", path.read_text()) if word not in known]
    assert unknown == []


def test_procedures():
    """docs/statements.md names every procedure of the SQL, and no other."""
    made = set(re.findall(r"CREATE PROCEDURE pgxc\.(\w+)", (ROOT / "sql/objects/procedures.sql").read_text()))
    named = set(re.findall(r"CALL pgxc\.(\w+)", (ROOT / "docs/statements.md").read_text()))
    assert named == made


def columns_of_the_sql(source, made):
    text = (ROOT / source).read_text()
    body = re.search(rf"{re.escape(made)} ?\((.*?)\n(?:\)|RETURNS)", text, re.DOTALL).group(1)
    return re.findall(r'(?:^|[,(\n])\s*(?:OUT )?"?([a-z_]+)"? (?:"char"|text|integer|bigint|double|timestamp|jsonb|pg_lsn)',
                      body)


@pytest.mark.parametrize("document,heading,source,made", [
    ("docs/failover.md", "pgxc.failover_history", "sql/catalog/history.sql", "CREATE TABLE pgxc.failover_history"),
    ("docs/failover.md", "pgxc.failover_evidence", "sql/catalog/evidence.sql", "CREATE TABLE pgxc.failover_evidence"),
    ("docs/failover.md", "pgxc_node_status", "sql/objects/status_views.sql", "CREATE FUNCTION pgxc.node_status"),
    ("docs/pooler.md", "pgxc_pools", "sql/objects/status_views.sql", "CREATE FUNCTION pgxc.pools"),
    ("docs/pooler.md", "pgxc_pooler_clients", "sql/objects/status_views.sql", "CREATE FUNCTION pgxc.pooler_clients"),
    ("docs/pooler.md", "pgxc_pooler_stats", "sql/objects/statistics_views.sql", "CREATE FUNCTION pgxc.pooler_stats"),
    ("docs/pooler.md", "pgxc_pooler_servers", "sql/objects/statistics_views.sql", "CREATE FUNCTION pgxc.pooler_servers"),
])
def test_columns(document, heading, source, made):
    """Every column of a view or table that a document explains is named in that section."""
    columns = columns_of_the_sql(source, made)
    assert len(columns) > 5
    section = re.search(rf"^#+ [^\n]*`{re.escape(heading)}`[^\n]*\n(.*?)(?=^#|\Z)", (ROOT / document).read_text(),
                        re.DOTALL | re.MULTILINE).group(1)
    assert [column for column in columns if f"`{column}`" not in section] == []


def anchors_of(path):
    """The anchors of a document's headings, by the rule that forges use."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links(document):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_named_exist(document):
    """Paths in backticks that begin like ours lead somewhere."""
    paths = re.findall(r"`((?:src|sql|test|bench|docs|cmake)/[\w./\-]*)`", document.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_document_is_in_the_reading_order():
    order = (ROOT / "docs/README.md").read_text()
    assert [p.name for p in ROOT.glob("docs/*.md") if p.name != "README.md" and f"({p.name})" not in order] == []
