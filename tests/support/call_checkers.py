"""Checkers of calls: the store's promises, versions, operators and repeated requests."""

from collections import defaultdict
from collections.abc import Iterator

from support.evidence import AGENT_WRITES, READS, Call, Evidence, Violation, first, parent_of
from support.history import ADMIN_OPS, QUIET, AgentSeen, Failed, FinalState, Ok

_DECISION_WRITES = ("CreateDecision", "CastVote", "CloseDecision", "CancelDecision", "ResolveDecision")

_WRITES = (*AGENT_WRITES, *_DECISION_WRITES, "DeregisterAgent", "GrantLease", "RevokeLease")
"""Calls that take a revision of their own whenever they succeed for the first time."""

_REPEATABLE = ("RegisterAgent", "BatchRegisterAgents", "GrantLease", "CreateDecision")
"""Calls that take a request_id."""

_FORGETFUL = (
    "AGENT_ALREADY_EXISTS",
    "FENCE_STALE",
    "LEASE_NOT_FOUND",
    "AGENT_BANNED",
    "REQUEST_ID_REUSED",
    "NOT_OWNER",
)
"""Refusals of a request's content, which one that succeeded before never meets."""


def revisions_are_dense(evidence: Evidence) -> Iterator[Violation]:
    """S1: each write has a revision of its own, greater than all known before it began, and nothing else takes one.

    Votes on one decision that come together are one write.
    """
    yield from _quiet_is_counted(evidence)
    by_revision: dict[int, list[Call]] = defaultdict(list)
    for call in _first_answers(evidence):
        assert call.ok is not None
        by_revision[call.ok.revision].append(call)
    for revision, calls in by_revision.items():
        if len(calls) > 1 and not _are_votes_on_one_decision(calls):
            events = tuple(event for call in calls for event in call.events)
            yield Violation("S1", f"{len(calls)} writes share revision {revision}", events)


def _are_votes_on_one_decision(calls: list[Call]) -> bool:
    if any(call.invoke.op != "CastVote" for call in calls):
        return False
    return len({call.invoke.asked["decision"] for call in calls}) == 1


def _quiet_is_counted(evidence: Evidence) -> Iterator[Violation]:
    """Where nothing else goes on, from one read to the next come as many revisions as writes are answered with."""
    quiet_s = first(mark.at_s for mark in evidence.marks if mark.what == QUIET)
    read: Call | None = None
    between: list[Call] = []
    for call in evidence.calls.values():
        if call.invoke.at_s < quiet_s:
            continue
        if call.invoke.op not in READS:
            between.append(call)
        elif call.ok is not None:
            if read is not None and read.ok is not None and all(map(_is_decided, between)):
                before = read.ok.revision
                written = {each.ok.revision for each in between if each.ok is not None and each.ok.revision > before}
                if call.ok.revision != before + len(written):
                    events = tuple(event for each in (read, *between, call) for event in each.events)
                    text = f"{len(written)} writes led from {before} to {call.ok.revision}, and nothing else went on"
                    yield Violation("S1", text, events)
            read, between = call, []


def _is_decided(call: Call) -> bool:
    """Whether it is known what a call did."""
    return call.ok is not None or not call.may_have_happened


def _first_answers(evidence: Evidence) -> Iterator[Call]:
    """Successful writes, of each request_id the first alone."""
    seen: set[tuple[str, str]] = set()
    for call in evidence.of(*_WRITES):
        key = (call.invoke.op, call.invoke.request_id)
        if call.ok is None or key in seen:
            continue
        if call.invoke.request_id:
            seen.add(key)
        yield call


def acknowledged_survives(evidence: Evidence) -> Iterator[Violation]:
    """S2: whatever was acknowledged is in all later reads and in the final state, unless it was changed later."""
    yield from _reads_go_forward(evidence)
    yield from _reads_agree(evidence)
    for final in evidence.finals:
        states = {agent.name: agent for agent in final.agents}
        for call in evidence.of(*AGENT_WRITES, *ADMIN_OPS, "DeregisterAgent"):
            yield from _survives(evidence, call, final, states)


def _reads_go_forward(evidence: Evidence) -> Iterator[Violation]:
    """No answer is older than one that came before its call began."""
    ends = sorted((call.ok for call in evidence.calls.values() if call.ok is not None), key=lambda ok: ok.at_s)
    newest: Ok | None = None
    position = 0
    for call in sorted(evidence.of(*READS, *_WRITES), key=lambda call: call.invoke.at_s):
        while position < len(ends) and ends[position].at_s < call.invoke.at_s:
            newest = ends[position] if newest is None or ends[position].revision > newest.revision else newest
            position += 1
        if call.ok is None or newest is None or call.invoke.request_id:  # a repeated request has an old answer
            continue
        is_read = call.invoke.op in READS
        if call.ok.revision < newest.revision + (0 if is_read else 1):
            yield Violation(
                "S2" if is_read else "S1",
                f"{call.invoke.op} was answered at revision {call.ok.revision}, after {newest.revision} was known",
                (newest, *call.events),
            )


