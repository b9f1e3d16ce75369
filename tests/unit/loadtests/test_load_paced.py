"""Streams whose messages go one by one; the server is the codec's other role."""

import asyncio
import time

import pytest
from pydantic import ValidationError

from holdfast.http2 import Limits
from holdfast_loadtests.answers import Answer
from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import cut, frame
from holdfast_loadtests.paced import ON_ANSWER
from holdfast_loadtests.spec import Step
from holdfast_loadtests.targets import Target
from support.codec_server import HEADERS, Served, ServerSide, trailers

MESSAGES = [b"", b"b", b"c" * 70_000, b"d"]


class Conversing(ServerSide):
    """Answers each message when it is there, and writes down what came when."""

    def __init__(self, ends_after: int = 0, **options) -> None:
        super().__init__(ServerSide.ok, **options)
        self.ends_after = ends_after
        self.heard: list[tuple[float, bytes]] = []
        self.most_in_a_turn = 0

    def on_stream(self, fields):
        self.streams.append(Heard(self, fields))
        return self.streams[-1]


class Heard(Served):
    began = False

    def on_data(self, data: bytes, ends: bool) -> None:
        owner = self.owner
        self.data += data
        whole = 0
        while len(self.data) >= 5 and len(self.data) >= (size := 5 + int.from_bytes(self.data[1:5], "big")):
            message, self.data = self.data[5:size], self.data[size:]
            whole += 1
            owner.heard.append((time.monotonic(), message))
            if not self.began:
                self.began = True
                owner.codec.send_headers(self, HEADERS)
            owner.codec.send(self, frame([message]))
            if len(owner.heard) == owner.ends_after:
                owner.codec.send_headers(self, trailers(b"0"), ends=True)
                return
        owner.most_in_a_turn = max(owner.most_in_a_turn, whole)
        if ends:
            owner.codec.send_headers(self, trailers(b"0"), ends=True)


class Bench:
    """A server that converses, and a channel to it."""

    def __init__(self, **options) -> None:
        self._options = options
        self.sides: list[Conversing] = []

    def _side(self) -> Conversing:
        self.sides.append(Conversing(**self._options))
        return self.sides[-1]

    async def __aenter__(self) -> "Bench":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._side, "127.0.0.1", 0)
        self.target = Target(f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}")
        self._expiry = Expiry(loop, expire)
        self.channel = Channel(0, self.target, self._expiry)
        assert await self.channel.connect() == ""
        return self

    async def __aexit__(self, *_) -> None:
        self.channel.close()
        self._expiry.close()
        self._server.close()
        for side in self.sides:
            side.transport.abort()
        await asyncio.sleep(0)

    async def call(self, *data: bytes, deadline_s: float = 5.0, receive=None, pace=None) -> Answer:
        ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        prepared = Prepared(self.target.block("/p.S/M", deadline_s), deadline_s, True, receive, pace)
        self.channel.start(prepared, frame(data), ended.set_result)
        async with asyncio.timeout(20):
            return await ended


def test_frames_are_cut_where_they_were_joined():
    assert cut(frame(MESSAGES)) == [frame([message]) for message in MESSAGES]
    assert cut(b"") == []


async def test_on_answer_sends_the_next_message_only_when_the_one_before_was_answered():
    async with Bench() as bench:
        found = await bench.call(*MESSAGES, pace=ON_ANSWER)
        [side] = bench.sides
    assert (found.code, found.message, found.short) == ("OK", b"d", "")
    assert [message for _, message in side.heard] == MESSAGES
    assert side.most_in_a_turn == 1
    assert side.codec.streams_open == 0, "this end said that nothing follows"


async def test_without_a_pace_all_messages_go_at_once():
    async with Bench() as bench:
        await bench.call(b"a", b"b")
        assert bench.sides[0].most_in_a_turn == 2


async def test_an_interval_passes_between_messages():
    async with Bench() as bench:
        assert (await bench.call(b"a", b"b", b"c", pace=0.05)).code == "OK"
        times_s = [at_s for at_s, _ in bench.sides[0].heard]
    assert times_s[2] - times_s[0] >= 0.09, "two intervals; the first may have been sent late"


async def test_messages_wait_while_their_call_does():
    async with Bench(limits=Limits(streams_open_max=1)) as bench:
        ended = await asyncio.gather(
            *(bench.call(b"a", b"b", b"c", pace=0.02) for _ in range(3)),
        )
        assert [answer.code for answer in ended] == ["OK"] * 3
        assert [message for _, message in bench.sides[0].heard] == [b"a", b"b", b"c"] * 3


async def test_a_stream_that_the_server_ends_before_all_was_sent_is_short_and_leaves_nothing_open():
    async with Bench(ends_after=2) as bench:
        found = await bench.call(*MESSAGES, pace=ON_ANSWER)
        link = bench.channel._link
        assert link.codec.streams_open == 0
    assert (found.code, found.short) == ("OK", "the server ended the stream when 3 of 4 messages were sent")


async def test_a_deadline_ends_a_stream_between_two_messages_and_its_timer():
    async with Bench() as bench:
        found = await bench.call(b"a", b"b", b"c", pace=0.2, deadline_s=0.3)
        await asyncio.sleep(0.2)  # when the third would have gone
        assert len(bench.sides[0].heard) == 2
    assert found.code == "DeadlineExceeded"


async def test_so_many_answers_end_a_paced_stream_as_ok():
    async with Bench() as bench:
        found = await bench.call(*MESSAGES, pace=ON_ANSWER, receive=2)
        assert len(bench.sides[0].heard) == 2
    assert (found.code, found.message, found.short) == ("OK", b"b", "")


@pytest.mark.parametrize(("text", "kept"), [("on_answer", "on_answer"), ("20ms", "20ms"), ("0.5s", "500ms")])
def test_a_pace_is_written_as_it_is_read(text, kept):
    assert Step.model_validate({"call": "a.B/C", "pace": text}).model_dump(mode="json")["pace"] == kept


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("pace", "0s", "above 0s"),
        ("pace", "on-answer", "expected 'on_answer' or the interval"),
        ("metadata", {"te": "x"}, "not for callers to set"),
        ("metadata", {"a": "{{uuid}}"}, "without holes"),
        ("metadata", {"a-bin": "q6u*"}, "no base64"),
    ],
)
def test_a_pace_or_metadata_that_cannot_be_is_refused(key, value, says):
    with pytest.raises(ValidationError, match=says):
        Step.model_validate({"call": "a.B/C", key: value})
