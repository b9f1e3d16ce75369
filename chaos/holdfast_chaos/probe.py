"""The control probe: a small call at a steady pace on the untouched path, beside the load on the faulted one.

What the probe sees as well is the machine's or the target's doing, not the fault's.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from holdfast_chaos.reach import channel_to
from holdfast_loadtests.access import PLAIN, Access
from holdfast_loadtests.codes import error_class

INTERVAL_S: Final = 0.05
PATH_INTERVAL_S: Final = 0.2
"""Between probes along the path of one process of many; enough for proofs of windows of some seconds."""

DEADLINE_S: Final = 1.0
SAMPLES_MAX: Final = 500_000
"""About seven hours; the oldest are dropped first."""

_NO_ANSWER: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}
"""Codes that do not show the target answered. Any other does, UNIMPLEMENTED too: it made the same way there and back,
so a service without health checks can be probed as well."""

_CHANNEL_OPTIONS: Final = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


@dataclass(frozen=True, slots=True)
class ProbeSample:
    """One probe.

    `t_s` and `ended_s`: unix time it was sent, and when its end was known; `latency_ms`: None if nobody answered, with
    go-grpc's name of the code in `error` and what broke it in `error_class`, both as the load has them.
    """

    t_s: float
    latency_ms: float | None
    error: str = ""
    error_class: str = ""
    ended_s: float = 0.0


class ControlProbe:
    """Probes an address from its construction until `stop`, in a thread of its own."""

    def __init__(self, address: str, interval_s: float = INTERVAL_S, access: Access = PLAIN) -> None:
        """`access`: as the load has it."""
        self._interval_s = interval_s
        self._metadata = access.for_grpcio
        self._samples: deque[ProbeSample] = deque(maxlen=SAMPLES_MAX)
        self._stopped = threading.Event()
        self._channel = channel_to(address, access, _CHANNEL_OPTIONS)
        self._check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._thread = threading.Thread(target=self._run, name="control-probe", daemon=True)
        self._thread.start()

    def samples(self) -> Sequence[ProbeSample]:
        """What was seen so far, the oldest first."""
        return tuple(self._samples)

    def tell(self) -> None:
        """Has the probing end, and does not wait for it."""
        self._stopped.set()

    def stop(self) -> Sequence[ProbeSample]:
        """Ends the probing and returns what it saw. Repeatable."""
        self.tell()
        self._thread.join(DEADLINE_S + 1.0)
        self._channel.close()
        return self.samples()

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopped.is_set():
            self._samples.append(self._probe())
            # A slow probe skips the turns it missed: catching up would load the path it measures.
            due_s = max(due_s + self._interval_s, time.monotonic())
            self._stopped.wait(due_s - time.monotonic())

    def _probe(self) -> ProbeSample:
        sent_s, began_s = time.time(), time.perf_counter()
        try:
            self._check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() in _NO_ANSWER:
                code = error.code().name.title().replace("_", "")
                return ProbeSample(sent_s, None, code, error_class(code, error.details() or ""), time.time())
        except ValueError:  # the channel was closed under it by `stop`
            return ProbeSample(sent_s, None, "Cancelled", "other", time.time())
        took_s = time.perf_counter() - began_s
        return ProbeSample(sent_s, took_s * 1000.0, ended_s=sent_s + took_s)


def stop_all(probes: Iterable[ControlProbe]) -> None:
    """Ends several, without waiting for each before the next is told."""
    several = list(probes)
    for probe in several:
        probe.tell()
    for probe in several:
        probe.stop()
