"""The worker's life: reads its plan and its orders from stdin, tells what happens on stdout, one JSON object a line.

    in    the plan · {"phase": NAME} · {"stop": true} · {"exit": true}; the end of stdin means that the parent is gone
    out   {"event": "ready" | "phase" | "status" | "drained" | "error", …}

Runs on gevent; only the worker imports it.
"""

import base64
import gc
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.fileobject import FileObjectPosix
from gevent.pywsgi import WSGIServer
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner

from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.driver import Driver
from holdfast_loadtests.exposition import CONTENT_TYPE, Exposition
from holdfast_loadtests.records import Call
from holdfast_loadtests.sending import Connection
from holdfast_loadtests.spec import LoadSpec

STATUS_EVERY_S: Final = 0.5
CONNECT_WITHIN_S: Final = 5.0
EXIT_ORPHANED: Final = 4
EXIT_BROKEN: Final = 5


def main() -> None:
    """Carries out the plan on stdin's first line; returns when told to exit."""
    orders = FileObjectPosix(0, "rb", close=False)
    plan = json.loads(orders.readline() or "null")
    if plan is None:
        return
    session = Session(plan)
    session.spawn(_obey, session, orders)
    session.run()


def _obey(session: "Session", orders: Iterable[bytes]) -> None:
    for line in orders:
        order = json.loads(line)
        if "phase" in order:
            session.begin_phase(order["phase"])
        elif order.get("stop"):
            session.stopping.set()
        elif order.get("exit"):
            session.exiting.set()
            return
    session.end(EXIT_ORPHANED)


def say(event: str, **fields: object) -> None:
    """Writes one line to the parent."""
    os.write(1, (json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n").encode())


class Session:
    """One load, from connecting to the last scrape."""

    def __init__(self, plan: dict[str, Any]) -> None:
        spec = LoadSpec.model_validate(plan["spec"])
        self._user_count = spec.user_count(plan["tables"])
        descriptors = Descriptors(base64.b64decode(plan["descriptors"]))
        self._driver = Driver(spec, plan["tables"], plan["seed"], descriptors, Path(plan["record"]))
        count = min(spec.connections or self._user_count, self._user_count)
        self._connections = [Connection(number, plan["target"]) for number in range(count)]
        self._environment = Environment(user_classes=[_user_class(self._live)])
        self._cpu_before_s = 0.0
        self.stopping = Event()
        self.exiting = Event()
        self._driver.phases.switch(plan["phase"], self._driver.clock.now_s())

    def run(self) -> None:
        """Connects, loads until told to stop, drains, and stays to be scraped until told to exit."""
        metrics = self._serve_metrics()
        self._connect()
        runner = self._environment.create_local_runner()
        self._start_users(runner)
        gc.collect()
        gc.freeze()  # what is alive now stays: collections during the load need not look at it
        started_s = self._driver.clock.now_s()
        self._cpu_before_s = time.process_time()
        say(
            "ready",
            metrics=f"127.0.0.1:{metrics.server_port}",
            started_s=started_s,
            drain_limit_s=self._driver.drain_limit_s,
        )
        self.spawn(self._driver.dispatcher.run, started_s)
        self.spawn(self._report)
        self.stopping.wait()
        self._drain(started_s)
        self.exiting.wait()
        runner.quit()
        metrics.stop(timeout=1)

    def begin_phase(self, name: str) -> None:
        """Calls due from now on belong to this phase; those due before keep theirs."""
        since_s = self._driver.clock.now_s()
        self._driver.phases.switch(name, since_s)
        say("phase", name=name, since_s=since_s)

    def spawn(self, work: Callable[..., None], *arguments: object) -> None:
        """Runs something beside; if it breaks, so does the load, loudly."""
        gevent.spawn(work, *arguments).link_exception(self._broken)

    def end(self, code: int) -> None:
        """Leaves at once, with all that is recorded on disk."""
        self._driver.record.close()
        os._exit(code)

    def _drain(self, started_s: float) -> None:
        dispatcher = self._driver.dispatcher
        dispatcher.stop()
        load_s = dispatcher.stop_s - started_s
        cpu_share = (time.process_time() - self._cpu_before_s) / max(load_s, 1e-9)
        self._driver.drain()
        dispatcher.dismiss(self._user_count)
        self._tell_status()
        self._driver.record.close()
        say(
            "drained",
            stopped_s=dispatcher.stop_s,
            cpu_share=cpu_share,
            locust_requests=self._environment.stats.total.num_requests,
        )

    def _connect(self) -> None:
        waits = [gevent.spawn(one.connect, CONNECT_WITHIN_S) for one in self._connections]
        gevent.joinall(waits)  # one that cannot connect makes calls that fail, and those are counted

    def _start_users(self, runner: LocalRunner) -> None:
        all_there = Event()
        spawned = self._environment.events.spawning_complete
        spawned.add_listener(lambda **_: all_there.set())  # type: ignore[no-untyped-call]
        runner.start(self._user_count, spawn_rate=self._user_count)
        all_there.wait()

    def _serve_metrics(self) -> WSGIServer:
        exposition = Exposition(self._driver.tally)

        def answer(_environ: object, start_response: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
            start_response("200 OK", [("Content-Type", CONTENT_TYPE)])
            return [exposition.text().encode()]

        server = WSGIServer(("127.0.0.1", 0), answer, log=None)
        server.start()
        return server

    def _report(self) -> None:
        while not self.stopping.wait(STATUS_EVERY_S):
            self._tell_status()

    def _tell_status(self) -> None:
        self._driver.record_refused()
        self._driver.record.flush()
        now_s = self._driver.clock.now_s()
        say("status", t_s=now_s, phase=self._driver.phases.current, **self._driver.tally.status(now_s))

    def _live(self, number: int) -> Iterator[Call]:
        try:
            yield from self._driver.live(self._connections[number % len(self._connections)])
        except Exception as error:  # noqa: BLE001  # Locust would log it and go on with a user less
            self._fail(error)

    def _broken(self, greenlet: "gevent.Greenlet[..., None]") -> None:
        self._fail(greenlet.exception)

    def _fail(self, error: BaseException | None) -> None:
        say("error", message=f"{type(error).__name__}: {error}")
        self.end(EXIT_BROKEN)


def _user_class(live: Callable[[int], Iterator[Call]]) -> type[User]:
    """Locust's user for this load; each one's life is a single task."""
    numbers = iter(range(1_000_000))

    class ScheduledUser(User):
        """Takes what is due from the schedule, and reports each call to Locust's own statistics."""

        @task
        def live(self) -> None:
            for call in live(next(numbers)):
                _tell_locust(self.environment, call)
            raise StopUser

    return ScheduledUser


def _tell_locust(environment: Environment, call: Call) -> None:
    environment.events.request.fire(  # type: ignore[no-untyped-call]
        request_type="grpc",
        name=call.call,
        response_time=call.latency_ms,
        response_length=0,
        exception=None if call.expected else RuntimeError(call.code),
        context={},
    )
