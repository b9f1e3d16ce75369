"""A real etcd of the pinned version, on free ports."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.server import wait_for

TOOLS = Path(os.environ.get("HOLDFAST_TOOLS") or Path(__file__).parents[2] / ".tools")


@contextmanager
def etcd_server(folder: Path) -> Iterator[str]:
    """Runs one member with its files in `folder` until the block ends, then kills it; gives its address."""
    binary = TOOLS / "bin" / "etcd"
    assert binary.exists(), f"{binary} is missing: make tools"
    client, peer = _free_ports(2)
    command = [binary, "--data-dir", folder / "etcd", "--log-level", "error"]
    command += ["--listen-client-urls", f"http://127.0.0.1:{client}"]
    command += ["--advertise-client-urls", f"http://127.0.0.1:{client}"]
    command += ["--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster"]
    command += [f"default=http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"]
    log_file = folder / "etcd.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: _listens(client) or process.poll() is not None, "etcd to listen", 60)
        assert process.poll() is None, f"etcd ended: {log_file.read_text()[-2000:]}"
        yield f"127.0.0.1:{client}"
    finally:
        process.kill()
        process.wait(20)


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
