"""What one Locust worker runs for one test: the engine's process, those of scripted calls, and what they found."""

import json
import logging
import math
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from gevent.lock import RLock

from holdfast.cli import InputError
from holdfast_loadtests.descriptors import Descriptors
from holdfast_loadtests.engine import LoadError, LoadRun
from holdfast_loadtests.ledger import Ledger
from holdfast_loadtests.locusting.calling import CallerProcess, Order, describe
from holdfast_loadtests.locusting.loads import Load
from holdfast_loadtests.locusting.targets import Place
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.results import results_of
from holdfast_loadtests.shares import Share

logger = logging.getLogger(__name__)

PHASE: Final = "load"
RESULTS_NAME: Final = "results.json"


class Station:
    """The generators of one worker in one test.

    Args:
        test: its number.
        share: this worker's part of the schedule.
        seed: fixes every random choice of the schedule.
        records: a folder for the record of every call that the engine makes; None for no record.
    """

    def __init__(self, test: int, share: Share, seed: int, records: Path | None = None) -> None:
        self.test = test
        self.share = share
        self.problem = ""
        self.found = Ledger()
        self.drain_limit_s = 0.0
        self._seed = seed
        self._untold = Ledger()
        self._from_engine = Ledger()
        self._began_s: float | None = None
        self._records = records
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._load: Load | None = None
        self._engine: LoadRun | None = None
        self._users = 0
        self._lock = RLock()
        self._callers: dict[object, CallerProcess] = {}
        self._descriptors: dict[Place, bytes] = {}
        self._seconds: float | None = None
        self._drained: dict[str, Any] | None = None

    def descriptors(self, place: Place, given: bytes) -> bytes:
        """A target's descriptors: as given, else asked by reflection, once.

        Raises:
            InputError: the target has no usable reflection.
        """
        if given:
            return given
        if place not in self._descriptors:
            self._descriptors[place] = describe(place)
        return self._descriptors[place]

    def prepare_load(self, load: Load, place: Place, given: bytes) -> None:
        """Starts the engine; it connects and waits for `begin`.

        Raises:
            InputError: the target has no usable reflection, or the load does not fit its methods and messages.
            LoadError: its process did not become ready.
        """
        if self._load is not None:
            raise InputError("one EngineUser class a test: put both loads into one, as scenarios with weights")
        plan = LoadPlan(
            target=place.target,
            spec=load.spec,
            tables=load.tables,
            seed=self._seed,
            descriptors=self.descriptors(place, given),
            first_phase=PHASE,
            security=place.security,
            authority=place.authority,
            metadata=place.metadata,
            records=self._records is not None,
            share=self.share,
            users=None if load.is_open else 0,
            held=True,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-locust-")
        self._engine = LoadRun.start(plan, self._records or Path(self._folder.name))
        self._load = load
        self.drain_limit_s = self._engine.drain_limit_s

    def prepare_calls(self, key: object, place: Place, connections: int, given: bytes, compressed: bool) -> None:
        """Starts the process of a user class's scripted calls; their requests may be compressed.

        Raises:
            InputError: the target has no usable reflection.
            LoadError: the process did not become ready.
        """
        descriptors = self.descriptors(place, given)
        Descriptors(descriptors)
        if key not in self._callers:
            self._callers[key] = CallerProcess(place, descriptors, connections, compressed)

    def begin(self) -> None:
        """The load begins.

        Raises:
            LoadError: the engine's process is gone.
        """
        self._began_s = time.monotonic()
        if self._engine is not None:
            with self._lock:
                self._engine.begin()

    def add_users(self, more: int) -> None:
        """The closed model has so many more users, or fewer where negative; in the open one users do nothing."""
        self._users += more
        load = self._load
        if self._engine is None or load is None or load.is_open or self._seconds is not None:
            return
        most = load.users_max(self.share)
        if self._users > most:
            self.problem = (
                f"was given {self._users} users, but has rows for {most}: the others made no calls. Ask for fewer "
                "users, or give the table more rows"
            )
        try:
            with self._lock:
                self._engine.set_users(min(self._users, most))
        except LoadError as error:
            self._lose_engine(error)

    def call(self, key: object, user: int, order: Order) -> tuple[dict[str, Any], float]:
        """Makes a scripted call. Returns its answer, and by how many seconds this worker was late with it.

        Raises:
            InputError: the call does not fit the target's methods and messages.
            LoadError: the process is gone.
        """
        return self._callers[key].call(user, order)

    def has_calls(self, key: object) -> bool:
        """Whether the process of a user class's calls runs."""
        return key in self._callers

    def record(self, method: str, told: dict[str, Any], late_s: float, wrong: str) -> None:
        """Counts a scripted call that was judged."""
        one = Ledger()
        one.record(method, told["code"], told["outcome"], told["latency_s"], late_s, wrong)
        self._add(one)

    def collect(self) -> Ledger:
        """What the engine found since the last time; nothing where there is none."""
        if self._engine is None:
            return Ledger()
        try:
            with self._lock:
                news = self._engine.news()
        except LoadError as error:
            self._lose_engine(error)
            return Ledger()
        self._from_engine.add(news)
        self._add(news)
        return news

    def take_news(self) -> dict[str, Any]:
        """What was found since the last time that this was called, for the master."""
        news, self._untold = self._untold, Ledger()
        return {"test": self.test, "found": news.as_json()}

    def end_load(self) -> Ledger:
        """Nothing more falls due, what is under way is waited for. Returns what the engine found since `collect`."""
        if self._seconds is not None:
            return Ledger()
        if self._began_s is None:
            self._seconds = 0.0
            self.close()
            return Ledger()
        length_s = self._load.spec.length_s if self._load is not None else None
        self._seconds = min(time.monotonic() - self._began_s, length_s or math.inf)
        if self._engine is not None:
            try:
                with self._lock:
                    self._drained = dict(self._engine.drain())
                    # By the total, not by the last news: what was asked by a greenlet that Ctrl-C ended is in neither.
                    last = self._engine.total().since(self._from_engine)
                self._write_results(self._engine.started_s)
            except LoadError as error:
                self._lose_engine(error)
            else:
                self._add(last)
                return last
        return Ledger()

    def _write_results(self, started_s: float) -> None:
        """Beside the record: what this engine found by itself, before anything was sent or merged."""
        if self._records is not None and self._drained is not None:
            found = results_of(self._drained, started_s).as_json()
            (self._records / RESULTS_NAME).write_text(json.dumps(found, indent=1) + "\n")

    def end_calls(self) -> None:
        """No more scripted calls."""
        for caller in self._callers.values():
            caller.close()

    def final(self) -> dict[str, Any]:
        """What it has to tell last."""
        drained = self._drained
        cpu_shares = [caller.cpu_share for caller in self._callers.values()]
        cpu_shares += [] if drained is None else [float(drained["cpu_share"])]
        out_of_room = sum(caller.out_of_room for caller in self._callers.values())
        out_of_room += 0 if drained is None else int(drained["out_of_room"])
        return {
            **self.take_news(),
            "seconds": self._seconds or 0.0,
            "ended": self.found.ended,
            "ended_by_stop": self.found.ended if drained is None else int(drained["ended_by_stop"]),
            "unended": 0 if drained is None else int(drained["unended"]),
            "out_of_room": out_of_room,
            "cpu_share": max(cpu_shares, default=0.0),
            "stall_ms_max": 0.0 if drained is None else float(drained["stall_ms_max"]),
            "problem": self.problem,
        }

    def close(self) -> None:
        """Ends every process; idempotent."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        for caller in self._callers.values():
            caller.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _add(self, news: Ledger) -> None:
        self.found.add(news)
        self._untold.add(news)

    def _lose_engine(self, error: LoadError) -> None:
        logger.error("This worker lost its engine: %s", error)
        self.problem = (
            self.problem or f"lost its engine, so that its part of the load was not made from then on: {error}"
        )
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.close()
