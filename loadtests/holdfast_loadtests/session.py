"""The worker's life: reads its plan and its orders from stdin, tells what happens on stdout, one JSON object a line.

in    the plan · {"begin": true}, where the plan says `held` · {"phase": NAME} · {"users": N} · {"report": true} ·
      {"total": true} · {"stop": true} · {"exit": true}; the end of stdin means that the parent is gone
out   {"event": "connected" | "ready" | "phase" | "status" | "report" | "total" | "drained" | "error", …}
"""

import asyncio
import base64
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import uvloop

from holdfast_loadtests.channels import Channel
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.driver import Driver
from holdfast_loadtests.exposition import Exposition
from holdfast_loadtests.ledger import Ledger
from holdfast_loadtests.records import RecordWriter
from holdfast_loadtests.room import Room
from holdfast_loadtests.security import Security
from holdfast_loadtests.serving import MetricsServer
from holdfast_loadtests.shares import Share
from holdfast_loadtests.spec import CONCURRENCY_MAX, LoadSpec
from holdfast_loadtests.stalls import Stalls
from holdfast_loadtests.targets import target_of

STATUS_EVERY_S: Final = 0.5
EXIT_ORPHANED: Final = 4
EXIT_BROKEN: Final = 5


def main() -> None:
    """Carries out the plan on stdin's first line; returns when told to exit."""
    plan = json.loads(sys.stdin.buffer.readline() or "null")
    if plan is not None:
        uvloop.run(_main(plan))


async def _main(plan: dict[str, Any]) -> None:
    session = Session(plan)
    threading.Thread(target=_obey, args=(session,), name="orders", daemon=True).start()
    await session.run()


def _obey(session: "Session") -> None:
    for line in sys.stdin.buffer:
        order = json.loads(line)
        session.tell(order)
        if order.get("exit"):
            return  # a thread that still reads stdin when the interpreter ends aborts it
    session.tell({"orphaned": True})


