"""The master's part in a test: hands out shares, waits until all workers can start, merges, judges the generators."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import gevent
from gevent.lock import RLock
from locust.runners import STATE_MISSING, STATE_SPAWNING, STATE_STOPPED, LocalRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from holdfast.cli import EXIT_INCONCLUSIVE, EXIT_WRONG_INPUT
from holdfast_loadtests.locusting import messages
from holdfast_loadtests.locusting.board import Board
from holdfast_loadtests.locusting.files import write_files
from holdfast_loadtests.locusting.shield import to_the_end
from holdfast_loadtests.locusting.texts import summary_lines
from holdfast_loadtests.shares import Share

if TYPE_CHECKING:
    from collections.abc import Callable

    from locust.env import Environment
    from locust.rpc import Message

READY_WITHIN_S: Final = 60.0
"""For all workers together: reflection, one process, connections."""

FINISH_SLACK_S: Final = 20.0
LOOK_EVERY_S: Final = 0.05
WATCH_EVERY_S: Final = 0.5

logger = logging.getLogger(__name__)


class MasterSide:
    """Leads tests of a Locust environment; `board` is the test that runs, or ran last."""

    def __init__(self, environment: "Environment") -> None:
        self.board: Board | None = None
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._tests = 0
        self._began_s = 0.0
        self._is_finished = True
        self._exit_code: int | None = None
        self._ending = RLock()
        self._runner.register_message(messages.READY, self._on_ready)
        self._runner.register_message(messages.LATE, self._on_late)
        self._runner.register_message(messages.BEGUN, self._on_begun)
        self._runner.register_message(messages.FINAL, self._on_final)
        self._runner.register_message(messages.REPORT, self._on_local_report)
        events = environment.events
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.quitting.add_listener(self._on_stopping)
        events.worker_report.add_listener(self._on_report)
        events.worker_connect.add_listener(self._on_connect)
        events.reset_stats.add_listener(self._on_reset)
        events.spawning_complete.add_listener(self._on_spawned)

    # The life of a test.

    def _on_test_start(self, **_: object) -> None:
        self._runner.update_state(STATE_SPAWNING)  # from now on it can be stopped, and the page shows it
        self._tests += 1
        board = self.board = Board(self._tests, self._workers())
        self._began_s = time.monotonic()
        self._is_finished = False
        if self._environment.process_exit_code is None:
            self._set_exit_code(EXIT_INCONCLUSIVE)  # whatever ends this process before the test is judged
        if isinstance(self._runner, LocalRunner):
            # Locust kills the greenlet that starts a test where the number of users changes meanwhile.
            to_the_end(lambda: self._start_alone(board))
        else:
            self._start(board)
        if self._is_finished or not board.is_ready:
            raise gevent.GreenletExit  # no test began: Locust is to start no users

    def _start_alone(self, board: Board) -> None:
        self._prepare(board)
        if board.is_ready and not self._is_finished:
            self._runner.send_message(messages.START, {})
            if self._environment.shape_class is not None:
                self._environment.shape_class.reset_time()  # as Locust does where there are workers

    def _start(self, board: Board) -> None:
        try:
            self._prepare(board)
        except gevent.GreenletExit:  # the page's Stop or Edit, while workers prepare
            if not self._is_finished:
                self._on_stopping()
                self._runner.update_state(STATE_STOPPED)  # so that the next start is one
            raise

    def _prepare(self, board: Board) -> None:
        """Has every worker get ready; where one cannot, the test is given up."""
        options = self._environment.parsed_options
        for part in board.parts.values():
            asked = {
                "test": board.test,
                "share": Share(part.index, part.count).as_json(),
                "classes": [user_class.__name__ for user_class in self._environment.user_classes],
                "host": self._environment.host,
                "seed": getattr(options, "load_seed", 0),
                "records": getattr(options, "load_records", ""),
            }
            self._runner.send_message(messages.PREPARE, asked, client_id=part.worker)

        def all_have_spoken() -> bool:
            self._see_losses(board)
            return all(part.state != "preparing" for part in board.parts.values())

        self._wait(all_have_spoken, READY_WITHIN_S)
        if self._is_finished:
            return  # it was ended meanwhile
        for part in board.parts.values():
            if part.state == "preparing":
                board.fail(part.worker, f"was not ready within {READY_WITHIN_S:g} s", is_input=False)
            if part.state == "failed":
                logger.error("%s %s", part.title, part.why)
        if not board.is_ready:
            gevent.spawn(self._give_up)
            return
        self._began_s = time.monotonic()
        gevent.spawn(self._watch, board)

    def _give_up(self) -> None:
        """Ends a test that cannot begin."""
        options = self._environment.parsed_options
        if options is not None and options.headless:
            self._runner.quit()
        else:
            self._runner.stop()

    def _watch(self, board: Board) -> None:
        """Sees workers go, and the end of a load that has one."""
        length_s = max((self._length_s(one) for one in self._environment.user_classes), default=0.0)
        while self.board is board and not self._is_finished:
            self._see_losses(board)
            if length_s and board.is_past(length_s, time.monotonic()):
                logger.info("The load's arrivals end after %g s: the test ends", length_s)
                self._give_up()
                return
            gevent.sleep(WATCH_EVERY_S)

    @staticmethod
    def _length_s(user_class: Any) -> float:  # noqa: ANN401  # Locust's classes, ours among them
        length = getattr(user_class, "length_s", None)
        return float(length() or 0.0) if length is not None else 0.0

    def _on_stopping(self, **_: object) -> None:
        with self._ending:  # the page, a limit and signals may all say so: the second waits for the verdict
            to_the_end(self._end)

    def _end(self) -> None:
        """Ends the test at every worker, and waits for the last of each; alone, `_on_final` will judge."""
        board = self.board
        if board is None or self._is_finished:
            return
        awaited = [part.worker for part in board.parts.values() if part.is_awaited]
        for part in board.parts.values():
            if part.state == "preparing":
                board.fail(part.worker, "was not ready when the test ended: let it run longer", is_input=False)
        is_alone = isinstance(self._runner, LocalRunner)
        if is_alone and not board.is_over:
            return
        self._is_finished = True
        for worker in awaited:
            if not is_alone and self._is_there(worker):
                self._runner.send_message(messages.FINISH, {"test": board.test}, client_id=worker)
        drain_limit_s = max((part.drain_limit_s for part in board.parts.values()), default=0.0)

        def is_over() -> bool:
            self._see_losses(board)
            return board.is_over

        if not self._wait(is_over, drain_limit_s + self._environment.stop_timeout + FINISH_SLACK_S):
            for part in board.parts.values():
                board.lose(part.worker, time.monotonic() - self._began_s)
        self._judge(board)

    def _judge(self, board: Board) -> None:
        for line in summary_lines(board):
            logger.info("%s", line)
        doubts = board.doubts()
        for doubt in doubts:
            logger.error("INCONCLUSIVE: %s", doubt)
        # None leaves it to Locust, which ends with 1 where there were errors.
        self._set_exit_code(EXIT_WRONG_INPUT if board.wrong_input else EXIT_INCONCLUSIVE if doubts else None)
        options = self._environment.parsed_options
        if options is not None and options.csv_prefix:
            for path in write_files(board, Path(options.csv_prefix)):
                logger.info("Wrote %s", path)
            gevent.sleep(
                CSV_STATS_INTERVAL_SEC + LOOK_EVERY_S
            )  # Locust writes its own files as often, and not at the end

    def _set_exit_code(self, code: int | None) -> None:
        if (
            code is not None or self._environment.process_exit_code == self._exit_code
        ):  # else the locustfile's: it stays
            self._environment.process_exit_code = self._exit_code = code

    # What workers tell.

    def _on_ready(self, environment: "Environment", msg: "Message", **_: object) -> None:
        del environment
        board, told = self.board, msg.data
        worker = self._name(msg.node_id)
        if board is None or told["test"] != board.test or worker not in board.parts:
            return
        if "failure" in told:
            board.fail(worker, f"cannot begin: {told['failure']}", told["is_input"])
        else:
            board.ready(worker, told["drain_limit_s"])

    def _on_begun(self, environment: "Environment", msg: "Message", **_: object) -> None:
        del environment
        board, worker = self.board, self._name(msg.node_id)
        if board is not None and msg.data["test"] == board.test and worker in board.parts:
            board.begun(worker, time.monotonic())

    def _on_final(self, environment: "Environment", msg: "Message", **_: object) -> None:
        del environment
        board = self.board
        if board is not None:
            board.finish(self._name(msg.node_id), msg.data)
            if isinstance(self._runner, LocalRunner) and not self._is_finished:
                self._is_finished = True
                self._judge(board)

    def _on_local_report(self, environment: "Environment", msg: "Message", **_: object) -> None:
        del environment
        if self.board is not None:
            self.board.report(self._name(msg.node_id), msg.data)

    def _on_report(self, client_id: str, data: dict[str, Any], **_: object) -> None:
        if self.board is not None and messages.REPORT in data:
            self.board.report(client_id, data[messages.REPORT])

    def _on_connect(self, client_id: str, **_: object) -> None:
        if self.board is not None and client_id not in self.board.parts:
            self._see_late(self.board, client_id)

    def _on_late(self, environment: "Environment", msg: "Message", **_: object) -> None:
        del environment
        if self.board is not None:
            self._see_late(self.board, self._name(msg.node_id))

    def _see_late(self, board: Board, worker: str) -> None:
        if not self._is_finished and worker not in board.late:
            logger.error("Worker %s joined while the test runs: it makes no calls until the next one", worker)
            board.late.append(worker)

    def _on_reset(self, **_: object) -> None:
        if self.board is not None:
            self.board.reset()

    def _on_spawned(self, **_: object) -> None:
        if self._environment.reset_stats:
            self._on_reset()

    # Who is there.

    def _workers(self) -> list[str]:
        """The workers that take part, by their indexes at the master: the same ones get the same shares again."""
        if isinstance(self._runner, LocalRunner):
            return ["local"]
        clients = self._runner.clients
        there = [client.id for client in clients.ready + clients.running + clients.spawning]
        return sorted(there, key=self._runner.get_worker_index)

    def _is_there(self, worker: str) -> bool:
        if isinstance(self._runner, LocalRunner):
            return True
        client = self._runner.clients.get(worker)
        return client is not None and client.state != STATE_MISSING

    def _see_losses(self, board: Board) -> None:
        for part in board.parts.values():
            if part.is_awaited and not self._is_there(part.worker):
                board.lose(part.worker, time.monotonic() - self._began_s)
                logger.error("%s %s", part.title, part.why or "told everything before it went")

    def _name(self, node_id: str) -> str:
        return "local" if isinstance(self._runner, LocalRunner) else node_id

    @staticmethod
    def _wait(holds: "Callable[[], bool]", timeout_s: float) -> bool:
        """Waits for a condition that messages bring about; false where it does not come in time."""
        end_s = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > end_s:
                return False
            gevent.sleep(LOOK_EVERY_S)
        return True
