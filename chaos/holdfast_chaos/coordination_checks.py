"""Whether a coordination service kept its promises, from the histories that a fleet's processes wrote, and them alone.

Each check is a pure function of `Histories` that lists what cannot be; `run` reads the files and makes results of them.
What an experiment names under `checks` is a key of `CHECKS`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from holdfast_loadtests.fleet.history import PATTERN, Event, HistoryError, read
from holdfast_slo.verdict import CheckResult

CheckName = Literal["activations-terminal", "completed-once", "fences-in-order", "slots-exact", "decisions-once"]
"""`activations-terminal`: each activation that was acknowledged as created came to an end. `completed-once`: none was
completed twice, or under a fence other than its last. `fences-in-order`: fences of one activation grow, each has one
owner, and what they guard accepted none out of order. `slots-exact`: at no revision had an agent more than it takes.
`decisions-once`: each decision came to exactly one result."""

RESOURCE: Final = "resource"
"""Folder below the histories with what the fleet's work wrote to."""

SHOWN_MAX: Final = 20
"""Violations listed; the rest are counted."""

_ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "DEAD_LETTERED", "CANCELLED", "TIMED_OUT"})
_OWNED: Final = frozenset({"ASSIGNED", "RUNNING", "HANDING_OFF"})
_CLOSED: Final = frozenset({"DECIDED", "CANCELLED", "FAILED"})


@dataclass(frozen=True)
class Histories:
    """Everything that was written.

    Attributes:
        files: The events of each process, in its order.
        resource: For each thing written to, fence and writer of each write accepted, in the resource's order.
    """

    files: Sequence[Sequence[Event]] = ()
    resource: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)

    def events(self, *names: str) -> Iterator[Event]:
        """The events of these names, of all processes."""
        return (event for file in self.files for event in file if event["event"] in names)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check came to: how much it looked at, in words, and what cannot be. `seen` 0 decides nothing."""

    seen: int
    what: str
    violations: Sequence[str]


def load(folder: Path) -> Histories:
    """Reads the histories of a run.

    Raises:
        HistoryError: one is damaged.
    """
    resource = {}
    for path in sorted((folder / RESOURCE).glob("*")):
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        if any(len(parts) != 2 or not parts[0].isdigit() for parts in lines):
            raise HistoryError(f"{path}: a line that is no fence and writer")
        resource[path.name] = [(int(fence), writer) for fence, writer in lines]
    return Histories([list(read(path)) for path in sorted(folder.glob(PATTERN))], resource)


def run(names: Iterable[CheckName], folder: Path) -> list[CheckResult]:
    """The results of the checks named; a damaged history decides none."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return []
    try:
        histories = load(folder)
    except (HistoryError, OSError) as error:
        return [CheckResult(name=name, verdict="INCONCLUSIVE", violations=(), detail=str(error)) for name in wanted]
    return [_result(name, CHECKS[name](histories)) for name in wanted]


def _result(name: str, found: Finding) -> CheckResult:
    shown = [*found.violations[:SHOWN_MAX]]
    if len(found.violations) > SHOWN_MAX:
        shown.append(f"… and {len(found.violations) - SHOWN_MAX} more")
    return CheckResult(
        name=name,
        verdict="FAIL" if shown else "PASS" if found.seen else "INCONCLUSIVE",
        violations=tuple(shown),
        detail=f"{found.seen} {found.what}",
    )


def activations_terminal(histories: Histories) -> Finding:
    """Each activation that was acknowledged as created was seen to end."""
    created = {event["activation"] for event in histories.events("created")}
    ended = {event["activation"] for event in histories.events("ended")}
    last = {event["name"]: event["state"] for event in histories.events("activation")}
    ended |= {name for name, state in last.items() if state in _ENDED}
    open_still = [f"{name} was created and never ended; last seen {last.get(name)}" for name in sorted(created - ended)]
    return Finding(len(created), "activations acknowledged as created", open_still)


def completed_once(histories: Histories) -> Finding:
    """None was completed twice, or under a fence that was not its last, and none went on after its end."""
    fences: dict[str, set[int]] = defaultdict(set)
    for event in histories.events("activation"):
        if event["fence"]:
            fences[event["name"]].add(event["fence"])
    acknowledged: dict[str, list[Event]] = defaultdict(list)
    for event in histories.events("completed"):
        acknowledged[event["activation"]].append(event)
    wrong = []
    for name, completions in sorted(acknowledged.items()):
        if len(completions) > 1:
            by = ", ".join(f"{event['agent']} (fence {event['fence']})" for event in completions)
            wrong.append(f"{name} was completed {len(completions)} times: by {by}")
        last = max(fences[name], default=0)
        wrong += [
            f"{name} was completed by {event['agent']} under fence {event['fence']}, but fence {last} was given out"
            for event in completions
            if event["fence"] < last
        ]
    return Finding(len(acknowledged), "activations completed", [*wrong, *_left_its_end(histories)])


