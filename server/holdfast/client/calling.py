"""Makes calls, and repeats those that are safe to repeat.

A call whose answer is lost may have happened. So what is repeated depends on the call:

- reads: after any failure that may pass;
- calls with a `request_id`: likewise, since the server gives the first answer again. One id is made for each call of
  this client, and all its attempts carry it;
- all others: only after an answer that says that the call surely did not happen.
"""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_any, stop_before_delay

from holdfast.client.connection import Connection
from holdfast.client.errors import HoldfastError, NetworkError, ServerError, from_rpc_error

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_READS = ("Get", "List", "Match", "Verify", "Fetch")
"""How the names of calls begin that change nothing."""

_MAY_PASS = {"TXN_CONFLICT", "RATE_LIMITED"}
"""Refusals, besides those of a server in trouble, that are worth another attempt as they are."""

_FINAL = {"NOT_BUILT", "INTERNAL"}
"""Troubles of a server that another attempt does not mend."""


class Repeat(Enum):
    """When a call may be repeated."""

    ALWAYS = "it changes nothing"
    KEYED = "it carries a request_id"
    REFUSED = "only if it surely did not happen"


def repeat_of(request: type[Message]) -> Repeat:
    """When the call of a request may be repeated."""
    if request.DESCRIPTOR.name.startswith(_READS):
        return Repeat.ALWAYS
    return Repeat.KEYED if "request_id" in request.DESCRIPTOR.fields_by_name else Repeat.REFUSED


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How calls are repeated. Times are in seconds.

    Attributes:
        attempts_max: Attempts in all; 1 repeats nothing.
        backoff_initial_s: Before the second attempt a random time up to this; each further one doubles it (full jitter,
            so that clients that failed together do not come back together). The server's own advice comes on top.
        backoff_max_s: The most it doubles to.
    """

    attempts_max: int = 6
    backoff_initial_s: float = 0.1
    backoff_max_s: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts_max < 1:
            raise ValueError(f"attempts_max is {self.attempts_max}: at least 1, which repeats nothing.")
        if not 0 < self.backoff_initial_s <= self.backoff_max_s:
            raise ValueError(
                f"backoff_initial_s is {self.backoff_initial_s} and backoff_max_s {self.backoff_max_s}: both above 0, "
                "and the first no more than the second."
            )

    def backoff_s(self, attempts: int) -> float:
        """How long to wait after so many failed attempts."""
        return random.uniform(0, min(self.backoff_max_s, self.backoff_initial_s * 2 ** min(attempts - 1, 30)))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long calls may take. Times are in seconds.

    Attributes:
        call_s: One call with all its attempts; what it waits for at the server (a lock, say) comes on top.
        attempt_s: One attempt; likewise.
        connect_s: For a connection to come about.
    """

    call_s: float = 30.0
    attempt_s: float = 10.0
    connect_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("call_s", "attempt_s", "connect_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}: a number of seconds above 0.")


class Caller:
    """Makes unary calls on one connection.

    Args:
        connection: Where they go.
        timeouts: How long they may take.
        retries: How they are repeated.
    """

    def __init__(self, connection: Connection, timeouts: Timeouts, retries: RetryPolicy) -> None:
        self.connection = connection
        self.timeouts = timeouts
        self.retries = retries

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        wait_s: float = 0.0,
        repeat: Repeat | None = None,
    ) -> Response:
        """Makes one call.

        Args:
            method: Of a stub on this connection.
            request: What is asked; an empty `request_id` is filled in.
            wait_s: How long the server may wait before it answers, in seconds. Such a call is attempted as often as
                that allows.
            repeat: When it may be repeated, where the caller knows better.

        Raises:
            HoldfastError: Why it failed.
        """
        repeat = repeat or repeat_of(type(request))
        if repeat is Repeat.KEYED and not getattr(request, "request_id", ""):
            request.request_id = uuid4().hex  # type: ignore[attr-defined]

        within_s = self.timeouts.call_s + wait_s
        began_s = time.monotonic()

        async def attempt() -> Response:
            left_s = max(0.001, began_s + within_s - time.monotonic())
            return await self._attempt(method, request, min(self.timeouts.attempt_s + wait_s, left_s))

        attempts_max = self.retries.attempts_max if wait_s == 0 else None
        return await self.repeating(attempt, repeat, within_s, attempts_max)

    async def repeating(
        self,
        attempt: Callable[[], Awaitable[Response]],
        repeat: Repeat,
        within_s: float,
        attempts_max: int | None,
    ) -> Response:
        """Attempts something until it succeeds, may not be repeated, or would take too long.

        Args:
            attempt: What is attempted.
            repeat: When it may be repeated.
            within_s: No attempt begins later than so long after the first.
            attempts_max: Attempts in all; None where only the time counts, as for what waits in line, maybe for hours.

        Raises:
            HoldfastError: Of the last attempt; not `definite` if it only says that this attempt did not happen, and one
                before may have.
        """
        in_doubt = False

        async def told() -> Response:
            nonlocal in_doubt
            try:
                return await attempt()
            except HoldfastError as error:
                error.after_doubt = in_doubt
                in_doubt = in_doubt or not error.definite
                error.definite = error.definite and not (in_doubt and _may_pass(error))
                raise

        retrying = AsyncRetrying(
            stop=stop_any(stop_before_delay(within_s), *([stop_after_attempt(attempts_max)] if attempts_max else [])),
            wait=self._pause_s,
            retry=retry_if_exception(lambda error: may_repeat(error, repeat)),
            reraise=True,
        )
        return await retrying(told)

    async def _attempt(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout_s: float
    ) -> Response:
        await self.connection.ready(min(self.timeouts.connect_s, timeout_s))
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, f"{call_name(request)} at {self.connection.target}") from error

    def _pause_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        advised_s = (error.retry_after_s or 0.0) if isinstance(error, HoldfastError) else 0.0
        return advised_s + self.retries.backoff_s(state.attempt_number)


def may_repeat(error: BaseException, repeat: Repeat) -> bool:
    """Whether another attempt is safe and of any use."""
    if not isinstance(error, HoldfastError) or not _may_pass(error):
        return False
    return error.definite or repeat is not Repeat.REFUSED


def _may_pass(error: HoldfastError) -> bool:
    """Whether the trouble is of the moment, whatever was asked."""
    if isinstance(error, ServerError):
        return error.reason not in _FINAL
    return isinstance(error, NetworkError) or error.reason in _MAY_PASS


def call_name(request: Any) -> str:  # noqa: ANN401 - any message
    """The call that a request is of: RegisterAgent of a RegisterAgentRequest."""
    return str(request.DESCRIPTOR.name).removesuffix("Request")
