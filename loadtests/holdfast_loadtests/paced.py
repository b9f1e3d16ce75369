"""Calls that send their messages one after the other: each upon the answer to the one before, or at an interval.

Any other call sends all its messages at once, which is what a stream is like whose client has them ready.
"""

import asyncio
from collections import deque
from typing import Final, Literal

from holdfast.http2 import Fields, UnsentFullError
from holdfast_loadtests.answers import Answer, over_bound
from holdfast_loadtests.exchanges import Carrier, Exchange, OnEnd
from holdfast_loadtests.framing import cut

ON_ANSWER: Final = "on_answer"
Pace = float | Literal["on_answer"]
"""Seconds from one message to the next, or ON_ANSWER: the next goes when an answer came."""


class Paced(Exchange):
    """A call with more than one message to send. This end of the stream ends with the last of them.

    Args:
        carrier: what it is sent by.
        on_end: hears how it ended, once.
        receive: ended as OK after so many messages of the server; None waits for the server's status.
        takes_many: whether the method answers with a stream.
        pace: when messages after the first go.
        data: the messages, framed.
    """

    __slots__ = ("_count_all", "_due_s", "_left", "_loop", "_pace", "_timer", "first", "is_whole")

    def __init__(
        self, carrier: Carrier, on_end: OnEnd, receive: int | None, takes_many: bool, pace: Pace, data: bytes
    ) -> None:
        super().__init__(carrier, on_end, receive, takes_many)
        messages = cut(data)
        self._count_all = len(messages)
        self.first = messages[0] if messages else b""
        self._left = deque(messages[1:])
        self.is_whole = not self._left
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = self._loop.time()
        if self._left and pace != ON_ANSWER:
            self._wait(pace)

    def end(self, answer: Answer) -> None:
        """Ends it; the first end counts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().end(answer)

    def _take(self, message: bytes) -> None:
        super()._take(message)
        if self._pace == ON_ANSWER and self._left and not self.is_over:
            self._send_next()

    def _status(self, trailers: Fields) -> Answer:
        found = super()._status(trailers)
        if found.code == "OK" and not found.short and self._left:
            sent = self._count_all - len(self._left)
            found.short = f"the server ended the stream when {sent} of {self._count_all} messages were sent"
        return found

    def _wait(self, interval_s: float) -> None:
        self._due_s += interval_s
        self._timer = self._loop.call_at(self._due_s, self._tick, interval_s)

    def _tick(self, interval_s: float) -> None:
        if self.link is None:  # it waits for a connection or a stream: so do its messages
            self._due_s = self._loop.time()
        else:
            self._send_next()
        if self._left and not self.is_over:
            self._wait(interval_s)

    def _send_next(self) -> None:
        link = self.link
        assert link is not None, "an answer or an interval of a call that was sent"
        message = self._left.popleft()
        try:
            link.codec.send(self, message, ends=not self._left)
        except UnsentFullError as error:
            self.stop(over_bound(str(error)))
            return
        link.flush_soon()
