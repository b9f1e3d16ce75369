"""Pages of lists: tokens that say where to go on, and refuse to be used for another query."""

import base64
import binascii
import hashlib
import itertools
from collections.abc import Sequence

from google.protobuf.message import Message

from holdfast.errors import invalid_field

PAGE_SIZE_DEFAULT = 100

PAGE_BYTES_MAX = 2 << 20
"""Size after which a page or a message of a snapshot takes no further agent. With the largest agent there can be, some
700 KB, it stays below the 4 MB that gRPC clients take.
"""

_BINDING_BYTES = 8


def fitting(found: Sequence[Message], first: int, count_max: int) -> int:
    """How many of these, from `first` on and at most `count_max`, go into one message; at least one if there is one."""
    size_bytes = 0
    for count, each in enumerate(itertools.islice(found, first, first + count_max)):
        if size_bytes >= PAGE_BYTES_MAX:
            return count
        size_bytes += each.ByteSize()
    return min(count_max, len(found) - first)


def encode(query: str, last: str) -> str:
    """The token of the page after the one that ended with `last`, for this query."""
    return base64.urlsafe_b64encode(_binding(query, last) + last.encode()).decode()


def decode(query: str, token: str) -> str:
    """The last name of the page before; empty for the first page.

    Raises:
        HoldfastError: INVALID_FIELD for a token that is damaged or of another query.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        binding, last = raw[:_BINDING_BYTES], raw[_BINDING_BYTES:].decode()
    except (binascii.Error, ValueError):
        raise invalid_field(
            "page_token", f"{token[:50]!r} is no token of this service; start with an empty one"
        ) from None
    if binding != _binding(query, last):
        raise invalid_field(
            "page_token",
            "belongs to another query, or is damaged; keep everything but page_token and page_size the same",
        )
    return last


def _binding(query: str, last: str) -> bytes:
    return hashlib.sha256(f"{query}\0{last}".encode()).digest()[:_BINDING_BYTES]
