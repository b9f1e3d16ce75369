"""Conversations of real HTTP/2 programs, as files: who sent which bytes, in the order a relay between them saw.

`python -m support.http2_recording` renews those in tests/data/http2. A file has, for each read, one byte (0: of the
client, 1: of the server), a length in four bytes and the bytes.
"""

import asyncio
import contextlib
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc

from support import etcd_api
from support.etcd_server import TOOLS, etcd_server
from support.server import ServerProcess

FOLDER = Path(__file__).parents[1] / "data" / "http2"
HEAD = struct.Struct(">BI")
OF_CLIENT, OF_SERVER = 0, 1


def read(path: Path) -> list[tuple[int, bytes]]:
    """The reads of a recording, in order."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        side, size = HEAD.unpack_from(data, at)
        at += HEAD.size
        found.append((side, data[at : at + size]))
        at += size
    return found


@contextlib.asynccontextmanager
async def relay(address: str, path: Path) -> AsyncIterator[str]:
    """A relay to an address that records its first connection until the block ends; gives its own address."""
    reads: list[bytes] = []
    over: list[asyncio.Event] = []

    async def passes(side: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter, records: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if records:
                    reads.append(HEAD.pack(side, len(data)) + data)
                sink.write(data)
                await sink.drain()
            sink.close()

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        over.append(asyncio.Event())
        mine, records = over[-1], len(over) == 1
        host, port = address.rsplit(":", 1)
        server, to_server = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            passes(OF_CLIENT, client, to_server, records), passes(OF_SERVER, server, to_client, records)
        )
        mine.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        for each in over:
            await asyncio.wait_for(each.wait(), 20)
        listener.close()
        path.write_bytes(b"".join(reads))  # noqa: ASYNC240  # nobody is served any more


def grpcio_to_etcd(address: str) -> None:
    """grpcio's client and grpc-go's server: calls, a failure, a long answer, a stream that is cancelled."""
    with grpc.insecure_channel(address) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put", response_deserializer=bytes)
        reach = channel.unary_unary("/etcdserverpb.KV/Range", response_deserializer=bytes)
        watch = channel.stream_stream("/etcdserverpb.Watch/Watch", response_deserializer=bytes)
        for number in range(5):
            put(etcd_api.message("PutRequest", key=b"k%d" % number, value=bytes(number * 2_000)).SerializeToString())
        reach(etcd_api.message("RangeRequest", key=b"k", range_end=b"l").SerializeToString())
        with contextlib.suppress(grpc.RpcError):
            reach(b"")  # etcd refuses an empty key
        with contextlib.suppress(grpc.RpcError):
            channel.unary_unary("/etcdserverpb.KV/Nothing")(b"")
        created = etcd_api.message("WatchRequest", create_request={"key": b"k0"})
        events = watch(iter([created.SerializeToString()]))
        next(events)
        put(etcd_api.message("PutRequest", key=b"k0", value=b"seen").SerializeToString())
        next(events)
        events.cancel()
        put(etcd_api.message("PutRequest", key=b"k1", value=b"last").SerializeToString())


def grpc_go_to_grpcio(address: str) -> None:
    """grpc-go's client (grpcurl) and grpcio's server: reflection as a stream, calls, a failure."""
    grpcurl = [str(TOOLS / "bin" / "grpcurl"), "-plaintext", "-max-time", "20"]
    service = "holdfast.registry.v1.AgentRegistryService"
    many = "".join('{"name": "namespaces/n/agents/a"}' for _ in range(3))
    subprocess.run([*grpcurl, "-d", many, address, f"{service}/GetAgent"], check=False, capture_output=True)


def nghttp2_to_grpcio(address: str) -> None:
    """nghttp2's client (curl) and grpcio's server: a method that is not there, and a body that is no message."""
    curl = ["curl", "--silent", "--http2-prior-knowledge", "--max-time", "20", "-H", "content-type: application/grpc"]
    url = f"http://{address}/holdfast.registry.v1.AgentRegistryService"
    command = [*curl, "-H", "te: trailers", "--data-binary", "\1" * 3_000, f"{url}/Nothing", f"{url}/GetAgent"]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


async def _record(name: str, address: str, talk: Callable[[str], None]) -> None:
    async with relay(address, FOLDER / f"{name}.bin") as through:
        await asyncio.to_thread(talk, through)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Records all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _folder() as folder, etcd_server(folder) as address:
        asyncio.run(_record("grpcio-to-grpc-go", address, grpcio_to_etcd))
    with _folder() as folder, ServerProcess(folder) as server:
        asyncio.run(_record("grpc-go-to-grpcio", server.grpc, grpc_go_to_grpcio))
        asyncio.run(_record("nghttp2-to-grpcio", server.grpc, nghttp2_to_grpcio))
    for path in sorted(FOLDER.glob("*.bin")):
        print(path.name, path.stat().st_size, "bytes", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
