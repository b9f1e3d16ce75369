"""etcd as a peer: a process of its own, fsync on, and the few messages of its API that benchmarks send, as bytes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.processes import TOOLS, Running, free_ports, start_program

BINARY = TOOLS / "bin" / "etcd"

TXN_PUTS_MAX = 128
"""Most operations of one transaction: the default of `--max-txn-ops`."""


def start(stack: ExitStack, folder: Path) -> Running:
    """Starts one member on free ports and the first core, on the data that is there.

    Raises:
        RuntimeError: It did not come up; its log is quoted.
    """
    client, peer = free_ports(2)
    address = f"127.0.0.1:{client}"
    command = [str(BINARY), "--data-dir", str(folder / "etcd"), "--log-level", "error"]
    command += ["--listen-client-urls", f"http://{address}", "--advertise-client-urls", f"http://{address}"]
    command += ["--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls"]
    command += [f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}"]
    return start_program(stack, command, address, folder / "etcd.log")


def put_all(puts: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """A TxnRequest whose success (2) puts each (key, value, lease), at most `TXN_PUTS_MAX`."""
    request = b""
    for key, value, lease in puts:
        put = _field(1, key) + _field(2, value) + (b"\x18" + varint(lease) if lease else b"")
        request += _field(2, _field(2, put))
    return request


def range_of(key: bytes, end: bytes = b"", *, count_only: bool = False) -> bytes:
    """A RangeRequest{key = 1, range_end = 2, count_only = 9}."""
    return _field(1, key) + (_field(2, end) if end else b"") + (b"\x48\x01" if count_only else b"")


def watch_of(prefix: bytes) -> bytes:
    """A WatchRequest that creates (1) a watch of everything that starts with a prefix."""
    return _field(1, _field(1, prefix) + _field(2, prefix[:-1] + bytes([prefix[-1] + 1])))


def count_of(answer: bytes) -> int:
    """The count (4) of a RangeResponse."""
    return next((int.from_bytes(value, "little") for number, value in fields(answer) if number == 4), 0)


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of a message's fields; numbers are given as eight bytes, the least first."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        value, position = _read_varint(message, position)
        if key & 7 == 2:
            yield key >> 3, message[position : position + value]
            position += value
        else:
            yield key >> 3, value.to_bytes(8, "little")


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def keep_alive(lease: int) -> bytes:
    """A LeaseKeepAliveRequest{ID = 1}."""
    return b"\x08" + varint(lease)


def grant(lease: int, ttl_s: int) -> bytes:
    """A LeaseGrantRequest{TTL = 1, ID = 2}."""
    return b"\x08" + varint(ttl_s) + b"\x10" + varint(lease)


def kept_ttl_s(answer: bytes) -> int:
    """The TTL (3) of a LeaseKeepAliveResponse, 0 if the lease is gone: then the field is not there."""
    position, ttl_s = 0, 0
    while position < len(answer):
        key = answer[position]
        value, position = _read_varint(answer, position + 1)
        if key & 7 == 2:
            position += value
        elif key >> 3 == 3:
            ttl_s = value
    return ttl_s


def varint(value: int) -> bytes:
    """Protobuf's base-128 number."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while data[position] > 127:
        value |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
    return value | data[position] << shift, position + 1
