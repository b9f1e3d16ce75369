"""Checkers of watches: what is told, in which order, and that nothing is left out."""

import functools
import operator
from collections.abc import Callable, Iterator

from support.evidence import Evidence, Violation, Watch, parent_of, take_in
from support.history import AgentChange, AgentSeen, Event, WatchEnded, WatchMessage


def matches(only: str, agent: AgentSeen) -> bool:
    """Whether an agent is what a simple filter wants: `FIELD = "VALUE"` or `FIELD = ENUM`, joined by AND.

    Knows `labels.KEY`, `liveness`, `admin_state` and `lease`; independent of the product's own filters.
    """
    return all(_holds(each.strip(), agent) for each in only.split(" AND ")) if only else True


def _holds(comparison: str, agent: AgentSeen) -> bool:
    name, _, value = (part.strip() for part in comparison.partition("="))
    value = value.strip('"')
    if name.startswith("labels."):
        return agent.labels.get(name.removeprefix("labels.")) == value
    return str(getattr(agent, name)) == value.rsplit("STATE_", 1)[-1].rsplit("LIVENESS_", 1)[-1]


def _is_there(only: str, agent: AgentSeen) -> bool:
    """Whether an agent is part of a snapshot: EXPIRED ones are left out unless the filter names `liveness`."""
    return matches(only, agent) and (agent.liveness == "LIVE" or "liveness" in only)


def _is_wanted(only: str, change: AgentChange) -> bool:
    return matches(only, change.agent) or (change.previous is not None and matches(only, change.previous))


def only_what_the_filter_says(evidence: Evidence) -> Iterator[Violation]:
    """W1: each event is about an agent that the filter wants, before or after, and says which; in a snapshot, now."""
    for watch in evidence.watches.values():
        only = watch.begun.filter
        for message in watch.snapshot():
            for change in message.changes:
                if change.type != "ADDED" or not _is_there(only, change.agent):
                    text = f"a snapshot for {only!r} has {change.agent.name}, {change.type} and {change.agent.liveness}"
                    yield Violation("W1", text, (watch.begun, message))
        for message in watch.messages:
            for change in message.changes:
                if not change.agent.name.startswith(watch.begun.parent + "/"):
                    text = f"{change.agent.name} is not in {watch.begun.parent}"
                    yield Violation("W1", text, (watch.begun, message))
                elif not _is_told_right(only, change):
                    text = f"{change.agent.name} was told {change.type}, which is not how {only!r} sees it"
                    yield Violation("W1", text, (watch.begun, message))


def _is_told_right(only: str, change: AgentChange) -> bool:
    """Whether an event says what it is to a filter: who ceases to match is DELETED, who begins to is ADDED.

    Where another incarnation took the place of one that matched, the one that went is told, and no previous.
    """
    before = change.previous
    matched = before is not None and matches(only, before)
    if change.type == "ADDED":
        return before is None and matches(only, change.agent)
    if change.type == "DELETED":
        return matched if before is not None else bool(only) and matches(only, change.agent)
    return matched and matches(only, change.agent)


def in_order_and_once(evidence: Evidence) -> Iterator[Violation]:
    """W2, W3, W4 and W5: revisions are told in order, once, whole, and never after a progress that covers them."""
    for watch in evidence.watches.values():
        last = evidence.watches.get(watch.begun.resumes)
        told = last.messages[-1] if last is not None and last.messages else None
        for message in watch.steps():
            if told is not None and message.revision <= told.revision and message.step == "events":
                yield _repeated(watch, told, message)
            elif told is not None and message.revision < told.revision:
                yield Violation("W2", f"progress {message.revision} after {told.revision}", (told, message))
            elif message.revision < watch.begun.start_revision - 1 or (
                message.step == "events" and message.revision < watch.begun.start_revision
            ):
                yield Violation("W2", f"revision {message.revision} is before the start", (watch.begun, message))
            told = message


def _repeated(watch: Watch, told: WatchMessage, message: WatchMessage) -> Violation:
    """What it means that a revision comes that is not after the last."""
    evidence: tuple[Event, ...] = (watch.begun, told, message)
    if told.step == "progress":
        return Violation("W5", f"revision {message.revision} after progress {told.revision}", evidence)
    if message.revision < told.revision:
        return Violation("W2", f"revision {message.revision} after {told.revision}", evidence)
    names = {change.agent.name for change in told.changes} & {change.agent.name for change in message.changes}
    if names:
        return Violation("W3", f"revision {message.revision} told {sorted(names)} twice", evidence)
    return Violation("W4", f"revision {message.revision} came in two messages", evidence)


