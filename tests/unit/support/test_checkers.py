"""Checkers: each objects to a history that breaks its invariant, and to nothing in the twin that keeps it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from support import decision_stories, lock_stories
from support.checkers import INVARIANTS, check, report
from support.evidence import Limits
from support.history import (
    QUIET,
    AgentChange,
    AgentSeen,
    Event,
    Failed,
    FinalState,
    Invoke,
    KeepAnswered,
    KeepSent,
    LeaseSeen,
    Ok,
    ServerMark,
    WatchBegun,
    WatchEnded,
    WatchMessage,
)
from support.watch_checkers import matches

PARENT = "namespaces/n"
LEASE = f"{PARENT}/leases/l"


def agent(revision: int, agent_id: str = "a", **fields: object) -> AgentSeen:
    """An agent of one incarnation, last changed at a revision."""
    name = f"{PARENT}/agents/{agent_id}"
    seen = AgentSeen(name, uid=f"uid-{agent_id}", fence=1, revision=revision, etag=f"{revision:x}", lease=LEASE)
    seen = replace(seen, digest=f"{agent_id}@{revision}")
    return replace(seen, **fields)  # type: ignore[arg-type]


def born(revision: int, agent_id: str = "a", **fields: object) -> AgentSeen:
    """An agent whose incarnation begins at a revision."""
    return agent(revision, agent_id, **{"uid": f"uid{revision}-{agent_id}", "fence": revision, **fields})


class Story:
    """A history told line by line; a second passes with each event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._ids = 0

    @property
    def now_s(self) -> float:
        return float(len(self.events))

    def new_id(self) -> int:
        self._ids += 1
        return self._ids

    def begins(self, op: str, *about: AgentSeen, **facts: object) -> int:
        """A call begins."""
        call, names = self.new_id(), tuple(each.name for each in about)
        self.events.append(Invoke(self.now_s, "c", call, op, names, **facts))  # type: ignore[arg-type]
        return call

    def ends(self, call: int, revision: int, *agents: AgentSeen, leases: tuple[LeaseSeen, ...] = ()) -> None:
        """It succeeds."""
        self.events.append(Ok(self.now_s, "c", call, revision, agents, leases))

    def ok(self, op: str, *agents: AgentSeen, **facts: object) -> None:
        """A call succeeds, and answers agents."""
        self.ends(self.begins(op, *agents, **facts), agents[0].revision, *agents)

    def gone(self, revision: int, gone: AgentSeen) -> None:
        """A deregistration succeeds."""
        self.ends(self.begins("DeregisterAgent", gone), revision)

    def fails(self, op: str, *about: AgentSeen, reason: str = "X", is_definite: bool = True, **facts: object) -> None:
        """A call fails."""
        call = self.begins(op, *about, **facts)
        self.events.append(Failed(self.now_s, "c", call, reason, is_definite))

    def grant(self, fence: int, lease: str = LEASE, ttl_s: float = 10.0, request_id: str = "") -> None:
        """GrantLease succeeds."""
        call = self.begins("GrantLease", request_id=request_id)
        self.ends(call, fence, leases=(LeaseSeen(lease, ttl_s, fence),))

    def shows(self, revision: int, *leases: LeaseSeen) -> None:
        """ListLeases succeeds."""
        self.ends(self.begins("ListLeases"), revision, leases=leases)

    def keep(self, reason: str = "", fence: int = 1, ttl_s: float = 10.0) -> None:
        """A keepalive is answered."""
        call = self.new_id()
        self.events.append(KeepSent(self.now_s, "c", call, LEASE))
        self.events.append(KeepAnswered(self.now_s, "c", call, LEASE, ttl_s, fence, "CONTINUE", reason))

    def watch(self, start_revision: int = 1, resumes: int = 0, only: str = "") -> int:
        """A watch begins."""
        watch = self.new_id()
        self.events.append(WatchBegun(self.now_s, "w", watch, PARENT, only, start_revision, resumes))
        return watch

    def told(self, watch: int, revision: int, *changes: AgentChange) -> None:
        """A message of events."""
        self.events.append(WatchMessage(self.now_s, "w", watch, revision, "events", changes))

    def snapshot(self, watch: int, revision: int, *agents: AgentSeen) -> None:
        """The snapshot that opens a watch, in one message."""
        changes = tuple(added(each) for each in agents)
        self.events.append(WatchMessage(self.now_s, "w", watch, revision, "events", changes, is_snapshot_end=True))

    def progress(self, watch: int, revision: int) -> None:
        """A message of progress."""
        self.events.append(WatchMessage(self.now_s, "w", watch, revision, "progress"))

    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.events += [ServerMark(self.now_s + each, "server", "nothing") for each in range(seconds)]

    def final(self, revision: int, *agents: AgentSeen) -> None:
        """What is there at the end."""
        self.events.append(FinalState(self.now_s, "c", PARENT, revision, agents))


