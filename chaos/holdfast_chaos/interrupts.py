"""Ctrl-C and SIGTERM: the first ends the run, the next ones do not stop it from healing."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """What the user's signals do: end what is interruptible, once, and wait for everything else."""

    def __init__(self) -> None:
        self._may_raise = False
        self._pending = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it the first signal, or one that came before, raises KeyboardInterrupt in the main thread."""
        if self._pending:
            raise KeyboardInterrupt
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """A signal came."""
        if self._may_raise:
            self._may_raise = False
            raise KeyboardInterrupt
        self._pending = True
        sys.stderr.write("starting, healing or stopping what was started; this takes a few seconds\n")


@contextmanager
def ended_by_the_user() -> Iterator[Interrupts]:
    """Takes the signals over, so that none cuts short what must not be left half done."""
    interrupts = Interrupts()
    before = {number: signal.signal(number, interrupts.handle) for number in _SIGNALS}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
