"""Histories of decisions and of watches of them, told twice: as they should be, and, with `bad`, as they must not be.

`tests/unit/support/test_checkers.py` tells them to every checker.
"""

from collections.abc import Callable, Sequence
from typing import Any

from support.history import Failed, FollowBegun, FollowEnded, FollowMessage, Invoke, Ok

PARENT = "namespaces/n"
NAME = f"{PARENT}/decisions/d"
A, B, C = (f"{PARENT}/agents/{each}" for each in "abc")

Decision = dict[str, Any]


def voted(agent: str, revision: int, option: str = "yes", rationale: str = "") -> dict[str, Any]:
    """A vote."""
    return {"agent": agent, "option": option, "confidence": 1.0, "revision": revision, "rationale": rationale}


def decision(revision: int, *votes: dict[str, Any], state: str = "OPEN", **fields: Any) -> Decision:
    """One of two electors, of whom both must agree, last changed at a revision."""
    counts = {option: sum(vote["option"] == option for vote in votes) for option in ("yes", "no")}
    seen: Decision = {
        "name": NAME,
        "options": [{"id": "yes"}, {"id": "no"}],
        "method": "CONSENSUS",
        "threshold": 1.0,
        "electors": [{"agent": A}, {"agent": B}],
        "deadline": 110.0,
        "create_time": 100.0,
        "fallback": {"timeout": 60.0},
        "state": state,
        "revision": revision,
        "tally": [{"option": each, "votes": n, "weight": float(n), "share": n / 2} for each, n in counts.items()],
        "votes": list(votes),
    }
    return {**seen, **fields}


def decided(revision: int, *votes: dict[str, Any], by_fallback: bool = False, margin: float = 1.0) -> Decision:
    """One that has the result yes."""
    outcome = {"option": "yes", "margin": margin, "participation": len(votes) / 2, "by_fallback": by_fallback}
    fallback = {"kind": "STATUS_QUO", "option": "yes", "timeout": 60.0} if by_fallback else {"timeout": 60.0}
    return decision(revision, *votes, state="DECIDED", outcome=outcome, fallback=fallback)


def read(story: Any, seen: Decision, revision: int = 0) -> None:
    """GetDecision shows it, at a revision of the store."""
    call, revision = story.new_id(), revision or seen["revision"]
    story.events.append(Invoke(story.now_s, "c", call, "GetDecision", asked={"name": NAME}))
    story.events.append(Ok(story.now_s, "c", call, revision, told={"decision": seen, "revision": revision}))


def cast(story: Any, vote: dict[str, Any], seen: Decision | None) -> None:
    """CastVote is answered with a decision, or surely refused."""
    call = story.new_id()
    asked = {"decision": NAME, "agent": vote["agent"], "option": vote["option"], "rationale": vote["rationale"]}
    story.events.append(Invoke(story.now_s, "c", call, "CastVote", asked=asked))
    if seen is None:
        story.events.append(Failed(story.now_s, "c", call, "DECISION_CLOSED", is_definite=True))
    else:
        story.events.append(Ok(story.now_s, "c", call, vote["revision"], told={"decision": seen}))


def follow(story: Any, start_revision: int = 1, resumes: int = 0, only: str = "") -> int:
    """A watch begins."""
    watch = story.new_id()
    story.events.append(FollowBegun(story.now_s, "w", watch, "WatchDecisions", PARENT, only, start_revision, resumes))
    return int(watch)


def told(story: Any, watch: int, revision: int, *seen: Decision, is_snapshot_end: bool = False) -> None:
    """It is told something."""
    story.events.append(FollowMessage(story.now_s, "w", watch, revision, "events", seen, is_snapshot_end))


def progress(story: Any, watch: int, revision: int) -> None:
    """It is told how far it has come."""
    story.events.append(FollowMessage(story.now_s, "w", watch, revision, "progress"))


# Decisions.


def one_end(story: Any, *, bad: bool) -> None:
    read(story, decision(5, state="CANCELLED"))
    read(story, decision(7, state="FAILED") if bad else decision(5, state="CANCELLED"), 7)


def an_end_that_stays(story: Any, *, bad: bool) -> None:
    both = voted(A, 4), voted(B, 5)
    read(story, decided(5, *both))
    read(story, decision(6, *both, state="CANCELLED") if bad else decided(5, *both), 6)


def an_honest_tally(story: Any, *, bad: bool) -> None:
    tally = [{"option": "yes", "votes": 1, "weight": 1.0, "share": 1.0 if bad else 0.5}, {"option": "no"}]
    read(story, decision(5, voted(A, 5), tally=tally))


def settled_by_its_votes(story: Any, *, bad: bool) -> None:
    both = voted(A, 4), voted(B, 5)
    read(story, decision(5, *both) if bad else decided(5, *both))


def decided_by_its_votes(story: Any, *, bad: bool) -> None:
    votes = [voted(A, 4)] if bad else [voted(A, 4), voted(B, 5)]
    read(story, decided(5, *votes, margin=0.5 if bad else 1.0))


def the_same_to_all(story: Any, *, bad: bool) -> None:
    read(story, decision(5, voted(A, 5)))
    read(story, decision(5, voted(A, 5, "no" if bad else "yes")))


def no_vote_after_the_end(story: Any, *, bad: bool) -> None:
    read(story, decision(5, voted(A, 4), state="AWAITING_FALLBACK", fallback={"kind": "ESCALATE", "timeout": 60.0}))
    votes = [voted(A, 4), voted(B, 6)] if bad else [voted(A, 4)]
    later = decision(6, *votes, state="CANCELLED", fallback={"kind": "ESCALATE", "timeout": 60.0})
    read(story, later)


