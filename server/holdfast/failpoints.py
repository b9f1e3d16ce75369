"""Named places where a test may make the process die, in the manner of gofail.

`hit` does nothing until a handler is installed: by a simulation, or at the start of a server that is told to by the
environment (`HOLDFAST_FAILPOINTS`), which only tests do.
"""

import os
import re
import signal
from collections.abc import Callable, Mapping
from enum import StrEnum, unique

Handler = Callable[["Failpoint"], None]


@unique
class Failpoint(StrEnum):
    """Every place, by the name tests call it."""

    BEFORE_BEGIN = "before-begin"
    """A batch is decided, nothing of it is written."""
    AFTER_BEGIN = "after-begin"
    """The engine's transaction is open."""
    BEFORE_COMMIT = "before-commit"
    """Everything is written, nothing is durable."""
    AFTER_COMMIT = "after-commit"
    """The batch is durable, nobody knows."""
    BEFORE_CHECKPOINT = "before-checkpoint"
    """The log is about to be moved into the file."""
    AFTER_CHECKPOINT = "after-checkpoint"
    """The log is in the file."""
    BEFORE_WATCH_SEND = "before-watch-send"
    """A revision is read for a watcher, and not sent."""
    AFTER_WATCH_SEND = "after-watch-send"
    """A revision is handed to the transport."""
    BEFORE_EXPIRY = "before-expiry"
    """Leases have run out, their end is not written."""
    AFTER_EXPIRY = "after-expiry"
    """The end of leases is durable, nobody knows."""
    BEFORE_FENCE = "before-fence"
    """An ownership is decided, and its fence has no revision."""
    AFTER_FENCE = "after-fence"
    """An ownership is durable, its fence not told."""


_handler: Handler | None = None


def hit(point: Failpoint) -> None:
    """Passes a place."""
    if _handler is not None:
        _handler(point)


def install(handler: Handler | None) -> None:
    """Lets `handler` decide what happens at each place; None: nothing."""
    global _handler
    _handler = handler


VARIABLE = "HOLDFAST_FAILPOINTS"
"""The environment variable `arm` reads: `POINT=kill@N`, several with commas between them."""

HITS_MAX = 1_000_000
"""Latest hit at which a trap can be set."""

_TRAP = re.compile(r"(?P<point>[a-z-]+)=kill@(?P<hits>[0-9]{1,7})")


class WrongTrapError(ValueError):
    """The text that says where to die cannot be read."""


def arm(environ: Mapping[str, str]) -> Mapping[Failpoint, int]:
    """Installs what the environment asks for, and returns it: by place, the hit at which the process kills itself.

    Nothing is installed where nothing is asked for.

    Raises:
        WrongTrapError: What is asked for is not `POINT=kill@N`.
    """
    traps = parse(environ.get(VARIABLE, ""))
    if traps:
        install(_Killer(traps))
    return traps


def parse(text: str) -> dict[Failpoint, int]:
    """Reads `before-commit=kill@7,after-fence=kill@1`; nothing of an empty text.

    Raises:
        WrongTrapError: It is something else.
    """
    traps: dict[Failpoint, int] = {}
    for each in text.split(",") if text else ():
        point, hits = _parse_trap(each)
        if point in traps:
            raise _wrong(each, f"{point.value} is there twice")
        traps[point] = hits
    return traps


def _parse_trap(text: str) -> tuple[Failpoint, int]:
    found = _TRAP.fullmatch(text)
    if found is None:
        raise _wrong(text, "is not of the form POINT=kill@N")
    if found["point"] not in list(Failpoint):
        raise _wrong(text, f"there is no {found['point']}, only {', '.join(Failpoint)}")
    if not 1 <= int(found["hits"]) <= HITS_MAX:
        raise _wrong(text, f"{found['hits']} is not from 1 to {HITS_MAX}")
    return Failpoint(found["point"]), int(found["hits"])


def _wrong(text: str, why: str) -> WrongTrapError:
    return WrongTrapError(f"{VARIABLE}: {text[:100]!r}: {why}. It is for tests; unset it to serve.")


class _Killer:
    """Counts the hits of each place, and ends the process by SIGKILL at the one it is told.

    Each place is passed on one thread only, so its count needs no lock.
    """

    def __init__(self, traps: Mapping[Failpoint, int]) -> None:
        self._left = dict(traps)

    def __call__(self, point: Failpoint) -> None:
        if point not in self._left:
            return
        self._left[point] -= 1
        if self._left[point] == 0:
            # Straight to the descriptor: nothing that is buffered outlives what follows.
            os.write(2, f'{{"event": "failpoint_reached", "failpoint": "{point.value}"}}\n'.encode())
            os.kill(os.getpid(), signal.SIGKILL)
