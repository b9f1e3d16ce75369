"""Pages of lists: what is on one, and tokens that say where to go on, and refuse to be used for another query."""

import base64
import binascii
import hmac
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from holdfast.errors import invalid_field
from holdfast.filtering import compile_filter
from holdfast.registry.v1.consistency_pb2 import Consistency
from holdfast.service.slices import Pause

if TYPE_CHECKING:
    from holdfast.service.registry import Registry

PAGE_SIZE_DEFAULT = 100

PAGE_BYTES_MAX = 2 << 20
"""Size after which a page or a message of a snapshot takes no further agent. With the largest agent there can be, some
700 KB, it stays below the 4 MB that gRPC clients take.
"""

_SIGNATURE_BYTES = 16

E = TypeVar("E")
M = TypeVar("M", bound=Message)


class ListRequest(Protocol):
    """What every request for a page has."""

    parent: str
    page_size: int
    page_token: str
    filter: str
    consistency: Consistency.ValueType


@dataclass(frozen=True, slots=True)
class Listed(Generic[E, M]):
    """One kind of resource: how its entries, which are never changed in place, are listed.

    Attributes:
        descriptor: The type of its messages, for filters.
        there: Entries of a namespace in the order of their names: from the first after a name, so many at most.
        name: The name of an entry.
        shown: An entry as clients see it.
        looked_at_max: Most entries looked at for one page; with a filter a page may be short, and others follow.
    """

    descriptor: Descriptor
    there: Callable[[str, str, int], Sequence[E]]
    name: Callable[[E], str]
    shown: Callable[[E], M]
    looked_at_max: int


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """What is on a page, the token of the next, empty if there is none, and the revision it is true for."""

    found: Sequence[M]
    token: str
    revision: int


async def page_of(registry: "Registry", listed: Listed[E, M], request: ListRequest) -> Page[M]:
    """The page that a request asks for, all of one revision.

    Raises:
        HoldfastError: INVALID_FIELD about `filter` or `page_token`, STORE_UNAVAILABLE.
    """
    only = compile_filter(request.filter, listed.descriptor)
    query = f"{type(request).__name__.removesuffix('Request')} {request.parent} {request.filter}"
    tokens = Tokens(query, registry.page_key)
    after = await tokens.last(request.page_token)
    await registry.await_consistency(request.consistency)
    view, size = registry.view, request.page_size or PAGE_SIZE_DEFAULT
    revision, there = view.revision, listed.there(request.parent, after, listed.looked_at_max + 1)
    found, last, size_bytes, pause = list[M](), "", 0, Pause(view.turns, only)
    for entry in there[: listed.looked_at_max]:
        message = listed.shown(entry)
        message_bytes = message.ByteSize()
        if only.matches(message):
            if found and size_bytes + message_bytes > PAGE_BYTES_MAX:  # one alone may have more
                break
            found.append(message)
            size_bytes += message_bytes
        last = listed.name(entry)
        if len(found) == size:
            break
        await pause.after(message_bytes)
    token = await tokens.after(last) if there and last != listed.name(there[-1]) else ""
    return Page(found, token, revision)


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
