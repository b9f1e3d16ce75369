"""Named places where a test may make the process die or stop, in the manner of gofail.

`hit` does nothing until a handler is installed: by a simulation, or at the start of a server that is told to by the
environment (`HOLDFAST_FAILPOINTS`), which only tests do.
"""

from collections.abc import Callable
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
