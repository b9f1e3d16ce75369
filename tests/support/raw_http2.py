"""HTTP/2 by hand, for what no decent client sends. It knows just enough of frames to be indecent."""

import socket
import struct
import time
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4

SEND_S_MAX = 60.0
"""How long the peer may take to take something in."""

CALL = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/holdfast.registry.v1.AgentRegistryService/GetAgent"),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
"""Headers of a decent call."""


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(stream: int, fields: Iterable[tuple[str, str]] = CALL, flags: int = END_HEADERS) -> bytes:
    """A HEADERS frame of literals that touch no table."""
    block = b"".join(b"\x10" + _string(name) + _string(value) for name, value in fields)
    return frame(HEADERS, block, stream, flags)


def call_to(path: str) -> list[tuple[str, str]]:
    """Headers of a call of one method."""
    return [(name, path if name == ":path" else value) for name, value in CALL]


def message(data: bytes, *, claimed_bytes: int | None = None) -> bytes:
    """A gRPC message's prefix and content; the prefix may claim another length."""
    return b"\0" + struct.pack(">I", len(data) if claimed_bytes is None else claimed_bytes) + data


def _string(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) < 127:
        return bytes([len(encoded)]) + encoded
    rest, digits = len(encoded) - 127, bytearray([127])
    while rest >= 128:
        digits.append(rest % 128 | 128)
        rest //= 128
    digits.append(rest)
    return bytes(digits) + encoded


class Connection:
    """One connection to `host:port`, greeted with the preface and settings unless told otherwise."""

    def __init__(self, address: str, *, greets: bool = True, settings: bytes = b"") -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=SEND_S_MAX)
        self.window = 65_535
        self.is_open = True
        self._received = bytearray()
        if greets:
            self.send(PREFACE + frame(SETTINGS, settings))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Sends bytes; False once the peer has closed, or reads no more."""
        try:
            self._socket.settimeout(SEND_S_MAX)
            self._socket.sendall(data)
        except OSError:
            self.is_open = False
        return self.is_open

    def frames(self, wait_s: float) -> list[tuple[int, int, int, bytes]]:
        """The frames that come within a time, as (kind, flags, stream, payload); `window` follows the connection's."""
        until, found = time.monotonic() + wait_s, list[tuple[int, int, int, bytes]]()
        while self.is_open and (left_s := until - time.monotonic()) > 0:
            self._receive(left_s)
            taken = self._taken()
            found += taken
            if taken and wait_s < 1:
                break
        return found

    def is_closed_within(self, wait_s: float) -> bool:
        """Whether the peer closes the connection in time."""
        self.frames(wait_s)
        return not self.is_open

    def _receive(self, wait_s: float) -> None:
        try:
            self._socket.settimeout(wait_s)
            data = self._socket.recv(1 << 16)
            self._received += data
            self.is_open = bool(data)
        except TimeoutError:
            pass
        except OSError:
            self.is_open = False

    def _taken(self) -> list[tuple[int, int, int, bytes]]:
        found: list[tuple[int, int, int, bytes]] = []
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + length:
                break
            kind, flags = self._received[3], self._received[4]
            stream, payload = int.from_bytes(self._received[5:9], "big"), bytes(self._received[9 : 9 + length])
            del self._received[: 9 + length]
            if kind == WINDOW_UPDATE and stream == 0:
                self.window += int.from_bytes(payload, "big")
            found.append((kind, flags, stream, payload))
        return found
