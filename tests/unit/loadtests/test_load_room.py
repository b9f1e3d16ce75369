"""What answers hold is counted while they do, bounded for all calls together, and given back however a call ends."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from holdfast.http2 import ErrorCode
from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.exchanges import MESSAGE_BYTES_MAX
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import frame
from holdfast_loadtests.room import UNCOUNTED_BYTES_MAX, Room
from holdfast_loadtests.targets import Target
from support.codec_server import HEADERS, Served, ServerSide, trailers, until

LONG = bytes(300_000)
BEGUN = frame([LONG])[: len(LONG) // 2]
"""A message that is not complete."""

TOO_LONG = (MESSAGE_BYTES_MAX + 1).to_bytes(5, "big")


class Bench:
    """A server of the codec's other role that answers with some bytes and then waits, and calls to it."""

    def __init__(self, sides: list[ServerSide], target: Target, channel: Channel) -> None:
        self.sides = sides
        self.channel = channel
        self.room = channel.room
        self._target = target

    def start(self, deadline_s=20.0, many=True, receive=None):
        ended = asyncio.get_running_loop().create_future()
        prepared = Prepared(self._target.block("/p.S/M", deadline_s), deadline_s, many, receive)
        self.channel.start(prepared, frame([b"hi"]), ended.set_result)
        return ended

    def send(self, data: bytes) -> None:
        """Goes on with the newest call's answer."""
        self.sides[-1].codec.send(self._stream, data)
        self.sides[-1].flush()

    def end(self, status: bytes) -> None:
        self.sides[-1].codec.send_headers(self._stream, trailers(status), ends=True)
        self.sides[-1].flush()

    def reset(self) -> None:
        self.sides[-1].codec.reset(self._stream, ErrorCode.INTERNAL_ERROR)
        self.sides[-1].flush()

    @property
    def _stream(self) -> Served:
        return self.sides[-1].streams[-1]

    async def holds(self, held_bytes: int) -> None:
        await until(lambda: self.room.held_bytes == held_bytes)


@asynccontextmanager
async def bench_of(*data: bytes, room: Room | None = None):
    def answer(side: ServerSide, stream: Served) -> None:
        side.codec.send_headers(stream, HEADERS)
        for each in data:
            side.codec.send(stream, each)

    def make() -> ServerSide:
        sides.append(ServerSide(answer))
        return sides[-1]

    sides: list[ServerSide] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", 0)
    target = Target(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    expiry = Expiry(loop, expire)
    channel = Channel(0, target, expiry, room=room)
    try:
        assert await channel.connect() == ""
        yield Bench(sides, target, channel)
    finally:
        channel.close()
        expiry.close()
        server.close()
        for side in sides:
            side.transport.abort()
        await channel.wait_closed()


async def test_calls_beyond_the_bound_are_ended_and_say_what_to_do():
    async with bench_of(BEGUN, room=Room(4 * len(BEGUN))) as bench:
        calls = [bench.start() for _ in range(10)]
        await until(lambda: sum(call.done() for call in calls) == 6)
        await bench.holds(4 * len(BEGUN))
        ended = [call.result() for call in calls if call.done()]
        bench.channel.close()
        await until(lambda: all(call.done() for call in calls))
        assert (bench.room.held_bytes, bench.room.refused) == (0, 6)
    assert [(one.code, one.outcome, one.broke) for one in ended] == [("ResourceExhausted", "indefinite", "other")] * 6
    [words] = {one.details for one in ended}
    assert words.startswith("the answers under way hold 1 MiB, and may hold 0.57")
    assert "fewer calls at a time, or share the load among more workers" in words


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda bench: (bench.send(frame([LONG])[len(BEGUN) :]), bench.end(b"0")), "OK"),
        (lambda bench: bench.end(b"0"), "Internal"),
        (lambda bench: bench.end(b"8"), "ResourceExhausted"),
        (lambda bench: bench.reset(), "Internal"),
        (lambda bench: bench.sides[-1].transport.abort(), "Unavailable"),
        (lambda bench: bench.channel.close(), "Unavailable"),
        (lambda bench: bench.send(frame([LONG])[len(BEGUN) :] + TOO_LONG), "ResourceExhausted"),
    ],
    ids=["answered", "cut short", "refused", "reset", "connection lost", "closed", "too long"],
)
async def test_what_a_call_held_is_given_back_however_it_ends(end, code):
    async with bench_of(BEGUN) as bench:
        call = bench.start()
        await bench.holds(len(BEGUN))
        end(bench)
        async with asyncio.timeout(10):
            found = await call
        assert (found.code, bench.room.held_bytes) == (code, 0), found


async def test_a_deadline_and_the_last_message_asked_for_give_it_back_too():
    async with bench_of(BEGUN) as bench:
        assert (await bench.start(deadline_s=0.2)).code == "DeadlineExceeded"
        assert bench.room.held_bytes == 0
        call = bench.start(receive=1)
        await bench.holds(len(BEGUN))
        bench.send(frame([LONG])[len(BEGUN) :] + BEGUN)
        found = await call
        assert (found.code, found.message, bench.room.held_bytes) == ("OK", LONG, 0)


async def test_a_stream_holds_its_last_message_until_it_gives_another():
    async with bench_of(frame([LONG])) as bench:
        bench.start()
        await bench.holds(len(LONG))
        bench.send(frame([LONG + b"x"]))
        await bench.holds(len(LONG) + 1)
        bench.send(frame([b"short"]))
        await bench.holds(len(b"short"))


class Watched(Room):
    """A room that writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def take(self, more_bytes: int) -> bool:
        self.told.append(more_bytes)
        return super().take(more_bytes)


@pytest.mark.parametrize(("size", "told"), [(UNCOUNTED_BYTES_MAX, 0), (UNCOUNTED_BYTES_MAX + 1, 2)])
async def test_only_a_message_that_is_long_or_comes_in_pieces_is_counted(size, told):
    room = Watched()
    async with bench_of(frame([bytes(size)]), room=room) as bench:
        call = bench.start(receive=2)
        await until(lambda: bool(bench.sides[-1].streams))
        bench.send(frame([b"x"]))
        assert (await call).code == "OK"
    assert len(room.told) == told
