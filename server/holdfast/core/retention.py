"""Decisions about forgetting: what has outlived its use."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names
from holdfast.core.admin import forgotten
from holdfast.core.state import LeaseEntry, Reader
from holdfast.core.telling import CHANGED_BYTES_MAX
from holdfast.store.interface import Txn

EXPIRED_KEPT_S = 3600.0
"""How long an expired agent, and the ended lease that says so, are kept: long enough to see what was lost."""

ENDED_MAX = 1_000_000
"""Most ended leases kept; beyond that the first ended are forgotten earlier, with their agents."""

EXPIRED_MAX = 1_000_000
"""Most expired agents kept; likewise."""

EXPIRED_BYTES_MAX = 1 << 30
"""Most bytes of them (1 GiB), as they are sent; likewise."""

CHUNK_KEYS = 500
"""Keys forgotten by one transaction: few enough not to keep callers waiting, many enough to share an fsync."""

CHUNK_BYTES = CHANGED_BYTES_MAX
"""Most bytes of agents forgotten by one transaction."""


def forget_leases(reader: Reader, ended: Iterable[LeaseEntry]) -> Iterator[Txn]:
    """Transactions that drop ended leases: first the agents that name a lease, then or with them the lease itself.

    The agents of an ended lease only become fewer (joining requires that it stands), so none is left behind, provided
    that none of these is committed after one that was not: an agent that registers again fails its comparison.
    """
    compares: list[tuple[str, int]] = []
    size_bytes = 0
    for seen, piece_bytes in _pieces(reader, ended):
        if compares and (len(compares) >= CHUNK_KEYS or size_bytes + piece_bytes > CHUNK_BYTES):
            yield _dropped(compares)
            compares, size_bytes = [], 0
        compares += seen
        size_bytes += piece_bytes
    if compares:
        yield _dropped(compares)


def _pieces(reader: Reader, ended: Iterable[LeaseEntry]) -> Iterator[tuple[Sequence[tuple[str, int]], int]]:
    """What goes, as it was last written, and the bytes of the agents in it."""
    for lease in ended:
        assert not lease.stands, f"{lease.name} stands and must not be forgotten"
        for name in sorted(reader.agents_of(lease.name)):
            entry = reader.agent(name)
            if entry is not None and entry.agent.lease == lease.name:  # time passes while chunks are committed
                own = (names.agent_key(name), entry.mod_revision)
                yield (own, *forgotten(reader, name).compares), entry.agent.ByteSize()
        yield [(names.lease_key(lease.name), lease.mod_revision)], 0


def _dropped(seen: Sequence[tuple[str, int]]) -> Txn:
    return Txn(compares=tuple(seen), deletes=tuple(key for key, _ in seen))


def forget_keys(keys: Sequence[str]) -> Iterator[Txn]:
    """Transactions that drop keys whatever they hold."""
    for first in range(0, len(keys), CHUNK_KEYS):
        yield Txn(deletes=tuple(keys[first : first + CHUNK_KEYS]))


class Ended(Protocol):
    """What has come to its end."""

    @property
    def end_time(self) -> Timestamp:
        """When it ended."""
        ...

    @property
    def size_bytes(self) -> int:
        """What its records take, near enough."""
        ...


E = TypeVar("E", bound=Ended, covariant=True)


class HoldsEnded(Protocol[E]):
    """Who remembers what has ended."""

    @property
    def ended_count(self) -> int:
        """How many it remembers."""
        ...

    @property
    def ended_bytes(self) -> int:
        """Their bytes in all."""
        ...

    def ended(self) -> Iterator[E]:
        """Those, the first ended first."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """How long what has ended is kept, in seconds, and how much of it at most."""

    for_s: float
    count_max: int
    bytes_max: int


def outlived(holder: HoldsEnded[E], kept: Kept, now_s: float) -> Iterator[E]:
    """What ended long ago, or is too much; the first ended first."""
    count, size_bytes = holder.ended_count, holder.ended_bytes
    for entry in holder.ended():
        is_much = count > kept.count_max or size_bytes > kept.bytes_max
        if not is_much and age_s(entry.end_time, now_s) < kept.for_s:
            return
        count, size_bytes = count - 1, size_bytes - entry.size_bytes
        yield entry


def age_s(time: Timestamp, now_s: float) -> float:
    """Seconds from a time to now, in Unix time."""
    return now_s - time.ToMilliseconds() / 1000