def say(event: str, **fields: object) -> None:
    """Writes one line to the parent."""
    data = (json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n").encode()
    while data:
        data = data[os.write(1, data) :]


class Session:
    """One load, from connecting to the last scrape."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._broken)
        spec = LoadSpec.model_validate(plan["spec"])
        self._user_count = spec.user_count(plan["tables"]) if plan["users"] is None else int(plan["users"])
        self._connections_max = spec.connections or CONCURRENCY_MAX
        self._is_held = bool(plan["held"])
        self._record = RecordWriter(Path(plan["record"])) if plan["record"] else None
        security = Security(**plan["security"]) if plan["security"] else None
        target = target_of(plan["target"], security, plan["authority"], plan["metadata"])
        self._target = target = replace(target, compressed=spec.compression is not None)
        descriptors = Descriptors(base64.b64decode(plan["descriptors"]))
        share = Share.of_json(plan["share"])
        self._driver = Driver(spec, plan["tables"], plan["seed"], descriptors, target, self._record, share)
        self._room = Room()
        self._add_channels(self._user_count)
        self._stalls = Stalls()
        self._reported = Ledger()
        self._growing: set[asyncio.Task[None]] = set()
        self._begun = asyncio.Event()
        self._stopping = asyncio.Event()
        self._exiting = asyncio.Event()
        course = self._driver.course
        course.phases.switch(plan["phase"], course.clock.now_s())

    def tell(self, order: Mapping[str, Any]) -> None:
        """Hands on an order of the parent; from any thread."""
        self._loop.call_soon_threadsafe(self._obey, order)

    async def run(self) -> None:
        """Connects, loads until told to stop, drains, and stays to be scraped until told to exit."""
        driver = self._driver
        metrics = MetricsServer(Exposition(driver.course.tally))
        address = await metrics.start()
        # One that cannot connect makes calls that fail, and those are counted.
        failures = await asyncio.gather(*(channel.connect() for channel in driver.channels))
        if self._is_held:
            say("connected", drain_limit_s=driver.drain_limit_s)
            await self._begun.wait()
        gc.collect()
        gc.freeze()  # what is alive now stays: collections during the load need not look at it
        started_s = driver.course.clock.now_s()
        cpu_before_s = time.process_time()
        say(
            "ready",
            metrics=address,
            started_s=started_s,
            drain_limit_s=driver.drain_limit_s,
            failure=next(filter(None, failures), ""),
        )
        self._stalls.begin()
        driver.dispatcher.start(started_s, self._user_count)
        await self._report()
        self._stalls.end()
        cpu_s, load_s = time.process_time() - cpu_before_s, driver.course.clock.now_s() - started_s
        await driver.drain()
        self._tell_status()
        self._close_record()
        say("drained", cpu_share=cpu_s / max(load_s, 1e-9), **self._found())
        await self._exiting.wait()
        for channel in driver.channels:
            channel.close()
        driver.expiry.close()
        metrics.close()

    def _found(self) -> dict[str, object]:
        """What the load found, where the parent has no record to read it from."""
        driver, tally = self._driver, self._driver.course.tally
        return {
            "stopped_s": driver.dispatcher.stop_s,
            "ended_by_stop": driver.ended_by_stop,
            "unended": driver.unended,
            "out_of_room": self._room.refused,
            "stall_ms_max": self._stalls.longest_s * 1000.0,
            "outcomes": dict(tally.outcomes),
            "wrong": tally.wrong,
            "notes": [
                [f"{method.rpartition('/')[2]} {text}", count]
                for (method, text), count in driver.course.notes.most_common()
            ],
            "never_sent": sum(lane.never_sent for lane in tally.lanes.values()),
            "failed": [[*labels, lane.wrong.as_json()] for labels, lane in tally.lanes.items()],
            "latency": [[*labels, series.histogram.as_json()] for labels, series in tally.latency.items()],
            "lag": [[phase, lags.histogram.as_json()] for phase, lags in tally.lags.items()],
        }

    def _obey(self, order: Mapping[str, Any]) -> None:
        if "phase" in order:
            self._begin_phase(order["phase"])
        elif "users" in order:
            self._resize(order["users"])
        elif order.get("report"):
            self._tell_news()
        elif order.get("total"):
            say("total", found=self._total().as_json())
        elif order.get("begin"):
            self._begun.set()
        elif order.get("stop"):
            self._stopping.set()
        elif order.get("exit"):
            if not self._begun.is_set() and self._is_held:
                self._end(0)
            self._exiting.set()
        else:
            self._end(EXIT_ORPHANED)

    def _begin_phase(self, name: str) -> None:
        """Calls due from now on belong to this phase; those due before keep theirs."""
        course = self._driver.course
        since_s = course.clock.now_s()
        course.phases.switch(name, since_s)
        say("phase", name=name, since_s=since_s)

    def _resize(self, users: int) -> None:
        """The closed model's users become so many; new ones begin once they are connected."""
        self._user_count = users
        before = len(self._driver.channels)
        self._add_channels(users)

        async def grow() -> None:
            await asyncio.gather(*(channel.connect() for channel in self._driver.channels[before:]))
            self._driver.dispatcher.resize(self._user_count)

        task = self._loop.create_task(grow())
        self._growing.add(task)
        task.add_done_callback(self._growing.discard)

    def _add_channels(self, users: int) -> None:
        channels = self._driver.channels
        for number in range(len(channels), min(self._connections_max, users)):
            channels.append(Channel(number, self._target, self._driver.expiry, room=self._room))

    def _tell_news(self) -> None:
        """What was found since the last time that it was asked."""
        self._driver.record_refused()
        found = self._total()
        news, self._reported = found.since(self._reported), found
        say("report", news=news.as_json())

    def _total(self) -> Ledger:
        """All that was found so far."""
        return Ledger.of_tally(self._driver.course.tally, self._driver.course.notes)

    async def _report(self) -> None:
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), STATUS_EVERY_S)
            except TimeoutError:
                self._tell_status()

    def _tell_status(self) -> None:
        self._driver.record_refused()
        if self._record is not None:
            self._record.flush()
        course = self._driver.course
        now_s = course.clock.now_s()
        say("status", t_s=now_s, phase=course.phases.current, **course.tally.status(now_s))

    def _close_record(self) -> None:
        if self._record is not None:
            self._record.close()

    def _broken(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Something broke in a callback: so does the load, loudly."""
        error = context.get("exception")
        say("error", message=f"{type(error).__name__}: {error}" if error else str(context.get("message")))
        self._end(EXIT_BROKEN)

    def _end(self, code: int) -> NoReturn:
        """Leaves at once, with all that is recorded on disk."""
        try:
            self._close_record()
        finally:  # a disk that is full
            os._exit(code)
