"""Where calls go: the address, its TLS, and the header block that calls of one method share."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.http2 import encode
from holdfast_loadtests.compression import ACCEPTED, GZIP
from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.security import Security

USER_AGENT: Final = b"holdfast-load"


@dataclass(frozen=True)
class Target:
    """Where to and how: `host:port`, TLS if there is a context, metadata sent with every call, whether with gzip."""

    address: str
    tls: ssl.SSLContext | None = None
    authority: str = ""
    metadata: tuple[tuple[bytes, bytes], ...] = ()
    compressed: bool = False

    @property
    def host(self) -> str:
        """The host, without the brackets of IPv6."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port."""
        return int(self.address.rpartition(":")[2])

    @property
    def server_name(self) -> str:
        """What the server's certificate must name: the authority without its port, else the host."""
        name, colon, port = self.authority.rpartition(":")
        return (name if colon and port.isdecimal() else self.authority).strip("[]") or self.host

    def block(self, path: str, deadline_s: float, metadata: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """The header block of every call to one method with one deadline."""
        return encode(
            [
                (b":method", b"POST"),
                (b":scheme", b"https" if self.tls else b"http"),
                (b":path", path.encode()),
                (b":authority", (self.authority or self.address).encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", USER_AGENT),
                *([(b"grpc-encoding", GZIP)] if self.compressed else []),
                (b"grpc-accept-encoding", ACCEPTED),
                (b"grpc-timeout", timeout_text(deadline_s)),
                *self.metadata,
                *metadata,
            ]
        )


def target_of(
    address: str, security: Security | None = None, authority: str = "", metadata: Sequence[tuple[str, str]] = ()
) -> Target:
    """A target from what people give.

    Args:
        address: `host:port`.
        security: its TLS, if any.
        authority: what the server is to be called, the address where empty.
        metadata: of every call; values of `-bin` names in base64.

    Raises:
        InputError: files of its TLS cannot be used.
        ValueError: the metadata is none that gRPC has.
    """
    return Target(address, security.context() if security else None, authority, wire_metadata(metadata))


_UNITS: Final = ((1e-9, b"n"), (1e-6, b"u"), (1e-3, b"m"), (1.0, b"S"), (60.0, b"M"), (3600.0, b"H"))


def timeout_text(deadline_s: float) -> bytes:
    """A deadline as the header grpc-timeout has it: at most eight digits and a unit, the finest that fits."""
    for unit_s, name in _UNITS:
        count = round(deadline_s / unit_s)
        if count < 100_000_000:
            return b"%d%s" % (count, name)
    return b"99999999H"
