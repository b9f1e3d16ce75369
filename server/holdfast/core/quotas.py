"""How much there may be of all callers together. What goes beyond is refused, each check at O(1).

Those who come at the same moment do not see each other, nor do the agents of one batch: together they may go beyond a
limit once.
"""

from holdfast.core.state import AgentEntry, Reader
from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent

AGENTS_MAX = 1_000_000
"""Most agents that are LIVE. One with a capability, a label and a lease of its own takes some 3.5 KB."""

AGENTS_BYTES_MAX = 2 << 30
"""Most bytes of them (2 GiB), as they are sent; in memory they take twice that, and a KB each."""

LEASES_MAX = 1_000_000
"""Most leases that stand."""

RULINGS_MAX = 1_000_000
"""Most agents, there or gone, about which something is decided. None is ever forgotten for room: a ban must hold."""


def check_agent(reader: Reader, agent: Agent, previous: AgentEntry | None) -> None:
    """Refuses an incarnation for which there is no room; a LIVE one that it replaces makes some.

    Raises:
        HoldfastError: QUOTA_EXCEEDED.
    """
    is_one_more = previous is None or not previous.is_live
    if is_one_more and reader.live_count >= AGENTS_MAX:
        raise _full("agents", f"{reader.live_count} agents are LIVE", AGENTS_MAX, "deregister some")
    freed_bytes = 0 if previous is None or is_one_more else previous.agent.ByteSize()
    check_bytes(reader, agent.ByteSize() - freed_bytes)


def check_bytes(reader: Reader, more_bytes: int) -> None:
    """Refuses what makes all LIVE agents together too large.

    Raises:
        HoldfastError: QUOTA_EXCEEDED.
    """
    size_bytes = reader.live_bytes + more_bytes
    if size_bytes > AGENTS_BYTES_MAX and more_bytes > 0:
        what = f"all LIVE agents would have {size_bytes} bytes"
        raise _full("agents", what, AGENTS_BYTES_MAX, "deregister some, or tell less of each")


def check_lease(reader: Reader) -> None:
    """Refuses one more lease when there are too many.

    Raises:
        HoldfastError: QUOTA_EXCEEDED.
    """
    if reader.leases_standing >= LEASES_MAX:
        advice = "revoke some, or let several agents share one"
        raise _full("leases", f"{reader.leases_standing} leases stand", LEASES_MAX, advice)


def check_ruling(reader: Reader) -> None:
    """Refuses a decision about one more agent when there are too many.

    Raises:
        HoldfastError: QUOTA_EXCEEDED.
    """
    if reader.rulings_count >= RULINGS_MAX:
        what = f"something is decided about {reader.rulings_count} agents, those that are gone included"
        raise _full("rulings", what, RULINGS_MAX, "uncordon or unban those that will not come back")


def _full(subject: str, what: str, limit: int, advice: str) -> HoldfastError:
    message = f"{what}, and this service holds at most {limit}: {advice}."
    return HoldfastError(Reason.QUOTA_EXCEEDED, message, subject=subject, metadata={"limit": str(limit)})
