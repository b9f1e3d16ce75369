"""Connections to the service: how they are made, and whether one stands before a call is sent on it."""

import asyncio
import re

import grpc

from holdfast.client.errors import SessionEndedError, UnreachableError

_TARGET = re.compile(r"(?:[a-z0-9+.-]+:)?[^\s]*:\d{1,5}(?:,[^\s]+:\d{1,5})*|unix(?:-abstract)?:\S+|dns:\S+")

_OPTIONS = [
    # A connection that is dead (a cable pulled, a proxy gone) is found within 15 s; the server allows a ping every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that restarts is there again within a second; gRPC's own 120 s at most are made for other networks.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),  # this client knows what is safe to repeat, gRPC does not
    ("grpc.use_local_subchannel_pool", 1),  # each channel has a connection of its own
    ("grpc.max_receive_message_length", 16 << 20),
]


def checked_target(target: str) -> str:
    """The target, if it is one.

    Raises:
        ValueError: It is none; says what one looks like.
    """
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise ValueError(
            f"target {target!r} is no address: give HOST:PORT, such as '127.0.0.1:50051', or a gRPC target with a "
            "scheme, such as 'dns:///holdfast.internal:50051'."
        )
    return target


class Connection:
    """A channel of its own to the service. `close` ends it and every call on it.

    Args:
        target: What gRPC dials.
        credentials: For TLS; None is plaintext.
    """

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.target = target
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)

    async def ready(self, timeout_s: float) -> None:
        """Waits until the connection stands; what is sent before that may be lost without anyone knowing.

        Raises:
            UnreachableError: It does not come about in time.
            SessionEndedError: It was closed.
        """
        state = self.channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(timeout_s):
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.SHUTDOWN:
                        raise SessionEndedError("the client is closed; make calls inside its 'async with' block.")
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise UnreachableError(
                f"no server answers at {self.target} within {timeout_s:g} s; nothing was sent. Is it running "
                "('holdfast serve'), and is the address right?"
            ) from None

    async def close(self) -> None:
        """Ends the connection."""
        await self.channel.close()
