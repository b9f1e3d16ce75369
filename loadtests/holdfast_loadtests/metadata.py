"""Metadata of calls as people write it, and as HTTP/2 carries it: gRPC's PROTOCOL-HTTP2.md, Custom-Metadata.

Names end in `-bin` where values are bytes; such values are written in base64, as grpcurl takes them.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_RESERVED: Final = frozenset(
    {"te", "content-type", "user-agent", "host", "connection", "keep-alive", "transfer-encoding"}
)
"""Headers that mean something to HTTP/2 or gRPC and are the engine's own."""

_BYTES_MAX: Final = 8 * 1024
"""As much metadata as gRPC's specification has servers take by default; theirs counts 32 bytes more for each entry."""


def wire_metadata(entries: Iterable[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    """Header fields of some metadata: names in lower case, values of `-bin` names in base64 without padding.

    Raises:
        ValueError: a name or a value is none that gRPC has; the text names it.
    """
    found = tuple((_name(name), _value(name, value)) for name, value in entries)
    size = sum(len(name) + len(value) + 32 for name, value in found)
    if size > _BYTES_MAX:
        raise ValueError(f"{size} bytes of metadata, 32 counted for each entry; gRPC servers take {_BYTES_MAX}")
    return found


def _name(text: str) -> bytes:
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} is no name of metadata: expected letters, digits, '_', '-' and '.'")
    if name in _RESERVED or name.startswith("grpc-"):
        raise ValueError(f"{name!r} is not for callers to set: gRPC gives it a meaning of its own")
    return name.encode()


def _value(name: str, text: str) -> bytes:
    value = text.strip()
    if name.strip().lower().endswith("-bin"):
        try:
            raw = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(
                f"{name}: {text[:60]!r} is no base64, which values of '-bin' names are in: {error}"
            ) from error
        return base64.b64encode(raw).rstrip(b"=")
    if not all(" " <= character <= "~" for character in value):
        raise ValueError(
            f"{name}: {text[:60]!r} has other than printable ASCII; end the name in '-bin' and give base64"
        )
    return value.encode()
