"""One seed makes the same calls, in the same order, with the same bodies, as servers see them."""

import asyncio
import re

from holdfast_loadtests.engine import LoadRun
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.spec import LoadSpec
from support.codec_server import ServerSide
from support.interop_cases import TEST
from support.interop_servers import descriptor_set, interop_server
from support.prometheus_server import poll

CALLS = 3000
MIX = [
    {"call": f"{TEST}/EmptyCall", "weight": 2},
    {
        "call": f"{TEST}/UnaryCall",
        "weight": 3,
        "request": {"payload": {"body": "{{text(24)}}"}, "response_size": "{{zipf(1000, 1.2)}}"},
    },
    {
        "call": f"{TEST}/UnaryCall",
        "request": {"response_status": {"code": 5, "message": "{{uuid}} of {{counter}}"}},
        "expect": ["NotFound", "OK"],
    },
]


def plan_of(address, seed, concurrency):
    spec = LoadSpec.model_validate(
        {
            "arrivals": [{"rate": "2000/s", "for": "1500ms", "process": "poisson"}],
            "mix": MIX,
            "connections": 1,
            "concurrency": concurrency,
            "deadline": "20s",
        }
    )
    return LoadPlan(address, spec, {}, seed, descriptors=descriptor_set())


def load(plan, folder):
    folder.mkdir()
    with LoadRun.start(plan, folder) as run:
        poll(lambda: run.elapsed_s > 1.6, "all calls to be due")
        return run.finish()


def seen_by_grpc_go(folder, seed):
    """The digest of all requests in the order in which handlers began, one after the other, and their number."""
    folder.mkdir()
    with interop_server("go", folder) as server:
        summary = load(plan_of(server.address, seed, concurrency=1), folder / "out")
        [(digest, count)] = re.findall(r'interop_requests\{sequence="(\w+)"\} (\d+)', server.metrics())
    assert summary.sent == int(count) == summary.due
    return digest, int(count)


def test_a_seed_replays_as_grpc_go_sees_it(tmp_path):
    first, again, other = (seen_by_grpc_go(tmp_path / str(number), seed) for number, seed in enumerate((7, 7, 8)))
    assert first == again
    assert first[1] > CALLS * 0.9
    assert other[0] != first[0]


class Recording:
    """A server that answers everything, and knows what was sent in the order in which it came."""

    def __init__(self) -> None:
        self._sides: list[ServerSide] = []

    def side(self) -> ServerSide:
        self._sides.append(ServerSide(lambda side, stream: side.ok(stream, b"")))
        return self._sides[-1]

    @property
    def sequence(self) -> list[tuple[bytes, bytes]]:
        [side] = self._sides
        return [(stream.fields.get(b":path"), stream.data) for stream in side.streams]


async def seen_on_the_connection(folder, seed):
    recording = Recording()
    server = await asyncio.get_running_loop().create_server(recording.side, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        await asyncio.to_thread(load, plan_of(address, seed, concurrency=100), folder)
    finally:
        server.close()
        for side in recording._sides:
            side.transport.abort()
        await asyncio.sleep(0)
    return recording.sequence


async def test_a_seed_replays_with_a_hundred_calls_at_a_time(tmp_path):
    first = await seen_on_the_connection(tmp_path / "first", 7)
    assert await seen_on_the_connection(tmp_path / "again", 7) == first
    assert len(first) > CALLS * 0.9
    assert await seen_on_the_connection(tmp_path / "other", 8) != first
