"""`http2_codec`: what the codec makes of one CPU second, against h2, with no socket in between.

Both ends of unary calls of five bytes, a hundred at a time on one connection, and long data in frames of 16 KiB; the
bytes of the other end were made before, and are the same for both.
"""

import os
import time
from collections.abc import Awaitable, Callable, Sequence

import h2.config
import h2.connection
import h2.events

from benchmarks.processes import pin
from benchmarks.rounds import ROUNDS, Comparison, alternate
from holdfast.http2 import Connection, Events, Fields, Limits, Stream, encode

CALLS = 2_000
AT_ONCE = 100
MESSAGE = b"\0\0\0\0\5hello"

ASKED = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"127.0.0.1:50051"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]
ANSWERED = [(b":status", b"200"), (b"content-type", b"application/grpc")]
ENDED = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
REQUEST, RESPONSE, TRAILERS = encode(ASKED), encode(ANSWERED), encode(ENDED)

WIDE = Limits(stream_window_bytes=(1 << 31) - 1, connection_window_bytes=(1 << 31) - 1, streams_open_max=1_000)


class Call(Stream):
    """A call that counts its end."""

    __slots__ = ()
    ends = 0

    def on_headers(self, fields: Fields, ends: bool) -> None:
        """The response, and the trailers."""
        if ends and fields.get(b"grpc-status") == b"0":
            Call.ends += 1

    def on_data(self, data: bytes, ends: bool) -> None:
        """The message."""


class Asked(Stream):
    """A call as its server has it, answered when it has ended."""

    __slots__ = ("connection",)
    connection: Connection

    def on_data(self, data: bytes, ends: bool) -> None:
        """The message."""
        if ends:
            self.connection.send_headers(self, RESPONSE)
            self.connection.send(self, data)
            self.connection.send_headers(self, TRAILERS, ends=True)


class Serving(Events):
    """Makes an `Asked` of each request."""

    connection: Connection

    def on_stream(self, fields: Fields) -> Stream:
        """A request."""
        asked = Asked()
        asked.connection = self.connection
        return asked


def a_client() -> Connection:
    """A client with nothing to send but its greeting."""
    return Connection(is_server=False, events=Events(), limits=WIDE)


def a_server() -> Connection:
    """A server that answers."""
    events = Serving()
    events.connection = Connection(is_server=True, events=events, limits=WIDE)
    return events.connection


def recorded(calls: int) -> tuple[list[bytes], list[bytes]]:
    """What the client and the server of some calls send, for each lot."""
    client, server = a_client(), a_server()
    client.receive(server.take_output())
    asked, answered = [], []
    for _ in range(0, calls, AT_ONCE):
        for _ in range(AT_ONCE):
            client.open(Call(), REQUEST, MESSAGE, ends=True)
        asked.append(client.take_output())
        server.receive(asked[-1])
        answered.append(server.take_output())
        client.receive(answered[-1])
    return asked, answered


def client_calls(answered: Sequence[bytes]) -> Callable[[], int]:
    """Our client: opens, and reads what the server answered."""

    def run() -> int:
        client, before = a_client(), Call.ends
        client.receive(a_server().take_output())
        for answer in answered:
            for _ in range(AT_ONCE):
                client.open(Call(), REQUEST, MESSAGE, ends=True)
            client.take_output()
            client.receive(answer)
        assert Call.ends - before == len(answered) * AT_ONCE
        return Call.ends - before

    return run


def client_calls_by_h2(answered: Sequence[bytes]) -> Callable[[], int]:
    """The same by h2."""

    def run() -> int:
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=False))
        client.initiate_connection()
        client.receive_data(a_server().take_output())
        ends = 0
        for answer in answered:
            for _ in range(AT_ONCE):
                stream_id = client.get_next_available_stream_id()
                client.send_headers(stream_id, ASKED)
                client.send_data(stream_id, MESSAGE, end_stream=True)
            client.data_to_send()
            for event in client.receive_data(answer):
                if isinstance(event, h2.events.TrailersReceived):
                    ends += dict(event.headers)[b"grpc-status"] == b"0"
                elif isinstance(event, h2.events.DataReceived):
                    client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        assert ends == len(answered) * AT_ONCE
        return ends

    return run


def server_calls(asked: Sequence[bytes]) -> Callable[[], int]:
    """Our server: reads requests, and answers."""

    def run() -> int:
        server = a_server()
        for requests in asked:
            server.receive(requests)
            server.take_output()
        assert server.streams_open == 0
        return len(asked) * AT_ONCE

    return run


def server_calls_by_h2(asked: Sequence[bytes]) -> Callable[[], int]:
    """The same by h2."""

    def run() -> int:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=False))
        server.initiate_connection()
        for requests in asked:
            for event in server.receive_data(requests):
                if isinstance(event, h2.events.DataReceived) and event.stream_ended:
                    server.send_headers(event.stream_id, ANSWERED)
                    server.send_data(event.stream_id, event.data)
                    server.send_headers(event.stream_id, ENDED, end_stream=True)
            server.data_to_send()
        assert server.open_inbound_streams == 0
        return len(asked) * AT_ONCE

    return run


def long_data(size: int) -> bytes:
    """One request with much data, in frames of 16 KiB."""
    client = Connection(is_server=False, events=Events(), limits=WIDE)
    client.receive(a_server().take_output())
    client._sender.window = client._sender.stream_window = (1 << 31) - 1
    client.open(Call(), REQUEST, bytes(size))
    return client.take_output()


def data(sent: bytes) -> Callable[[], int]:
    """Our server: reads it as it would come from a socket, 64 KiB at a time."""

    def run() -> int:
        server = a_server()
        for at in range(0, len(sent), 65_536):
            server.receive(sent[at : at + 65_536])
        return len(sent)

    return run


def data_by_h2(sent: bytes) -> Callable[[], int]:
    """The same by h2."""

    def run() -> int:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=False))
        server.local_settings.initial_window_size = (1 << 31) - 1
        server.local_settings.acknowledge()
        server.initiate_connection()
        server.increment_flow_control_window((1 << 31) - 1 - 65_535)
        for at in range(0, len(sent), 65_536):
            server.receive_data(sent[at : at + 65_536])
        return len(sent)

    return run


async def run(rounds: int = ROUNDS, calls: int = CALLS) -> list[Comparison]:
    """Both in turn on one core."""
    pin(os.getpid(), -1)
    asked, answered = recorded(calls)
    sent = long_data(calls * 4_000)

    def per_cpu_s(work: Callable[[], int], unit: int = 1) -> Callable[[], Awaitable[float]]:
        async def measured() -> float:
            began_s = time.process_time()
            done = work()
            return done / unit / (time.process_time() - began_s)

        return measured

    return [
        Comparison("http2_codec", "h2", f"{what} per CPU second", unit, await alternate(ours, theirs, rounds))
        for what, unit, ours, theirs in [
            ("unary calls, client", "1/s", per_cpu_s(client_calls(answered)), per_cpu_s(client_calls_by_h2(answered))),
            ("unary calls, server", "1/s", per_cpu_s(server_calls(asked)), per_cpu_s(server_calls_by_h2(asked))),
            ("data received", "MB/s", per_cpu_s(data(sent), 1_000_000), per_cpu_s(data_by_h2(sent), 1_000_000)),
        ]
    ]
