"""What comes of a call, by what the server does; the server is the codec's other role, or plain bytes."""

import asyncio
import socket
import ssl
import struct

import pytest

from holdfast.http2 import ErrorCode, Limits, encode
from holdfast_loadtests import channels
from holdfast_loadtests.answers import Answer
from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.exchanges import MESSAGE_BYTES_MAX
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import frame
from holdfast_loadtests.targets import Target, timeout_text
from support.codec_server import HEADERS, Served, ServerSide, trailers, until


class Bench:
    """A server, and a channel to it."""

    def __init__(
        self, answer=ServerSide.ok, limits: Limits | None = None, protocol=None, first_stream_id: int = 1
    ) -> None:
        self.sides: list[ServerSide] = []
        self._first_stream_id = first_stream_id
        self._make = protocol or (lambda: self._side(answer, limits))

    def _side(self, answer, limits) -> ServerSide:
        self.sides.append(ServerSide(answer, limits))
        return self.sides[-1]

    async def __aenter__(self) -> "Bench":
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self._make, "127.0.0.1", 0)
        self.target = Target(f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}")
        self.expiry = Expiry(loop, expire)
        self.channel = Channel(0, self.target, self.expiry, self._first_stream_id)
        self.failure = await self.channel.connect()
        return self

    async def __aexit__(self, *_) -> None:
        self.channel.close()
        self.expiry.close()
        self.server.close()
        for side in self.sides:
            side.transport.abort()
        await asyncio.sleep(0)  # one turn, in which transports hear that they are closed

    async def call(self, data: bytes = b"hi", deadline_s: float = 5.0, many=False, receive=None, on_end=None) -> Answer:
        ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        prepared = Prepared(self.target.block("/p.S/M", deadline_s), deadline_s, many, receive)
        self.channel.start(prepared, frame([data]), on_end or ended.set_result)
        async with asyncio.timeout(10):
            return await ended


def replying(block: bytes, *data: bytes, then: bytes | None = None):
    """An answer of headers, data, and trailers; the last of them ends it."""

    def answer(side: ServerSide, stream: Served) -> None:
        parts = [*data]
        side.codec.send_headers(stream, block, ends=not parts and then is None)
        for number, part in enumerate(parts):
            side.codec.send(stream, part, ends=then is None and number == len(parts) - 1)
        if then is not None:
            side.codec.send_headers(stream, then, ends=True)

    return answer


def resetting(code: ErrorCode):
    return lambda side, stream: side.codec.reset(stream, code)


ONLY_TRAILERS = encode(
    [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no%20such%C3%A9"),
    ]
)
HTML = encode([(b":status", b"404"), (b"content-type", b"text/html")])
PLAIN = encode([(b":status", b"200"), (b"content-type", b"text/plain")])


@pytest.mark.parametrize(
    ("answer", "code", "outcome", "broke", "details"),
    [
        (ServerSide.ok, "Internal", "indefinite", "other", "OK without a message"),
        (lambda side, stream: side.ok(stream, b"x"), "OK", "ok", "", ""),
        (lambda side, stream: side.ok(stream, b"x", b"y"), "Internal", "indefinite", "other", "more than one message"),
        (replying(ONLY_TRAILERS), "NotFound", "definite", "", "no suché"),
        (replying(HEADERS, then=trailers(b"14", b"draining")), "Unavailable", "indefinite", "other", "draining"),
        (replying(HEADERS, then=trailers(b"4")), "DeadlineExceeded", "indefinite", "deadline", ""),
        (replying(HEADERS, then=trailers(b"99")), "Unknown", "indefinite", "other", "no code has"),
        (replying(HEADERS, then=trailers(b"x")), "Unknown", "indefinite", "other", "no code has"),
        (replying(HEADERS, then=encode([(b"x", b"y")])), "Unknown", "indefinite", "other", "without a grpc-status"),
        (replying(HEADERS, frame([b"x"])), "Unknown", "indefinite", "other", "without a status"),
        (replying(HEADERS, b"\0\0\0\0\5ab", then=trailers(b"0")), "Internal", "indefinite", "other", "OK without"),
        (
            replying(HEADERS, b"\1\0\0\0\1a", then=trailers(b"0")),
            "Internal", "indefinite", "other", "compressed message with no grpc-encoding",
        ),
        (
            replying(HEADERS, b"\0" + struct.pack(">I", MESSAGE_BYTES_MAX + 1), then=trailers(b"0")),
            "ResourceExhausted", "indefinite", "other", "at most",
        ),
        (replying(HTML, b"<html>"), "Unimplemented", "definite", "other", "HTTP status 404"),
        (replying(PLAIN, b"hello"), "Unknown", "indefinite", "other", "no gRPC server's answer"),
        (resetting(ErrorCode.REFUSED_STREAM), "Unavailable", "refused", "other", "REFUSED_STREAM"),
        (resetting(ErrorCode.CANCEL), "Cancelled", "indefinite", "other", "CANCEL"),
        (resetting(ErrorCode.INTERNAL_ERROR), "Internal", "indefinite", "other", "INTERNAL_ERROR"),
        (resetting(ErrorCode.ENHANCE_YOUR_CALM), "ResourceExhausted", "indefinite", "other", "ENHANCE_YOUR_CALM"),
        (lambda side, _: side.transport.abort(), "Unavailable", "indefinite", "reset", ""),
        (lambda side, stream: side.codec.send(stream, b"x"), "Internal", "indefinite", "other", "broke a rule"),
        (
            lambda side, _: side.transport.write(b"\0\0\5\6\0\0\0\0\0ping!"),
            "Unavailable", "indefinite", "other", "broke a rule of HTTP/2: FRAME_SIZE_ERROR",
        ),
    ],
)  # fmt: skip
async def test_how_a_call_ended_follows_from_what_the_server_did(answer, code, outcome, broke, details):
    async with Bench(answer) as bench:
        found = await bench.call()
    assert (found.code, found.outcome, found.broke) == (code, outcome, broke), found
    assert details in found.details
    if code == "OK":
        assert found.message == b"x"


