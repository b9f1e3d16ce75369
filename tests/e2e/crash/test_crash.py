"""What was acknowledged survives a crash, and the loss of everything that was not synced."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from holdfast.registry.v1 import agent_registry_service_pb2 as pb
from holdfast.registry.v1.agent_pb2 import Agent, AgentLiveness
from holdfast.registry.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceStub
from holdfast.serving.server import EXIT_STORE_FAILED
from support.server import PARENT, ServerProcess, roll_back_unsynced

CALLERS = 16
TTL = Duration(seconds=3600)


Shown = dict[str, tuple[str, int]]
"""What a server said of each agent, by name: its uid and its fence."""


def identity(agent: Agent) -> tuple[str, int]:
    return agent.uid, agent.fence


async def register_until_killed(
    server: ServerProcess, label: str, count: int, kill: Callable[[], None] | None = None
) -> Shown:
    """Kills the server in the middle of registrations once `count` are acknowledged; all that were."""
    acknowledged: Shown = {}

    async def caller(stub: AgentRegistryServiceStub, number: int) -> None:
        for index in range(count * 10):
            request = pb.RegisterAgentRequest(parent=PARENT, agent_id=f"{label}-{number}-{index}", ttl=TTL)
            try:
                agent = (await stub.RegisterAgent(request)).agent
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return
                raise
            acknowledged[agent.name] = identity(agent)
            if len(acknowledged) >= count and server.process.poll() is None:
                (kill or server.process.kill)()

    async with grpc.aio.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = AgentRegistryServiceStub(channel)
        await asyncio.gather(*(caller(stub, number) for number in range(CALLERS)))
    server.process.wait(10)
    return acknowledged


async def live_agents(server: ServerProcess) -> Shown:
    """All agents, which are LIVE."""
    found: Shown = {}
    async with grpc.aio.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub, token = AgentRegistryServiceStub(channel), ""
        while True:
            page = await stub.ListAgents(pb.ListAgentsRequest(parent=PARENT, page_size=1000, page_token=token))
            assert all(agent.liveness == AgentLiveness.AGENT_LIVENESS_LIVE for agent in page.agents)
            found |= {agent.name: identity(agent) for agent in page.agents}
            token = page.next_page_token
            if not token:
                return found


def lost(shown: Shown, found: Shown) -> list[str]:
    return [name for name, was in shown.items() if found.get(name) != was]


async def test_acknowledged_registrations_survive_ten_kills(tmp_path: Path) -> None:
    """S2: after kill -9 in the middle of traffic, every acknowledged registration is there, ten times over."""
    acknowledged: Shown = {}
    for round_number in range(10):
        with ServerProcess(tmp_path) as server:
            assert lost(acknowledged, await live_agents(server)) == []
            acknowledged |= await register_until_killed(server, f"round{round_number}", 200)
    assert len(acknowledged) >= 2000
    with ServerProcess(tmp_path) as server:
        assert lost(acknowledged, await live_agents(server)) == []


def discarding(folder: Path, shim: Path) -> tuple[Path, dict[str, str]]:
    """A store, and the environment of servers on it whose unsynced writes are remembered."""
    store, undo = folder / "store", folder / "undo"
    store.mkdir()
    undo.mkdir()
    with ServerProcess(store):  # makes the file, so that the discarded writes are registrations and not the schema
        pass
    return store, {
        "LD_PRELOAD": str(shim),
        "UNSYNCED_PREFIX": f"{store}/h.db",
        "UNSYNCED_DIR": str(undo),
        "UNSYNCED_KILL": str(folder / "kill"),
        "UNSYNCED_FAIL": str(folder / "fail"),
    }


async def crash_and_discard(folder: Path, shim: Path, **extra: str) -> tuple[list[str], int]:
    """Registers, kills, discards what was not synced; names of the acknowledged that were lost, and writes undone."""
    store, env = discarding(folder, shim)
    with ServerProcess(store, env={**env, **extra}) as server:
        acknowledged = await register_until_killed(server, "unsynced", 200)
    assert {log.name for log in (folder / "undo").iterdir()} >= {"h.db-wal"}, "the shim saw no write: not in the way"
    undone = roll_back_unsynced(folder / "undo", store)
    with ServerProcess(store) as server:
        return lost(acknowledged, await live_agents(server)), undone


async def test_acknowledged_registrations_survive_the_loss_of_unsynced_writes(tmp_path: Path, shim: Path) -> None:
    """S2: with all that was not synced thrown away, as in a power cut, every acknowledged registration is there."""
    missing, _ = await crash_and_discard(tmp_path, shim)
    assert missing == []


async def test_discarding_unsynced_writes_is_seen_when_syncing_is_a_lie(tmp_path: Path, shim: Path) -> None:
    """The twin that must fail: where fdatasync does nothing, the same test sees acknowledged registrations go."""
    missing, undone = await crash_and_discard(tmp_path, shim, UNSYNCED_LIE="1")
    assert undone > 100
    assert len(missing) >= 200


@pytest.mark.parametrize(("how", "exit_code"), [("kill", -signal.SIGKILL), ("fail", EXIT_STORE_FAILED)])
async def test_what_a_restarted_server_shows_survives_the_loss_of_unsynced_writes(
    tmp_path: Path, shim: Path, how: str, exit_code: int
) -> None:
    """S2, L5: it found what its predecessor wrote and did not sync, showed it, and a power cut takes none of it.

    The predecessor was killed where it would have synced, or ended when that failed.
    """
    store, env = discarding(tmp_path, shim)
    with ServerProcess(store, env=env) as server:
        acknowledged = await register_until_killed(server, "first", 50, (tmp_path / how).touch)
    assert server.process.returncode == exit_code
    (tmp_path / how).unlink()
    with ServerProcess(store, env=env) as server:
        shown = await live_agents(server)
    assert lost(acknowledged, shown) == []
    assert len(shown) > len(acknowledged), "nothing was written and not synced: the end came too late"
    roll_back_unsynced(tmp_path / "undo", store)
    with ServerProcess(store) as server:
        assert lost(shown, await live_agents(server)) == []
        later = await register_until_killed(server, "later", 5)
    assert min(fence for _, fence in later.values()) > max(fence for _, fence in shown.values())
