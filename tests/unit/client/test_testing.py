"""`holdfast.testing`: a real server whose time is the test's."""

import asyncio
import re
from pathlib import Path

import pytest

from holdfast.client.errors import LeaseNotFoundError
from holdfast.testing import Clock, serve, serve_in_thread

DOC = (Path(__file__).resolve().parents[3] / "docs" / "client.md").read_text()


async def test_agents_expire_when_the_test_says_and_not_before() -> None:
    async with serve() as server, server.client() as client:
        lease = await client.leases.grant(30)
        await server.advance(29)
        assert (await client.leases.get(lease.name)).fence == lease.fence
        await server.advance(2)
        with pytest.raises(LeaseNotFoundError):
            await client.leases.get(lease.name)


async def test_no_real_time_passes() -> None:
    async with asyncio.timeout(20), serve() as server:
        await server.advance(300)
        assert server.clock.now_s == Clock().now_s + 300


async def test_two_servers_know_nothing_of_each_other() -> None:
    async with serve() as one, serve() as two, one.client() as client, two.client() as other:
        await client.agents.register("a")
        assert [agent async for agent in other.agents.list()] == []


def test_a_server_in_a_thread_needs_no_asyncio() -> None:
    with serve_in_thread() as server, server.client() as client:
        client.agents.register("a", ttl_s=30)
        server.advance(32)
        assert list(client.agents.list()) == []


async def test_time_does_not_go_back() -> None:
    async with serve() as server:
        with pytest.raises(ValueError, match="does not go back"):
            await server.advance(-1)


async def test_the_documented_test_passes() -> None:
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", DOC, re.DOTALL) if "pytest.fixture" in each)
    names: dict[str, object] = {}
    exec(block, names)
    async with serve() as server:
        await names["test_workers_that_die_are_gone"](server)  # type: ignore[operator]
