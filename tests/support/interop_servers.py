"""gRPC's interop test service as others implement it, each as a process of its own. See `tests/interop/README.md`."""

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from holdfast_loadtests.security import Security
from support.certificates import Authority

HERE = Path(__file__).parents[1] / "interop"
PROTOS = HERE / "proto"
TOOLS = Path(os.environ.get("HOLDFAST_TOOLS") or Path(__file__).parents[2] / ".tools")
IMPLEMENTATIONS = ("go", "python", "node")


@dataclass(frozen=True)
class InteropServer:
    """A server that runs.

    Attributes:
        name: of its implementation.
        address: `host:port` of its gRPC.
        http: `host:port` of its metrics; the Go server has them.
        security: what a client needs to trust it, None where it speaks without TLS.
    """

    name: str
    address: str
    http: str
    security: Security | None

    def metrics(self) -> str:
        """Its metrics, as Prometheus reads them."""
        return requests.get(f"http://{self.http}/metrics", timeout=20).text


@contextmanager
def interop_server(name: str, folder: Path, tls: bool = False) -> Iterator[InteropServer]:
    """Runs the server of an implementation until the block ends; with TLS by a certificate made in `folder`."""
    authority = Authority(folder) if tls else None
    cert, key = authority.issue("server", "DNS:localhost", "IP:127.0.0.1") if authority else (None, None)
    process = subprocess.Popen(_command(name, folder, cert, key), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline() or "{}")
        assert said, f"the interop server of {name!r} ended with {process.wait(10)}"
        security = Security(ca=str(authority.ca)) if authority else None
        yield InteropServer(name, said["grpc"], said.get("http", ""), security)
    finally:
        process.stdin.close()
        process.kill()
        process.wait(20)
        process.stdout.close()


def _command(name: str, folder: Path, cert: Path | None, key: Path | None) -> list[str]:
    files = [str(cert), str(key)] if cert else []
    if name == "go":
        program = TOOLS / "bin" / "grpc-interop-server"
        assert program.exists(), f"{program} is missing: make tools"
        return [str(program), *(["-cert", files[0], "-key", files[1]] if files else [])]
    if name == "python":
        protoset = folder / "interop.binpb"
        protoset.write_bytes(descriptor_set())
        return [sys.executable, str(HERE / "python_server.py"), str(protoset), *files]
    node = shutil.which("node")
    assert node, "node is not on PATH: install Node.js 20 or newer"
    return [node, str(_node_server()), str(PROTOS), *files]


@functools.cache
def descriptor_set() -> bytes:
    """What the service's protos say, as a serialised FileDescriptorSet."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "set.binpb")
        arguments = ["-I", PROTOS, "--include_imports", f"--descriptor_set_out={out}", "grpc/testing/test.proto"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, timeout=60)
        return out.read_bytes()


def _node_server() -> Path:
    """The Node server beside its packages, which npm installs by the lock the first time."""
    source = HERE / "node"
    parts = [(source / name).read_bytes() for name in ("package-lock.json", "server.js")]
    place = TOOLS / f"interop-node-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / ".interop-node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            npm = shutil.which("npm")
            assert npm, "npm is not on PATH: install Node.js 20 or newer"
            # npm ci takes a folder that it reaches by a link for another package, hence resolve().
            with tempfile.TemporaryDirectory(dir=TOOLS.resolve(), prefix=".interop-node-") as scratch:
                shutil.copytree(source, scratch, dirs_exist_ok=True)
                command = [npm, "ci", "--prefix", scratch, "--ignore-scripts", "--no-audit", "--no-fund"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
                assert done.returncode == 0, f"npm ci of tests/interop/node failed:\n{done.stderr[-2000:]}"
                shutil.copytree(scratch, place.with_suffix(".part"), dirs_exist_ok=True)
                place.with_suffix(".part").rename(place)
    return place / "server.js"
