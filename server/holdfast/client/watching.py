"""Watches that go on: over lost connections, restarts of the server, and resets."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from holdfast.client.calling import Caller, Repeat, call_name, may_repeat
from holdfast.client.errors import (
    DisconnectedError,
    HoldfastError,
    RevisionCompactedError,
    RevisionFutureError,
    TimedOutError,
    from_rpc_error,
)

T = TypeVar("T")
There = TypeVar("There")
Change = TypeVar("Change")

SILENCE_S_MAX = 20.0
"""A watch that hears nothing for so long, though the server tells of progress every 5 s, is opened anew."""

_BEGIN_AGAIN = (RevisionCompactedError, RevisionFutureError)
"""The history is gone, or is of another store."""


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """All that matched at a revision. It takes the place of everything told before."""

    revision: int
    items: Sequence[T]


@dataclass(frozen=True, slots=True)
class Changes(Generic[T]):
    """All that changed at one revision."""

    revision: int
    items: Sequence[T]


@dataclass
class Watching(Generic[There, Change]):
    """A watch of one service: an async iterator that ends only with an error that trying again does not mend.

    Args:
        caller: Knows the connection and how long to wait before trying again.
        method: Of the service's stub.
        request: What is watched; `start_revision` 0 begins with a snapshot.
        there_of: What is there, of the `events` of a snapshot.
        changes_of: What changed, of any other.
        silence_s_max: See `SILENCE_S_MAX`.
    """

    caller: Caller
    method: grpc.aio.UnaryStreamMultiCallable[Any, Any]
    request: Any
    there_of: Callable[[Any], Sequence[There]]
    changes_of: Callable[[Any], Sequence[Change]]
    silence_s_max: float = SILENCE_S_MAX
    _is_snapshot: bool = field(init=False)
    _gathered: list[There] = field(init=False, default_factory=list)
    _changed: list[Change] = field(init=False, default_factory=list)

    async def steps(self) -> AsyncIterator[Snapshot[There] | Changes[Change]]:
        """Snapshots and changes as they come.

        Raises:
            HoldfastError: The watch is refused for what it asks.
        """
        self.request.progress_notify = True
        self._begin(self.request.start_revision)
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._on_one_stream()) as steps:
                    async for step in steps:
                        failures = 0
                        if step is not None:
                            yield step
            except _BEGIN_AGAIN:
                self._begin(0)
            except HoldfastError as error:
                if not may_repeat(error, Repeat.ALWAYS):
                    raise
            failures += 1
            await asyncio.sleep(self.caller.retries.backoff_s(failures))

    def _begin(self, start_revision: int) -> None:
        self.request.start_revision = start_revision
        self._is_snapshot = start_revision == 0
        self._gathered, self._changed = [], []

    async def _on_one_stream(self) -> AsyncGenerator[Snapshot[There] | Changes[Change] | None, None]:
        """Steps until the stream ends, None for what only shows that it is alive."""
        self._begin(self.request.start_revision)  # what came of a snapshot before is of another revision
        await self.caller.connection.ready(self.caller.timeouts.connect_s)
        call = self.method(self.request)
        what = f"{call_name(self.request)} at {self.caller.connection.target}"
        try:
            while True:
                async with asyncio.timeout(self.silence_s_max):
                    message = await call.read()
                if not isinstance(message, Message):
                    break
                if message.WhichOneof("step") == "reset":
                    self._begin(0)
                    return
                yield self._taken_in(message)
        except TimeoutError:
            raise TimedOutError(f"{what}: silent for {self.silence_s_max:g} s.") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, what) from error
        finally:
            call.cancel()
        raise DisconnectedError(f"{what}: the server ended the stream.")

    def _taken_in(self, message: Any) -> Snapshot[There] | Changes[Change] | None:  # noqa: ANN401 - of any service
        """What a message comes to. Where the watch goes on from is noted before anybody sees it."""
        if message.WhichOneof("step") != "events":
            if not self._is_snapshot:
                self.request.start_revision = message.revision + 1
            return None
        if not self._is_snapshot:
            self._changed.extend(self.changes_of(message.events))
            if getattr(message.events, "continues", False):  # not of agents
                return None
            self.request.start_revision = message.revision + 1
            changes, self._changed = Changes(message.revision, self._changed), []
            return changes
        self._gathered.extend(self.there_of(message.events))
        if not message.events.snapshot_end:
            return None
        self._is_snapshot = False
        self.request.start_revision = message.revision + 1
        snapshot, self._gathered = Snapshot(message.revision, self._gathered), []
        return snapshot
