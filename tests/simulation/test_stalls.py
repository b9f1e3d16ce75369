"""The checker of what holders keep through stalls: it objects to a lease lost for one, and to none lost otherwise."""

import pytest

from simulation.stalls import kept_through_stalls
from support.evidence import Evidence, Limits
from support.history import (
    AgentChange,
    AgentSeen,
    Event,
    Invoke,
    KeepAnswered,
    KeepSent,
    ServerMark,
    WatchBegun,
    WatchMessage,
)

LEASE = "namespaces/n/leases/l"
AGENT = AgentSeen("namespaces/n/agents/a", "u", lease=LEASE)


def lost(*, sent_s: tuple[float, ...], extra: tuple[Event, ...] = ()) -> list[str]:
    """What is objected to when a lease of 2 s, kept at 0 s, is asked for at some times and seen to expire at 5 s."""
    events: list[Event] = [KeepSent(0.0, "k", 1, LEASE), KeepAnswered(0.0, "k", 1, LEASE, 2.0), *extra]
    events += [KeepSent(at_s, "k", call, LEASE) for call, at_s in enumerate(sent_s, 2)]
    events.append(WatchBegun(0.0, "w", 100, "namespaces/n", "", 1))
    events.append(WatchMessage(5.0, "w", 100, 7, "events", (AgentChange("EXPIRED", AGENT),)))
    return [violation.invariant for violation in kept_through_stalls(Evidence(events, Limits()))]


STEADILY = (0.8, 1.6, 2.4, 3.2, 4.0, 4.8)


def test_a_lease_lost_under_a_holder_who_sent_all_along_is_a_violation() -> None:
    """Nobody read what it sent, and the server lived."""
    assert lost(sent_s=STEADILY) == ["guard"]


@pytest.mark.parametrize(
    "extra",
    [
        (ServerMark(3.0, "n1", "killed"),),
        (Invoke(3.0, "c", 99, "RevokeLease", lease=LEASE),),
    ],
)
def test_a_lease_lost_for_another_reason_is_none(extra: tuple[Event, ...]) -> None:
    """The server died, or someone asked for the end."""
    assert lost(sent_s=STEADILY, extra=extra) == []


def test_a_lease_whose_holder_paused_is_none() -> None:
    """A gap of more than half its TTL may be why."""
    assert lost(sent_s=STEADILY[:2] + STEADILY[4:]) == []
    assert lost(sent_s=STEADILY[:3]) == []
