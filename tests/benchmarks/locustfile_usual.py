"""How people usually load gRPC from Locust: grpcio made to wait for gevent, and a blocking call timed by hand.

Each user makes one call after the other; with `PER_USER_PER_S` so many a second. What the load took is written to the
file `FOUND` names: calls, and CPU seconds of the process between the first and the last.
"""

import json
import os
import time
from pathlib import Path

import grpc
import grpc.experimental.gevent
from google.protobuf.empty_pb2 import Empty
from locust import User, constant_throughput, events, task
from locust.env import Environment

grpc.experimental.gevent.init_gevent()

METHOD = "/grpc.testing.TestService/EmptyCall"
DEADLINE_S = 20.0
PER_USER_PER_S = float(os.environ.get("PER_USER_PER_S", "0"))

channel = grpc.insecure_channel(os.environ["TARGET"])
empty_call = channel.unary_unary(
    METHOD, request_serializer=Empty.SerializeToString, response_deserializer=Empty.FromString
)
begun: list[float] = []


class Caller(User):
    """Calls."""

    if PER_USER_PER_S:
        wait_time = constant_throughput(PER_USER_PER_S)

    @task
    def call(self) -> None:
        """Makes one call and tells Locust how long it took."""
        if not begun:
            begun.append(time.process_time())
        started_s = time.perf_counter()
        error = None
        try:
            empty_call(Empty(), timeout=DEADLINE_S)
        except grpc.RpcError as failure:
            error = failure
        self.environment.events.request.fire(
            request_type="grpc",
            name=METHOD,
            response_time=(time.perf_counter() - started_s) * 1000,
            response_length=0,
            context={},
            exception=error,
        )


@events.test_stop.add_listener
def tell(environment: Environment, **_: object) -> None:
    """Writes what the load took."""
    total = environment.stats.total
    found = {
        "calls": total.num_requests - total.num_failures,
        "cpu_s": time.process_time() - begun[0],
        "p99_s": total.get_response_time_percentile(0.99) / 1000,
    }
    Path(os.environ["FOUND"]).write_text(json.dumps(found))
