"""Time in a load: unix seconds that never step, and which phase was in force when."""

import time
from bisect import bisect_right


class RunClock:
    """Unix time, anchored once and carried on by the monotonic clock: setting the clock does not bend latencies."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.perf_counter()

    def now_s(self) -> float:
        """Unix seconds."""
        return self._offset_s + time.perf_counter()


class PhaseLog:
    """The phases of a run, in order; a call belongs to the one in force when it was due, whenever it ends."""

    def __init__(self, first: str) -> None:
        self._names = [first]
        self._since_s = [float("-inf")]

    @property
    def current(self) -> str:
        """The latest phase."""
        return self._names[-1]

    def switch(self, name: str, at_s: float) -> None:
        """Begins a phase; times never go back."""
        assert at_s >= self._since_s[-1], f"phase {name!r} begins at {at_s}, before {self.current!r} did"
        self._names.append(name)
        self._since_s.append(at_s)

    def at(self, due_s: float) -> str:
        """The phase in force at a time."""
        return self._names[bisect_right(self._since_s, due_s) - 1]
