"""An event loop in a thread, for those who have none."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Self, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for other threads while its block runs; one block for each."""

    def __init__(self) -> None:
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="holdfast-client", daemon=True)
        thread.start()
        self._running = loop, thread
        return self

    def __exit__(self, *_: object) -> None:
        loop, thread = self._open
        self._running = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    @property
    def _open(self) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        if self._running is None:
            raise RuntimeError("the client is not open: make calls inside 'with Client(...) as client:'.")
        return self._running

    def run(self, work: Awaitable[T]) -> T:
        """Waits for what it runs in the loop. Interrupted, it cancels it and waits for its end.

        Raises:
            RuntimeError: Called from the loop itself, where it would wait for itself.
        """
        return self._wait(self._start(work))

    @contextmanager
    def entered(self, block: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
        """A block around an asynchronous one, which runs in one task from its beginning to its end."""
        entered: Future[T] = Future()
        leave: asyncio.Future[None] = self.run(_new_future())

        async def hold() -> None:
            async with block() as value:
                entered.set_result(value)
                await leave

        holding = self._start(hold())
        holding.add_done_callback(lambda done: _pass_on(done, entered))
        value = self._wait(entered, holding)
        try:
            yield value
        except BaseException as error:
            self._end(leave, error)
            wait([holding])
            raise
        self._end(leave, None)
        self._wait(holding)

    def iterated(self, items: Callable[[], AsyncIterator[T]]) -> Generator[T, None, None]:
        """What an asynchronous iterator gives, an item at a time."""
        iterator = items()
        try:
            while True:
                try:
                    item = self.run(anext(iterator))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                self.run(close())

    def _start(self, work: Awaitable[T]) -> "Future[T]":
        loop, thread = self._open
        if threading.current_thread() is thread:
            raise RuntimeError("called from the client's own event loop, which would wait for itself.")

        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), loop)

    def _wait(self, result: "Future[T]", running: "Future[None] | None" = None) -> T:
        try:
            return result.result()
        except (KeyboardInterrupt, SystemExit):
            (running or result).cancel()
            raise

    def _end(self, leave: "asyncio.Future[None]", error: BaseException | None) -> None:
        """Ends the asynchronous block as the other ended; what would end the loop, too, becomes a cancellation."""

        def end() -> None:
            if leave.done():
                return
            if error is None:
                leave.set_result(None)
            elif isinstance(error, Exception) and not isinstance(error, StopIteration):
                leave.set_exception(error)
            else:
                leave.cancel()

        self._open[0].call_soon_threadsafe(end)


async def _new_future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


def _pass_on(done: "Future[None]", entered: "Future[T]") -> None:
    """Tells whoever waits for the block to begin that it ended first."""
    if entered.done():
        return
    if done.cancelled():
        entered.cancel()
    else:
        entered.set_exception(done.exception() or RuntimeError("the block ended before it began"))
