"""Decisions about changing an agent that is there."""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import names, validation
from holdfast.core import leases, quotas
from holdfast.core.agents import check_capabilities, fill_in
from holdfast.core.finding import check_etag, check_fence, find
from holdfast.core.state import Plan, Reader, copy_of, etag_of, fence_parts, unchanged
from holdfast.errors import invalid_field
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import UpdateAgentRequest, UpdateAgentResponse
from holdfast.storage.v1.records_pb2 import AgentRecord
from holdfast.store.interface import Txn

MUTABLE = (
    "display_name",
    "tier",
    "domain",
    "capabilities",
    "coordination_priority",
    "max_concurrency",
    "status",
    "labels",
)
"""Fields that a holder may change; all others are the server's, the operator's, or what an incarnation is."""

PATHS_MAX = 128
"""Most paths of a mask: each label an agent can have, twice."""

_LABEL = "labels."


def update(reader: Reader, request: UpdateAgentRequest, now: Timestamp) -> Plan[UpdateAgentResponse]:
    """Decides UpdateAgent. What changes nothing writes nothing, and keeps revision and etag.

    Raises:
        HoldfastError: INVALID_FIELD, AGENT_NOT_FOUND, FENCE_STALE, ETAG_MISMATCH; LEASE_NOT_FOUND for an EXPIRED agent;
            QUOTA_EXCEEDED if the agents of its lease, or all, would become too large.
    """
    wanted = request.agent
    if not wanted.name:
        raise invalid_field("agent.name", "is required: it says which agent to change")
    paths = _paths(request)
    entry = find(reader, wanted.name)
    check_fence(entry.agent, request.fence)
    check_etag(entry.agent, wanted.etag)
    if not entry.is_live:
        raise leases.lease_not_found(entry.agent.lease, reader.lease(entry.agent.lease))
    if wanted.lease and wanted.lease != entry.agent.lease:
        raise invalid_field("agent.lease", f"cannot become {wanted.lease!r}: register again to change the lease")
    agent = _merged(entry.agent, wanted, paths)
    if agent == entry.agent:
        return Plan(Txn(), lambda _: UpdateAgentResponse(agent=agent))
    quotas.check_bytes(reader, agent.ByteSize() - entry.agent.ByteSize())
    grows = leases.grow(reader, {agent.lease: agent.ByteSize() - entry.agent.ByteSize()})
    txn = Txn(
        compares=unchanged(reader, wanted.name),
        puts=((names.agent_key(wanted.name), _record(agent, now).SerializeToString()),),
    )
    agent.update_time.CopyFrom(now)
    return Plan(txn, lambda revision: _at(agent, revision), grows)


def _at(agent: Agent, revision: int) -> UpdateAgentResponse:
    agent.revision = revision
    agent.etag = etag_of(revision)
    return UpdateAgentResponse(agent=agent)


def _paths(request: UpdateAgentRequest) -> Iterable[str]:
    """What to change: fields, or single labels."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    if not paths:
        return [field.name for field, _ in request.agent.ListFields() if field.name in MUTABLE]
    if paths == ["*"]:
        return MUTABLE
    if len(paths) > PATHS_MAX:
        raise invalid_field("update_mask", f"has {len(paths)} paths, more than the {PATHS_MAX} allowed")
    for path in paths:
        if path not in MUTABLE and not (path.startswith(_LABEL) and len(path) > len(_LABEL)):
            raise invalid_field("update_mask", f"{path[:100]!r} {_why_not(path)}; it takes {', '.join(MUTABLE)}")
    return paths


def _why_not(path: str) -> str:
    if path == "*":
        return "stands for all fields and must be alone"
    first, _, rest = path.partition(".")
    if first in MUTABLE:
        return f"goes into {first}, which changes as a whole"
    if first in Agent.DESCRIPTOR.fields_by_name and not rest:
        return "cannot be changed by this call"
    return "is no field of Agent"


def _merged(current: Agent, wanted: Agent, paths: Iterable[str]) -> Agent:
    """The agent with some fields, or labels, as wanted; what is wanted empty goes back to its default."""
    agent = copy_of(current)
    for path in paths:
        if path.startswith(_LABEL):
            _set_label(agent, wanted, path.removeprefix(_LABEL))
            continue
        agent.ClearField(path)  # type: ignore[arg-type]
        value = getattr(wanted, path)
        if path in ("capabilities", "labels"):
            getattr(agent, path).MergeFrom(value)
        else:
            setattr(agent, path, value)
    fill_in(agent)
    check_capabilities(agent.capabilities)
    validation.check(UpdateAgentRequest(agent=copy_of(agent)))  # single labels can be too many only together
    return agent


def _set_label(agent: Agent, wanted: Agent, key: str) -> None:
    if key in wanted.labels:
        agent.labels[key] = wanted.labels[key]
    else:
        agent.labels.pop(key, None)


def _record(agent: Agent, now: Timestamp) -> AgentRecord:
    """The agent as it is stored: still the same incarnation."""
    epoch, revision = fence_parts(agent.fence)
    record = AgentRecord(agent=agent, fence_epoch=epoch, fence_revision=revision, update_time=now)
    for field in ("fence", "revision", "etag", "liveness", "admin_state", "update_time"):
        record.agent.ClearField(field)
    return record
