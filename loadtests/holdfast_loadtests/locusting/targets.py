"""What `host` of a Locust user says: where the calls go, and whether with TLS. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from holdfast.cli import InputError
from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.security import Security

_SCHEMES: Final = {"": False, "http": False, "grpc": False, "https": True, "grpcs": True}


@dataclass(frozen=True)
class Place:
    """`host:port`, TLS if any, what the server is to be called, and metadata of every call."""

    target: str
    security: Security | None
    authority: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, object]:
        """For another process."""
        return {
            "target": self.target,
            "security": asdict(self.security) if self.security else None,
            "authority": self.authority,
            "metadata": list(self.metadata),
        }


def place_of(
    host: str | None,
    ca: str = "",
    cert: str = "",
    key: str = "",
    authority: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Place:
    """Reads a host as Locust has it: `HOST:PORT`, with `grpc://` or `http://` before it, or `grpcs://`, `https://`.

    Args:
        host: what `--host` or the user class says.
        ca: trusted CA, a PEM file; empty: the system's. Giving one, or a certificate, turns TLS on.
        cert: own certificate.
        key: its key.
        authority: what the server is to be called; the host where empty.
        metadata: of every call; values of `-bin` names in base64.

    Raises:
        InputError: it is no such address, or no such metadata.
    """
    scheme, mark, rest = (host or "").strip().rpartition("://")
    rest = rest.rstrip("/")
    name, _, port = rest.rpartition(":")
    if (
        (mark and not scheme)
        or scheme not in _SCHEMES
        or not name
        or not port.isdecimal()
        or not 0 < int(port) < 65_536
    ):
        raise InputError(
            f"host {host!r} is no address of a gRPC server: expected HOST:PORT or grpcs://HOST:PORT. Give it with "
            "--host, or as `host` of the user class"
        )
    is_tls = _SCHEMES[scheme] or ca or cert or key
    entries = tuple((metadata or {}).items())
    try:
        wire_metadata(entries)
    except ValueError as error:
        raise InputError(f"metadata: {error}") from error
    return Place(rest, Security(ca, cert, key) if is_tls else None, authority, entries)
