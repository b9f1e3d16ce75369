"""Servers that mean no good, or are no gRPC servers at all: each a function that is given a connection's socket.

They run in threads of the test, on loopback, until the client is gone or the test ends them.
"""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

from support.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    headers,
    message,
)

SILENCE_S_MAX = 30.0
"""How long a connection on which nothing happens is kept."""

Behaviour = Callable[[socket.socket], None]

GREETING = frame(SETTINGS)
ANSWER = ((":status", "200"), ("content-type", "application/grpc"))


class HostileServer:
    """Serves each connection by one behaviour; `address` is where."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._is_ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ended = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._is_ended:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        with connection, suppress(OSError):
            connection.settimeout(SILENCE_S_MAX)
            self._behave(connection)
        self._open.discard(connection)


def frames(connection: socket.socket) -> Iterator[tuple[int, int, int]]:
    """What the client sends, after its preface, as (kind, flags, stream); ends with the connection."""
    held = bytearray()
    while data := connection.recv(1 << 16):
        held += data
        if held.startswith(PREFACE):
            del held[: len(PREFACE)]
        while len(held) >= 9 and not PREFACE.startswith(bytes(held[: len(PREFACE)])):
            size = int.from_bytes(held[:3], "big")
            if len(held) < 9 + size:
                break
            kind, flags, stream = held[3], held[4], int.from_bytes(held[5:9], "big")
            del held[: 9 + size]
            yield kind, flags, stream


def calls(connection: socket.socket) -> Iterator[int]:
    """The streams of the client's calls."""
    return (stream for kind, _, stream in frames(connection) if kind == HEADERS)


def speaks_http1(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\n\r\n")


def closes_at_once(connection: socket.socket) -> None:
    connection.recv(1 << 16)


def sends_no_settings(connection: socket.socket) -> None:
    for _ in frames(connection):
        pass


def greets_late(connection: socket.socket) -> None:
    """Most of a client's patience with a connection, and then all of its patience with a call."""
    time.sleep(4.0)
    never_answers(connection)


def never_answers(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for _ in frames(connection):
        pass


def sends_garbage(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for _ in calls(connection):
        connection.sendall(b"\xff" * 4096)


def resets_everything(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        connection.sendall(frame(RST_STREAM, b"\0\0\0\2", stream))


def sends_giant_frames(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        giant = frame(DATA, b"", stream)
        connection.sendall(headers(stream, ANSWER) + b"\xff\xff\xff" + giant[3:])
        while True:
            connection.sendall(bytes(1 << 16))


def claims_giant_messages(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        connection.sendall(headers(stream, ANSWER) + frame(DATA, message(b"x", claimed_bytes=1 << 31), stream))


def ends_no_message(count: int) -> Behaviour:
    """A message of 15 MiB is begun for each of so many calls, a quarter of it sent; then nothing more is."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        piece = bytes(1 << 18)
        for stream in itertools.islice(calls(connection), count):
            connection.sendall(headers(stream, ANSWER) + frame(DATA, message(b"", claimed_bytes=15 << 20), stream))
            for _ in range(15):
                connection.sendall(frame(DATA, piece, stream))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass

    return behave


def ignores_windows(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        connection.sendall(headers(stream, ANSWER) + frame(DATA, message(b"", claimed_bytes=15 << 20), stream))
        for _ in range(5000):
            connection.sendall(frame(DATA, bytes(1 << 14), stream))


def sends_header_bombs(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        connection.sendall(headers(stream, (*ANSWER, ("x-bomb", "x" * 900_000))))


def continues_for_ever(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        connection.sendall(headers(stream, ANSWER, flags=0))
        while True:
            connection.sendall(frame(CONTINUATION, b"", stream))


def sends_bad_hpack(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        connection.sendall(frame(HEADERS, b"\xff" * 12, stream, END_HEADERS))


def informs_for_ever(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    for stream in calls(connection):
        while True:
            connection.sendall(headers(stream, ((":status", "103"),)) * 100)


def floods(kind: int, payload: bytes, *, of_stream: bool = False) -> Behaviour:
    """One kind of frame, without end, while nothing is read."""

    def flood(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        stream = next(calls(connection), 0)
        many = frame(kind, payload, stream if of_stream else 0) * 500
        while True:
            connection.sendall(many)

    return flood


def shuts_its_window(connection: socket.socket) -> None:
    connection.sendall(frame(SETTINGS, b"\0\4\0\0\0\0"))  # INITIAL_WINDOW_SIZE
    for _ in frames(connection):
        pass


PING_FLOOD = floods(PING, bytes(8))
SETTINGS_FLOOD = floods(SETTINGS, b"")
RESET_FLOOD = floods(RST_STREAM, b"\0\0\0\2", of_stream=True)
WINDOW_FLOOD = floods(WINDOW_UPDATE, b"\0\0\0\1")
