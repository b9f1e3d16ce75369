"""The one adapter around toxiproxy-python.

The library keeps host and port on a class for the whole interpreter, sets no timeouts, obeys proxies of the
environment, and takes most failures for successes. Here exchanges with one Toxiproxy wait for those with another, each
has an explicit timeout, and every answer is checked; what was set is read back.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import requests
import toxiproxy.api
from toxiproxy.api import APIConsumer
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists
from toxiproxy.proxy import Proxy
from toxiproxy.server import Toxiproxy as _Library

TIMEOUT_S: Final = 10.0
"""For one exchange: removing a toxic waits for what it holds back, up to 5 s."""

_LEFT_TO_LIBRARY: Final = {400, 404, 409}
"""Status codes toxiproxy-python turns into exceptions of its own."""

_TURN: Final = threading.Condition()
_in_use: dict[str, int] = {}
"""The address that exchanges go on with, and how many do: the library has one for the whole interpreter."""

ResultT = TypeVar("ResultT")


class ToxiproxyError(Exception):
    """Toxiproxy could not be reached or did not do as told; the message says where, what, and what to do next."""


class ToxiproxyUnreachableError(ToxiproxyError):
    """Nothing listens at Toxiproxy's address: it is gone, and every toxic with it."""


class _CheckedRequests:
    """Stands in for the `requests` module inside toxiproxy-python: timeouts, no proxies, bad answers raised."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def get(self, url: str, params: Mapping[str, str] | None = None) -> requests.Response:
        return self._send("GET", url, params=params)

    def post(self, url: str, data: object = None, json: object = None) -> requests.Response:
        assert data is None, "the library sends JSON only"
        return self._send("POST", url, body=json)

    def delete(self, url: str) -> requests.Response:
        return self._send("DELETE", url)

    def _send(
        self, method: str, url: str, params: Mapping[str, str] | None = None, body: object = None
    ) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(method, url, params=params, json=body, timeout=self._timeout_s)
        if not response.ok and response.status_code not in _LEFT_TO_LIBRARY:
            raise ToxiproxyError(f"{method} {url} answered {response.status_code}: {response.text.strip()[:300]}")
        return response


toxiproxy.api.requests = _CheckedRequests(TIMEOUT_S)


class Toxiproxy:
    """A Toxiproxy server, by the `host:port` of its API. Safe to use from several threads."""

    def __init__(self, address: str) -> None:
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdecimal():
            raise ValueError(f"Toxiproxy's address is {address!r}: expected host:port")
        self.address = address
        self._host = host
        self._port = int(port)
        self._library = _Library()

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            self.version()
        except ToxiproxyError:
            return False
        return True

    def version(self) -> str:
        """The server's version, such as `2.12.0`."""
        text = self._call("read its version", lambda: APIConsumer.get("/version").text)
        try:
            return str(json.loads(text)["version"])
        except (ValueError, KeyError, TypeError):
            return str(text).strip()

    def create_proxy(self, name: str, upstream: str, listen: str) -> str:
        """Listens on `listen` (port 0: a free one) and forwards to `upstream`; returns the address it listens on."""
        proxy = self._call(
            f"create proxy {name!r} on {listen}", lambda: self._library.create(upstream, name, listen, True)
        )
        return str(proxy.listen)

    def add_toxic(
        self,
        proxy: str,
        name: str,
        type: str,  # noqa: A002  # Toxiproxy's own word
        stream: str,
        toxicity: float,
        attributes: Mapping[str, int],
    ) -> None:
        """Adds a toxic and reads it back.

        Raises:
            ToxiproxyError: it was refused, or what is in force is not what was asked for.
        """
        wanted = {"type": type, "stream": stream, "toxicity": toxicity, "attributes": dict(attributes)}
        self._call(f"add toxic {name!r} to proxy {proxy!r}", lambda: self._proxy(proxy).add_toxic(name=name, **wanted))
        found = self.toxics(proxy).get(name)
        if found is None or not _fits(wanted, found):
            raise ToxiproxyError(
                f"Toxiproxy at {self.address} took toxic {name!r} but has {found!r} in force instead of {wanted!r}: "
                "is something else driving the same Toxiproxy?"
            )

    def remove_toxic(self, proxy: str, name: str) -> bool:
        """Removes a toxic; False if there is none (or no such proxy). Repeatable."""

        def remove() -> bool:
            try:
                return bool(self._proxy(proxy).destroy_toxic(name))
            except NotFound:
                return False

        return self._call(f"remove toxic {name!r} from proxy {proxy!r}", remove)

    def toxics(self, proxy: str) -> dict[str, dict[str, Any]]:
        """The toxics in force on a proxy, by name; empty if there is no such proxy."""

        def read() -> dict[str, dict[str, Any]]:
            try:
                found = self._proxy(proxy).toxics()
            except NotFound:
                return {}
            return {name: {key: getattr(toxic, key) for key in _TOXIC_KEYS} for name, toxic in found.items()}

        return self._call(f"list the toxics of proxy {proxy!r}", read)

    def reset(self) -> None:
        """Removes every toxic of every proxy and enables all proxies."""
        self._call("reset", self._library.reset)

    def _proxy(self, name: str) -> Proxy:
        return Proxy(name=name, upstream="", listen="", enabled=True)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Lets exchanges with this address go on side by side, once those with another are over."""
        with _TURN:
            _TURN.wait_for(lambda: not _in_use or self.address in _in_use)
            self._library.update_api_consumer(self._host, self._port)
            _in_use[self.address] = _in_use.get(self.address, 0) + 1
        try:
            yield
        finally:
            with _TURN:
                _in_use[self.address] -= 1
                if not _in_use[self.address]:
                    del _in_use[self.address]
                    _TURN.notify_all()

    def _call(self, action: str, operation: Callable[[], ResultT]) -> ResultT:
        try:
            with self._turn():
                return operation()
        except (InvalidToxic, NotFound, ProxyExists) as error:
            raise ToxiproxyError(f"Toxiproxy at {self.address} refused to {action}: {_text(error)}") from error
        except requests.ConnectionError as error:
            raise ToxiproxyUnreachableError(
                f"cannot {action}: nothing answers at Toxiproxy's address {self.address}: did it end? See its log."
            ) from error
        except requests.RequestException as error:
            raise ToxiproxyError(f"cannot {action}: Toxiproxy at {self.address}: {error}") from error
        except ToxiproxyError as error:
            raise ToxiproxyError(f"cannot {action}: Toxiproxy at {self.address}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ToxiproxyError(
                f"cannot {action}: {self.address} does not answer as Toxiproxy does: {error!r}. Is that another server?"
            ) from error


_TOXIC_KEYS: Final = ("type", "stream", "toxicity", "attributes")


def _fits(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether what is in force is what was asked for.

    The server adds defaults of its own, and keeps toxicity as a float32.
    """
    return bool(
        found["type"] == wanted["type"]
        and found["stream"] == wanted["stream"]
        and abs(found["toxicity"] - wanted["toxicity"]) < 1e-6
        and wanted["attributes"].items() <= found["attributes"].items()
    )


def _text(error: Exception) -> str:
    detail = error.args[0] if error.args else error
    return detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
