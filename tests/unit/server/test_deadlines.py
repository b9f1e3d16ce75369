"""Deadlines pass once, by a clock that does not jump, however the time of day is set."""

import asyncio

import pytest
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.deadlines import AT_ONCE, Deadlines
from holdfast.errors import HoldfastError, Reason
from support.replica import Clock


class Acts:
    """Remembers what was acted on; refuses while told to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_refusing = False

    async def __call__(self, name: str) -> None:
        if self.is_refusing:
            raise HoldfastError(Reason.STORE_UNAVAILABLE, "the store is away")
        self.names.append(name)


def at(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMilliseconds(int(seconds * 1000))
    return time


def kept() -> tuple[Deadlines, Clock, Clock, Acts]:
    clock, wall, acts = Clock(50.0), Clock(1_000_000.0), Acts()
    return Deadlines(clock, wall, acts), clock, wall, acts


async def test_a_deadline_passes_once_and_not_before() -> None:
    deadlines, clock, _, acts = kept()
    deadlines.set("a", at(1_000_010))
    clock.now_s += 9.9
    await deadlines.look()
    assert acts.names == []
    assert not deadlines.is_past("a")
    clock.now_s += 0.1
    assert deadlines.is_past("a")
    await deadlines.look()
    await deadlines.look()
    assert acts.names == ["a"]


async def test_setting_the_time_of_day_moves_no_deadline_that_is_known() -> None:
    deadlines, clock, wall, acts = kept()
    deadlines.set("a", at(1_000_010))
    wall.now_s += 3_600
    deadlines.set("a", at(1_000_010))  # told again, as with each vote
    await deadlines.look()
    assert acts.names == []
    wall.now_s -= 7_200
    clock.now_s += 10
    await deadlines.look()
    assert acts.names == ["a"]


async def test_one_that_has_passed_when_it_is_learned_of_is_due_at_once() -> None:
    deadlines, _, _, acts = kept()
    deadlines.set("a", at(999_000))
    await deadlines.look()
    assert acts.names == ["a"]


async def test_one_that_is_cleared_or_moved_does_not_pass() -> None:
    deadlines, clock, _, acts = kept()
    for name in ("cleared", "moved"):
        deadlines.set(name, at(1_000_010))
    deadlines.clear("cleared")
    deadlines.set("moved", at(1_000_020))
    clock.now_s += 10
    await deadlines.look()
    assert acts.names == []
    clock.now_s += 10
    await deadlines.look()
    assert acts.names == ["moved"]


async def test_what_the_store_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.deadlines.log", structlog.get_logger())  # another test may have configured the first
    deadlines, clock, _, acts = kept()
    deadlines.set("a", at(1_000_010))
    clock.now_s += 10
    acts.is_refusing = True
    with structlog.testing.capture_logs() as logs:
        await deadlines.look()
    assert [each["event"] for each in logs] == ["deadline_not_acted_on"]
    assert deadlines.is_past("a")
    acts.is_refusing = False
    await deadlines.look()
    assert acts.names == ["a"]


async def test_a_wave_passes_in_pieces() -> None:
    deadlines, clock, _, acts = kept()
    for number in range(AT_ONCE + 5):
        deadlines.set(f"d{number}", at(1_000_010))
    clock.now_s += 10
    assert await deadlines.look() < 0.01
    assert len(acts.names) == AT_ONCE
    await deadlines.look()
    assert len(acts.names) == AT_ONCE + 5


async def test_one_that_is_cleared_as_its_time_comes_is_not_acted_on() -> None:
    """The view may learn that it is settled between the look at the clock and the act."""
    deadlines, clock, _, acts = kept()
    deadlines.set("a", at(1_000_010))
    clock.now_s += 11
    looking = asyncio.ensure_future(deadlines.look())
    asyncio.get_running_loop().call_soon(deadlines.clear, "a")  # runs before what the look starts
    await looking
    assert acts.names == []
