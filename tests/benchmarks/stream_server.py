"""The bare peer of watches: a grpc.aio server that sends what it is given to every stream, and does nothing else."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio


class Streams:
    """One list of messages that every stream reads at its own pace."""

    def __init__(self) -> None:
        self._messages: list[bytes] = [b""]
        self._added = asyncio.Event()

    async def publish(self, message: bytes, _context: object) -> bytes:
        """Sends a message to all."""
        self._messages.append(message)
        self._added.set()
        self._added = asyncio.Event()
        return b""

    async def watch(self, _request: bytes, _context: object) -> AsyncIterator[bytes]:
        """An empty message first, then all that follow."""
        position = len(self._messages) - 1
        yield b""
        position += 1
        while True:
            while position < len(self._messages):
                yield self._messages[position]
                position += 1
            await self._added.wait()


async def main(ready: Path) -> None:
    """Serves until ended."""
    server, streams = grpc.aio.server(), Streams()
    handlers = {
        "RegisterAgent": grpc.unary_unary_rpc_method_handler(streams.publish),
        "WatchAgents": grpc.unary_stream_rpc_method_handler(streams.watch),
    }
    service = "holdfast.registry.v1.AgentRegistryService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready.write_text(json.dumps({"grpc": f"127.0.0.1:{port}"}))  # noqa: ASYNC240  # nobody is served yet
    await server.wait_for_termination()


asyncio.run(main(Path(sys.argv[2])))