def _reads_agree(evidence: Evidence) -> Iterator[Violation]:
    """An agent at one revision is the same to all who see it."""
    seen: dict[tuple[str, int], tuple[AgentSeen, object]] = {}
    for agent, event in evidence.agents():
        if not agent.revision or (getattr(event, "step", "") == "events" and _is_gone(agent, event)):
            continue
        known, where = seen.setdefault((agent.name, agent.revision), (agent, event))
        if known.digest != agent.digest:
            yield Violation(
                "S2",
                f"{agent.name} at revision {agent.revision} is not what it was before",
                (where, event),  # type: ignore[arg-type]
            )


def _is_gone(agent: AgentSeen, message: object) -> bool:
    """Whether a message tells this agent's removal, which has a revision but no state."""
    return any(change.type == "DELETED" and change.agent is agent for change in message.changes)  # type: ignore[attr-defined]


def _survives(evidence: Evidence, call: Call, final: FinalState, states: dict[str, AgentSeen]) -> Iterator[Violation]:
    ok = call.ok
    if ok is None or ok.at_s > final.at_s:
        return
    if ok.revision > final.revision:
        yield Violation("S2", f"revision {ok.revision} was acknowledged; the last is {final.revision}", call.events)
        return
    for name in call.invoke.about:
        if parent_of(name) != final.parent:
            continue
        now = states.get(name)
        if call.invoke.op == "DeregisterAgent":
            if now is not None and now.revision < ok.revision:
                yield Violation("S2", f"{name} was deregistered at {ok.revision}, and is there", (*call.events, final))
        elif now is None:
            if any(agent.uid for agent in ok.agents) and not _may_be_gone(evidence, name, ok, final):
                yield Violation("S2", f"{name} was written at {ok.revision}, and is gone", (*call.events, final))
        elif now.revision < ok.revision:
            yield Violation("S2", f"{name} is as it was before it was written at {ok.revision}", (*call.events, final))


def _may_be_gone(evidence: Evidence, name: str, ok: Ok, final: FinalState) -> bool:
    """Whether something explains that an agent written once is not there."""
    if final.at_s - ok.at_s >= evidence.limits.expired_kept_s:
        return True
    told = (revision for revision, change in evidence.changes(name).items() if change.type == "DELETED")
    asked = (
        call
        for call in evidence.about[name]
        if call.invoke.op == "DeregisterAgent"
        and call.may_have_happened
        and (call.ok is None or call.ok.revision > ok.revision)
    )
    return any(revision > ok.revision for revision in told) or any(asked)


def whole_or_not_at_all(evidence: Evidence) -> Iterator[Violation]:
    """S3: what surely failed is never seen, and a batch is seen whole at one revision or not at all."""
    tags: dict[str, list[Call]] = defaultdict(list)
    for call in evidence.of(*AGENT_WRITES):
        if call.invoke.tag:
            tags[call.invoke.tag].append(call)
    failed = {tag for tag, calls in tags.items() if not any(call.may_have_happened for call in calls)}
    for agent, event in evidence.agents():
        if agent.tag in failed:
            events = tuple(each for call in tags[agent.tag] for each in call.events)
            yield Violation("S3", f"{agent.name} has what a write brought that surely failed", (*events, event))
    yield from _batches_are_whole(evidence)


def _batches_are_whole(evidence: Evidence) -> Iterator[Violation]:
    batches = {call.invoke.tag: call for call in evidence.of("BatchRegisterAgents") if call.invoke.tag}
    for watch in evidence.watches.values():
        if not watch.is_unfiltered:
            continue
        for message in watch.steps():
            added: dict[str, set[str]] = defaultdict(set)
            for change in message.changes:
                if change.type == "ADDED":
                    added[change.agent.tag].add(change.agent.name)
            for tag, names in added.items():
                if tag in batches and names != set(batches[tag].invoke.about):
                    missing = sorted(set(batches[tag].invoke.about) - names)
                    yield Violation("S3", f"a batch came without {missing}", (*batches[tag].events, message))
    for call in batches.values():
        if call.ok is not None and len({agent.revision for agent in call.ok.agents}) > 1:
            yield Violation("S3", "a batch has several revisions", call.events)


