"""The clock that leases are proven by: one that never jumps, and goes on while the machine sleeps.

`time.monotonic` stands still on Linux while the machine is suspended; the server's clock does not, and has given the
lease away by the time the laptop wakes. Darwin's CLOCK_MONOTONIC goes on, its `time.monotonic` does not either.
"""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def now_s() -> float:
    """Seconds since some moment before."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
