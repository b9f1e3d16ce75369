"""The answer of a scripted call, judged as Locust's users know it from `HttpUser`."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from locust.exception import CatchResponseError, LocustError, ResponseError

if TYPE_CHECKING:
    from locust.event import EventHook

    from holdfast_loadtests.locusting.station import Station


class Reply:
    """How a call ended.

    `code` is go-grpc's name of the status (`OK`, `NotFound`), `details` its text, `message` the (last) answer as JSON
    has it, or None, `outcome` what the end lets one conclude (see docs/load.md), `latency_ms` from sending to end.
    """

    def __init__(
        self,
        told: dict[str, Any],
        late_s: float,
        counted: Mapping[str, Any],
        station: "Station",
        event: "EventHook",
        catch_response: bool,
    ) -> None:
        self.code: str = told["code"]
        self.details: str = told["details"]
        self.message: dict[str, Any] | None = told["message"]
        self.outcome: str = told["outcome"]
        self.latency_ms: float = told["latency_s"] * 1000.0
        self._told = told
        self._late_s = late_s
        self._counted = counted
        self._station = station
        self._event = event
        self._is_caught = catch_response
        self._is_reported = False
        self._error: Exception | None = None
        if not self.ok:
            self.failure(f"{self.code}: {self.details}" if self.details else self.code)

    @property
    def ok(self) -> bool:
        """Whether the server answered OK, and a stream that was to give so many messages gave them."""
        return self.code == "OK" and not self._told["short"]

    def success(self) -> None:
        """Counts it as a success, whatever the server said; an end that the generator made stays a failure."""
        if not (self._told["short"] and self.outcome == "indefinite"):
            self._error = None

    def failure(self, why: str | Exception) -> None:
        """Counts it as a failure."""
        self._error = why if isinstance(why, Exception) else CatchResponseError(why)

    def report(self) -> None:
        """Counts it, once."""
        if self._is_reported:
            return
        self._is_reported = True
        wrong = "" if self._error is None else str(self._error) or type(self._error).__name__
        self._station.record(self._counted["name"], self._told, self._late_s, wrong)
        self._event.fire(
            **self._counted,
            response_time=self.latency_ms,
            response_length=self._told["bytes"],
            response=self,
            exception=self._error,
        )

    def __enter__(self) -> Self:
        """A block in which it is judged."""
        if not self._is_caught:
            raise LocustError("to judge a reply in a with-block, pass catch_response=True to call()")
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        """Counts it. An AssertionError or one of Locust's response errors is its failure; others go on."""
        is_verdict = isinstance(error, AssertionError | ResponseError)
        if isinstance(error, Exception):
            self.failure(error if not isinstance(error, AssertionError) else str(error) or "an assertion failed")
        self.report()
        return is_verdict
