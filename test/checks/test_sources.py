"""What the repository promises about its own sources. Uses the compile commands of a finished build, whose folder is
in PGXC_BUILD_DIR."""

import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PGXC_BUILD_DIR", ROOT / "build-dev"))

#: Which layers a layer may include. The build enforces it by include paths; this is the table that it is held to.
MAY_INCLUDE = {
    "base": set(),
    "wire": {"base"},
    "net": {"base"},
    "catalog": {"base"},
    "parser": {"base", "catalog"},
    "replication": {"base", "net", "catalog"},
    "pooler": {"base", "wire", "net", "catalog"},
    "agent": {"base", "net", "catalog", "replication"},
    "pg": {"base", "wire", "net", "catalog", "parser", "replication", "pooler"},
}

SOURCES = sorted(p for top in ("src", "test") for p in (ROOT / top).rglob("*") if p.suffix in (".h", ".cpp"))
HEADERS = [p for p in SOURCES if p.suffix == ".h" and p.is_relative_to(ROOT / "src")]
SCRIPTS = sorted(p for p in [*ROOT.glob("*.sh"), *ROOT.glob("test/**/*.sh"), *ROOT.glob("bench/*.sh"), ROOT / ".ci/run"])


def name_of(path):
    return str(path.relative_to(ROOT))


def layer_of(path):
    return path.relative_to(ROOT / "src").parts[0]


@functools.cache
def compile_command(layer):
    """The command and folder that compile a source of `layer`, without source and output."""
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["file"])
        if source.parent != ROOT / "src" / layer and source.name != f"empty_{layer}.cpp":
            continue
        # libpq's users are a target of their own, which sees more than its layer.
        if layer == "replication" and source.name.startswith("libpq_"):
            continue
        words = shlex.split(entry["command"])
        if pathlib.Path(words[0]).name == "ccache":
            words = words[1:]
        kept = []
        skip = False
        for word in words:
            if skip or word in ("-c", str(source)):
                skip = False
            elif word == "-o":
                skip = True
            else:
                kept.append(word)
        return kept, entry["directory"]
    pytest.fail(f"{BUILD} compiles no source of layer {layer}")


def try_include(layer, header):
    """Compiles one line that includes `header` as a source of `layer`; returns the compiler's complaint or ''."""
    command, folder = compile_command(layer)
    done = subprocess.run([*command, "-fsyntax-only", "-x", "c++", "-"], input=f'#include "{header}"\n', cwd=folder,
                          env={**os.environ, "LC_ALL": "C"}, text=True, capture_output=True)
    return done.stderr if done.returncode != 0 else ""


def forbidden():
    for layer, allowed in MAY_INCLUDE.items():
        for other in MAY_INCLUDE.keys() - allowed - {layer}:
            headers = [h for h in HEADERS if layer_of(h) == other]
            if headers:
                yield layer, f"{other}/{headers[0].relative_to(ROOT / 'src' / other)}"
        if layer != "pg":
            yield layer, "postgres.h"
        yield layer, "libpq-fe.h"


@pytest.mark.parametrize("layer,header", sorted(forbidden()))
def test_forbidden_include_does_not_compile(layer, header):
    complaint = try_include(layer, header)
    assert f"fatal error: {header}: No such file or directory" in complaint


@pytest.mark.parametrize("header", HEADERS, ids=name_of)
def test_header_compiles_alone(header):
    layer = layer_of(header)
    complaint = try_include(layer, f"{layer}/{header.relative_to(ROOT / 'src' / layer)}")
    assert not complaint, complaint


def test_every_layer_is_in_the_table():
    assert {p.name for p in (ROOT / "src").iterdir() if p.is_dir()} <= MAY_INCLUDE.keys()


def lines_with(pattern, paths):
    found = re.compile(pattern)
    return [f"{name_of(path)}:{number}: {line}" for path in paths
            for number, line in enumerate(path.read_text().splitlines(), 1) if found.search(line)]


def test_includes_name_their_layer():
    """"../x.h" would reach what the include paths hide."""
    assert lines_with(r'#\s*include\s+[<"][^">]*\.\./', SOURCES) == []


def test_server_version_in_one_file_only():
    assert lines_with(r"\bPG_VERSION_NUM\b", [p for p in SOURCES if p.name != "pg_compat.h"]) == []


def test_every_unit_test_file_is_compiled():
    """A test file in a folder that no target globs would never run."""
    compiled = {entry["file"] for entry in json.loads((BUILD / "compile_commands.json").read_text())}
    assert [name_of(p) for p in SOURCES if p.name.endswith("_test.cpp") and str(p) not in compiled] == []


def test_formatting():
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, SOURCES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_shell_script(script):
    assert shutil.which("shellcheck"), "shellcheck is not installed"
    done = subprocess.run(["shellcheck", "-x", "-P", str(ROOT), str(script)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
