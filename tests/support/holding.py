"""Calls about locks and elections to a replica, in a line each."""

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration

from holdfast import validation
from holdfast.coordination.v1 import election_service_pb2 as elections_pb
from holdfast.coordination.v1 import lock_service_pb2 as locks_pb
from holdfast.service.context import CallContext
from support.replica import CALL, PARENT, Replica

LOCK = f"{PARENT}/locks/l"
ELECTION = f"{PARENT}/elections/e"


def seconds(count: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(int(count * 1000))
    return duration


async def acquire(
    here: Replica,
    holder: str,
    lease: str,
    wait_s: float | None = None,
    lock: str = LOCK,
    client: str = "",
    **fields: Any,
) -> locks_pb.Lock:
    request = locks_pb.AcquireLockRequest(lock=lock, holder=holder, lease=lease, **fields)
    if wait_s is not None:
        request.wait.CopyFrom(seconds(wait_s))
    validation.check(request)
    context = CallContext(CALL.service, CALL.method, CALL.correlation_id, client)
    return (await here.locks.acquire_lock(request, context)).lock


async def release(here: Replica, fence: int, lock: str = LOCK) -> locks_pb.Lock:
    return (await here.locks.release_lock(locks_pb.ReleaseLockRequest(lock=lock, fence=fence), CALL)).lock


async def force(here: Replica, reason: str = "", lock: str = LOCK) -> locks_pb.Lock:
    request = locks_pb.ForceReleaseLockRequest(lock=lock, reason=reason)
    return (await here.locks.force_release_lock(request, CALL)).lock


async def read(here: Replica, lock: str = LOCK) -> locks_pb.Lock:
    return (await here.locks.get_lock(locks_pb.GetLockRequest(name=lock), CALL)).lock


async def verify(here: Replica, resource: str, fence: int) -> tuple[bool, int]:
    answer = await here.locks.verify_fence(locks_pb.VerifyFenceRequest(resource=resource, fence=fence), CALL)
    return answer.valid, answer.current_fence


async def campaign(
    here: Replica, candidate: str, lease: str, wait_s: float | None = 0, election: str = ELECTION, **fields: Any
) -> elections_pb.Leadership:
    request = elections_pb.CampaignRequest(election=election, candidate=candidate, lease=lease, **fields)
    if wait_s is not None:
        request.wait.CopyFrom(seconds(wait_s))
    validation.check(request)
    return (await here.elections.campaign(request, CALL)).leadership


async def leader(here: Replica, election: str = ELECTION) -> elections_pb.Leadership:
    return (await here.elections.get_leader(elections_pb.GetLeaderRequest(election=election), CALL)).leadership


async def until_waiting(here: Replica, count: int, name: str = LOCK) -> None:
    """Returns once so many wait in line."""
    async with asyncio.timeout(10):
        while here.registry.holding.lines.count(name) != count:  # noqa: ASYNC110 - lines set no event
            await asyncio.sleep(0)
