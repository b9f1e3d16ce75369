"""The client over a network that goes wrong, by a real Toxiproxy."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.client import Client, SessionLostError, Timeouts
from holdfast_chaos import ports
from holdfast_chaos.toxiproxy import Toxiproxy
from support.server import ServerProcess
from support.stage import start_toxiproxy

PROXY = "holdfast"


@dataclass
class Way:
    """A server, and the way to it that the test breaks."""

    server: ServerProcess
    toxiproxy: Toxiproxy
    proxied: str

    def cut(self) -> None:
        """Nothing goes through any more, and no connection ends: as a cable that was pulled."""
        for stream in ("upstream", "downstream"):
            self.toxiproxy.add_toxic(PROXY, stream, "timeout", stream, 1.0, {"timeout": 0})

    def mend(self) -> None:
        for stream in ("upstream", "downstream"):
            self.toxiproxy.remove_toxic(PROXY, stream)


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    reserved = ports.reserve(2)
    api_port, proxy_port = reserved.ports
    with ServerProcess(tmp_path) as server:
        process, toxiproxy = start_toxiproxy(tmp_path, api_port)
        try:
            proxied = toxiproxy.create_proxy(PROXY, server.grpc, f"127.0.0.1:{proxy_port}")
            yield Way(server, toxiproxy, proxied)
        finally:
            process.stop(2.0)
            reserved.release()


async def test_a_session_outlives_a_network_that_is_cut_for_less_than_its_ttl(way: Way) -> None:
    """Without waiting for TCP to find out: the connection is given up, and another is there when the network is."""
    async with Client(way.proxied) as client, client.session("a", ttl_s=9) as session:
        await asyncio.to_thread(way.cut)
        await asyncio.sleep(4)  # what is tested is how long it lasts
        await asyncio.to_thread(way.mend)
        async with asyncio.timeout(20), session.guard():
            until_s = session.proven_until_s
            while session.proven_until_s == until_s:  # noqa: ASYNC110 - what the keeper's task does
                await asyncio.sleep(0.05)
        session.check()


async def test_a_session_whose_network_is_cut_for_longer_stops_in_time_and_then_its_lease_ends(way: Way) -> None:
    async with Client(way.proxied) as client, client.session("a", ttl_s=3) as session:
        await asyncio.to_thread(way.cut)
        cut_s = time.monotonic()

        async def work() -> None:
            async with session.guard():
                await asyncio.wait_for(asyncio.Event().wait(), 20)

        with pytest.raises(SessionLostError):
            await work()
        assert time.monotonic() - cut_s < 3
        async with Client(way.server.grpc) as witness:
            assert (await witness.agents.get("a")).fence == session.agent.fence, "nobody has it yet"
        await asyncio.to_thread(way.mend)


async def test_calls_are_made_once_the_network_is_there_again(way: Way) -> None:
    """A registration whose answer was lost is repeated with its id, and done once."""
    timeouts = Timeouts(call_s=60, attempt_s=1, connect_s=2)
    async with Client(way.proxied, timeouts=timeouts) as client:
        await client.agents.register("before")
        await asyncio.to_thread(way.toxiproxy.add_toxic, PROXY, "deaf", "timeout", "downstream", 1.0, {"timeout": 0})
        calling = asyncio.create_task(client.agents.register("during", ttl_s=600))
        async with Client(way.server.grpc) as witness, asyncio.timeout(10):
            async for step in witness.agents.watch('name = "namespaces/default/agents/during"'):
                if step.items:
                    break  # it has happened, and the caller cannot know
            assert not calling.done()
            await asyncio.to_thread(way.toxiproxy.remove_toxic, PROXY, "deaf")
        agent = await asyncio.wait_for(calling, 40)
        async with Client(way.server.grpc) as witness:
            assert await witness.agents.get("during") == agent
