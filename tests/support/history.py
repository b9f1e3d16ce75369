"""What clients saw of a registry, as one list of plain events: the only thing that the checkers are shown.

Simulations and crash tests write the same format. Times are seconds of one monotonic clock, that of the recorder;
`process` names who saw it. Each write that carries an agent puts a tag of its own into the label `TAG`, so that what
became of it can be told from any later sight of the agent.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo

from holdfast.registry.v1.agent_pb2 import AdminState, Agent, AgentLiveness
from holdfast.registry.v1.agent_registry_service_pb2 import AgentEventType, WatchAgentsResponse, WatchResetReason
from holdfast.registry.v1.lease_service_pb2 import KeepLeaseAliveResult, Lease, LeaseDirective
from support.plain import is_kept_whole, plain, revision_of

TAG = "op"
"""Label that says which write an agent's content is from."""

QUIET = "quiet"
"""Mark after which nothing changes but by the calls that follow."""

TTL_S_DEFAULT = 30.0
"""What the API promises a registration that asks for no TTL and joins no lease."""

ADMIN_OPS = ("CordonAgent", "UncordonAgent", "DrainAgent", "BanAgent", "UnbanAgent")
"""Calls of operators."""


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """An agent as someone saw it. Enums by their names without prefix; `digest` is of all fields."""

    name: str
    uid: str = ""
    fence: int = 0
    revision: int = 0
    etag: str = ""
    liveness: str = "LIVE"
    admin_state: str = "ENABLED"
    lease: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def tag(self) -> str:
        """Which write its content is from; empty if that is not known."""
        return self.labels.get(TAG, "")


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """A lease as someone saw it."""

    name: str
    ttl_s: float
    fence: int


@dataclass(frozen=True, slots=True)
class Invoke:
    """A call begins; `call` tells it from all others of the history, and its end has the same.

    Args:
        op: Name of the rpc.
        about: Names of the agents it is about.
        lease: The lease it is about.
        etag: The version it asks for.
        fence: The fence it presents.
        request_id: Under which it can be repeated.
        content: Digest of the request without its request_id.
        tag: What stands in the label `TAG` of what it writes.
        ttls_s: For each agent it registers, the TTL of the lease that is granted to it; 0 if it joins one.
        asked: The whole request, as `plain` has it, of rpcs that histories keep whole.
    """

    at_s: float
    process: str
    call: int
    op: str
    about: tuple[str, ...] = ()
    lease: str = ""
    etag: str = ""
    fence: int = 0
    request_id: str = ""
    content: str = ""
    tag: str = ""
    ttls_s: tuple[float, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ok:
    """A call succeeded at `revision`: that of the write, or the one a read was answered from.

    `told` is the whole response, as `plain` has it, of rpcs that histories keep whole.
    """

    at_s: float
    process: str
    call: int
    revision: int
    agents: tuple[AgentSeen, ...] = ()
    leases: tuple[LeaseSeen, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A call failed. `is_definite`: it surely changed nothing; when in doubt, it is not."""

    at_s: float
    process: str
    call: int
    reason: str
    is_definite: bool


@dataclass(frozen=True, slots=True)
class KeepSent:
    """A keepalive for one lease is on its way."""

    at_s: float
    process: str
    call: int
    lease: str


@dataclass(frozen=True, slots=True)
class KeepAnswered:
    """What came of a keepalive. `reason` is empty if the lease was kept; `NO_ANSWER` if nobody knows."""

    at_s: float
    process: str
    call: int
    lease: str
    ttl_s: float = 0.0
    fence: int = 0
    directive: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WatchBegun:
    """A watch; `resumes` is the one whose last revision it goes on from, 0 for none. Start 0 is a snapshot."""

    at_s: float
    process: str
    watch: int
    parent: str
    filter: str
    start_revision: int
    resumes: int = 0


@dataclass(frozen=True, slots=True)
class AgentChange:
    """One event of a message: ADDED, MODIFIED, EXPIRED or DELETED."""

    type: str
    agent: AgentSeen
    previous: AgentSeen | None = None


@dataclass(frozen=True, slots=True)
class WatchMessage:
    """One message of a watch. `step` is `events`, `progress` or `reset`; `is_snapshot_end` as in the API."""

    at_s: float
    process: str
    watch: int
    revision: int
    step: str
    changes: tuple[AgentChange, ...] = ()
    is_snapshot_end: bool = False
    reset_reason: str = ""
    compact_revision: int = 0


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """A watch is over. `reason` is an error's reason, or `CLOSED` when the client ended it."""

    at_s: float
    process: str
    watch: int
    reason: str
    is_definite: bool = False


@dataclass(frozen=True, slots=True)
class FollowBegun:
    """A watch of other resources than agents, by the rpc `op`; otherwise as WatchBegun."""

    at_s: float
    process: str
    watch: int
    op: str
    parent: str
    filter: str
    start_revision: int
    resumes: int = 0


@dataclass(frozen=True, slots=True)
class FollowMessage:
    """One message of such a watch; `resources` as `plain` has them, those gone with name and revision alone."""

    at_s: float
    process: str
    watch: int
    revision: int
    step: str
    resources: tuple[dict[str, Any], ...] = ()
    is_snapshot_end: bool = False
    compact_revision: int = 0


@dataclass(frozen=True, slots=True)
class FollowEnded:
    """Such a watch is over; as WatchEnded."""

    at_s: float
    process: str
    watch: int
    reason: str


@dataclass(frozen=True, slots=True)
class LeaderTold:
    """One message of a stream of ObserveLeader; `leadership` as `plain` has it, `is_first` of each stream."""

    at_s: float
    process: str
    watch: int
    election: str
    revision: int
    leadership: dict[str, Any]
    is_first: bool


@dataclass(frozen=True, slots=True)
class GuardedWrite:
    """A write to what a lock guards, which keeps the largest fence it has seen and refuses smaller ones."""

    at_s: float
    process: str
    resource: str
    fence: int
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class ServerMark:
    """Something happened to a server: `serving`, `stopped`, `killed`, `paused`, `resumed` or `takeover`; or `QUIET`."""

    at_s: float
    process: str
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FinalState:
    """All agents of a namespace, expired ones too, read when nothing was under way any more."""

    at_s: float
    process: str
    parent: str
    revision: int
    agents: tuple[AgentSeen, ...]


Event: TypeAlias = (
    Invoke
    | Ok
    | Failed
    | KeepSent
    | KeepAnswered
    | WatchBegun
    | WatchMessage
    | WatchEnded
    | FollowBegun
    | FollowMessage
    | FollowEnded
    | LeaderTold
    | GuardedWrite
    | ServerMark
    | FinalState
)
KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        Invoke,
        Ok,
        Failed,
        KeepSent,
        KeepAnswered,
        WatchBegun,
        WatchMessage,
        WatchEnded,
        FollowBegun,
        FollowMessage,
        FollowEnded,
        LeaderTold,
        GuardedWrite,
        ServerMark,
        FinalState,
    )
}


