"""What simulations must reach of decisions: every transition, how each method ends, every refusal."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from holdfast import names
from holdfast.coordination.v1.decision_service_pb2 import DecisionFallbackKind, DecisionMethod, DecisionState
from holdfast.core.decisions import deciding
from holdfast.errors import HoldfastError
from holdfast.service import decisions as service
from holdfast.storage.v1.decisions_pb2 import DecisionRecord, DecisionStateRecord
from holdfast.store.interface import KeyValue

METHODS = ("CONSENSUS", "WEIGHTED", "QUORUM", "EMERGENT")

TRANSITIONS = (
    "decision opened OPEN",
    "decision OPEN to OPEN",
    "decision OPEN to AWAITING_FALLBACK",
    "decision OPEN to CANCELLED",
    "decision AWAITING_FALLBACK to DECIDED",
    "decision AWAITING_FALLBACK to FAILED",
    "decision AWAITING_FALLBACK to CANCELLED",
    "decision forgotten",
    "vote cast",
    "vote changed",
    *(f"decision OPEN to DECIDED by {method}" for method in METHODS),
    *(f"decision OPEN to FAILED by {method}" for method in METHODS),
    *(f"decision OPEN to DECIDED by fallback {kind}" for kind in ("STATUS_QUO", "PLURALITY")),
)
"""As the store sees them."""

REFUSALS = (
    *(f"create refused: {reason}" for reason in ("INVALID_FIELD", "NO_ELIGIBLE_AGENT", "AGENT_NOT_FOUND")),
    *(f"vote refused: {reason}" for reason in ("INVALID_FIELD", "DECISION_CLOSED", "NOT_ELECTOR", "ALREADY_VOTED")),
    *(f"vote refused: {reason}" for reason in ("FENCE_STALE", "AGENT_BANNED")),
    "close refused: DECISION_CLOSED",
    "cancel refused: DECISION_CLOSED",
    *(f"resolve refused: {reason}" for reason in ("INVALID_FIELD", "DECISION_CLOSED", "NOT_OWNER", "FENCE_STALE")),
)
"""As the core decides them."""

DEADLINES = ("expire of OPEN", "expire of AWAITING_FALLBACK", "expire of none")
"""What a deadline that passes finds; `none` where another replica, or a vote, was faster."""


class DecisionCoverage:
    """Counts what is reached into a counter that all parts share.

    Attributes:
        wanted: Everything that simulations must reach.
    """

    wanted = frozenset((*TRANSITIONS, *REFUSALS, *DEADLINES))

    def __init__(self, reached: Counter[str]) -> None:
        self._reached = reached
        self._records: dict[str, DecisionRecord] = {}
        self._states: dict[str, str] = {}
        self._votes: set[str] = set()

    def begin_seed(self) -> None:
        """Another store begins, empty."""
        self._records.clear()
        self._states.clear()
        self._votes.clear()

    def put(self, put: KeyValue) -> None:
        """A record became durable."""
        prefix, _, name = put.key.partition(":")
        match prefix + ":":
            case names.DECISION_PREFIX:
                self._records[name] = DecisionRecord.FromString(put.value)
            case names.DECISION_STATE_PREFIX:
                self._moved(name, DecisionStateRecord.FromString(put.value))
            case names.VOTE_PREFIX:
                self._reached["vote changed" if name in self._votes else "vote cast"] += 1
                self._votes.add(name)
            case _:
                pass

    def deleted(self, key: str) -> None:
        """A record is gone."""
        if key.startswith(names.DECISION_STATE_PREFIX):
            self._reached["decision forgotten"] += 1

    def _moved(self, name: str, record: DecisionStateRecord) -> None:
        state = DecisionState.Name(record.state).removeprefix("DECISION_STATE_")
        before = self._states.get(name)
        self._states[name] = state
        decision = self._records[name].decision
        if before is None:
            self._reached[f"decision opened {state}"] += 1
            return
        by = ""
        if before == "OPEN" and state in ("DECIDED", "FAILED"):
            kind = DecisionFallbackKind.Name(decision.fallback.kind).removeprefix("DECISION_FALLBACK_KIND_")
            method = DecisionMethod.Name(decision.method).removeprefix("DECISION_METHOD_")
            by = f" by fallback {kind}" if record.by_fallback else f" by {method}"
        self._reached[f"decision {before} to {state}{by}"] += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees what the core decides until the block ends."""
        with ExitStack() as stack:
            for name, decide in (("vote", "cast"), ("close", "close"), ("cancel", "cancel"), ("resolve", "resolve")):
                noted = self._refusals(name, getattr(deciding, decide))
                stack.enter_context(patch.object(deciding, decide, noted))
            stack.enter_context(patch.object(service, "create", self._refusals("create", service.create)))
            stack.enter_context(patch.object(deciding, "expire", self._expiry(deciding.expire)))
            yield

    def _refusals(self, name: str, decide: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **how: Any) -> Any:
            try:
                return decide(*args, **how)
            except HoldfastError as error:
                self._reached[f"{name} refused: {error.reason.name}"] += 1
                raise

        return noted

    def _expiry(self, expire: Callable[..., Any]) -> Callable[..., Any]:
        def noted(reader: Any, name: str, now: Any, **how: Any) -> Any:
            entry, plan = reader.decision(name), expire(reader, name, now, **how)
            acts = entry is not None and not plan.txn.is_empty
            state = DecisionState.Name(entry.state.state).removeprefix("DECISION_STATE_") if acts else "none"
            self._reached[f"expire of {state}"] += 1
            return plan

        return noted
