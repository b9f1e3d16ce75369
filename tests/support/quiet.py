"""A quiet end of a run: few calls, one after the other, when nothing else changes anything.

Only then can be told that each write takes one revision, and that refused writes, repeated ones and reads take none;
S1 judges it by the reads between, from the mark `quiet` to the end of the history.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    CordonAgentRequest,
    DeregisterAgentRequest,
    GetAgentRequest,
    ListAgentsRequest,
    RegisterAgentRequest,
    UpdateAgentRequest,
)
from holdfast.registry.v1.lease_service_pb2 import GrantLeaseRequest, RevokeLeaseRequest
from support.history import QUIET, TAG, History

AGENT_ID = "quiet"
TTL = Duration(seconds=3600)
"""Longer than anything lasts from here on."""

Call = Callable[[str, str, Message], Awaitable[Any]]
"""Process, rpc and request to what was answered, if anything; all of it goes into the history."""


async def rest(history: History, call: Call, parent: str) -> None:
    """Marks that all is quiet, and makes the calls that show it: kinds of writes, each between two reads.

    Two updates come at once, so that one finds that it has been overtaken: that, too, takes no revision.
    """
    name = f"{parent}/agents/{AGENT_ID}"
    lease = GrantLeaseRequest(parent=parent, ttl=TTL, request_id=AGENT_ID)
    registration = RegisterAgentRequest(parent=parent, agent_id=AGENT_ID, agent=Agent(labels={TAG: "q0"}), ttl=TTL)
    mask = FieldMask(paths=["labels"])
    updates = [UpdateAgentRequest(agent=Agent(name=name, labels={TAG: tag}), update_mask=mask) for tag in ("q1", "q2")]
    late = UpdateAgentRequest(agent=Agent(name=name, labels={TAG: "q3"}, etag="of another time"), update_mask=mask)
    steps: list[list[tuple[str, Message]]] = [
        [("GrantLease", lease)],
        [("GrantLease", lease)],
        [("RegisterAgent", registration)],
        [("RegisterAgent", registration)],
        [("UpdateAgent", update) for update in updates],
        [("UpdateAgent", late)],
        [("CordonAgent", CordonAgentRequest(name=name, reason="quiet"))],
        [("RevokeLease", RevokeLeaseRequest(name=f"{parent}/leases/none"))],
        [("GetAgent", GetAgentRequest(name=name))],
        [("DeregisterAgent", DeregisterAgentRequest(name=name))],
    ]
    history.mark(AGENT_ID, QUIET)
    await call(AGENT_ID, "ListAgents", ListAgentsRequest(parent=parent, page_size=1))
    for step in steps:
        await asyncio.gather(*(call(AGENT_ID, *each) for each in step))
        await call(AGENT_ID, "ListAgents", ListAgentsRequest(parent=parent, page_size=1))
