"""What the guard against waves of ends promises, as clients see it: no holder loses a lease for a stall of the server.

The guard's time is bounded: by `HELD_S_MAX` in all for a lease that nobody keeps, and L2 judges that it ends then.
"""

from collections.abc import Iterator
from itertools import pairwise

from support.evidence import Evidence, Keep, Violation, first
from support.history import WatchMessage

GAP_MAX = 0.5
"""Longest time between keepalives of one who keeps a lease as one should, as a share of its TTL."""


def kept_through_stalls(evidence: Evidence) -> Iterator[Violation]:
    """guard: a lease does not expire while its holder goes on sending to a server that may stand still, but lives.

    For servers with a store of their own; from a replica that is silent for long others take over.
    """
    killed_s = [mark.at_s for mark in evidence.marks if mark.what == "killed"]
    for lease, event in _expired(evidence).items():
        faithful = _faithful(evidence.keeps.get(lease, []), event.at_s)
        if faithful is None or any(call.may_have_happened for call in evidence.revocations.get(lease, ())):
            continue
        last = faithful[0]
        assert last.answer is not None
        if not any(last.sent.at_s <= at_s <= event.at_s for at_s in killed_s):
            text = f"{lease} expired though its holder sent {len(faithful) - 1} keepalives after the last one answered"
            yield Violation("guard", text, (last.sent, last.answer, event))


def _expired(evidence: Evidence) -> dict[str, WatchMessage]:
    """Where each lease was first seen to end before its agents."""
    found: dict[str, WatchMessage] = {}
    for watch in evidence.watches.values():
        for message in watch.messages:
            for change in message.changes:
                lease = change.agent.lease
                if change.type == "EXPIRED" and (lease not in found or message.at_s < found[lease].at_s):
                    found[lease] = message
    return found


def _faithful(keeps: list[Keep], expired_s: float) -> list[Keep] | None:
    """The last keepalive that was answered and all after it, if they are without a gap until the lease was gone."""
    denied = (keep.answer.at_s for keep in keeps if keep.answer and keep.answer.reason == "LEASE_NOT_FOUND")
    gone_s = min(expired_s, first(denied))
    sent = [keep for keep in keeps if keep.sent.at_s <= gone_s]
    last = max((index for index, keep in enumerate(sent) if keep.is_kept), default=None)
    if last is None:
        return None
    answer, after = sent[last].answer, sent[last:]
    assert answer is not None
    times_s = [*(keep.sent.at_s for keep in after), gone_s]
    return after if all(later - at <= GAP_MAX * answer.ttl_s for at, later in pairwise(times_s)) else None