def added(now: AgentSeen) -> AgentChange:
    return AgentChange("ADDED", now)


def changed(before: AgentSeen, now: AgentSeen, kind: str = "MODIFIED") -> AgentChange:
    return AgentChange(kind, now, before)


def expired(before: AgentSeen, revision: int) -> AgentChange:
    agent_id = before.name.rsplit("/", 1)[1]
    now = replace(before, revision=revision, liveness="EXPIRED", etag=f"{revision:x}", digest=f"{agent_id}@{revision}")
    return AgentChange("EXPIRED", now, before)


# Each story is told twice: as it should be, and, with `bad`, as it must not be.


def revisions_of_their_own(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("UpdateAgent", agent(5 if bad else 6, "b"))


def revisions_that_grow(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("UpdateAgent", agent(4 if bad else 6, "b"))


def one_revision_for_a_write(story: Story, *, bad: bool) -> None:
    story.events.append(ServerMark(story.now_s, "c", QUIET))
    story.ends(story.begins("ListAgents"), 5)
    story.ok("UpdateAgent", agent(7 if bad else 6))
    story.ends(story.begins("ListAgents"), 7 if bad else 6)


def no_revision_for_a_refusal(story: Story, *, bad: bool) -> None:
    story.events.append(ServerMark(story.now_s, "c", QUIET))
    story.ends(story.begins("ListAgents"), 5)
    story.fails("UpdateAgent", agent(5), is_definite=bad)
    story.ends(story.begins("ListAgents"), 6)


def no_revision_for_a_repeated_request(story: Story, *, bad: bool) -> None:
    story.grant(5, request_id="r")
    story.events.append(ServerMark(story.now_s, "c", QUIET))
    story.ends(story.begins("ListAgents"), 5)
    story.grant(5, request_id="r")
    story.ends(story.begins("ListAgents"), 6 if bad else 5)


def written_and_there(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.ok("UpdateAgent", replace(born(5), revision=6, digest="six"))
    story.final(7, born(5) if bad else replace(born(5), revision=6, digest="six"))


def written_and_not_gone(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    if not bad:
        story.fails("DeregisterAgent", born(5), is_definite=False)
    story.final(7)


def deregistered_and_gone(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.gone(6, born(5))
    story.final(7, *([born(5)] if bad else []))


def acknowledged_before_the_end(story: Story, *, bad: bool) -> None:
    story.gone(6, agent(1))
    story.final(5 if bad else 6)


def read_as_written(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("GetAgent", agent(5, digest="other") if bad else agent(5))


def read_what_is_new(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ends(story.begins("ListAgents"), 4 if bad else 5)


def failed_and_never_seen(story: Story, *, bad: bool) -> None:
    story.fails("RegisterAgent", agent(5), is_definite=bad, tag="t1")
    story.final(5, agent(5, labels={"op": "t1"}))


def whole_batches(story: Story, *, bad: bool) -> None:
    a, b = born(5, labels={"op": "t1"}), born(5, "b", labels={"op": "t1"})
    story.fails("BatchRegisterAgents", a, b, is_definite=False, tag="t1")
    story.told(story.watch(), 5, *([added(a)] if bad else [added(a), added(b)]))


def batches_of_one_revision(story: Story, *, bad: bool) -> None:
    story.ok("BatchRegisterAgents", born(5), born(6 if bad else 5, "b"), tag="t1")


def filtered(story: Story, *, bad: bool) -> None:
    watch = story.watch(only=RED)
    story.told(watch, 5, added(red(5)))
    story.told(watch, 6, changed(blue(5) if bad else red(5), blue(6), "DELETED"))


RED = 'labels.team = "red"'


def red(revision: int) -> AgentSeen:
    return agent(revision, labels={"team": "red"})


def blue(revision: int) -> AgentSeen:
    return agent(revision, labels={"team": "blue"})


def added_to_a_filter(story: Story, *, bad: bool) -> None:
    story.told(story.watch(only=RED), 6, changed(blue(5), red(6)) if bad else added(red(6)))


def deleted_from_a_filter(story: Story, *, bad: bool) -> None:
    story.told(story.watch(only=RED), 6, changed(red(5), blue(6), "MODIFIED" if bad else "DELETED"))


def expired_in_a_filter(story: Story, *, bad: bool) -> None:
    story.told(story.watch(only=RED), 6, expired(blue(5) if bad else red(5), 6))


def a_snapshot_of_a_filter(story: Story, *, bad: bool) -> None:
    story.snapshot(story.watch(0, only=RED), 6, blue(5) if bad else red(5))


def a_snapshot_of_the_living(story: Story, *, bad: bool) -> None:
    story.snapshot(story.watch(0), 6, agent(5, liveness="EXPIRED" if bad else "LIVE"))


def there_before_it_changes(story: Story, *, bad: bool) -> None:
    watch = story.watch(0, only=RED)
    story.snapshot(watch, 5, *([] if bad else [red(5)]))
    story.told(watch, 6, changed(red(5), red(6)))


def added_once(story: Story, *, bad: bool) -> None:
    watch = story.watch(0, only=RED)
    story.snapshot(watch, 5, red(5))
    story.told(watch, 6, added(red(6)) if bad else changed(red(5), red(6)))


def told_to_a_filter_to_the_end(story: Story, *, bad: bool) -> None:
    watch, other = story.watch(0, only=RED), agent(4, "b", labels={"team": "blue"})
    story.snapshot(watch, 5, *([] if bad else [red(5)]))
    story.progress(watch, 7)
    story.final(6, red(5), other)


def in_order(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 6, added(agent(6)))
    story.told(watch, 5 if bad else 7, added(agent(5 if bad else 7, "b")))


def once(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 6, added(agent(6)))
    again = story.watch(7, resumes=watch)
    story.told(again, 6 if bad else 7, added(agent(6)) if bad else changed(agent(6), agent(7)))


def whole_revisions(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    if bad:
        story.told(watch, 6, added(agent(6)))
        story.told(watch, 6, added(agent(6, "b")))
    else:
        story.told(watch, 6, added(agent(6)), added(agent(6, "b")))


def nothing_after_progress(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.progress(watch, 6)
    story.told(watch, 6 if bad else 7, added(agent(6 if bad else 7)))


def resumed(story: Story, *, bad: bool) -> None:
    watch = story.watch(6)
    compacted = 5 if bad else 9
    story.events.append(
        WatchMessage(
            story.now_s, "w", watch, compacted - 1, "reset", (), reset_reason="COMPACTED", compact_revision=compacted
        )
    )


def never_the_future(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 6, added(agent(6)))
    again = story.watch(7, resumes=watch)
    story.events.append(WatchEnded(story.now_s, "w", again, "REVISION_FUTURE" if bad else "LOST"))


def told_to_all(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.ok("RegisterAgent", born(6, "b"))
    watch = story.watch()
    if not bad:
        story.told(watch, 5, added(born(5)))
    story.told(watch, 6, added(born(6, "b")))


def told_of_the_deregistered(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(born(5)))
    story.gone(6, born(5))
    if not bad:
        story.told(watch, 6, AgentChange("DELETED", born(5), born(5)))
    story.progress(watch, 7)


def told_of_rulings(story: Story, *, bad: bool) -> None:
    watch, cordoned = story.watch(6), agent(6, admin_state="CORDONED")
    story.ok("CordonAgent", cordoned)
    if not bad:
        story.told(watch, 6, changed(agent(5), cordoned))
    story.progress(watch, 7)


def told_of_what_is_read(story: Story, *, bad: bool) -> None:
    watch = story.watch(6, only=RED)
    story.ends(story.begins("GetAgent", red(6)), 7, red(6))
    if not bad:
        story.told(watch, 6, changed(red(5), red(6)))
    story.progress(watch, 7)


def told_as_to_others(story: Story, *, bad: bool) -> None:
    one, other = story.watch(), story.watch()
    story.told(one, 5, added(born(5)))
    if not bad:
        story.told(other, 5, added(born(5)))
    story.progress(other, 6)


def unbroken(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(born(5)))
    before = replace(born(5), revision=6 if bad else 5, digest="six" if bad else "a@5")
    story.told(watch, 7, changed(before, replace(born(5), revision=7, digest="seven")))


def told_to_the_end(story: Story, *, bad: bool) -> None:
    watch = story.watch(0)
    story.snapshot(watch, 4)
    story.told(watch, 5, added(born(5)))
    story.progress(watch, 7)
    story.final(6, *([born(5), born(6, "b")] if bad else [born(5)]))


def not_early(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(agent(5)))
    story.keep()
    story.wait(1 if bad else 10)
    story.told(watch, 9, expired(agent(5), 9))


def not_early_after_the_grant(story: Story, *, bad: bool) -> None:
    story.grant(1)
    story.wait(1 if bad else 10)
    story.told(story.watch(9), 9, expired(agent(5), 9))


def not_early_after_the_registration(story: Story, *, bad: bool) -> None:
    a, b = born(5, lease="l1"), born(5, "b", lease="l2")
    story.ok("BatchRegisterAgents", a, b, ttls_s=(2.0, 10.0))
    story.wait(4 if bad else 10)
    story.told(story.watch(9), 9, expired(b, 9))


def revoked_before_its_time(story: Story, *, bad: bool) -> None:
    story.keep()
    if not bad:
        story.fails("RevokeLease", is_definite=False, lease=LEASE)
    story.told(story.watch(9), 9, expired(agent(5), 9))


def gone_in_time(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(12 if bad else 9)
    story.ok("GetAgent", agent(5))


def gone_in_time_by_the_leases(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(12 if bad else 9)
    story.shows(5, LeaseSeen(LEASE, 10, 1))


def gone_in_time_by_its_revision(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(agent(5)))
    story.keep()
    story.wait(12)
    story.ends(story.begins("ListAgents"), 8 if bad else 9)
    story.told(watch, 9, expired(agent(5), 9))


def gone_in_time_though_asked_for(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(10)
    story.keep(reason="LEASE_NOT_FOUND" if bad else "NO_ANSWER")
    story.wait(4)
    story.ok("GetAgent", agent(5))


def gone_in_time_after_the_first_answer(story: Story, *, bad: bool) -> None:
    story.grant(5, request_id="r")
    story.wait(10)
    if bad:
        story.grant(5, request_id="r")
    else:
        story.keep(fence=5)
    story.wait(4)
    story.ok("GetAgent", agent(6))


def gone_in_time_while_another_begins(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(9)
    if not bad:
        story.events.append(ServerMark(story.now_s, "s", "paused"))
    story.events.append(ServerMark(story.now_s, "s", "killed" if not bad else "serving"))
    story.events.append(ServerMark(story.now_s, "s", "serving"))
    story.wait(4)
    story.ok("GetAgent", agent(5))


def gone_in_time_after_a_pause_that_a_kill_ends(story: Story, *, bad: bool) -> None:
    story.keep()
    story.events += [
        ServerMark(story.now_s + each, "s", what) for each, what in enumerate(("paused", "killed", "serving"))
    ]
    story.wait(12 if bad else 8)
    story.ok("GetAgent", agent(5))


def gone_in_time_after_a_restart(story: Story, *, bad: bool) -> None:
    story.keep()
    story.events += [ServerMark(story.now_s, "s", "killed"), ServerMark(story.now_s + 5, "s", "serving")]
    story.wait(20 if bad else 12)
    story.ok("GetAgent", agent(5))


def all_at_once(story: Story, *, bad: bool) -> None:
    watch, a, b = story.watch(), agent(5), agent(6, "b")
    story.told(watch, 5, added(a))
    story.told(watch, 6, added(b))
    story.told(watch, 9, *([expired(a, 9)] if bad else [expired(a, 9), expired(b, 9)]))


def all_at_once_after_a_resume(story: Story, *, bad: bool) -> None:
    watch, a, b = story.watch(), agent(5), agent(6, "b")
    story.told(watch, 5, added(a))
    story.told(watch, 6, added(b))
    again = story.watch(7, resumes=watch)
    story.told(again, 9, *([expired(a, 9)] if bad else [expired(a, 9), expired(b, 9)]))


def all_at_once_after_a_snapshot(story: Story, *, bad: bool) -> None:
    watch, a, b = story.watch(0), agent(5), agent(6, "b")
    story.snapshot(watch, 6, a, b)
    story.told(watch, 9, *([expired(a, 9)] if bad else [expired(a, 9), expired(b, 9)]))


def nothing_shown_after_its_end(story: Story, *, bad: bool) -> None:
    story.told(story.watch(9), 9, expired(agent(5), 9))
    story.shows(9 if bad else 8, LeaseSeen(LEASE, 10, 1))


def nobody_shown_after_its_end(story: Story, *, bad: bool) -> None:
    story.ends(story.begins("RevokeLease", lease=LEASE), 9)
    story.ends(story.begins("GetAgent", agent(5)), 9, agent(9, liveness="LIVE" if bad else "EXPIRED"))


def granted_and_kept(story: Story, *, bad: bool) -> None:
    story.grant(5)
    story.events += [ServerMark(story.now_s, "s", "killed"), ServerMark(story.now_s + 1, "s", "serving")]
    story.wait(0 if bad else 10)
    story.keep(reason="LEASE_NOT_FOUND")


def granted_and_there(story: Story, *, bad: bool) -> None:
    story.grant(5)
    if not bad:
        story.fails("RevokeLease", is_definite=False, lease=LEASE)
    story.fails("GetLease", reason="LEASE_NOT_FOUND", lease=LEASE)


def granted_to_a_registration_and_there(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), ttls_s=(10.0,))
    if not bad:
        story.fails("DeregisterAgent", born(5), is_definite=False)
    story.fails("GetLease", reason="LEASE_NOT_FOUND", lease=LEASE)


def kept_and_there(story: Story, *, bad: bool) -> None:
    story.keep()
    story.wait(0 if bad else 10)
    story.keep(reason="LEASE_NOT_FOUND")


def not_kept_after_its_end(story: Story, *, bad: bool) -> None:
    call = story.begins("RevokeLease", lease=LEASE)
    story.ends(call, 5)
    story.keep(reason="" if bad else "LEASE_NOT_FOUND")


def not_kept_after_it_expired(story: Story, *, bad: bool) -> None:
    story.told(story.watch(), 9, expired(agent(5), 9))
    story.keep(reason="" if bad else "LEASE_NOT_FOUND")


def greater_fences(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5))
    story.ok("RegisterAgent", born(6, fence=5 if bad else 6))


def greater_fences_in_watches(story: Story, *, bad: bool) -> None:
    watch = story.watch()
    story.told(watch, 5, added(born(5)))
    story.told(watch, 6, added(born(6, fence=4 if bad else 6)))


def one_fence_for_an_incarnation(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5))
    story.ok("UpdateAgent", agent(6, fence=2 if bad else 1))


def leases_with_fences_of_their_own(story: Story, *, bad: bool) -> None:
    story.grant(5)
    story.keep(fence=4 if bad else 5)


def leases_shown_with_their_fences(story: Story, *, bad: bool) -> None:
    story.shows(7, LeaseSeen(LEASE, 10, 5))
    story.shows(7, LeaseSeen(LEASE, 10, 6 if bad else 5))


def leases_that_share_no_fence(story: Story, *, bad: bool) -> None:
    story.ends(story.begins("GrantLease"), 5, leases=(LeaseSeen(LEASE, 10, 5),))
    story.ends(story.begins("GrantLease"), 6, leases=(LeaseSeen(f"{PARENT}/leases/m", 10, 5 if bad else 6),))


def one_write_for_an_etag(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(5), etag="1")
    story.ok("UpdateAgent", agent(6), etag="1" if bad else "5")


def the_version_asked_for(story: Story, *, bad: bool) -> None:
    story.ok("UpdateAgent", agent(6), etag="4" if bad else "5")
    story.told(story.watch(6), 6, changed(agent(5), agent(6)))


def cordoned_and_back(story: Story, *, bad: bool) -> None:
    story.ok("CordonAgent", born(5, admin_state="CORDONED"))
    story.ok("RegisterAgent", born(6, admin_state="ENABLED" if bad else "CORDONED"))


def ruled_by_somebody(story: Story, *, bad: bool) -> None:
    if not bad:
        story.fails("BanAgent", agent(5), is_definite=False)
    story.told(story.watch(6), 6, changed(agent(5), agent(6, admin_state="BANNED")))


def repeated(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), request_id="r", content="x")
    story.ok("RegisterAgent", born(6 if bad else 5), request_id="r", content="x")


def repeated_and_not_refused(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), request_id="r", content="x")
    reason = "AGENT_ALREADY_EXISTS" if bad else "STORE_UNAVAILABLE"
    story.fails("RegisterAgent", born(5), reason=reason, request_id="r", content="x")


def one_content_for_an_id(story: Story, *, bad: bool) -> None:
    story.ok("RegisterAgent", born(5), request_id="r", content="x")
    story.ok("RegisterAgent", born(5), request_id="r", content="y" if bad else "x")


STORIES: list[tuple[str, Callable[..., None]]] = [
    ("S1", revisions_of_their_own),
    ("S1", revisions_that_grow),
    ("S1", one_revision_for_a_write),
    ("S1", no_revision_for_a_refusal),
    ("S1", no_revision_for_a_repeated_request),
    ("S2", written_and_there),
    ("S2", written_and_not_gone),
    ("S2", deregistered_and_gone),
    ("S2", acknowledged_before_the_end),
    ("S2", read_as_written),
    ("S2", read_what_is_new),
    ("S3", failed_and_never_seen),
    ("S3", whole_batches),
    ("S3", batches_of_one_revision),
    ("W1", filtered),
    ("W1", added_to_a_filter),
    ("W1", deleted_from_a_filter),
    ("W1", expired_in_a_filter),
    ("W1", a_snapshot_of_a_filter),
    ("W1", a_snapshot_of_the_living),
    ("W2", in_order),
    ("W3", once),
    ("W4", whole_revisions),
    ("W5", nothing_after_progress),
    ("W6", resumed),
    ("W6", never_the_future),
    ("W7", told_to_all),
    ("W7", told_of_the_deregistered),
    ("W7", told_of_rulings),
    ("W7", told_of_what_is_read),
    ("W7", told_as_to_others),
    ("W7", unbroken),
    ("W7", told_to_the_end),
    ("W7", there_before_it_changes),
    ("W7", added_once),
    ("W7", told_to_a_filter_to_the_end),
    ("L1", not_early),
    ("L1", not_early_after_the_grant),
    ("L1", not_early_after_the_registration),
    ("L1", revoked_before_its_time),
    ("L2", gone_in_time),
    ("L2", gone_in_time_by_the_leases),
    ("L2", gone_in_time_by_its_revision),
    ("L2", gone_in_time_though_asked_for),
    ("L2", gone_in_time_after_the_first_answer),
    ("L2", gone_in_time_while_another_begins),
    ("L2", gone_in_time_after_a_pause_that_a_kill_ends),
    ("L2", gone_in_time_after_a_restart),
    ("L3", all_at_once),
    ("L3", all_at_once_after_a_resume),
    ("L3", all_at_once_after_a_snapshot),
    ("L3", nothing_shown_after_its_end),
    ("L3", nobody_shown_after_its_end),
    ("L4", granted_and_kept),
    ("L4", granted_and_there),
    ("L4", granted_to_a_registration_and_there),
    ("L4", kept_and_there),
    ("L4", not_kept_after_its_end),
    ("L4", not_kept_after_it_expired),
    ("L5", greater_fences),
    ("L5", greater_fences_in_watches),
    ("L5", one_fence_for_an_incarnation),
    ("L5", leases_with_fences_of_their_own),
    ("L5", leases_shown_with_their_fences),
    ("L5", leases_that_share_no_fence),
    ("etag", one_write_for_an_etag),
    ("etag", the_version_asked_for),
    ("admin", cordoned_and_back),
    ("admin", ruled_by_somebody),
    ("request_id", repeated),
    ("request_id", repeated_and_not_refused),
    ("request_id", one_content_for_an_id),
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
