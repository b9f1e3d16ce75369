"""Which handoffs are no longer of use."""

from collections.abc import Iterable, Iterator

from holdfast import names
from holdfast.core.handoffs.entry import HandoffEntry
from holdfast.store.interface import Txn

ENDED_KEPT_S = 86_400.0
"""How long a handoff is kept after its end: a day, as its activation."""

ENDED_MAX = 100_000
"""Most handoffs kept after their end; beyond, the first ended are forgotten earlier. Others there are no more of than
activations that run.
"""

ENDED_BYTES_MAX = 256 << 20
"""Most bytes of them (256 MiB); likewise."""


def forget(ended: Iterable[HandoffEntry]) -> Iterator[Txn]:
    """Transactions that drop handoffs, one each."""
    for entry in ended:
        key = names.handoff_key(entry.name)
        yield Txn(compares=((key, entry.mod_revision),), deletes=(key,))
