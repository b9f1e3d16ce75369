"""What simulations have reached of what there is to reach."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from holdfast import failpoints, names
from holdfast.core import admin
from holdfast.core.admin import TRANSITIONS, Ruling, State
from holdfast.failpoints import Failpoint
from holdfast.registry.v1.agent_pb2 import AdminState
from holdfast.storage.v1.records_pb2 import AgentRecord, LeaseEndReason, LeaseRecord
from holdfast.store.interface import Change, Txn
from simulation.decision_coverage import DecisionCoverage
from simulation.lock_coverage import LockCoverage
from simulation.loop import NODE
from simulation.node import Node

FAILPOINTS = (
    Failpoint.BEFORE_EXPIRY,
    Failpoint.AFTER_EXPIRY,
    Failpoint.BEFORE_FENCE,
    Failpoint.AFTER_FENCE,
    Failpoint.BEFORE_WATCH_SEND,
    Failpoint.AFTER_WATCH_SEND,
)
"""Places that simulated nodes pass; those of SQLite are for crash tests of the real server."""

LIVES = (
    "agent registered",
    "agent updated",
    "agent taken over by fence",
    "agent registered again after expiry",
    "agent deregistered",
    "agent forgotten",
    "lease granted",
    "lease expired",
    "lease revoked",
    "lease released",
    "lease forgotten",
    "lease moved by a keepalive",
    "lease taken over from a silent replica",
    "reply lost after commit",
)
"""Transitions of agents and leases, as the store sees them, and what became of its answers."""


PARTS: tuple[type[DecisionCoverage | LockCoverage], ...] = (DecisionCoverage, LockCoverage)
"""What is to be reached of other state machines."""


def wanted() -> set[str]:
    """Everything that simulations must reach."""
    rulings = {_ruling(act.value, state) for act, states in TRANSITIONS.items() for state in states}
    return rulings | {f"failpoint {point}" for point in FAILPOINTS} | set(LIVES).union(*(part.wanted for part in PARTS))


def _ruling(act: str, state: State) -> str:
    return f"{act} of {AdminState.Name(state)}"


def _has_ended(lease: LeaseRecord) -> bool:
    """Whether a lease ended before its agent went, rather than with it."""
    return lease.HasField("end") and lease.end.reason != LeaseEndReason.LEASE_END_REASON_RELEASED


def _gives_owners(txn: Txn) -> bool:
    """Whether it writes leases anew that stand on: only their owner can have changed."""
    compared = {key for key, revision in txn.compares if revision and key.startswith(names.LEASE_PREFIX)}
    return any(key in compared and not LeaseRecord.FromString(value).HasField("end") for key, value in txn.puts)


class Coverage:
    """Counts what is reached; told of writes by the store."""

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()
        self._leases: dict[str, LeaseRecord] = {}
        self._agents: dict[str, str] = {}
        self._parts = [part(self.reached) for part in PARTS]

    def missing(self) -> list[str]:
        """What was not reached."""
        return sorted(wanted() - set(self.reached))

    def begin_seed(self) -> None:
        """Another store begins, empty."""
        self._leases.clear()
        self._agents.clear()
        for part in self._parts:
            part.begin_seed()

    def written(self, changes: Sequence[Change]) -> None:
        """Revisions became durable."""
        for change in changes:
            for put in change.puts:
                if put.key.startswith(names.LEASE_PREFIX):
                    self._lease(put.key, LeaseRecord.FromString(put.value))
            for put in change.puts:
                if put.key.startswith(names.AGENT_PREFIX):
                    self._agent(put.key, AgentRecord.FromString(put.value))
            for key in change.deletes:
                self._deleted(key, change)
            for part in self._parts:
                for put in change.puts:
                    part.put(put)
                for key in change.deletes:
                    part.deleted(key)

    def committed(self, txn: Txn, *, is_known: bool) -> None:
        """A replica's transaction was committed, and it knows, or its answer was lost."""
        if not is_known:
            self.reached["reply lost after commit"] += 1
        if _gives_owners(txn):
            is_taking = any(key.startswith(names.REPLICA_PREFIX) for key, _ in txn.compares)
            self.reached["lease taken over from a silent replica" if is_taking else "lease moved by a keepalive"] += 1

    def _lease(self, key: str, record: LeaseRecord) -> None:
        before = self._leases.get(key)
        self._leases[key] = record
        if record.HasField("end"):
            how = LeaseEndReason.Name(record.end.reason).removeprefix("LEASE_END_REASON_").lower()
            self.reached[f"lease {how}"] += 1
        elif before is None:
            self.reached["lease granted"] += 1

    def _agent(self, key: str, record: AgentRecord) -> None:
        lease = self._agents.get(key)
        self._agents[key] = names.lease_key(record.agent.lease)
        if record.fence_revision:
            self.reached["agent updated"] += 1
        elif lease is None:
            self.reached["agent registered"] += 1
        elif lease in self._leases and _has_ended(self._leases[lease]):
            self.reached["agent registered again after expiry"] += 1
        else:
            self.reached["agent taken over by fence"] += 1

    def _deleted(self, key: str, change: Change) -> None:
        if key.startswith(names.AGENT_PREFIX):
            lease = self._leases.get(self._agents.pop(key, ""))
            is_over = lease is None or _has_ended(lease)
            self.reached["agent forgotten" if is_over and len(change.deletes) > 1 else "agent deregistered"] += 1
        elif key.startswith(names.LEASE_PREFIX):
            self._leases.pop(key, None)
            self.reached["lease forgotten"] += 1

    def hit(self, point: Failpoint) -> None:
        """A node passes a failpoint, and may die there."""
        self.reached[f"failpoint {point}"] += 1
        node = NODE.get()
        if isinstance(node, Node):
            node.hit(point)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees rulings and failpoints until the block ends."""
        following = admin._next

        def noted(ruling: Ruling, state: State) -> State:
            found = following(ruling, state)
            self.reached[_ruling(ruling.act.value, state)] += 1
            return found

        failpoints.install(self.hit)
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(patch.object(admin, "_next", noted))
                for part in self._parts:
                    stack.enter_context(part.watching())
                yield
        finally:
            failpoints.install(None)
