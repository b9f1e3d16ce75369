"""Histories told line by line, to show checkers what keeps an invariant and what breaks it."""

from dataclasses import replace

from support.history import (
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
    WatchMessage,
)

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
