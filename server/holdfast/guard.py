"""The guard against waves of ends that are this replica's own doing: time is given for what it did not hear.

A process that stood still (stopped, starved, paused with its machine, or a loop that hung) finds leases run out whose
keepalives wait unread in its sockets. So does a replica that had to refuse keepalives because it could not reach the
store. Whoever keeps deadlines asks the guard at each look at the clock, and gives each lease what it answers.

Two bounds keep the dead from living on: one stall is worth `GRACE_S_MAX` at most, and a lease that is not kept
meanwhile gets `HELD_S_MAX` in all, however often the process stalls. The time of the stall itself counts as neither.
"""

STALL_S = 0.5
"""A look this long after the one before means that the process stood still: two of the keeper's longest sleeps."""

GRACE_S_MAX = 30.0
"""Most time given for one stall, however long it was: by then clients have connected and sent again."""

HELD_S_MAX = 30.0
"""Most time given to one lease since it was last kept."""


class StallGuard:
    """Says what a stall is worth.

    Attributes:
        stalls_total: Stalls seen.
        grace_s_total: Time given for them, in seconds.
    """

    def __init__(self, now_s: float) -> None:
        self._last_look_s = now_s
        self.stalls_total = 0
        self.grace_s_total = 0.0

    def begin(self, now_s: float) -> None:
        """Counts from now: what went before was no stall."""
        self._last_look_s = now_s

    def look(self, now_s: float) -> float:
        """The time in which no lease may end from now on, in seconds: as long as the stall, 0 where there was none."""
        missed_s = now_s - self._last_look_s
        self._last_look_s = now_s
        if missed_s < STALL_S:
            return 0.0
        grace_s = min(missed_s, GRACE_S_MAX)
        self.stalls_total += 1
        self.grace_s_total += grace_s
        return grace_s
