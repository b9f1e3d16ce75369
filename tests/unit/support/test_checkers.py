"""Checkers: each objects to a history that breaks its invariant, and to nothing in the twin that keeps it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from support import decision_stories, lease_stories, lock_stories, store_stories, watch_stories
from support.checkers import INVARIANTS, check, report
from support.evidence import Limits
from support.history import WatchEnded, WatchMessage
from support.stories import LEASE, Story, added, agent, expired
from support.watch_checkers import matches

STORIES: list[tuple[str, Callable[..., None]]] = [
    *store_stories.STORIES,
    *watch_stories.STORIES,
    *lease_stories.STORIES,
    *decision_stories.STORIES,
    *lock_stories.STORIES,
]
IDS = [f"{invariant}-{tell.__name__}" for invariant, tell in STORIES]


@pytest.mark.parametrize(("invariant", "tell"), STORIES, ids=IDS)
def test_a_checker_objects_to_what_breaks_its_invariant_alone(invariant: str, tell: Callable[..., None]) -> None:
    """The bad story is reported under this invariant, with evidence; the good one is not reported at all."""
    good, bad = Story(), Story()
    tell(good, bad=False)
    tell(bad, bad=True)
    assert not check(good.events), report(check(good.events))
    found = [violation for violation in check(bad.events) if violation.invariant == invariant]
    assert found, report(check(bad.events))
    assert all(violation.evidence and violation.message for violation in found)


def test_every_invariant_has_its_story() -> None:
    """No checker is left that nobody has seen objecting."""
    assert {invariant for invariant, _ in STORIES} == set(INVARIANTS)


def test_clocks_that_run_apart_are_allowed_for() -> None:
    """A lease that ends a hundredth early by the recorder's clock is early only if clocks are said to agree."""
    story = Story()
    story.keep(ttl_s=2.01)
    story.told(story.watch(9), 9, expired(agent(5), 9))
    story.events[-1] = replace(story.events[-1], at_s=2.0)
    assert [violation.invariant for violation in check(story.events)] == ["L1"]
    assert not check(story.events, Limits(clock_error=0.01))


def test_another_replica_may_hear_late_of_a_revocation() -> None:
    """Only where that is said, only for so long, and only of a revocation: who lets a lease expire knows of it."""
    story = Story()
    story.ends(story.begins("RevokeLease", lease=LEASE), 9)
    story.told(story.watch(9), 9, expired(agent(5), 9))
    story.keep()
    assert {violation.invariant for violation in check(story.events)} == {"L4"}
    assert not check(story.events, Limits(stale_keeps_s=4.0))
    assert check(story.events, Limits(stale_keeps_s=0.5))
    assert check(story.events[2:], Limits(stale_keeps_s=4.0)), "it expired, nobody revoked it"


@pytest.mark.parametrize("retained", [3, 4])
@pytest.mark.parametrize("is_told_in_a_message", [True, False])
def test_what_must_be_kept_is_not_compacted(retained: int, *, is_told_in_a_message: bool) -> None:
    """A refusal is judged by how far the store can have come: it may drop 6 once 9 is there if 3 are to be kept."""
    story = Story()
    watch = story.watch(6)
    if is_told_in_a_message:
        story.events.append(WatchMessage(story.now_s, "w", watch, 8, "reset", (), False, "COMPACTED", 9))
    story.events.append(WatchEnded(story.now_s, "w", watch, "REVISION_COMPACTED"))
    story.ends(story.begins("ListAgents"), 9)
    story.ends(story.begins("ListAgents"), 20)
    found = {violation.invariant for violation in check(story.events, Limits(retain_revisions=retained))}
    assert found == (set() if retained == 3 else {"W6"})


def test_who_reads_fast_is_not_too_slow() -> None:
    """A slow consumer is reset once what it needs next has been dropped, and not before."""
    story = Story()
    watch = story.watch(5)
    story.told(watch, 6, added(agent(6)))
    story.events.append(WatchMessage(story.now_s, "w", watch, 9, "reset", (), False, "SLOW_CONSUMER", 10))
    story.ends(story.begins("ListAgents"), 10)
    assert not check(story.events, Limits(retain_revisions=3))
    assert [violation.invariant for violation in check(story.events, Limits(retain_revisions=4))] == ["W6"]


@pytest.mark.parametrize(
    ("only", "is_wanted"),
    [
        ("", True),
        ('labels.team = "red"', True),
        ('labels.team = "blue"', False),
        ("liveness = EXPIRED", False),
        ("admin_state = ADMIN_STATE_CORDONED AND liveness = LIVE", True),
    ],
)
def test_simple_filters_are_understood(only: str, *, is_wanted: bool) -> None:
    """Labels by their values, enums with and without prefix, joined by AND."""
    assert matches(only, agent(5, labels={"team": "red"}, admin_state="CORDONED")) is is_wanted


def test_a_fallback_is_given_its_time_where_clocks_agree() -> None:
    """D6: voting had surely not ended when a read before it began, so the wait was shorter than it had to be."""
    story, waiting = Story(), {"kind": "ESCALATE", "timeout": 60.0}
    decision_stories.read(story, decision_stories.decision(4, fallback=waiting))
    decision_stories.read(story, decision_stories.decision(5, state="AWAITING_FALLBACK", fallback=waiting))
    decision_stories.read(story, decision_stories.decision(6, state="FAILED", fallback=waiting))
    assert not check(story.events)
    assert {violation.invariant for violation in check(story.events, Limits(clock_skew_s=1.0))} == {"D6"}
    assert not check(story.events, Limits(clock_skew_s=60.0))


@pytest.mark.parametrize("seconds", [5, 50])
def test_what_is_over_ends_where_clocks_agree(seconds: int) -> None:
    """D1, D3: 10 s after it was opened a decision is open no more, and no vote on it is taken."""
    story = Story()
    decision_stories.read(story, decision_stories.decision(5))
    story.wait(seconds)
    vote = decision_stories.voted(decision_stories.A, 6)
    decision_stories.cast(story, vote, decision_stories.decision(6, vote))
    assert not check(story.events)
    found = {violation.invariant for violation in check(story.events, Limits(deadlines_grace_s=2.0))}
    assert found == (set() if seconds == 5 else {"D3", "D1"})
