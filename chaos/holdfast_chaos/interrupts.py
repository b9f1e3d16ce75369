"""Ctrl-C and SIGTERM: the first ends the run, the next ones do not stop it from healing."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ended_by_the_user() -> Iterator[None]:
    """Within it, the first signal raises KeyboardInterrupt in the main thread; later ones are answered with a line."""
    seen = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            sys.stderr.write("still healing and stopping what was started; this takes a few seconds\n")
            return
        seen = True
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