def no_vote_taken_after_the_end(story: Any, *, bad: bool) -> None:
    read(story, decision(5, state="CANCELLED"))
    cast(story, voted(A, 6), decision(5, state="CANCELLED") if bad else None)


def votes_of_electors(story: Any, *, bad: bool) -> None:
    read(story, decision(5, voted(C if bad else A, 5)))


def one_vote_each(story: Any, *, bad: bool) -> None:
    read(story, decision(5, voted(A, 5)))
    read(
        story, decision(6, voted(A, 6, "no")) if bad else decision(6, voted(A, 5), voted(B, 6, "no"), state="CANCELLED")
    )


def a_frozen_electorate(story: Any, *, bad: bool) -> None:
    read(story, decision(5))
    electors = [{"agent": A}, {"agent": C if bad else B}]
    read(story, decision(6, voted(A, 6), electors=electors))


def one_fallback(story: Any, *, bad: bool) -> None:
    waiting = {"state": "AWAITING_FALLBACK", "fallback": {"kind": "ESCALATE", "timeout": 60.0}}
    read(story, decision(5, **waiting))
    read(story, decision(7 if bad else 5, **waiting), 7)


def one_result_of_a_fallback(story: Any, *, bad: bool) -> None:
    read(story, decided(5, by_fallback=True, margin=0))
    read(story, decided(7 if bad else 5, by_fallback=True, margin=0), 7)


def the_fallback_that_was_chosen(story: Any, *, bad: bool) -> None:
    fallback = {"kind": "STATUS_QUO" if bad else "NONE", "option": "yes", "timeout": 60.0}
    read(story, decision(5, state="FAILED", fallback=fallback))


def no_fallback_from_what_is_decided(story: Any, *, bad: bool) -> None:
    both = voted(A, 4), voted(B, 5)
    read(story, decided(5, *both, by_fallback=bad))


def votes_that_stay(story: Any, *, bad: bool) -> None:
    cast(story, voted(A, 5), decision(5, voted(A, 5)))
    read(story, decision(6, voted(B, 6, "no")) if bad else decision(5, voted(A, 5)), 6)


def votes_that_were_refused(story: Any, *, bad: bool) -> None:
    cast(story, voted(A, 0, rationale="v1"), None)
    read(story, decision(5, voted(A, 5, rationale="v1" if bad else "v2")))


# Watches of them.


def a_filter_of_states(story: Any, *, bad: bool) -> None:
    told(story, follow(story, only="state = OPEN"), 5, decision(5, state="CANCELLED" if bad else "OPEN"))


def changes_in_order(story: Any, *, bad: bool) -> None:
    watch = follow(story)
    told(story, watch, 5, decision(5))
    told(story, watch, 4 if bad else 6, {"name": f"{PARENT}/decisions/e", "revision": 4 if bad else 6})


def changes_told_once(story: Any, *, bad: bool) -> None:
    watch = follow(story)
    told(story, watch, 5, decision(5))
    again = follow(story, 5 if bad else 6, resumes=watch)
    told(story, again, 5 if bad else 6, decision(5) if bad else decision(6, voted(A, 6)))


def changes_told_whole(story: Any, *, bad: bool) -> None:
    watch = follow(story)
    told(story, watch, 5, decision(5))
    told(story, watch, 5 if bad else 6, {"name": f"{PARENT}/decisions/e", "revision": 5 if bad else 6})


def nothing_behind_progress(story: Any, *, bad: bool) -> None:
    watch = follow(story)
    progress(story, watch, 5 if bad else 4)
    told(story, watch, 5, decision(5))


def resumed_where_it_was(story: Any, *, bad: bool) -> None:
    watch = follow(story)
    told(story, watch, 5, decision(5))
    again = follow(story, 6, resumes=watch)
    story.events.append(FollowEnded(story.now_s, "w", again, "REVISION_FUTURE" if bad else "CLOSED"))


def told_of_every_change(story: Any, *, bad: bool) -> None:
    watch = follow(story)
    read(story, decision(5))
    if not bad:
        told(story, watch, 5, decision(5))
    told(story, watch, 6, decision(6, voted(A, 6)))


def a_snapshot_that_lacks_nothing(story: Any, *, bad: bool) -> None:
    read(story, decision(5))
    told(story, follow(story, 0), 6, *([] if bad else [decision(5)]), is_snapshot_end=True)


STORIES: Sequence[tuple[str, Callable[..., None]]] = [
    ("D1", one_end),
    ("D1", an_end_that_stays),
    ("D2", an_honest_tally),
    ("D2", settled_by_its_votes),
    ("D2", decided_by_its_votes),
    ("D2", the_same_to_all),
    ("D3", no_vote_after_the_end),
    ("D3", no_vote_taken_after_the_end),
    ("D4", votes_of_electors),
    ("D4", one_vote_each),
    ("D5", a_frozen_electorate),
    ("D6", one_fallback),
    ("D6", one_result_of_a_fallback),
    ("D6", the_fallback_that_was_chosen),
    ("D6", no_fallback_from_what_is_decided),
    ("S2", votes_that_stay),
    ("S3", votes_that_were_refused),
    ("W1", a_filter_of_states),
    ("W2", changes_in_order),
    ("W3", changes_told_once),
    ("W4", changes_told_whole),
    ("W5", nothing_behind_progress),
    ("W6", resumed_where_it_was),
    ("W7", told_of_every_change),
    ("W7", a_snapshot_that_lacks_nothing),
]
"""Each with the invariant that the bad one breaks."""