def resumable(evidence: Evidence) -> Iterator[Violation]:
    """W6: a watch goes on from any revision that has not been compacted."""
    for watch in evidence.watches.values():
        begun = watch.begun
        for message in watch.messages:
            is_refused = message.step == "reset" and message.reset_reason == "COMPACTED"
            if is_refused and begun.start_revision >= message.compact_revision:
                text = f"{begun.start_revision} was refused, but {message.compact_revision} is there"
                yield Violation("W6", text, (begun, message))
            if message.step == "reset":
                needed = begun.start_revision if is_refused else watch.last_revision + 1
                yield from _is_kept(evidence, watch, needed, message)
        if watch.ended is not None and watch.ended.reason == "REVISION_COMPACTED":
            yield from _is_kept(evidence, watch, begun.start_revision, watch.ended)
        if begun.resumes and watch.ended is not None and watch.ended.reason == "REVISION_FUTURE":
            earlier = evidence.watches[begun.resumes].messages[-1:]
            yield Violation("W6", f"{begun.start_revision} has been seen, and is the future", (*earlier, watch.ended))


def _is_kept(evidence: Evidence, watch: Watch, needed: int, refusal: WatchMessage | WatchEnded) -> Iterator[Violation]:
    """What is said to be compacted is what need not be kept any more, whatever the server says is left."""
    newest = evidence.known_after(refusal.at_s)
    if newest is not None and needed > newest - evidence.limits.retain_revisions:
        text = f"{needed} was refused, and {newest} is no more than {evidence.limits.retain_revisions} later"
        yield Violation("W6", text, (watch.begun, refusal))


def no_holes(evidence: Evidence) -> Iterator[Violation]:
    """W7: between the first and the last revision told, nothing is left out that anyone knows of."""
    acknowledged = _acknowledged(evidence)
    for watch in evidence.watches.values():
        if watch.first_revision is None:
            continue
        told = {(message.revision, change.agent.name) for message in watch.steps() for change in message.changes}
        yield from _missed_by(watch, told, _told_to_others(evidence, watch))
        yield from _missed_by(watch, told, acknowledged)
        yield from _breaks(evidence, watch)
        yield from _ends_unlike(evidence, watch)


_Known = dict[tuple[int, str], tuple[Callable[[str], bool], Event]]
"""What happened, by revision and agent: whether a filter wants it, and who says so."""


def _acknowledged(evidence: Evidence) -> _Known:
    """An agent seen at a revision changed there, whoever saw it; who asks for all hears of who was deregistered."""
    known: _Known = {}
    for call in evidence.calls.values():
        for agent in call.ok.agents if call.ok is not None else ():
            if agent.uid:
                known[agent.revision, agent.name] = functools.partial(matches, agent=agent), call.events[-1]
    for call in evidence.of("DeregisterAgent"):
        if call.ok is not None:
            known[call.ok.revision, call.invoke.about[0]] = operator.not_, call.ok
    return known


def _told_to_others(evidence: Evidence, watch: Watch) -> _Known:
    known: _Known = {}
    for revision, changes in evidence.log.get(watch.begun.parent, {}).items():
        for name, (change, message) in changes.items():
            if message.watch != watch.begun.watch:
                known[revision, name] = functools.partial(_is_wanted, change=change), message
    return known


def _missed_by(watch: Watch, told: set[tuple[int, str]], known: _Known) -> Iterator[Violation]:
    first, last = watch.first_revision or 0, watch.last_revision
    for (revision, name), (is_wanted, event) in known.items():
        is_due = first <= revision <= last and parent_of(name) == watch.begun.parent
        if is_due and (revision, name) not in told and is_wanted(watch.begun.filter):
            text = f"{name} changed at {revision}, and a watch from {first} to {last} was not told"
            yield Violation("W7", text, (watch.begun, event))


def _breaks(evidence: Evidence, watch: Watch) -> Iterator[Violation]:
    """Events of one agent follow each other: each says what was before, and the first that it is there."""
    states, is_whole = evidence.known_at_start(watch), evidence.is_whole(watch)
    for message in watch.steps():
        for change in message.changes:
            name, before = change.agent.name, change.previous
            known = states.get(name)
            if known is not None and before is not None and before.revision != known.revision:
                text = f"{name} was told at {known.revision}, then changed from {before.revision}"
                yield Violation("W7", text, (watch.begun, message))
            if known is None and is_whole and before is not None and _is_there(watch.begun.filter, before):
                yield Violation(
                    "W7", f"{name} was told {change.type}, and never that it is there", (watch.begun, message)
                )
            if known is not None and change.type == "ADDED" and change.agent.uid == known.uid:
                yield Violation("W7", f"{name} was told ADDED, and has been there", (watch.begun, message))
        take_in(states, message)


def _ends_unlike(evidence: Evidence, watch: Watch) -> Iterator[Violation]:
    """Who has been told everything knows those agents of the final state that it asks for, and no others."""
    only = watch.begun.filter
    for final in evidence.finals:
        begins = (watch.first_revision or 0) - 1
        if final.parent != watch.begun.parent or not begins <= final.revision <= watch.last_revision:
            continue
        if not evidence.is_whole(watch):
            continue
        states = evidence.known_at_start(watch)
        for message in watch.steps():
            if message.revision <= final.revision:
                take_in(states, message)
        told = {name: agent.digest for name, agent in states.items() if _is_there(only, agent)}
        there = {agent.name: agent.digest for agent in final.agents if _is_there(only, agent)}
        if told != there:
            names = sorted(name for name, _ in told.items() ^ there.items())
            yield Violation("W7", f"a watch and the final state differ in {names}", (watch.begun, final))
