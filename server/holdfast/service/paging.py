"""Pages of lists: tokens that say where to go on, and refuse to be used for another query."""

import base64
import binascii
import hmac
import itertools
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import Message

from holdfast.errors import invalid_field

PAGE_SIZE_DEFAULT = 100

PAGE_BYTES_MAX = 2 << 20
"""Size after which a page or a message of a snapshot takes no further agent. With the largest agent there can be, some
700 KB, it stays below the 4 MB that gRPC clients take.
"""

_SIGNATURE_BYTES = 16


def fitting(found: Sequence[Message], first: int, count_max: int) -> int:
    """How many of these, from `first` on and at most `count_max`, go into one message; at least one if there is one."""
    size_bytes = 0
    for count, each in enumerate(itertools.islice(found, first, first + count_max)):
        if size_bytes >= PAGE_BYTES_MAX:
            return count
        size_bytes += each.ByteSize()
    return min(count_max, len(found) - first)


class Tokens:
    """Tokens of the pages of one query, signed: nobody can make one up, nor use that of another query.

    Args:
        query: Everything that must stay the same from page to page.
        key: Gives the key they are signed with.
    """

    def __init__(self, query: str, key: Callable[[], Awaitable[bytes]]) -> None:
        self._query = query
        self._key = key

    async def after(self, last: str) -> str:
        """The token of the page after the one that ended with `last`."""
        return base64.urlsafe_b64encode(await self._signature(last) + last.encode()).decode()

    async def last(self, token: str) -> str:
        """The last name of the page before; empty for the first page.

        Raises:
            HoldfastError: INVALID_FIELD for a token that is damaged, made up, or of another query.
        """
        if not token:
            return ""
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
            signature, last = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:].decode()
        except (binascii.Error, ValueError):
            raise invalid_field(
                "page_token", f"{token[:50]!r} is no token of this service; start with an empty one"
            ) from None
        if not hmac.compare_digest(signature, await self._signature(last)):
            raise invalid_field(
                "page_token",
                "belongs to another query or another store, or is damaged; keep everything but page_token and "
                "page_size the same, or start with an empty one",
            )
        return last

    async def _signature(self, last: str) -> bytes:
        return hmac.digest(await self._key(), f"{self._query}\0{last}".encode(), "sha256")[:_SIGNATURE_BYTES]
