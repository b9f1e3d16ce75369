"""Single calls from Locust's greenlets, made by a process of their own; grpcio never runs beside gevent."""

import base64
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import gevent
from gevent.event import AsyncResult

from holdfast.cli import EXIT_WRONG_INPUT, InputError
from holdfast_loadtests.engine import CLOSE_WITHIN_S, READY_WITHIN_S, LoadError
from holdfast_loadtests.locusting.targets import Place

ANSWER_SLACK_S: Final = 10.0
"""How much longer than its deadline a call may take before its process counts as stuck."""


@dataclass(frozen=True)
class Order:
    """A call to make; `receive` ends a stream, as OK, after so many messages. Times in seconds."""

    call: str
    bodies: Sequence[Mapping[str, Any]]
    deadline_s: float
    receive: int | None = None
    metadata: Sequence[tuple[str, str]] = ()


def describe(place: Place) -> bytes:
    """A target's descriptors, asked by reflection in a process of its own.

    Raises:
        InputError: nothing answers there, or it has no usable reflection.
        LoadError: the process that asks does not end, or broke.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "holdfast_loadtests.describe"],
            input=json.dumps(place.as_json()).encode(),
            capture_output=True,
            timeout=READY_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"asking {place.target} for its methods took longer than {READY_WITHIN_S:g} s") from error
    said = done.stderr.decode(errors="replace").strip()[-2_000:]
    if done.returncode == EXIT_WRONG_INPUT:
        raise InputError(said)
    if done.returncode:
        raise LoadError(f"the process that asks {place.target} for its methods ended with {done.returncode}. {said}")
    return done.stdout


class CallerProcess:
    """The process that makes single calls to one target, and what each of them is waited for by.

    Args:
        place: the target.
        descriptors: of its services.
        connections: TCP connections; users share them.
        compressed: whether requests are, by gzip.

    Raises:
        LoadError: it did not become ready.
    """

    def __init__(self, place: Place, descriptors: bytes, connections: int = 1, compressed: bool = False) -> None:
        self.cpu_share = 0.0
        self.out_of_room = 0
        self._numbers = itertools.count()
        self._waiting: dict[int, AsyncResult[Any]] = {}
        self._ready: AsyncResult[Any] = AsyncResult()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "holdfast_loadtests.caller"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for Locust, which then ends it in order
        )
        self._reader = gevent.spawn(self._read)
        self._outbox: list[bytes] = []
        self._is_writing = False
        plan = {
            **place.as_json(),
            "descriptors": base64.b64encode(descriptors).decode(),
            "connections": connections,
            "compressed": compressed,
        }
        try:
            self._send(plan)
            self._ready.get(timeout=READY_WITHIN_S)
        except gevent.Timeout as error:
            self.close()
            raise LoadError(f"the calls' process said nothing within {READY_WITHIN_S:g} s") from error
        except BaseException:
            self.close()
            raise

    def call(self, user: int, order: Order) -> tuple[dict[str, Any], float]:
        """Makes a call and waits for its answer. Returns it, and by how many seconds this process was late with it.

        Raises:
            InputError: there is no such method, or the message is none that it takes.
            LoadError: the process is gone or stuck.
        """
        if self._reader.ready():
            raise self._died()
        number = next(self._numbers)
        waiter: AsyncResult[Any] = AsyncResult()
        self._waiting[number] = waiter
        asked_s = time.perf_counter()
        try:
            self._send({"id": number, "user": user, **asdict(order)})
            told = cast("dict[str, Any]", waiter.get(timeout=order.deadline_s + ANSWER_SLACK_S))
        except gevent.Timeout as error:
            raise LoadError(f"the calls' process gave no answer in {order.deadline_s + ANSWER_SLACK_S:g} s") from error
        finally:
            del self._waiting[number]
        if told["event"] == "misfit":
            raise InputError(f"{order.call}: {told['message']}")
        return told, max(time.perf_counter() - asked_s - told["latency_s"], 0.0)

    def close(self) -> None:
        """Ends the process; idempotent."""
        if self._log.closed:
            return
        with suppress(LoadError):
            self._send({"exit": True})
        assert self._process.stdin is not None, "started with a pipe"
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # which it hears where it had read the order together with its plan
        try:
            self._process.wait(timeout=CLOSE_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=CLOSE_WITHIN_S)
        assert self._process.stdout is not None, "started with a pipe"
        self._process.stdout.close()
        self._log.close()

    def _send(self, order: Mapping[str, Any]) -> None:
        """Writes one line; greenlets take turns, so that no line is cut by another."""
        self._outbox.append(json.dumps(order, separators=(",", ":")).encode() + b"\n")
        if self._is_writing:
            return
        stdin = self._process.stdin
        assert stdin is not None, "started with a pipe"
        self._is_writing = True
        try:
            while self._outbox:
                lines, self._outbox = self._outbox, []
                stdin.write(b"".join(lines))
                stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._died() from error
        finally:
            self._is_writing = False

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None, "started with a pipe"
        for line in stdout:
            told = json.loads(line)
            if told["event"] == "ready":
                self._ready.set(True)
            elif told["event"] == "ended":
                self.cpu_share, self.out_of_room = told["cpu_share"], told["out_of_room"]
            elif (waiter := self._waiting.get(told["id"])) is not None:
                waiter.set(told)
        died = self._died()
        for waiter in [self._ready, *self._waiting.values()]:
            if not waiter.ready():
                waiter.set_exception(died)

    def _died(self) -> LoadError:
        code = self._process.poll()
        text = ""
        if not self._log.closed:
            self._log.seek(0)
            text = self._log.read()[-2_000:].decode(errors="replace").strip()
        return LoadError(f"the calls' process (pid {self._process.pid}) ended with code {code}. {text}".rstrip())
