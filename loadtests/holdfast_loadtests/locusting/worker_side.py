"""A Locust worker's part in a test: it prepares its generators when the master asks, feeds Locust's table, reports.

A Locust without workers is its own master: the same messages, handed over in the process.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import gevent
from gevent.lock import RLock
from locust.runners import STATE_INIT, WorkerRunner

from holdfast.cli import InputError
from holdfast_loadtests.engine import LoadError
from holdfast_loadtests.locusting import messages
from holdfast_loadtests.locusting.locust_table import feed
from holdfast_loadtests.locusting.shield import to_the_end
from holdfast_loadtests.locusting.station import Station
from holdfast_loadtests.shares import Share

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.rpc import Message

COLLECT_EVERY_S: Final = 1.0
"""Locust counts requests by the second."""

logger = logging.getLogger(__name__)


class WorkerSide:
    """Makes load for a Locust environment."""

    def __init__(self, environment: "Environment") -> None:
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._is_distributed = isinstance(self._runner, WorkerRunner)
        self._station: Station | None = None
        self._preparing: gevent.Greenlet[..., Any] | None = None
        self._takes_part = False
        self._has_begun = False
        self._is_over = True
        self._is_told = True
        self._ending = RLock()
        self._runner.register_message(messages.PREPARE, self._on_prepare, concurrent=True)
        self._runner.register_message(messages.FINISH, self._on_finish, concurrent=True)
        events = environment.events
        if self._is_distributed:
            events.test_start.add_listener(self._on_test_start)
            if self._runner.worker_state != STATE_INIT:
                self._on_late()  # users came before it could listen
        else:
            self._runner.register_message(messages.START, self._on_test_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        events.report_to_master.add_listener(self._on_report)

    @property
    def station(self) -> Station | None:
        """The generators of the test; None where this worker takes no part in it, so that its users make no calls."""
        return self._station if self._takes_part else None

    def _on_prepare(self, environment: "Environment", msg: "Message", **_: object) -> None:
        del environment
        asked = msg.data
        with self._ending:  # of the test before
            self._stop_preparing()
            self._close()
            self._preparing = cast("gevent.Greenlet[..., Any]", gevent.getcurrent())
            self._has_begun = self._is_over = self._is_told = self._takes_part = False
        answer: dict[str, Any] = {"test": asked["test"]}
        try:
            answer["drain_limit_s"] = self._prepare(asked)
        except (InputError, LoadError) as error:
            answer |= {"failure": str(error), "is_input": isinstance(error, InputError)}
            self._close()
        finally:
            self._preparing = None
        self._runner.send_message(messages.READY, answer)

    def _prepare(self, asked: dict[str, Any]) -> float:
        """Starts what makes the calls. Returns how long its end may take, in seconds.

        Raises:
            InputError: the load does not fit the target, or cannot be read.
            LoadError: a process did not become ready.
        """
        share = Share.of_json(asked["share"])
        self._station = station = Station(asked["test"], share, asked["seed"], _folder(asked, share))
        for user_class in self._environment.user_classes:
            prepare = getattr(user_class, "prepare", None)
            if prepare is not None and user_class.__name__ in asked["classes"]:
                prepare(station, asked["host"] or user_class.host)
        return station.drain_limit_s

    def _stop_preparing(self) -> None:
        """Ends a preparation that is under way, and its processes."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            preparing.kill()

    def _on_test_start(self, **_: object) -> None:
        station = self._station
        if station is None or self._has_begun:
            self._on_late()
            return
        self._has_begun = True
        if self._is_over:
            return  # it was ended before it began
        self._takes_part = True
        try:
            station.begin()
        except LoadError as error:
            station.problem = f"did not begin: {error}"
        self._runner.send_message(messages.BEGUN, {"test": station.test})
        gevent.spawn(self._collect, station)

    def _on_late(self) -> None:
        logger.error("This worker joined a test that runs: it makes no calls until the next one")
        self._takes_part = False
        self._runner.send_message(messages.LATE, {})

    def _collect(self, station: Station) -> None:
        while self._station is station and not self._is_over:
            feed(self._environment.stats, station.collect())
            if not self._is_distributed:
                self._runner.send_message(messages.REPORT, station.take_news())
            gevent.sleep(COLLECT_EVERY_S)

    def _on_report(self, data: dict[str, Any], **_: object) -> None:
        if self._station is not None and not self._is_told:
            data[messages.REPORT] = self._station.take_news()

    def _on_finish(self, environment: "Environment", msg: "Message", **_: object) -> None:
        """The master ends the test: users stop as if Locust had said so, which it will, once all have told the last."""
        del environment
        with self._ending:
            if self._station is not None and msg.data["test"] == self._station.test:
                self._runner.stop()
                self._on_stopping()  # Locust is silent where users of this test have not begun
                self._on_stop()

    def _on_stopping(self, **_: object) -> None:
        """Before users stop: nothing more falls due, what is under way is waited for."""
        with self._ending:  # the master and Ctrl-C may both say so: the second waits until the first has drained
            self._stop_preparing()
            if self._station is not None and not self._is_told:
                self._is_over = True
                feed(self._environment.stats, self._station.end_load())

    def _on_stop(self, **_: object) -> None:
        """After users have stopped, so that their last calls are counted, too."""
        with self._ending:
            station = self._station
            if station is not None and not self._is_told:
                self._is_told = True
                to_the_end(lambda: self._tell_last(station))

    def _tell_last(self, station: Station) -> None:
        station.end_calls()
        if self._is_distributed:  # Locust's own last report first: once FINAL is there, its table is complete, too
            data: dict[str, Any] = {}
            self._environment.events.report_to_master.fire(client_id=self._runner.client_id, data=data)
            self._runner.send_message("stats", data)
        self._runner.send_message(messages.FINAL, station.final())

    def _on_quitting(self, **_: object) -> None:
        if not self._is_told:
            self._runner.stop()
        with self._ending:
            self._stop_preparing()
            self._close()

    def _close(self) -> None:
        if self._station is not None:
            self._station.close()
            self._station = None


def _folder(asked: dict[str, Any], share: Share) -> Path | None:
    """Where this worker's record of a test goes, on its own machine; None where none is wanted.

    Raises:
        InputError: the folder cannot be made.
    """
    if not asked["records"]:
        return None
    folder = Path(asked["records"]) / f"test-{asked['test']}" / f"worker-{share.index + 1}-of-{share.count}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--load-records {asked['records']}: cannot make {folder}: {error.strerror}") from error
    return folder
