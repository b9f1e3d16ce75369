"""Health and metrics over HTTP, on a thread of its own: it answers even when the event loop does not, and says so."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, socket
from typing import Any, TypeAlias, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Request: TypeAlias = socket | tuple[bytes, socket]

LOOP_ANSWERS_WITHIN_S = 1.0
"""How long the event loop may take to answer before the process counts as hung."""

CONNECTIONS_MAX = 64
"""Most connections served at a time."""

FREE_WITHIN_S = 1.0
"""How long one more waits for its turn before it is closed: a probe must hear something, and the end must not wait."""

CONNECTION_TIMEOUT_S = 7.0
"""Silence after which a connection is closed, so that idle ones cannot keep probes out for long. No usual interval of
scrapes, so that closing does not meet one.
"""


@dataclass(frozen=True, slots=True)
class Probes:
    """What the pages are made of. `is_ready` and `details` are called on the server's threads and must only read."""

    is_ready: Callable[[], bool]
    details: Callable[[], dict[str, Any]]
    metrics: CollectorRegistry


class HttpServer:
    """Serves `/health/live`, `/health/ready`, `/health/detailed` and `/metrics`.

    Args:
        address: Host and port; port 0 picks a free one.
        probes: What the pages show.
        loop: The event loop whose life `/health/live` tells.

    Raises:
        OSError: The address cannot be bound.
    """

    def __init__(self, address: tuple[str, int], probes: Probes, loop: asyncio.AbstractEventLoop) -> None:
        self._server = _Server(address, probes, loop)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stops listening; returns once the listener's thread has ended."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], probes: Probes, loop: asyncio.AbstractEventLoop) -> None:
        self.probes = probes
        self.loop = loop
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        if ":" in address[0]:
            self.address_family = AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Request, client_address: object) -> None:
        if self._free.acquire(timeout=FREE_WITHIN_S):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def loop_answers(self) -> bool:
        answered = threading.Event()
        try:
            self.loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # the loop is closed
            return False
        return answered.wait(LOOP_ANSWERS_WITHIN_S)


class _Handler(BaseHTTPRequestHandler):
    timeout = CONNECTION_TIMEOUT_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        pages = {
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/health/detailed": self._detailed,
            "/metrics": self._metrics,
        }
        page = pages.get(self.path.partition("?")[0])
        if page is None:
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"no page {self.path!r}", "pages": sorted(pages)})
        else:
            page()

    do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

    @property
    def _owner(self) -> _Server:
        return cast("_Server", self.server)

    def _live(self) -> None:
        is_live = self._owner.loop_answers()
        self._answer(_status(is_live), {"status": "live" if is_live else "hung"})

    def _ready(self) -> None:
        is_ready = self._owner.probes.is_ready() and self._owner.loop_answers()
        self._answer(_status(is_ready), {"status": "ready" if is_ready else "not ready"})

    def _detailed(self) -> None:
        details = self._owner.probes.details()
        details["components"]["event_loop"] = "ok" if self._owner.loop_answers() else "hung"
        is_fine = all(state == "ok" for state in details["components"].values())
        self._answer(_status(is_fine), {"status": "ok" if is_fine else "degraded", **details})

    def _metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._send(HTTPStatus.OK, content_type, encode(self._owner.probes.metrics))

    def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(body, indent=2).encode() + b"\n")

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server names it
        """Scrapes and probes come every few seconds; they are no news."""


def _status(is_fine: bool) -> HTTPStatus:
    return HTTPStatus.OK if is_fine else HTTPStatus.SERVICE_UNAVAILABLE
