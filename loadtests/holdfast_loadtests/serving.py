"""Serves the load's metrics over HTTP, on loopback, from the generator's own event loop."""

import asyncio
from typing import Final

from holdfast_loadtests.exposition import CONTENT_TYPE, Exposition

REQUEST_WITHIN_S: Final = 5.0


class MetricsServer:
    """Answers every GET with the metrics, one request a connection."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Begins to listen on a free port. Returns `host:port`."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def close(self) -> None:
        """Ends it."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_WITHIN_S):
                await reader.readuntil(b"\r\n\r\n")
                body = self._exposition.text().encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked went away, or asked for nothing
        finally:
            writer.close()
