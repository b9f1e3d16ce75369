"""What a fleet did, second by second, is read from its histories alone."""

from typing import Any

from holdfast_chaos.coordination_checks import Histories
from holdfast_chaos.fleet_course import HEARD_S, course

UNIX_S = 1.7e9
"""Unix time at which the machine's monotonic clock stood at 0."""


def at(t_s: float, event: str, **fields: Any) -> dict[str, Any]:
    return {"t_s": t_s, "event": event, **fields}


def test_what_ended_is_counted_in_its_second_by_how_it_ended() -> None:
    """Successes and decisions are well; what failed, was lost, or could not even be asked for is not."""
    callers = [
        at(10.1, "ended", outcome="succeeded"),
        at(10.9, "closed", state="DECIDED"),
        at(12.0, "ended", outcome="dead_lettered"),
        at(12.1, "not_ended", outcome="lost"),
        at(12.2, "create_failed", why="nobody answered"),
        at(12.3, "closed", state="FAILED"),
    ]
    points = course(Histories([callers]), UNIX_S)
    assert [(point.t_s - UNIX_S, point.ended_well, point.ended_otherwise) for point in points] == [
        (10, 2, 0),
        (11, 0, 0),
        (12, 0, 4),
    ]


def test_an_agent_is_heard_from_for_as_long_as_what_it_said_was_acknowledged() -> None:
    """One that begins work or loses its session says so only to itself."""
    agents = [
        at(1.0, "registered", agent="a"),
        at(1.1, "voted", agent="a"),
        at(2.0, "completed", agent="b"),
        at(6.0, "began", agent="c"),
        at(6.0, "session_lost", agent="a"),
    ]
    callers = [at(second, "ended", outcome="succeeded") for second in (1, 8)]
    heard = [point.agents for point in course(Histories([agents, callers]), UNIX_S)]
    assert HEARD_S == 3
    assert heard == [1, 2, 2, 1, 0, 0, 0, 0]


def test_a_run_without_callers_has_no_course() -> None:
    """A report of it has no plots of a fleet."""
    assert course(Histories([[at(1.0, "registered", agent="a")]]), UNIX_S) == ()
