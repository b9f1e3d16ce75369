"""A guarded block ends when what it rests on is lost, and only then is its cancellation an error of ours."""

import asyncio

import pytest

from holdfast.client import SessionLostError
from holdfast.client.guards import Guard


class Hold:
    """Something to rest on."""

    def __init__(self) -> None:
        self.is_lost = False
        self.guards: set[Guard] = set()

    def check(self) -> None:
        if self.is_lost:
            raise SessionLostError("gone")

    def guard(self) -> Guard:
        return Guard(self.check, self.guards)

    def lose(self) -> None:
        self.is_lost = True
        for guard in list(self.guards):
            guard.stop()


async def test_a_block_that_waits_is_woken_and_raises() -> None:
    hold = Hold()
    asyncio.get_running_loop().call_soon(hold.lose)
    with pytest.raises(SessionLostError):
        async with hold.guard():
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert hold.guards == set()


async def test_guards_inside_each_other_raise_once_at_the_outermost() -> None:
    hold = Hold()
    asyncio.get_running_loop().call_soon(hold.lose)
    seen: list[str] = []

    async def inside() -> None:
        try:
            async with hold.guard():
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(SessionLostError):
        async with hold.guard():
            await inside()
    assert seen == ["cancelled"]
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_cancellation_from_outside_stays_one() -> None:
    """Also where the loss comes at the same moment."""
    hold, entered = Hold(), asyncio.Event()

    async def work() -> None:
        async with hold.guard():
            entered.set()
            await asyncio.Event().wait()

    for lose_too in (False, True):
        hold.is_lost = False
        entered.clear()
        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        if lose_too:
            hold.lose()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_block_that_ends_by_itself_without_proof_does_not_pass_for_done() -> None:
    hold = Hold()
    with pytest.raises(SessionLostError):
        async with hold.guard():
            hold.is_lost = True  # nobody was told yet


async def test_an_error_of_the_block_is_its_own() -> None:
    hold = Hold()

    def fail() -> None:
        hold.lose()
        raise KeyError("mine")

    with pytest.raises(KeyError):
        async with hold.guard():
            fail()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_nothing_begins_on_what_is_lost() -> None:
    hold = Hold()
    hold.lose()
    with pytest.raises(SessionLostError):
        async with hold.guard():
            pytest.fail("the block ran")


async def test_one_guard_is_one_block() -> None:
    one = Hold().guard()
    async with one:
        pass
    with pytest.raises(RuntimeError, match="make another"):
        async with one:
            pass
