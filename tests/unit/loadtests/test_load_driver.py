"""How a load ends: what was due is made, what cannot begin is never sent, and what has no end is told."""

import asyncio
import time

from holdfast.http2 import ErrorCode
from holdfast_loadtests.channels import Channel
from holdfast_loadtests.clock import RunClock
from holdfast_loadtests.driver import Driver
from holdfast_loadtests.exchanges import MESSAGE_BYTES_MAX
from holdfast_loadtests.records import RecordWriter, read_calls
from holdfast_loadtests.spec import LoadSpec
from holdfast_loadtests.targets import Target
from support.codec_server import HEADERS, Served, ServerSide, trailers, until
from support.echo_server_descriptors import registry_descriptors

LIST = {"call": "holdfast.registry.v1.AgentRegistryService/ListAgents"}


class Loading:
    """A driver under way against a server in the same loop."""

    def __init__(self, spec, answer, record=None, tables=None) -> None:
        self.spec = LoadSpec.model_validate(spec)
        self._answer = answer
        self._record = record
        self._tables = tables or {}
        self.sides: list[ServerSide] = []

    def _side(self) -> ServerSide:
        self.sides.append(ServerSide(self._answer))
        return self.sides[-1]

    async def __aenter__(self) -> "Loading":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._side, "127.0.0.1", 0)
        target = Target(f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}")
        self.driver = Driver(self.spec, self._tables, 1, registry_descriptors(), target, self._record)
        self.driver.course.phases.switch("load", self.driver.course.clock.now_s())
        self._channel = Channel(0, target, self.driver.expiry)
        self.driver.channels = [self._channel]
        assert await self._channel.connect() == ""
        self.driver.dispatcher.start(self.driver.course.clock.now_s(), self.spec.user_count(self._tables))
        return self

    async def __aexit__(self, *_) -> None:
        self._channel.close()
        self.driver.expiry.close()
        self._server.close()
        for side in self.sides:
            side.transport.abort()
        await asyncio.sleep(0)


async def test_calls_without_an_end_are_cancelled_and_counted_apart_as_indefinite(tmp_path):
    resets: list[int] = []

    class Hearing(Served):
        def on_reset(self, reset) -> None:
            resets.append(reset.code)

    record = RecordWriter(tmp_path / "calls.csv.gz")
    async with Loading({"users": 2, "mix": [LIST], "deadline": "50ms"}, lambda *_: None, record) as load:
        side = load.sides[0]
        side.on_stream = lambda fields: side.streams.append(Hearing(side, fields)) or side.streams[-1]
        await until(lambda: load.driver.course.tally.in_flight == 2)
        load.driver.expiry.close()  # nothing ends them any more, as where deadlines are not kept
        already = load.driver.course.tally.outcomes.total()
        await load.driver.drain()
        record.close()
        await until(lambda: resets[-2:] == [ErrorCode.CANCEL] * 2)
    assert load.driver.unended == 2
    assert load.driver.course.tally.in_flight == 0
    calls = list(read_calls(tmp_path / "calls.csv.gz"))
    assert len(calls) == already + 2, "each call that was sent is in the record"
    for call in calls[-2:]:
        assert (call.code, call.outcome, call.expected) == ("Cancelled", "indefinite", False)
        assert "still under way when the load stopped waiting" in call.note


async def test_calls_that_end_in_time_leave_nothing_unended():
    async with Loading({"users": 2, "mix": [LIST], "deadline": "100ms"}, lambda *_: None) as load:
        await until(lambda: load.driver.course.tally.in_flight == 2)
        await load.driver.drain()
    assert load.driver.unended == 0
    assert load.driver.course.tally.outcomes.keys() == {"indefinite"}, "their deadlines passed"


async def test_a_step_that_fell_due_before_the_end_is_made_and_one_due_after_it_is_not():
    steps = [LIST, {**LIST, "after": "100ms"}, {**LIST, "after": "60s"}]
    spec = {"arrivals": [{"rate": "1/h"}], "scenarios": [{"name": "late", "steps": steps}]}
    async with Loading(spec, lambda side, stream: side.ok(stream, b"")) as load:
        await until(lambda: load.driver.course.tally.outcomes["ok"] == 1)
        time.sleep(0.2)  # noqa: ASYNC251  # the loop stands still: its timer for the second step is late
        async with asyncio.timeout(10):
            await load.driver.drain()
        assert len(load.sides[0].streams) == 2
    assert load.driver.course.tally.outcomes == {"ok": 2}


async def test_a_scenario_that_the_end_cuts_short_leaves_its_row_to_nobody():
    held: list[Served] = []
    scenario = {"name": "life", "rows": "agents", "steps": [LIST, LIST]}
    spec = {"arrivals": [{"rate": "200/s"}], "scenarios": [scenario]}
    async with Loading(spec, lambda _, stream: held.append(stream), tables={"agents": [{"id": "0"}]}) as load:
        await until(lambda: held and load.driver.dispatcher._parked_count >= 2)
        draining = asyncio.create_task(load.driver.drain())
        await until(lambda: load.driver.dispatcher.is_stopped)
        load.sides[0].ok(held[0], b"")
        load.sides[0].flush()
        async with asyncio.timeout(10):
            await draining
        assert len(load.sides[0].streams) == 1, "the second step was due after the end, and no other life began"
    outcomes = load.driver.course.tally.outcomes
    assert outcomes["ok"] == 1
    assert outcomes["never_sent"] >= 2


async def test_an_end_that_this_end_makes_is_no_answer_that_a_step_expects():
    """A server at its limit may be what a step is about; the engine at its own is not."""

    def too_long(side, stream) -> None:
        side.codec.send_headers(stream, HEADERS)
        side.codec.send(stream, (MESSAGE_BYTES_MAX + 1).to_bytes(5, "big"))

    def at_its_limit(side, stream) -> None:
        side.codec.send_headers(stream, HEADERS)
        side.codec.send_headers(stream, trailers(b"8"), ends=True)

    for answer, is_wrong in ((too_long, True), (at_its_limit, False)):
        async with Loading({"users": 1, "mix": [{**LIST, "expect": ["ResourceExhausted"]}]}, answer) as load:
            await until(lambda load=load: load.driver.course.tally.outcomes.total() > 0)
            await load.driver.drain()
        assert bool(load.driver.course.tally.unexpected) is is_wrong
    assert load.driver.course.tally.outcomes.keys() == {"definite"}


def test_setting_the_time_does_not_bend_the_clock_of_a_load(monkeypatch):
    clock = RunClock()
    before_s = clock.now_s()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0.0 <= clock.now_s() - before_s < 60.0
