"""Which decisions are no longer of use, and how many there may be."""

from collections.abc import Iterable, Iterator

from holdfast import names
from holdfast.core.decisions.entry import DecisionEntry
from holdfast.store.interface import Txn

ENDED_KEPT_S = 86_400.0
"""How long a decision is kept after its end: a day, for whoever asks what came of it."""

ENDED_MAX = 100_000
"""Most decisions kept after their end; beyond that the first ended are forgotten earlier."""

ENDED_BYTES_MAX = 512 << 20
"""Most bytes of them (512 MiB), votes included; likewise."""

UNSETTLED_MAX = 100_000
"""Most decisions that have not ended. Beyond it none is opened."""


def forget(ended: Iterable[DecisionEntry]) -> Iterator[Txn]:
    """Transactions that drop decisions with all that belongs to them, one each: the largest has some 1 000 votes."""
    for entry in ended:
        state = names.decision_state_key(entry.name)
        votes = (names.vote_key(entry.name, agent) for agent in entry.votes)
        yield Txn(compares=((state, entry.mod_revision),), deletes=(names.decision_key(entry.name), state, *votes))
