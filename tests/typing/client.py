"""What type checkers make of the client; checked by `make lint`, never run."""

from collections.abc import AsyncIterator, Generator, Sequence
from typing import assert_type

from holdfast.client import Changes, Client, HeldLeadership, HeldLock, Session, Snapshot, sync
from holdfast.coordination.v1.decision_service_pb2 import Decision
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import AgentEvent
from holdfast.registry.v1.lease_service_pb2 import Lease


async def asynchronous() -> None:
    async with Client("127.0.0.1:50051") as client:
        assert_type(client, Client)
        assert_type(await client.agents.get("a"), Agent)
        assert_type(client.agents.list(), AsyncIterator[Agent])
        async for step in client.agents.watch():
            match step:
                case Snapshot(revision, there):
                    assert_type(revision, int)
                    assert_type(there, Sequence[Agent])
                case Changes(_, changed):
                    assert_type(changed, Sequence[AgentEvent])
        async with client.session("a") as session:
            assert_type(session, Session)
            assert_type(session.fence, int)
            async with session.lock("l") as lock, session.leader("e") as leadership:
                assert_type(lock, HeldLock)
                assert_type(leadership, HeldLeadership)
            assert_type(await session.vote("d", "yes"), Decision)


def synchronous() -> None:
    with sync.Client("127.0.0.1:50051") as client:
        assert_type(client.agents.get("a"), Agent)
        assert_type(client.leases.grant(30), Lease)
        assert_type(client.agents.list("tier = 1_CORE"), Generator[Agent, None, None])
        with client.session("a", ttl_s=3) as session, session.lock("l", wait_s=1) as lock:
            assert_type(session, sync.Session)
            assert_type(lock, sync.HeldLock)
            assert_type(lock.fence, int)


def mistakes() -> None:
    with sync.Client("127.0.0.1:50051") as client:
        client.agents.get(1)  # type: ignore[arg-type]
        client.agents.get()  # type: ignore[call-arg]
        client.session("a", ttl="3")  # type: ignore[call-arg]