async def test_a_call_without_an_answer_ends_at_its_deadline_and_tells_the_server():
    class Hearing(Served):
        def on_reset(self, reset) -> None:
            resets.append(reset.code)
            heard.set()

    resets: list[int] = []
    heard = asyncio.Event()
    async with Bench(lambda *_: None) as bench:
        side = bench.sides[0]
        side.on_stream = lambda fields: side.streams.append(Hearing(side, fields)) or side.streams[-1]
        found = await bench.call(deadline_s=0.1)
        async with asyncio.timeout(20):
            await heard.wait()
    assert (found.code, found.outcome, found.broke) == ("DeadlineExceeded", "indefinite", "deadline")
    assert resets == [ErrorCode.CANCEL]
    assert side.streams[0].fields.get(b"grpc-timeout") == b"100000u"


async def test_a_server_that_cancels_a_call_at_its_deadline_shows_the_deadline(monkeypatch):
    monkeypatch.setattr(Channel, "is_past", lambda *_: True)  # the server's clock may be the first to tell
    async with Bench(resetting(ErrorCode.CANCEL)) as bench:
        found = await bench.call()
    assert (found.code, found.outcome, found.broke) == ("DeadlineExceeded", "indefinite", "deadline")


async def test_a_stream_is_ended_as_ok_after_so_many_messages_and_short_where_fewer_came():
    async with Bench(lambda side, stream: side.ok(stream, b"1", b"2", b"3")) as bench:
        whole = await bench.call(many=True)
        two = await bench.call(many=True, receive=2)
        short = await bench.call(many=True, receive=4)
    assert (whole.code, whole.message) == ("OK", b"3")
    assert (two.code, two.message, two.short) == ("OK", b"2", "")
    assert (short.code, short.short) == ("OK", "the stream ended after 3 of 4 messages")


@pytest.mark.parametrize("size", [0, 1, 16_384, 70_000, 5_000_000])
async def test_messages_of_any_size_go_both_ways_whatever_the_windows(size):
    def echo(side: ServerSide, stream: Served) -> None:
        side.ok(stream, stream.data[5:])

    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with Bench(echo) as bench:
        found = await bench.call(body, deadline_s=20.0)
    assert (found.code, found.message == body) == ("OK", True), found.details


async def test_calls_beyond_the_servers_streams_wait_their_turn_and_none_is_lost():
    open_now, most = 0, 0

    def later(side: ServerSide, stream: Served) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)

        def finish() -> None:
            nonlocal open_now
            open_now -= 1
            side.ok(stream, b"x")
            side.flush()

        asyncio.get_running_loop().call_later(0.005, finish)

    async with Bench(later, Limits(streams_open_max=3)) as bench:
        found = await asyncio.gather(*(bench.call() for _ in range(20)))
    assert {answer.code for answer in found} == {"OK"}
    assert most <= 3


async def test_a_call_that_waits_for_a_stream_until_its_deadline_was_surely_not_sent():
    async with Bench(lambda *_: None, Limits(streams_open_max=1)) as bench:
        first, second = await asyncio.gather(bench.call(deadline_s=0.3), bench.call(deadline_s=0.1))
    assert (first.outcome, second.outcome) == ("indefinite", "refused")
    assert "waited for a connection or a stream" in second.details


