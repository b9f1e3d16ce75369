"""Checkers of watches of other resources than agents: what is told, in which order, and that nothing is left out."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from support.evidence import Evidence, Follow, Violation
from support.history import Event, FollowEnded, FollowMessage

KINDS = {"WatchDecisions": "decisions"}
"""Watches, and the collection of the resources that they tell."""

Resource = Mapping[str, Any]


def matches(only: str, resource: Resource) -> bool:
    """Whether a resource is what a simple filter wants, `FIELD = VALUE`; independent of the product's own filters."""
    if not only:
        return True
    name, _, value = (part.strip() for part in only.partition("="))
    return str(resource.get(name)) == value


def is_gone(resource: Resource) -> bool:
    """Whether a message says that a resource is gone, or no longer matches."""
    return set(resource) <= {"name", "revision"}


def only_what_the_filter_says(evidence: Evidence) -> Iterator[Violation]:
    """W1: each resource told is one of its namespace that the filter wants, or said to be gone."""
    for follow in evidence.follows.values():
        only, begun = follow.begun.filter, follow.begun
        for message in follow.messages:
            for resource in message.resources:
                is_there = resource["name"].startswith(f"{begun.parent}/{KINDS[begun.op]}/")
                if not is_there or (not is_gone(resource) and not matches(only, resource)):
                    text = f"{only!r} in {begun.parent} was told of {resource['name']}"
                    yield Violation("W1", text, (begun, message))


def in_order_and_once(evidence: Evidence) -> Iterator[Violation]:
    """W2, W3, W4 and W5: revisions are told in order, once, whole, and never after a progress that covers them."""
    for follow in evidence.follows.values():
        last = evidence.follows.get(follow.begun.resumes)
        told = last.messages[-1] if last is not None and last.messages else None
        for message in follow.steps():
            if told is not None and message.revision <= told.revision and message.step == "events":
                yield _repeated(follow, told, message)
            elif message.revision < follow.begun.start_revision - (message.step != "events"):
                yield Violation("W2", f"revision {message.revision} is before the start", (follow.begun, message))
            told = message


def _repeated(follow: Follow, told: FollowMessage, message: FollowMessage) -> Violation:
    events = (follow.begun, told, message)
    if told.step == "progress":
        return Violation("W5", f"revision {message.revision} after progress {told.revision}", events)
    if message.revision < told.revision:
        return Violation("W2", f"revision {message.revision} after {told.revision}", events)
    names = {each["name"] for each in told.resources} & {each["name"] for each in message.resources}
    if names:
        return Violation("W3", f"revision {message.revision} told {sorted(names)} twice", events)
    return Violation("W4", f"revision {message.revision} came in two messages", events)


def resumable(evidence: Evidence) -> Iterator[Violation]:
    """W6: a watch goes on from any revision that has not been compacted."""
    for follow in evidence.follows.values():
        begun, ended = follow.begun, follow.ended
        for message in follow.messages:
            if message.step == "reset":
                needed = follow.last_revision + 1 if follow.first_revision is not None else begun.start_revision
                yield from _is_kept(evidence, follow, needed, message)
        if ended is not None and ended.reason == "REVISION_COMPACTED":
            yield from _is_kept(evidence, follow, begun.start_revision, ended)
        if ended is not None and ended.reason == "REVISION_FUTURE" and begun.resumes:
            yield Violation("W6", f"{begun.start_revision} has been seen, and is the future", (begun, ended))


def _is_kept(
    evidence: Evidence, follow: Follow, needed: int, refusal: FollowMessage | FollowEnded
) -> Iterator[Violation]:
    newest = evidence.known_after(refusal.at_s)
    if newest is not None and needed > newest - evidence.limits.retain_revisions:
        text = f"{needed} was refused, and {newest} is no more than {evidence.limits.retain_revisions} later"
        yield Violation("W6", text, (follow.begun, refusal))


def no_holes(evidence: Evidence) -> Iterator[Violation]:
    """W7: what anybody saw a resource become up to the last revision told was told, or is in the snapshot."""
    known = _known(evidence)
    for follow in evidence.follows.values():
        told = {(message.revision, each["name"]) for message in follow.steps() for each in message.resources}
        seen = known[KINDS[follow.begun.op]]
        first, last, only = follow.first_revision, follow.last_revision, follow.begun.filter
        for (revision, name), (resource, event) in seen.items():
            is_due = first is not None and first <= revision <= last and name.startswith(f"{follow.begun.parent}/")
            if is_due and matches(only, resource) and (revision, name) not in told:
                text = f"{name} changed at {revision}, and a watch from {first} to {last} was not told"
                yield Violation("W7", text, (follow.begun, event))
        yield from _lacking(evidence, follow, seen)


_Known = dict[tuple[int, str], tuple[Resource, Event]]


def _known(evidence: Evidence) -> dict[str, _Known]:
    """Resources at the revisions at which they last changed, by collection, and who says so."""
    found: dict[str, _Known] = defaultdict(dict)

    def see(resource: Any, event: Event) -> None:
        if isinstance(resource, dict) and "revision" in resource and not is_gone(resource) and "name" in resource:
            found[resource["name"].rsplit("/", 2)[1]][resource["revision"], resource["name"]] = resource, event

    for call in evidence.calls.values():
        for told in call.ok.told.values() if call.ok is not None else ():
            for each in told if isinstance(told, list) else [told]:
                see(each, call.events[-1])
    for follow in evidence.follows.values():
        for message in follow.messages:
            for resource in message.resources:
                see(resource, message)
    return found


def _lacking(evidence: Evidence, follow: Follow, seen: _Known) -> Iterator[Violation]:
    """A snapshot shows the latest of each resource up to its revision, of those that match then."""
    snapshot = follow.snapshot()
    if not snapshot:
        return
    shown = {each["name"]: each["revision"] for message in snapshot for each in message.resources}
    latest: dict[str, tuple[int, Resource, Event]] = {}
    for (revision, name), (resource, event) in seen.items():
        if revision <= snapshot[-1].revision and revision >= latest.get(name, (0,))[0]:
            latest[name] = revision, resource, event
    for name, (revision, resource, event) in latest.items():
        if not name.startswith(f"{follow.begun.parent}/") or not matches(follow.begun.filter, resource):
            continue
        is_forgetful = snapshot[-1].at_s >= evidence.limits.ended_kept_s
        may_be_hidden = is_forgetful or bool(follow.begun.filter)  # by what it became since, unseen
        if (name in shown and shown[name] < revision) or (name not in shown and not may_be_hidden):
            text = f"{name} changed at {revision}, and the snapshot of {snapshot[-1].revision} lacks that"
            yield Violation("W7", text, (follow.begun, snapshot[-1], event))