def etags_hold(evidence: Evidence) -> Iterator[Violation]:
    """etag: a write under the condition of a version never follows another one."""
    used: dict[tuple[str, str], Call] = {}
    for call in evidence.of("UpdateAgent", "DeregisterAgent"):
        if call.ok is None or not call.invoke.etag:
            continue
        name, etag = call.invoke.about[0], call.invoke.etag
        earlier = used.setdefault((name, etag), call)
        if earlier is not call:
            message = f"two writes to {name} succeeded under etag {etag!r}"
            yield Violation("etag", message, (*earlier.events, *call.events))
            continue
        change = evidence.changes(name).get(call.ok.revision)
        if change is not None and change.previous is not None and change.previous.etag != etag:
            message = f"{name} was written under etag {etag!r} when it had {change.previous.etag!r}"
            yield Violation("etag", message, call.events)


def operators_are_obeyed(evidence: Evidence) -> Iterator[Violation]:
    """admin: what an operator decided about an agent stays until an operator decides otherwise."""
    for name, calls in evidence.about.items():
        rulings = [call for call in calls if call.invoke.op in ADMIN_OPS and call.may_have_happened]
        registrations = [
            call for call in calls if call.invoke.op in ("RegisterAgent", "BatchRegisterAgents") and call.ok is not None
        ]
        if rulings:
            for call in registrations:
                yield from _obeys(evidence, name, call, rulings)
    yield from _only_operators_decide(evidence)


def _obeys(evidence: Evidence, name: str, call: Call, rulings: list[Call]) -> Iterator[Violation]:
    """A registration has the state that the last ruling before it left, if that is known."""
    ok = call.ok
    assert ok is not None
    done = [ruling for ruling in rulings if ruling.ok is not None and ruling.ok.at_s < evidence.begun_s(call)]
    last = max(done, key=lambda ruling: ruling.invoke.at_s, default=None)
    if last is None or last.ok is None or ok.revision <= last.ok.revision:
        return
    others = (
        other
        for other in rulings
        if other is not last and (other.ok is None or other.ok.at_s > last.invoke.at_s) and other.invoke.at_s < ok.at_s
    )
    now = next((agent for agent in ok.agents if agent.name == name), None)
    left = last.ok.agents[0].admin_state
    allowed = {left, "DRAINED"} if left == "DRAINING" else {left}
    if now is not None and now.admin_state not in allowed and not any(others):
        message = f"{name} came back {now.admin_state} after an operator left it {left}"
        yield Violation("admin", message, (*last.events, *call.events))


def _only_operators_decide(evidence: Evidence) -> Iterator[Violation]:
    """A change of admin state that watches tell is one that somebody asked for."""
    for revisions in evidence.log.values():
        for told in revisions.values():
            for change, message in told.values():
                before, after = change.previous, change.agent
                if change.type == "ADDED" or before is None or before.admin_state == after.admin_state:
                    continue
                is_drained = (before.admin_state, after.admin_state) == ("DRAINING", "DRAINED")
                asked = (
                    call
                    for call in evidence.about[after.name]
                    if call.invoke.op in ADMIN_OPS and call.may_have_happened and call.invoke.at_s <= message.at_s
                )
                if not is_drained and not any(asked):
                    yield Violation("admin", f"nobody made {after.name} {after.admin_state}", (message,))


def repeats_are_answered_alike(evidence: Evidence) -> Iterator[Violation]:
    """request_id: the same request has the same answer, however often it is made, and other content has none."""
    answered: dict[tuple[str, str], Call] = {}
    for call in evidence.of(*_REPEATABLE):
        if not call.invoke.request_id:
            continue
        key = (call.invoke.op, call.invoke.request_id)
        earlier = answered.get(key)
        if earlier is None or earlier.ok is None:
            if call.ok is not None:
                answered[key] = call
            continue
        if call.invoke.at_s - evidence.begun_s(call) >= evidence.limits.requests_kept_s:
            continue
        yield from _is_alike(earlier, call)


def _is_alike(earlier: Call, call: Call) -> Iterator[Violation]:
    events = (*earlier.events, *call.events)
    assert earlier.ok is not None
    if earlier.invoke.content != call.invoke.content:
        if call.ok is not None:
            yield Violation("request_id", "the id of another request was accepted", events)
    elif call.ok is not None:
        if _told(call.ok) != _told(earlier.ok):
            yield Violation("request_id", "a repeated request had another answer", events)
    elif isinstance(call.end, Failed) and call.end.reason in _FORGETFUL and earlier.ok.at_s < call.invoke.at_s:
        yield Violation("request_id", f"a request that succeeded was refused when repeated: {call.end.reason}", events)


def _told(ok: Ok) -> object:
    """What of an answer stays the same."""
    return ok.revision, [(agent.name, agent.uid, agent.fence) for agent in ok.agents], ok.leases, ok.told