async def test_goaway_lets_calls_under_way_end_and_sends_the_next_elsewhere():
    def answer(side: ServerSide, stream: Served) -> None:
        if stream.data.endswith(b"go"):
            side.codec.go_away()
        side.ok(stream, b"x")

    async with Bench(answer) as bench:
        assert (await bench.call(b"go")).code == "OK"
        assert (await bench.call(b"next")).code == "OK"
        assert len(bench.sides) == 2


async def test_what_a_goaway_leaves_unlooked_at_was_surely_not_carried_out():
    async with Bench(lambda side, _: side.codec.go_away(last_stream_id=0)) as bench:
        found = await bench.call()
    assert (found.code, found.outcome, found.broke) == ("Unavailable", "refused", "goaway")


async def test_after_a_lost_connection_the_channel_dials_again():
    def answer(side: ServerSide, stream: Served) -> None:
        if side is bench.sides[0]:
            side.transport.abort()
        else:
            side.ok(stream, b"x")

    async with Bench(answer) as bench:
        assert (await bench.call()).outcome == "indefinite"
        assert (await bench.call()).code == "OK"


class Speaking(asyncio.Protocol):
    """A server that is no HTTP/2 server."""

    def __init__(self, words: bytes, closes: bool = True) -> None:
        self._words, self._closes = words, closes

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # asyncio's
        self._transport.write(self._words)
        if self._closes:
            self._transport.close()


@pytest.mark.parametrize(
    ("words", "closes", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "speaks HTTP/1"),
        (b"\x15\x03\x01\x00\x02\x02\x46", True, "speaks TLS"),
        (b"SSH-2.0-OpenSSH\r\n", True, "broke a rule of HTTP/2"),
        (b"\xff" * 100, False, "broke a rule of HTTP/2"),
        (b"", True, "closed the connection"),
        (b"", False, "no HTTP/2 settings within"),
    ],
)
async def test_a_server_that_speaks_something_else_is_told_apart_and_calls_fail_as_refused(
    words, closes, says, monkeypatch
):
    monkeypatch.setattr(channels, "DIAL_WITHIN_S", 0.3)
    async with Bench(protocol=lambda: Speaking(words, closes)) as bench:
        assert says in bench.failure
        found = await bench.call()
    assert (found.code, found.outcome) == ("Unavailable", "refused")


async def test_an_address_where_nothing_listens_refuses_at_once_and_heals_when_something_does():
    async with Bench(lambda side, stream: side.ok(stream, b"x")) as bench:
        port = int(bench.target.address.rpartition(":")[2])
        bench.server.close()
        bench.sides[0].transport.abort()
        async with asyncio.timeout(10):
            while (found := await bench.call(deadline_s=0.05)).broke != "refused":
                pass  # until the lost connection is noticed and the dial has failed
        assert found.outcome == "refused"
        assert "Connection refused" in found.details
        bench.server = await asyncio.get_running_loop().create_server(bench._make, "127.0.0.1", port)
        async with asyncio.timeout(10):
            while (await bench.call()).code != "OK":
                pass  # until the pause before the next dial is over; refused calls end in the next turn


@pytest.mark.parametrize(
    ("deadline_s", "header"),
    [(2.0, b"2000000u"), (0.05, b"50000000n"), (100.0, b"100000m"), (1e6, b"1000000S"), (1e9, b"16666667M")],
)
def test_deadlines_are_written_in_the_finest_unit_that_fits(deadline_s, header):
    assert timeout_text(deadline_s) == header


class Closing(asyncio.Protocol):
    """Accepts, and closes at the first byte."""

    def __init__(self, dials: asyncio.Queue[None]) -> None:
        self._dials = dials

    def connection_made(self, transport) -> None:
        self._dials.put_nowait(None)
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.close()


