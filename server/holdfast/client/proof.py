"""Whether a lease is surely still one's own: pure, with the time passed in.

The server counts a lease's TTL from when it received a keepalive, which is after it was sent. So it cannot give the
lease away before the last acknowledged keepalive was *sent*, plus the TTL: by a clock of this side, that no message
needs to be in time for. A margin before that is for clocks that run apart, and for what is under way.
"""

from dataclasses import dataclass

MARGIN_SHARE = 0.1
"""What part of the TTL is the margin, unless told: clocks may run apart by a tenth, less what is under way."""


@dataclass(slots=True)
class Proof:
    """What is known of one lease. Times are in seconds of one monotonic clock.

    Attributes:
        ttl_s: Its TTL.
        margin_s: How long before the last moment it counts as lost.
        sent_s: When the last acknowledged keepalive, or the grant, was sent.
        why_lost: Why it counts as lost for good; empty while it does not.
    """

    ttl_s: float
    margin_s: float
    sent_s: float
    why_lost: str = ""

    @property
    def until_s(self) -> float:
        """Until when it is proven."""
        return self.sent_s + self.ttl_s - self.margin_s

    def is_proven(self, now_s: float) -> bool:
        """Whether nobody else can have what hangs on the lease."""
        if not self.why_lost and now_s >= self.until_s:
            self.why_lost = (
                f"no keepalive sent in the last {self.ttl_s - self.margin_s:g} s was answered (TTL {self.ttl_s:g} s "
                f"less a margin of {self.margin_s:g} s); the last one that was is {now_s - self.sent_s:.3g} s old"
            )
        return not self.why_lost

    def kept(self, sent_s: float, now_s: float) -> None:
        """A keepalive sent then was acknowledged. What is lost stays lost: its work was told to stop."""
        if self.is_proven(now_s):
            self.sent_s = max(self.sent_s, sent_s)

    def lose(self, why: str) -> None:
        """It has ended, for a reason; the first counts."""
        self.why_lost = self.why_lost or why
