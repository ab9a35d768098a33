"""A certificate authority for a test, made by the openssl command."""

import os
import shutil
import subprocess

import pgcluster


class Authority:
    """Files in `folder`: root.crt, and <name>.crt and <name>.key for each that was issued. All belong to the server
    user; `mine` is a copy of a pair for the user who runs the test."""

    def __init__(self, folder, name="the authority"):
        self.folder = folder
        folder.mkdir(mode=0o755, exist_ok=True)
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                  "-subj", f"/CN={name}", "-keyout", "root.key", "-out", "root.crt")
        self._own("root.crt", "root.key")

    def _run(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=self.folder, check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def _own(self, *names):
        for name in names:
            os.chmod(self.folder / name, 0o600 if name.endswith(".key") else 0o644)
            if pgcluster.running_as_root():
                shutil.chown(self.folder / name, "postgres", "postgres")

    @property
    def root(self):
        return self.folder / "root.crt"

    def issue(self, file, common_name, names="DNS:localhost, IP:127.0.0.1"):
        """(certificate, key) signed by the authority."""
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                  f"/O=tests/CN={common_name}", "-keyout", f"{file}.key", "-out", f"{file}.csr")
        (self.folder / f"{file}.ext").write_text(f"subjectAltName = {names}\n")
        self._run("x509", "-req", "-in", f"{file}.csr", "-CA", "root.crt", "-CAkey", "root.key", "-CAcreateserial",
                  "-days", "2", "-extfile", f"{file}.ext", "-out", f"{file}.crt")
        self._own(f"{file}.crt", f"{file}.key")
        return self.folder / f"{file}.crt", self.folder / f"{file}.key"

    def mine(self, file):
        """libpq refuses a key that belongs to somebody else."""
        copies = []
        for end in ("crt", "key"):
            copy = self.folder / f"mine_{file}.{end}"
            shutil.copyfile(self.folder / f"{file}.{end}", copy)
            os.chmod(copy, 0o600)
            copies.append(copy)
        return {"sslcert": str(copies[0]), "sslkey": str(copies[1])}
