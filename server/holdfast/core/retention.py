"""Decisions about forgetting: what has outlived its use."""

from collections.abc import Iterator

from holdfast import names
from holdfast.core.state import LeaseEntry, Reader
from holdfast.store.interface import Txn

EXPIRED_KEPT_S = 3600.0
"""How long an expired agent, and the ended lease that says so, are kept: long enough to see what was lost."""

CHUNK = 64
"""Keys forgotten by one transaction; within every engine's limit."""


def forget_lease(reader: Reader, lease: LeaseEntry) -> Iterator[Txn]:
    """Transactions that drop an ended lease: first the agents that name it, then the lease itself.

    The agents of an ended lease only become fewer (joining requires that it stands), so none is left behind. An agent
    that registers again meanwhile fails its chunk's comparison; the next round takes the rest.
    """
    assert not lease.stands, f"{lease.name} stands and must not be forgotten"
    entries = [entry for name in sorted(reader.agents_of(lease.name)) if (entry := reader.agent(name)) is not None]
    for first in range(0, len(entries), CHUNK):
        keys = [(names.agent_key(entry.agent.name), entry.mod_revision) for entry in entries[first : first + CHUNK]]
        yield Txn(compares=tuple(keys), deletes=tuple(key for key, _ in keys))
    key = names.lease_key(lease.name)
    yield Txn(compares=((key, lease.mod_revision),), deletes=(key,))


def forget_keys(keys: list[str]) -> Iterator[Txn]:
    """Transactions that drop keys whatever they hold."""
    for first in range(0, len(keys), CHUNK):
        yield Txn(deletes=tuple(keys[first : first + CHUNK]))