async def test_a_tls_handshake_that_is_cut_off_is_a_failure_with_a_reason_and_is_tried_again():
    loop = asyncio.get_running_loop()
    dials: asyncio.Queue[None] = asyncio.Queue()
    server = await loop.create_server(lambda: Closing(dials), "127.0.0.1", 0)
    expiry = Expiry(loop, expire)
    target = Target(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", tls=ssl.create_default_context())
    channel = Channel(0, target, expiry)
    try:
        assert "failed to connect" in await channel.connect()
        async with asyncio.timeout(10):
            for _ in range(2):
                await dials.get()
    finally:
        channel.close()
        expiry.close()
        server.close()


async def test_an_answer_that_ends_before_the_request_did_frees_its_stream_and_the_rest_is_not_sent():
    resets: list[tuple[int, int]] = []

    class Hasty(Served):
        def on_headers(self, fields, ends: bool) -> None:
            self.owner.ok(self, b"x")
            self.owner.flush()

        def on_reset(self, reset) -> None:
            resets.append((self.id, reset.code))

    async with Bench(limits=Limits(streams_open_max=1)) as bench:
        side = bench.sides[0]
        side.on_stream = lambda fields: side.streams.append(Hasty(side, fields)) or side.streams[-1]
        for _ in range(3):
            found = await bench.call(b"x" * 100_000, deadline_s=5.0)
            assert (found.code, found.message) == ("OK", b"x"), found
        await until(lambda: len(resets) == 3)
    assert resets == [(1, ErrorCode.NO_ERROR), (3, ErrorCode.NO_ERROR), (5, ErrorCode.NO_ERROR)]


async def test_a_deadline_that_passes_while_the_servers_window_is_shut_says_so():
    async with Bench(lambda *_: None, Limits(stream_window_bytes=0)) as bench:
        found = await bench.call(b"x" * 100, deadline_s=0.1)
    assert (found.code, found.outcome) == ("DeadlineExceeded", "indefinite")
    assert "105 bytes of the request waited: the server's flow-control window was closed" in found.details


async def test_calls_that_were_reset_alike_are_told_alike():
    async with Bench(resetting(ErrorCode.CANCEL)) as bench:
        found = {(await bench.call()).details for _ in range(3)}
    assert found == {"the server reset the stream: CANCEL"}


async def test_used_up_stream_ids_bring_a_new_connection_and_no_call_is_lost():
    async with Bench(lambda side, stream: side.ok(stream, b"x"), first_stream_id=(1 << 31) - 5) as bench:
        found = await asyncio.gather(*(bench.call() for _ in range(10)))
        assert {answer.code for answer in found} == {"OK"}
        served = [[stream.id for stream in side.streams] for side in bench.sides]
    assert served == [[2**31 - 5, 2**31 - 3, 2**31 - 1]] * 3 + [[2**31 - 5]]


class NotReading(asyncio.Protocol):
    """A server that gives its settings and breaks a rule, and from then on reads nothing."""

    def __init__(self, made: list["NotReading"], broken: bytes) -> None:
        self._broken = broken
        made.append(self)

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        transport.write(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS

    def data_received(self, _data: bytes) -> None:
        self.transport.pause_reading()
        self.transport.write(self._broken)


async def test_a_server_that_breaks_a_rule_and_does_not_read_is_dialled_again():
    made: list[NotReading] = []
    ping_too_long = b"\0\0\5\6\0\0\0\0\0ping!"
    window_open = b"\0\0\4\x08\0\0\0\0\0\x7f\0\0\0"  # WINDOW_UPDATE: what is not read fills the socket
    settings = b"\0\0\6\4\0\0\0\0\0\0\4\x7f\xff\xff\xff"  # INITIAL_WINDOW_SIZE
    async with Bench(protocol=lambda: NotReading(made, settings + window_open)) as bench:
        big = asyncio.create_task(bench.call(b"x" * 8_000_000, deadline_s=5.0))
        await until(lambda: bench.channel._link._is_paused)
        made[0].transport.write(ping_too_long)
        assert (await big).broke == "other"
        await until(lambda: len(made) == 2)
        await until(lambda: bench.channel._links == {bench.channel._link})  # the old socket is cut off in time
        for each in made:
            each.transport.abort()


async def test_a_failure_of_what_takes_an_answer_is_told_even_where_the_loop_takes_it_for_the_sockets_own():
    heard: list[object] = []
    told = asyncio.Event()

    def handler(_loop, context) -> None:
        heard.append(context["exception"])
        told.set()

    def full(_answer) -> None:
        raise full_disk

    full_disk = OSError(28, "No space left on device")
    loop = asyncio.get_running_loop()
    async with Bench(lambda side, stream: side.ok(stream, b"x")) as bench:
        loop.set_exception_handler(handler)
        call = asyncio.create_task(bench.call(on_end=full))
        async with asyncio.timeout(10):
            await told.wait()
        call.cancel()
    assert heard == [full_disk]


async def test_only_one_call_in_the_pause_tells_of_a_connection_that_was_reset_as_it_was_made(monkeypatch):
    monkeypatch.setattr(channels, "BACKOFF_FIRST_S", 60.0)  # one long pause
    monkeypatch.setattr(channels, "BACKOFF_MAX_S", 60.0)
    async with Bench(protocol=lambda: Speaking(b"", closes=True)) as bench:
        found = [(await bench.call()).broke for _ in range(3)]
    assert found == ["reset", "refused", "refused"]


async def test_a_server_that_breaks_a_rule_as_the_connection_is_made_reset_nothing():
    async with Bench(protocol=lambda: Speaking(b"\xff" * 100, closes=False)) as bench:
        assert (await bench.call()).broke == "other"
