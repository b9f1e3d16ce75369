"""Histories of locks and elections, told twice: as they should be, and, with `bad`, as they must not be.

`tests/unit/support/test_checkers.py` tells them to every checker.
"""

from collections.abc import Callable
from typing import Any

from support.history import GuardedWrite, Invoke, KeepAnswered, KeepSent, LeaderTold, LeaseSeen, Ok

PARENT = "namespaces/n"
NAME = f"{PARENT}/locks/l"
ELECTION = f"{PARENT}/elections/e"
A, B = (f"{PARENT}/leases/{each}" for each in "ab")


def asks(story: Any, op: str, process: str = "c", fence: int = 0, request_id: str = "", **asked: Any) -> int:
    """A call begins."""
    call: int = story.new_id()
    facts: dict[str, Any] = {"fence": fence, "request_id": request_id, "content": request_id}
    story.events.append(Invoke(story.now_s, process, call, op, asked=asked, **facts))
    return call


def gets(story: Any, call: int, fence: int, lease: str = A, holder: str = "a", process: str = "c") -> None:
    """It is told of a hold."""
    lock = {"name": NAME, "state": "HELD", "holder": holder, "lease": lease, "fence": fence, "revision": fence}
    story.events.append(Ok(story.now_s, process, call, fence, told={"lock": lock}))


def acquired(story: Any, fence: int, lease: str = A, holder: str = "a", request_id: str = "") -> None:
    """A call that gets the lock at once."""
    call = asks(story, "AcquireLock", lock=NAME, holder=holder, lease=lease, request_id=request_id)
    gets(story, call, fence, lease, holder)


def released(story: Any, fence: int) -> None:
    """It is given back, and free."""
    call = asks(story, "ReleaseLock", fence=fence, lock=NAME)
    story.events.append(Ok(story.now_s, "c", call, 0, told={"lock": {"name": NAME, "state": "FREE"}}))


def kept(story: Any, lease: str = A) -> None:
    """A keepalive that is acknowledged."""
    call = story.new_id()
    story.events.append(KeepSent(story.now_s, "c", call, lease))
    story.events.append(KeepAnswered(story.now_s, "c", call, lease, ttl_s=10.0, fence=1, directive="CONTINUE"))


def granted(story: Any, lease: str, revision: int) -> None:
    """A lease of 10 s."""
    call = asks(story, "GrantLease")
    story.events.append(Ok(story.now_s, "c", call, revision, (), (LeaseSeen(lease, 10.0, revision),)))


def wrote(story: Any, process: str, fence: int) -> None:
    """What the lock guards accepts a write."""
    story.events.append(GuardedWrite(story.now_s, process, NAME, fence, is_accepted=True))


def one_after_the_other(story: Any, *, bad: bool) -> None:
    """Somebody has what another holds and keeps."""
    acquired(story, 5)
    if not bad:
        released(story, 5)
    acquired(story, 6, B, "b")
    kept(story)


def a_fence_of_one_s_own(story: Any, *, bad: bool) -> None:
    """Two write with one fence."""
    wrote(story, "a", 5)
    wrote(story, "b", 5 if bad else 6)


def fences_that_grow(story: Any, *, bad: bool) -> None:
    """A fence begins anew."""
    acquired(story, 5)
    released(story, 5)
    acquired(story, 4 if bad else 6)


def given_back_once(story: Any, *, bad: bool) -> None:
    """A fence is good again after it was given back."""
    acquired(story, 5)
    released(story, 5)
    if bad:
        released(story, 5)


def given_back_by_its_holder(story: Any, *, bad: bool) -> None:
    """A fence of before gives back what another holds."""
    acquired(story, 5)
    released(story, 5)
    acquired(story, 6, B, "b")
    released(story, 5 if bad else 6)


def not_before_the_delay(story: Any, *, bad: bool) -> None:
    """A lease that may stand for seconds yet is lost already, as far as the next holder is concerned."""
    granted(story, A, 4)
    acquired(story, 5)
    if not bad:
        story.wait(12)
    acquired(story, 6, B, "b")


def in_line(story: Any, *, bad: bool) -> None:
    """Who came last has it first."""
    first = asks(story, "AcquireLock", "a@n", lock=NAME, holder="a", lease=A)
    second = asks(story, "AcquireLock", "b@n", lock=NAME, holder="b", lease=B)
    read = asks(story, "GetAgent")
    story.events.append(Ok(story.now_s, "c", read, 4))
    if bad:
        gets(story, second, 5, B, "b", "b@n")
        released(story, 5)
        gets(story, first, 6, A, "a", "a@n")
    else:
        gets(story, first, 5, A, "a", "a@n")
        released(story, 5)
        gets(story, second, 6, B, "b", "b@n")


def held_until_it_ends(story: Any, *, bad: bool) -> None:
    """A hold that nothing ended is gone."""
    acquired(story, 5)
    call = asks(story, "GetLock", name=NAME)
    if bad:
        told = {"lock": {"name": NAME, "state": "FREE"}, "revision": 6}
        story.events.append(Ok(story.now_s, "c", call, 6, told=told))
    else:
        gets(story, call, 5)
    kept(story)


def the_same_for_a_repeated_request(story: Any, *, bad: bool) -> None:
    """A repeated request gets another hold."""
    acquired(story, 5, request_id="r")
    if bad:
        released(story, 5)
    acquired(story, 6 if bad else 5, request_id="r")


def told_in_order(story: Any, *, bad: bool) -> None:
    """An observer is told of a leader again."""
    for revision, fence in ((5, 5), (6, 0), (7, 5 if bad else 7)):
        leadership = {"election": ELECTION}
        if fence:
            leadership |= {"leader": "a", "lease": A, "fence": fence}  # type: ignore[dict-item]
        story.events.append(LeaderTold(story.now_s, "o", 1, ELECTION, revision, leadership, revision == 5))


STORIES: list[tuple[str, Callable[..., None]]] = [
    ("K1", one_after_the_other),
    ("K1", a_fence_of_one_s_own),
    ("K2", fences_that_grow),
    ("K3", given_back_once),
    ("K3", given_back_by_its_holder),
    ("K4", not_before_the_delay),
    ("K5", in_line),
    ("E1", told_in_order),
    ("S2", held_until_it_ends),
    ("request_id", the_same_for_a_repeated_request),
]
"""Each with the invariant that the bad one breaks."""
