"""Which activations are no longer of use, and how many there may be."""

from collections.abc import Iterable, Iterator

from holdfast import names
from holdfast.core.activations.breaker import WorkEntry
from holdfast.core.activations.entry import ActivationEntry
from holdfast.core.retention import CHUNK_KEYS
from holdfast.store.interface import Txn

ENDED_KEPT_S = 86_400.0
"""How long an activation is kept after its end: a day, for whoever asks what came of it."""

DEAD_KEPT_S = 7 * 86_400.0
"""How long a dead letter is: a week, for an operator who may requeue it."""

ENDED_MAX = 100_000
"""Most activations kept after their end, and as many dead letters; beyond, the first ended are forgotten earlier."""

ENDED_BYTES_MAX = 512 << 20
"""Most bytes of them (512 MiB), payloads and results included, and of dead letters; likewise."""


def forget(ended: Iterable[ActivationEntry]) -> Iterator[Txn]:
    """Transactions that drop activations, many in each, unless one of them was requeued."""
    compares: list[tuple[str, int]] = []
    keys: list[str] = []
    for entry in ended:
        state = names.activation_state_key(entry.name)
        compares.append((state, entry.mod_revision))
        keys += (names.activation_key(entry.name), state)
        if len(keys) >= CHUNK_KEYS:
            yield Txn(compares=tuple(compares), deletes=tuple(keys))
            compares, keys = [], []
    if keys:
        yield Txn(compares=tuple(compares), deletes=tuple(keys))


def forget_work(idle: Iterable[WorkEntry]) -> Iterator[Txn]:
    """Transactions that drop what is known of agents that are gone, one each, unless they have come back."""
    for entry in idle:
        key = names.work_key(entry.agent)
        yield Txn(compares=((key, entry.mod_revision), (names.agent_key(entry.agent), 0)), deletes=(key,))
