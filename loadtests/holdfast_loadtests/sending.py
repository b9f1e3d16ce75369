"""Sends one call of any of the four kinds and waits for its end."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

from holdfast_loadtests.attempts import Answer
from holdfast_loadtests.codes import CODE_NAMES
from holdfast_loadtests.descriptors import Method

CHANNEL_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a TCP connection of its own, not one shared by all channels of the process
    ("grpc.enable_retries", 0),  # every attempt is ours and counted
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Not the backoff's lower end, but how long a connection may take to be made: through a slow proxy, long.
    ("grpc.min_reconnect_backoff_ms", 2000),
)

_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
_NAMES: Final = dict(zip(grpc.StatusCode, CODE_NAMES, strict=True))


class Connection:
    """A channel with its number; methods are prepared once."""

    def __init__(self, number: int, target: str) -> None:
        self.number = number
        self._channel = grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._senders: dict[str, Callable[..., Any]] = {}

    def connect(self, timeout_s: float) -> bool:
        """Opens the TCP connection ahead of the first call; false where that takes longer than the limit.

        A health check that waits for the connection, whatever its answer: watching the channel's state instead leaves
        grpcio's pollers behind for 200 ms, in which the first calls of the load would be slow.
        """
        check: Callable[..., Any] = self._channel.unary_unary(_HEALTH_CHECK)
        try:
            check(b"", timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            return error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        return True

    def send(self, method: Method, bodies: Sequence[bytes], deadline_s: float, receive: int | None) -> Answer:
        """Makes the call and waits for its end.

        Args:
            method: what to call.
            bodies: serialised messages; one for methods that take one.
            deadline_s: from now.
            receive: for streams: cancel, as OK, after so many messages; None waits for the server's status.
        """
        sender = self._senders.get(method.path) or self._prepare(method)
        try:
            if method.grpc_type == "unary":
                return Answer("OK", sender(bodies[0], timeout=deadline_s))
            if method.grpc_type == "client_stream":
                return Answer("OK", sender(iter(bodies), timeout=deadline_s))
            request = bodies[0] if method.grpc_type == "server_stream" else iter(bodies)
            return _read_stream(sender(request, timeout=deadline_s), receive)
        except grpc.RpcError as error:
            return Answer(_NAMES[error.code()], None, error.details() or "")

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _prepare(self, method: Method) -> Callable[..., Any]:
        kinds: dict[str, Callable[..., Any]] = {
            "unary": self._channel.unary_unary,
            "client_stream": self._channel.stream_unary,
            "server_stream": self._channel.unary_stream,
            "bidi_stream": self._channel.stream_stream,
        }
        # Without serialisers: bytes in, bytes out; messages are made and read elsewhere.
        self._senders[method.path] = kinds[method.grpc_type](method.path)
        return self._senders[method.path]


def _read_stream(stream: Any, receive: int | None) -> Answer:  # noqa: ANN401  # grpcio's calls have no public type
    count, last = 0, None
    for last in stream:
        count += 1
        if count == receive:
            stream.cancel()
            return Answer("OK", last)
    short = f"the stream ended after {count} of {receive} messages" if receive else ""
    return Answer("OK", last, short=short)
