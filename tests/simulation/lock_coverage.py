"""What simulations must reach of locks and elections: every transition of the machine, every refusal."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from holdfast import names
from holdfast.core.holds import acquiring, ending
from holdfast.errors import HoldfastError
from holdfast.service import elections, locks
from holdfast.storage.v1.holds_pb2 import HoldRecord
from holdfast.storage.v1.records_pb2 import LeaseRecord
from holdfast.store.interface import KeyValue

KINDS = ("lock", "election")

TRANSITIONS = (
    *(f"{kind} FREE to HELD" for kind in KINDS),
    *(f"{kind} HELD to FREE" for kind in KINDS),
    *(f"{kind} HELD to HELD by another" for kind in KINDS),
    *(f"{kind} HELD to DELAYED" for kind in KINDS),
    *(f"{kind} DELAYED to FREE" for kind in KINDS),
    *(f"{kind} DELAYED to HELD" for kind in KINDS),
    "lock taken away",
    "lock lost without delay to HELD",
    "hold told to another call",
    "value told",
    "hold taken back",
)
"""As the store sees them, or the core decides them."""

REFUSALS = (
    *(f"acquire refused: {reason}" for reason in ("LOCK_HELD", "LEASE_NOT_FOUND", "FENCE_STALE", "REQUEST_ID_REUSED")),
    "check_lease refused: INVALID_FIELD",
    "release refused: FENCE_STALE",
    "proclaim refused: FENCE_STALE",
    "force refused: LOCK_NOT_FOUND",
    "waited in line",
)
"""As the core decides them."""


class LockCoverage:
    """Counts what is reached into a counter that all parts share.

    Attributes:
        wanted: Everything that simulations must reach.
    """

    wanted = frozenset((*TRANSITIONS, *REFUSALS))

    def __init__(self, reached: Counter[str]) -> None:
        self._reached = reached
        self._holds: dict[str, HoldRecord] = {}
        self._ended: set[str] = set()

    def begin_seed(self) -> None:
        """Another store begins, empty."""
        self._holds.clear()
        self._ended.clear()

    def put(self, put: KeyValue) -> None:
        """A record became durable."""
        prefix, _, name = put.key.partition(":")
        match prefix + ":":
            case names.LEASE_PREFIX:
                if LeaseRecord.FromString(put.value).HasField("end"):
                    self._lease_ended(name)
            case names.LOCK_PREFIX | names.ELECTION_PREFIX:
                self._held(prefix, put.key, HoldRecord.FromString(put.value))
            case _:
                pass

    def deleted(self, key: str) -> None:
        """A record is gone."""
        record = self._holds.pop(key, None)
        if record is not None:
            self._reached[f"{key.partition(':')[0]} {self._state(record)} to FREE"] += 1

    def _lease_ended(self, lease: str) -> None:
        for key, record in self._holds.items():
            if record.lease == lease and self._state(record) == "HELD" and record.delay_ms:
                self._reached[f"{key.partition(':')[0]} HELD to DELAYED"] += 1
        self._ended.add(lease)

    def _state(self, record: HoldRecord) -> str:
        if record.lease not in self._ended and not record.HasField("taken"):
            return "HELD"
        return "DELAYED" if record.delay_ms else "lost without delay"

    def _held(self, kind: str, key: str, record: HoldRecord) -> None:
        before = self._holds.get(key)
        self._holds[key] = record
        if before is None:
            self._reached[f"{kind} FREE to HELD"] += 1
        elif record.HasField("taken"):
            self._reached["lock taken away"] += 1
        elif not record.fence_revision:  # another hold
            state = self._state(before)
            self._reached[f"{kind} {state} to HELD{' by another' if state == 'HELD' else ''}"] += 1
        elif not record.change_revision:
            self._reached["value told"] += 1
        else:
            self._reached["hold told to another call"] += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees what the core decides until the block ends."""
        with ExitStack() as stack:
            for name in ("release", "force", "proclaim"):
                stack.enter_context(patch.object(ending, name, self._refusals(name, getattr(ending, name))))
            stack.enter_context(patch.object(ending, "take_back", self._taking_back(ending.take_back)))
            stack.enter_context(patch.object(acquiring, "acquire", self._waits(acquiring.acquire)))
            for service in (locks, elections):
                noted = self._refusals("check_lease", service.check_lease)
                stack.enter_context(patch.object(service, "check_lease", noted))
            yield

    def _refusals(self, name: str, decide: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **how: Any) -> Any:
            try:
                return decide(*args, **how)
            except HoldfastError as error:
                self._reached[f"{name} refused: {error.reason.name}"] += 1
                raise

        return noted

    def _waits(self, acquire: Callable[..., Any]) -> Callable[..., Any]:
        deciding = self._refusals("acquire", acquire)

        def noted(*args: Any) -> Any:
            plan = deciding(*args)
            if plan.txn.is_empty and plan.answer(0) is None:
                self._reached["waited in line"] += 1
            return plan

        return noted

    def _taking_back(self, take_back: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            plan = take_back(*args)
            if not plan.txn.is_empty:
                self._reached["hold taken back"] += 1
            return plan

        return noted
