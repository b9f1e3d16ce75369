"""Certificates for tests, made with openssl: a CA, and what it signs."""

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A CA of its own in a folder; `ca` is its certificate's path."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        self._folder = folder
        self._name = name
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.ca, "-subj", f"/CN={name}", "-days", "2")

    def issue(self, name: str, *alternatives: str) -> tuple[Path, Path]:
        """A certificate and its key, for names as `DNS:x` or `IP:127.0.0.1`."""
        base = self._folder / f"{self._name}-{name}"
        cert, key, request, extensions = (base.with_suffix(end) for end in (".pem", ".key", ".csr", ".ext"))
        names = ",".join(alternatives or (f"DNS:{name}",))
        extensions.write_text(
            f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\n", encoding="utf-8"
        )
        _openssl("req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-out", cert,
            "-days", "2", "-extfile", extensions,
        )  # fmt: skip
        return cert, key


def _openssl(*arguments: object) -> None:
    try:
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise AssertionError(
            "openssl is missing: install it with the system's packages (apt install openssl)"
        ) from error
    assert done.returncode == 0, done.stderr
