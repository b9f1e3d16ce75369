"""The checks of a fleet's histories pass what a service may do, and name each lie."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from holdfast_chaos.coordination_checks import CHECKS, CheckName, Histories, load, run
from holdfast_loadtests.fleet.guarded import GuardedResource
from holdfast_loadtests.fleet.history import Recorder

Events = list[dict[str, Any]]


def seen(name: str, state: str, revision: int, agent: str = "", fence: int = 0) -> dict[str, Any]:
    return {
        "event": "activation", "name": name, "state": state, "revision": revision, "agent": agent, "fence": fence,
        "attempt": 1, "attempts_max": 3,
    }  # fmt: skip


def decided(event: str, option: str = "yes", state: str = "DECIDED") -> dict[str, Any]:
    return {"event": event, "decision": "d", "name": "d", "state": state, "option": option, "close_time_ms": 7}


def agents() -> Events:
    """An agent that takes two at a time: one piece it lost, one it completed."""
    return [
        {"event": "registered", "agent": "a", "fence": 1, "slots": 2},
        {"event": "registered", "agent": "b", "fence": 2, "slots": 2},
        {"event": "gave_up", "activation": "one", "agent": "a", "fence": 10},
        {"event": "completed", "activation": "one", "agent": "b", "fence": 12},
        {"event": "completed", "activation": "two", "agent": "a", "fence": 11},
    ]


def callers() -> Events:
    return [
        {"event": "snapshot", "kind": "activation", "revision": 5},
        {"event": "created", "activation": "one"},
        {"event": "created", "activation": "two"},
        seen("one", "PENDING", 6),
        seen("one", "ASSIGNED", 7, "a", 10),
        seen("two", "RUNNING", 8, "a", 11),
        seen("one", "BACKOFF", 9, "a"),
        seen("one", "RUNNING", 10, "b", 12),
        seen("one", "SUCCEEDED", 11, "b", 12),
        seen("two", "SUCCEEDED", 12, "a", 11),
        {"event": "ended", "activation": "one", "outcome": "succeeded"},
        {"event": "ended", "activation": "two", "outcome": "succeeded"},
        {"event": "opened", "decision": "d", "electors": 9},
        decided("decision", "", "OPEN"),
        decided("decision"),
        decided("closed"),
        decided("reread"),
    ]


def told(
    agents_say: Sequence[dict[str, Any]] = (), callers_say: Sequence[dict[str, Any]] = (), **resource: Any
) -> Histories:
    written = {"one": [(10, "a"), (12, "b"), (12, "b")], "two": [(11, "a")], **resource}
    return Histories([agents_say or agents(), callers_say or callers()], written)


def without(events: Events, **like: Any) -> Events:
    return [event for event in events if not all(event.get(key) == value for key, value in like.items())]


def unended() -> Histories:
    return told(callers_say=without(without(callers(), activation="two", event="ended"), name="two", revision=12))


LIES: dict[str, tuple[CheckName, Callable[[], Histories], str]] = {
    "an activation that never ends": ("activations-terminal", unended, "two was created and never ended"),
    "completed by two": (
        "completed-once",
        lambda: told([*agents(), {"event": "completed", "activation": "one", "agent": "a", "fence": 10}]),
        "one was completed 2 times",
    ),
    "completed under a stale fence": (
        "completed-once",
        lambda: told(
            [
                *without(agents(), event="completed", activation="one"),
                {"event": "completed", "activation": "one", "agent": "a", "fence": 10},
            ]
        ),
        "under fence 10, but fence 12 was given out",
    ),
    "an end that is taken back": (
        "completed-once",
        lambda: told(callers_say=[*callers(), seen("two", "RUNNING", 13, "b", 14)]),
        "two was SUCCEEDED and then RUNNING",
    ),
    "a write under a stale fence": (
        "fences-in-order",
        lambda: told(one=[(10, "a"), (12, "b"), (10, "a")]),
        "under fence 10 after one under 12",
    ),
    "a fence of two writers": ("fences-in-order", lambda: told(two=[(11, "a"), (11, "b")]), "written to by a and b"),
    "a fence that shrinks": (
        "fences-in-order",
        lambda: told(
            callers_say=[*callers(), seen("three", "RUNNING", 13, "b", 20), seen("three", "RUNNING", 14, "a", 19)]
        ),
        "had fence 20 and then 19",
    ),
    "an owner that changes under one fence": (
        "fences-in-order",
        lambda: told(
            callers_say=[*callers(), seen("three", "RUNNING", 13, "b", 20), seen("three", "RUNNING", 14, "a", 20)]
        ),
        "was b's and then a's under one fence",
    ),
    "a slot given twice": (
        "slots-exact",
        lambda: told(callers_say=[*callers(), *(seen(str(n), "ASSIGNED", 20 + n, "a", 20 + n) for n in range(3))]),
        "a had 3 activations at revision 22, and takes 2",
    ),
    "a decision with two results": (
        "decisions-once",
        lambda: told(callers_say=[*callers(), decided("reread", "no")]),
        "came to 2 results",
    ),
    "a decision never closed": (
        "decisions-once",
        lambda: told(callers_say=[*callers(), {"event": "opened", "decision": "e", "electors": 9}]),
        "e was opened and never closed",
    ),
    "a decision open again": (
        "decisions-once",
        lambda: told(callers_say=[*callers(), decided("reread", "", "OPEN")]),
        "is OPEN again",
    ),
    "a decision for nothing": (
        "decisions-once",
        lambda: told(callers_say=[*callers(), {**decided("decision", ""), "name": "f"}]),
        "f is DECIDED for no option",
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_what_a_service_may_do_is_no_violation(name: str) -> None:
    """Work lost and done by another, and a decision taken, pass every check."""
    found = CHECKS[name](told())
    assert (list(found.violations), found.seen > 0) == ([], True)


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_named_by_its_check_alone(lie: str) -> None:
    """A history with one lie violates the check that is about it, which says what cannot be; the others hold."""
    name, lying, message = LIES[lie]
    violations = {each: CHECKS[each](lying()).violations for each in CHECKS}
    assert any(message in violation for violation in violations[name]), violations
    assert [each for each in CHECKS if violations[each]] == [name]


def test_every_check_has_a_lie() -> None:
    """No check is without a history that violates it, and each can be named in an experiment."""
    assert {name for name, _, _ in LIES.values()} == set(CHECKS) == set(get_args(CheckName))


def test_a_reset_of_the_watch_forgets_who_owned_what() -> None:
    """What happened between a lost watch and its snapshot is not held against slots."""
    lost = [
        *callers(), seen("3", "ASSIGNED", 20, "a", 20), seen("4", "ASSIGNED", 21, "a", 21),
        {"event": "snapshot", "kind": "activation", "revision": 30}, seen("5", "ASSIGNED", 30, "a", 25),
    ]  # fmt: skip
    assert not CHECKS["slots-exact"](told(callers_say=lost)).violations


def test_slots_are_counted_once_a_revision_is_whole() -> None:
    """A piece that ends and one that comes at one revision are never held at once, whichever is told first."""
    swap = [
        *callers(), seen("3", "RUNNING", 20, "a", 20), seen("4", "RUNNING", 21, "a", 21),
        seen("5", "ASSIGNED", 22, "a", 22), seen("3", "SUCCEEDED", 22, "a", 20),
    ]  # fmt: skip
    assert not CHECKS["slots-exact"](told(callers_say=swap)).violations


@pytest.mark.parametrize("name", CHECKS)
def test_no_history_decides_nothing(name: CheckName, tmp_path: Path) -> None:
    """Without anything to look at a check is undecided, never passed."""
    assert [result.verdict for result in run([name], tmp_path)] == ["INCONCLUSIVE"]


def test_a_damaged_history_decides_nothing_and_says_where(tmp_path: Path) -> None:
    """A line that is no event leaves all checks undecided, by file and line."""
    (tmp_path / "x.jsonl").write_text('{"event": "created", "activation": "one"}\n{"eve\n{"event": "x"}\n')
    results = run(list(get_args(CheckName)), tmp_path)
    assert {result.verdict for result in results} == {"INCONCLUSIVE"}
    assert all("x.jsonl:2" in result.detail for result in results)


def test_what_is_written_is_what_is_judged(tmp_path: Path) -> None:
    """Histories come back from their files as they were written; a last line cut off by a kill is left out."""
    with Recorder(tmp_path, "agents-0") as recorder:
        recorder.write("created", activation="one")
        recorder.write("ended", activation="one", outcome="succeeded")
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"event": "crea')
    resource = GuardedResource(tmp_path / "resource")
    assert [resource.write("one", fence, "a") for fence in (3, 3, 2, 4)] == [True, True, False, True]
    found = load(tmp_path)
    assert [event["event"] for event in found.events("created", "ended")] == ["created", "ended"]
    assert found.resource == {"one": [(3, "a"), (3, "a"), (4, "a")]}
    assert [result.verdict for result in run(["activations-terminal"], tmp_path)] == ["PASS"]


def test_many_violations_are_counted_not_listed(tmp_path: Path) -> None:
    """A result lists twenty violations and counts the rest."""
    with Recorder(tmp_path, "callers-0") as recorder:
        for number in range(50):
            recorder.write("created", activation=str(number))
    (result,) = run(["activations-terminal"], tmp_path)
    assert result.verdict == "FAIL"
    assert len(result.violations) == 21
    assert result.violations[-1] == "… and 30 more"