class History:
    """Events in the order they were seen; only appended to.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.events: list[Event] = []
        self._clock = clock
        self._calls = 0

    def new_id(self) -> int:
        """An id for a call or a watch, from 1."""
        self._calls += 1
        return self._calls

    def invoke(self, process: str, op: str, request: Message) -> int:
        """A call begins; returns its id."""
        call = self.new_id()
        self.events.append(Invoke(self._clock(), process, call, op, **_facts(op, request)))
        return call

    def ok(self, process: str, call: int, op: str, response: Any) -> None:
        """A call succeeded with a response of the API."""
        if is_kept_whole(response):
            told = plain(response)
            self.events.append(Ok(self._clock(), process, call, revision_of(told), told=told))
            return
        revision, agents, leases = _outcome(op, response)
        self.events.append(Ok(self._clock(), process, call, revision, agents, leases))

    def failed(self, process: str, call: int, reason: str, *, is_definite: bool) -> None:
        """A call failed."""
        self.events.append(Failed(self._clock(), process, call, reason, is_definite))

    def keep_sent(self, process: str, lease: str) -> int:
        """A keepalive is sent; returns its id."""
        call = self.new_id()
        self.events.append(KeepSent(self._clock(), process, call, lease))
        return call

    def keep_answered(self, process: str, call: int, result: KeepLeaseAliveResult) -> None:
        """A keepalive was answered."""
        reason = "" if not result.HasField("status") else _reason(result)
        directive = LeaseDirective.Name(result.directive).removeprefix("LEASE_DIRECTIVE_")
        ttl_s = result.ttl.ToMilliseconds() / 1000
        self.events.append(
            KeepAnswered(self._clock(), process, call, result.lease, ttl_s, result.fence, directive, reason)
        )

    def keep_lost(self, process: str, call: int, lease: str) -> None:
        """A keepalive will not be answered any more, and will not arrive any more either."""
        self.events.append(KeepAnswered(self._clock(), process, call, lease, reason="NO_ANSWER"))

    def watch_begun(self, process: str, parent: str, only: str, start_revision: int, resumes: int = 0) -> int:
        """A watch begins; returns its id."""
        watch = self.new_id()
        self.events.append(WatchBegun(self._clock(), process, watch, parent, only, start_revision, resumes))
        return watch

    def watch_message(self, process: str, watch: int, response: WatchAgentsResponse) -> WatchMessage:
        """A message of a watch arrived; returns it as recorded."""
        step = response.WhichOneof("step") or ""
        changes = tuple(
            AgentChange(
                AgentEventType.Name(event.type).removeprefix("AGENT_EVENT_TYPE_"),
                agent_seen(event.agent),
                agent_seen(event.previous) if event.HasField("previous") else None,
            )
            for event in response.events.events
        )
        reset = WatchResetReason.Name(response.reset.reason).removeprefix("WATCH_RESET_REASON_")
        message = WatchMessage(
            self._clock(),
            process,
            watch,
            response.revision,
            step,
            changes,
            response.events.snapshot_end,
            reset if step == "reset" else "",
            response.reset.compact_revision,
        )
        self.events.append(message)
        return message

    def watch_ended(self, process: str, watch: int, reason: str, *, is_definite: bool = False) -> None:
        """A watch is over."""
        self.events.append(WatchEnded(self._clock(), process, watch, reason, is_definite))

    def follow_begun(self, process: str, op: str, request: Any, resumes: int = 0) -> int:
        """A watch of other resources than agents begins; returns its id."""
        watch = self.new_id()
        begun = FollowBegun(
            self._clock(), process, watch, op, request.parent, request.filter, request.start_revision, resumes
        )
        self.events.append(begun)
        return watch

    def follow_message(self, process: str, watch: int, response: Any) -> FollowMessage:
        """A message of it arrived; returns it as recorded."""
        told = plain(response)
        events: dict[str, Any] = told.get("events", {})
        resources = next((value for value in events.values() if isinstance(value, list)), [])
        message = FollowMessage(
            self._clock(),
            process,
            watch,
            told.get("revision", 0),
            response.WhichOneof("step") or "",
            tuple(resources),
            events.get("snapshot_end", False),
            told.get("reset", {}).get("compact_revision", 0),
        )
        self.events.append(message)
        return message

    def follow_ended(self, process: str, watch: int, reason: str) -> None:
        """It is over."""
        self.events.append(FollowEnded(self._clock(), process, watch, reason))

    def leader_told(self, process: str, watch: int, response: Any, *, is_first: bool) -> None:
        """A message of an observer arrived."""
        told = plain(response)
        leadership = told["leadership"]
        self.events.append(
            LeaderTold(
                self._clock(), process, watch, leadership["election"], told.get("revision", 0), leadership, is_first
            )
        )

    def guarded_write(self, process: str, resource: str, fence: int, *, is_accepted: bool) -> None:
        """Somebody wrote to what a lock guards, or would have."""
        self.events.append(GuardedWrite(self._clock(), process, resource, fence, is_accepted))

    def mark(self, process: str, what: str, detail: str = "") -> None:
        """Something happened to a server; see ServerMark."""
        self.events.append(ServerMark(self._clock(), process, what, detail))

    def final_state(self, process: str, parent: str, revision: int, agents: Iterable[Agent]) -> None:
        """Everything there is, at the end."""
        seen = tuple(agent_seen(agent) for agent in agents)
        self.events.append(FinalState(self._clock(), process, parent, revision, seen))


def agent_seen(agent: Agent) -> AgentSeen:
    """An agent, as far as checkers care."""
    return AgentSeen(
        name=agent.name,
        uid=agent.uid,
        fence=agent.fence,
        revision=agent.revision,
        etag=agent.etag,
        liveness=AgentLiveness.Name(agent.liveness).removeprefix("AGENT_LIVENESS_"),
        admin_state=AdminState.Name(agent.admin_state).removeprefix("ADMIN_STATE_"),
        lease=agent.lease,
        labels=dict(sorted(agent.labels.items())),
        digest=_digest(agent),
    )


def lease_seen(lease: Lease) -> LeaseSeen:
    """A lease, as far as checkers care."""
    return LeaseSeen(lease.name, lease.ttl.ToMilliseconds() / 1000, lease.fence)


def to_jsonl(events: Sequence[Event]) -> str:
    """One line for each event; equal histories give equal text."""
    return "".join(
        json.dumps({"event": type(event).__name__, **asdict(event)}, separators=(",", ":")) + "\n" for event in events
    )


def save(events: Sequence[Event], path: Path) -> None:
    """Writes a history."""
    path.write_text(to_jsonl(events))


def load(path: Path) -> list[Event]:
    """Reads a history.

    Raises:
        ValueError: A line is not an event.
    """
    found: list[Event] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            found.append(_event(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: {line[:200]!r} is not an event of a history: {error!r}") from error
    return found


def _event(data: dict[str, Any]) -> Event:
    kind = KINDS[data.pop("event")]
    known = {each.name for each in fields(kind)}
    if unknown := set(data) - known:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    for name in {"about", "ttls_s"} & set(data):
        data[name] = tuple(data[name])
    if "resources" in data:
        data["resources"] = tuple(data["resources"])
    if "agents" in data:
        data["agents"] = tuple(AgentSeen(**agent) for agent in data["agents"])
    if "changes" in data:
        data["changes"] = tuple(_change(change) for change in data["changes"])
    if "leases" in data:
        data["leases"] = tuple(LeaseSeen(**lease) for lease in data["leases"])
    return kind(**data)


def _change(data: dict[str, Any]) -> AgentChange:
    previous = data["previous"]
    return AgentChange(data["type"], AgentSeen(**data["agent"]), AgentSeen(**previous) if previous else None)


def _digest(message: Message) -> str:
    return hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=8).hexdigest()


def _facts(op: str, request: Any) -> dict[str, Any]:
    """What of a request checkers care for."""
    facts: dict[str, Any] = {"request_id": getattr(request, "request_id", ""), "fence": getattr(request, "fence", 0)}
    if facts["request_id"]:
        content = type(request)()
        content.CopyFrom(request)
        content.ClearField("request_id")
        facts["content"] = _digest(content)
    if is_kept_whole(request):
        return {**facts, "asked": plain(request)}
    match op:
        case "RegisterAgent":
            facts |= {
                "about": (_name(request),),
                "lease": request.agent.lease,
                "tag": request.agent.labels.get(TAG, ""),
                "ttls_s": (_ttl_s(request),),
            }
        case "BatchRegisterAgents":
            facts["about"] = tuple(_name(each, request.parent) for each in request.requests)
            facts["ttls_s"] = tuple(_ttl_s(each) for each in request.requests)
            facts["tag"] = request.requests[0].agent.labels.get(TAG, "") if request.requests else ""
        case "UpdateAgent":
            agent = request.agent
            facts |= {"about": (agent.name,), "etag": agent.etag, "tag": agent.labels.get(TAG, "")}
        case "DeregisterAgent":
            facts |= {"about": (request.name,), "etag": request.etag}
        case "RevokeLease" | "GetLease":
            facts["lease"] = request.name
        case "GetAgent" | "CordonAgent" | "UncordonAgent" | "DrainAgent" | "BanAgent" | "UnbanAgent":
            facts["about"] = (request.name,)
        case _:
            pass
    return facts


def _name(request: Any, parent: str = "") -> str:
    return f"{request.parent or parent}/agents/{request.agent_id}"


def _ttl_s(registration: Any) -> float:
    if registration.agent.lease:
        return 0.0
    return registration.ttl.ToMilliseconds() / 1000 if registration.HasField("ttl") else TTL_S_DEFAULT


def _outcome(op: str, response: Any) -> tuple[int, tuple[AgentSeen, ...], tuple[LeaseSeen, ...]]:
    """The revision of a response, and what it shows."""
    match op:
        case "BatchRegisterAgents":
            agents = tuple(agent_seen(agent) for agent in response.agents)
            return agents[0].revision if agents else 0, agents, ()
        case "ListAgents":
            return response.revision, tuple(agent_seen(agent) for agent in response.agents), ()
        case "MatchAgents":
            return response.revision, tuple(agent_seen(match.agent) for match in response.matches), ()
        case "GetAgent":
            return response.revision, (agent_seen(response.agent),), ()
        case "DeregisterAgent" | "RevokeLease":
            return response.revision, (), ()
        case "GrantLease":
            return response.lease.fence & ((1 << 40) - 1), (), (lease_seen(response.lease),)
        case "GetLease":
            return response.revision, (), (lease_seen(response.lease),)
        case "ListLeases":
            return response.revision, (), tuple(lease_seen(lease) for lease in response.leases)
        case _:
            agent = agent_seen(response.agent)
            return agent.revision, (agent,), ()


def _reason(result: KeepLeaseAliveResult) -> str:
    info = ErrorInfo()
    for detail in result.status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return f"CODE_{result.status.code}"
