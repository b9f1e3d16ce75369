"""Work that must come to its end although the greenlet that asks for it is being killed.

A user that calls `runner.quit()`, as Locust's manual has it, is one of those that this stops.
"""

from collections.abc import Callable

import gevent


def to_the_end(work: Callable[[], None]) -> None:
    """Does the work in a greenlet of its own and waits for it; being killed comes back afterwards."""
    worker = gevent.spawn(work)
    is_killed = False
    while not worker.ready():
        try:
            worker.join()
        except gevent.GreenletExit:
            is_killed = True
    if is_killed:
        gevent.kill(gevent.getcurrent())
    worker.get()
