"""How a load gets at its target: TLS, the name it calls it by, and metadata; as experiments say it, and read."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from pydantic import model_validator

from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.security import Security
from holdfast_slo.documents import Strict


class Tls(Strict):
    """PEM files, beside the experiment: without `ca` the system's CAs are trusted, `cert` and `key` are mTLS."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("`cert` and `key` together: a certificate is of no use without its key")
        return self

    @property
    def files(self) -> Mapping[str, str]:
        """The files named, by key."""
        return {key: name for key, name in (("ca", self.ca), ("cert", self.cert), ("key", self.key)) if name}


@dataclass(frozen=True)
class Access:
    """TLS, if any; what the server is to be called, its address where empty; metadata of every call."""

    security: Security | None = None
    authority: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def for_grpcio(self) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata as grpcio takes it: bytes as they are, for it to put in base64."""
        return tuple((name.decode(), _plain(name, value)) for name, value in wire_metadata(self.metadata))


PLAIN: Final = Access()
"""Plain text, without metadata."""


def _plain(name: bytes, value: bytes) -> str | bytes:
    return base64.b64decode(value + b"=" * (-len(value) % 4)) if name.endswith(b"-bin") else value.decode()
