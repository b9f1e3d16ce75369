"""etcd as a peer: a process of its own, fsync on, and the few messages of its API that benchmarks send, as bytes."""

import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

BINARY = Path(__file__).parents[2] / ".tools" / "bin" / "etcd"
READY_WITHIN_S = 20.0


def start(stack: ExitStack, folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """Starts one member on free ports; returns its address and process.

    Raises:
        RuntimeError: It did not come up; its log is quoted.
    """
    client, peer = _free_ports(2)
    address, log_file = f"127.0.0.1:{client}", folder / "etcd.log"
    command = [str(BINARY), "--data-dir", str(folder / "etcd"), "--log-level", "error"]
    command += ["--listen-client-urls", f"http://{address}", "--advertise-client-urls", f"http://{address}"]
    command += ["--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls"]
    command += [f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    stack.callback(process.wait, 15)
    stack.callback(process.terminate)
    deadline_s = time.monotonic() + READY_WITHIN_S
    while not _listens(client):
        if time.monotonic() > deadline_s or process.poll() is not None:
            raise RuntimeError(f"etcd did not come up: {log_file.read_text()[-2000:]}")
        time.sleep(0.02)
    return address, process


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


def _free_ports(count: int) -> list[int]:
    """etcd cannot say which port it took, so free ones are named to it; a taken one ends it, which is reported."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