def _left_its_end(histories: Histories) -> Iterator[str]:
    """Ends that were not final. Nothing in a fleet requeues dead letters."""
    for file in histories.files:
        ends: dict[str, str] = {}
        for event in file:
            if event["event"] != "activation" or event["state"] == "UNSPECIFIED":
                continue
            name, state = event["name"], event["state"]
            if name in ends and state != ends[name]:
                yield f"{name} was {ends[name]} and then {state} at revision {event['revision']}"
            if state in _ENDED:
                ends[name] = state


def fences_in_order(histories: Histories) -> Finding:
    """Of one activation fences grow, each belongs to one agent, and what they guard accepted none out of order."""
    wrong = []
    for thing, writes in sorted(histories.resource.items()):
        owners: dict[int, str] = {}
        greatest = 0
        for fence, writer in writes:
            if fence < greatest:
                wrong.append(f"{thing} accepted a write of {writer} under fence {fence} after one under {greatest}")
            if owners.setdefault(fence, writer) != writer:
                wrong.append(f"{thing} was written to by {owners[fence]} and {writer}, both under fence {fence}")
            greatest = max(greatest, fence)
    return Finding(sum(map(len, histories.resource.values())), "writes accepted", [*wrong, *_given_twice(histories)])


def _given_twice(histories: Histories) -> Iterator[str]:
    for file in histories.files:
        given: dict[str, tuple[int, str]] = {}
        for event in file:
            if event["event"] != "activation" or event["state"] not in _OWNED:
                continue
            name, now = event["name"], (event["fence"], event["agent"])
            before = given.get(name, now)
            at = f"at revision {event['revision']}"
            if now[0] < before[0]:
                yield f"{name} had fence {before[0]} and then {now[0]} {at}"
            elif now[0] == before[0] and now[1] != before[1]:
                yield f"{name} was {before[1]}'s and then {now[1]}'s under one fence, {now[0]}, {at}"
            given[name] = now


def slots_exact(histories: Histories) -> Finding:
    """At no revision did an agent have more activations than it takes at a time."""
    slots = {event["agent"]: event["slots"] for event in histories.events("registered")}
    seen, wrong = 0, []
    for file in histories.files:
        owners: dict[str, str] = {}
        changes = [event for event in file if event["event"] in {"snapshot", "activation"}]
        for position, event in enumerate(changes):
            if event["event"] == "snapshot":
                if event["kind"] == "activation":
                    owners.clear()
                continue
            owners.pop(event["name"], None)
            if event["state"] in _OWNED:
                owners[event["name"]] = event["agent"]
            following = changes[position + 1] if position + 1 < len(changes) else None
            if following is not None and following["revision"] == event["revision"]:
                continue  # more of the same revision
            seen += 1
            wrong += [
                f"{agent} had {held} activations at revision {event['revision']}, and takes {slots[agent]}"
                for agent, held in Counter(owners.values()).items()
                if agent in slots and held > slots[agent]
            ]
    return Finding(seen if slots else 0, "revisions with changes of activations", wrong)


def decisions_once(histories: Histories) -> Finding:
    """Each decision that was opened came to one result, the same for whoever saw it, and later too."""
    opened = {event["decision"] for event in histories.events("opened")}
    results: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for event in histories.events("decision", "closed", "reread"):
        if event["state"] in _CLOSED:
            results[event["name"]].add((event["state"], event["option"], event["close_time_ms"]))
    wrong = [f"{name} was opened and never closed" for name in sorted(opened - set(results))]
    for name, found in sorted(results.items()):
        if len(found) > 1:
            told = ", ".join(f"{state} {option!r} at {closed_ms}" for state, option, closed_ms in sorted(found))
            wrong.append(f"{name} came to {len(found)} results: {told}")
        wrong += [f"{name} is DECIDED for no option" for state, option, _ in found if state == "DECIDED" and not option]
    wrong += [
        f"{event['name']} was closed and is {event['state']} again"
        for event in histories.events("reread")
        if event["state"] not in _CLOSED and event["name"] in results
    ]
    return Finding(len(opened), "decisions opened", wrong)


CHECKS: Final[Mapping[str, Callable[[Histories], Finding]]] = {
    "activations-terminal": activations_terminal,
    "completed-once": completed_once,
    "fences-in-order": fences_in_order,
    "slots-exact": slots_exact,
    "decisions-once": decisions_once,
}
"""Every check by its name in an experiment."""
