"""Prometheus as a source of raw samples, through its HTTP API. Every call is bounded in time and in what it reads."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import requests

Json: TypeAlias = Any
"""Whatever a peer sent as JSON."""

_ANSWER_BYTES_MAX: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 16


class PrometheusError(Exception):
    """Prometheus cannot be asked, or gave no usable answer; the message says where, what and the next step."""


@dataclass(frozen=True, slots=True)
class Series:
    """A time series: its labels (`__name__` among them), and samples (unix seconds, value) in order of time."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


class Prometheus:
    """A client of one Prometheus; proxies of the environment are not used, since a run's Prometheus is local."""

    def __init__(self, url: str, timeout_s: float = 5) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        """Drops its connections."""
        self._session.close()

    def ready(self) -> bool:
        """Whether it answers and is ready to be asked."""
        try:
            with self._session.get(f"{self.url}/-/ready", timeout=self._timeout_s) as response:
                return response.status_code == HTTPStatus.OK
        except requests.RequestException:
            return False

    def version(self) -> str:
        """Its version, as in `2.55.1`.

        Raises:
            PrometheusError: unreachable, or no usable answer.
        """
        data = self._ask("status/buildinfo", {})
        return str(data.get("version", "unknown")) if isinstance(data, dict) else "unknown"

    def up(self, job: str) -> bool:
        """Whether every target of a job answered its last scrape; False for a job never scraped.

        Raises:
            PrometheusError: unreachable, or no usable answer.
        """
        series = self._result(self._ask("query", {"query": f"up{{job={json.dumps(job)}}}"}), "vector")
        try:
            return bool(series) and all(float(entry["value"][1]) == 1 for entry in series)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._unusable(f"a sample of 'up' without a value: {error!r}") from error

    def raw(self, selector: str, start_s: float, end_s: float) -> list[Series]:
        """The samples as scraped, neither aligned nor extrapolated, of all series a selector matches in a span of time.

        Raises:
            PrometheusError: unreachable, the selector is refused, or no usable answer.
        """
        span_ms = max(1, round((end_s - start_s) * 1000) + 1)
        form = {"query": f"{selector}[{span_ms}ms]", "time": f"{end_s:.3f}", "timeout": f"{self._timeout_s}s"}
        return [self._series(entry) for entry in self._result(self._ask("query", form), "matrix")]

    def _series(self, entry: Json) -> Series:
        try:
            samples = tuple((float(at), float(value)) for at, value in entry["values"])
            return Series({str(name): str(value) for name, value in entry["metric"].items()}, samples)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unusable(f"a series without labels or samples: {error!r}") from error

    def _result(self, data: Json, kind: str) -> list[Json]:
        if not isinstance(data, dict) or data.get("resultType") != kind or not isinstance(data.get("result"), list):
            raise self._unusable(f"no {kind}")
        return list(data["result"])

    def _ask(self, path: str, form: Mapping[str, str]) -> Json:
        url = f"{self.url}/api/v1/{path}"
        try:
            # A form, since a selector with many labels may exceed what a URL can hold.
            method = "POST" if form else "GET"
            with self._session.request(method, url, data=form, timeout=self._timeout_s, stream=True) as response:
                status, body = response.status_code, self._body(response)
        except requests.Timeout as error:
            raise PrometheusError(f"Prometheus at {self.url} did not answer within {self._timeout_s} s.") from error
        except requests.RequestException as error:
            raise PrometheusError(
                f"Prometheus at {self.url} cannot be reached: {_cause(error)}. Check that it runs and listens there."
            ) from error
        return self._data(status, body)

    def _body(self, response: requests.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > _ANSWER_BYTES_MAX:
                raise self._unusable(f"more than {_ANSWER_BYTES_MAX} bytes; narrow the objective's selector")
        return bytes(body)

    def _data(self, status: int, body: bytes) -> Json:
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise self._unusable(f"HTTP {status} with no JSON ({body[:80]!r}); is this a Prometheus?") from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            said = answer.get("error") if isinstance(answer, dict) else answer
            raise self._unusable(f"HTTP {status}, {said!r}")
        return answer.get("data")

    def _unusable(self, what: str) -> PrometheusError:
        return PrometheusError(f"Prometheus at {self.url} gave no usable answer: {what}.")


def _cause(error: BaseException) -> str:
    """The innermost cause without urllib3's object addresses."""
    text = str(error.args[0] if error.args else error)
    match = re.search(r"\[Errno \d+\] ([\w ]+)", text) or re.search(r"(Connection reset|RemoteDisconnected)", text)
    return match[1] if match else type(error).__name__
