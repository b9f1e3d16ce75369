"""Bugs of locks and elections to plant, one at a time; see `support.planted`."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from holdfast import names
from holdfast.core.holds import acquiring, ending
from holdfast.core.holds.acquiring import Acquisition
from holdfast.core.holds.entry import HoldEntry
from holdfast.core.state import Plan
from holdfast.deadlines import Deadlines
from holdfast.holds import Holds
from holdfast.lines import Lines, Waiter
from holdfast.storage.v1.holds_pb2 import HoldRecord
from holdfast.topics import Changed


@contextlib.contextmanager
def lock_granted_during_the_delay() -> Iterator[None]:
    """Whoever asks for what was lost has it at once."""
    is_past = Deadlines.is_past

    def hasty(self: Deadlines, name: str) -> bool:
        return names.collection_of(name) in ("locks", "elections") or is_past(self, name)

    with patch.object(Deadlines, "is_past", hasty):
        yield


@contextlib.contextmanager
def fence_restarts_after_deletion() -> Iterator[None]:
    """A fence is one more than the one before in the record; a lock that was free begins anew."""
    granted = acquiring.granted

    def counted(command: Acquisition, before: HoldEntry | None, *rest: Any) -> Plan[HoldEntry]:
        plan = granted(command, before, *rest)
        fence = (before.acquired_at if before is not None else 0) + 1
        record = HoldRecord.FromString(dict(plan.txn.puts)[names.hold_key(command.name)])
        record.fence_revision = fence
        puts = dict(plan.txn.puts) | {names.hold_key(command.name): record.SerializeToString()}
        answer = plan.answer
        return replace(
            plan,
            txn=replace(plan.txn, puts=tuple(puts.items())),
            answer=lambda revision: replace(answer(revision), record=record),
        )

    with patch.object(acquiring, "granted", counted), patch.object(ending, "granted", counted):
        yield


@contextlib.contextmanager
def release_without_owner_check() -> Iterator[None]:
    """Whoever asks gives back what somebody holds."""
    check_held = ending.check_held

    def trusting(name: str, entry: HoldEntry | None, fence: int) -> HoldEntry:
        return check_held(name, entry, entry.fence if entry is not None else fence)

    with patch.object(ending, "check_held", trusting):
        yield


@contextlib.contextmanager
def waiters_last_in_first_out() -> Iterator[None]:
    """Who came last has it first."""

    def line(self: Lines, name: str) -> Sequence[Waiter]:
        return list(reversed(self._lines.get(name, {})))

    def is_first(self: Lines, waiter: Waiter) -> bool:
        return next(iter(line(self, waiter.command.name)), None) is waiter

    def first(self: Lines, name: str, may_have: Callable[[Acquisition], bool]) -> Waiter | None:
        return next((each for each in line(self, name) if may_have(each.command)), None)

    with patch.object(Lines, "is_first", is_first), patch.object(Lines, "first", first):
        yield


@contextlib.contextmanager
def grant_without_comparing() -> Iterator[None]:
    """A grant rests on what this replica has seen, so that one takes what another gave, without a delay."""
    granted = acquiring.granted

    def trusting(*args: Any) -> Plan[HoldEntry]:
        plan = granted(*args)
        return replace(plan, txn=replace(plan.txn, compares=()))

    with patch.object(acquiring, "granted", trusting), patch.object(ending, "granted", trusting):
        yield


@contextlib.contextmanager
def held_by_two_at_a_time() -> Iterator[None]:
    """Who asks for what is held is told of that hold as if it were its own, and works under its fence."""
    with patch.object(acquiring, "_is_by", lambda _entry, _command: True):
        yield


@contextlib.contextmanager
def hold_outlives_its_lease() -> Iterator[None]:
    """What is held is held until somebody gives it back or takes it away."""
    with patch.object(HoldEntry, "is_held", property(lambda self: not self.record.HasField("taken"))):
        yield


@contextlib.contextmanager
def observers_miss_leaders() -> Iterator[None]:
    """Every third change of a leadership is not told."""
    take_changes, count = Holds.take_changes, itertools.count(1)

    def careless(self: Holds) -> Sequence[Changed]:
        return [change for change in take_changes(self) if next(count) % 3]

    with patch.object(Holds, "take_changes", careless):
        yield


PLANTED: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "lock-granted-during-the-delay": (lock_granted_during_the_delay, "K4"),
    "fence-restarts-after-deletion": (fence_restarts_after_deletion, "K2"),
    "release-without-owner-check": (release_without_owner_check, "K3"),
    "waiters-last-in-first-out": (waiters_last_in_first_out, "K5"),
    "grant-without-comparing": (grant_without_comparing, "K4"),
    "held-by-two-at-a-time": (held_by_two_at_a_time, "K1"),
    "hold-outlives-its-lease": (hold_outlives_its_lease, "K3"),
    "observers-miss-leaders": (observers_miss_leaders, "E1"),
}
"""Each bug, and the invariant whose checker must report it."""
