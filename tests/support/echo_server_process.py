"""The echo server as a process of its own, to be frozen, killed and started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import grpc

from holdfast.registry.v1 import agent_registry_service_pb2 as registry
from support.echo_server import COUNTS_AGENT

TESTS = Path(__file__).parents[1]


class EchoServer:
    """Runs from construction to `stop`; `address` stays the same across `restart`."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.echo_server", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip()
        assert self.address, "the echo server did not start"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._reap()

    def restarted(self) -> "EchoServer":
        return EchoServer(self.address)

    def stop(self) -> None:
        if self._process.poll() is None:
            self.thaw()
            self._process.kill()
        self._reap()

    def counts(self) -> dict[str, int]:
        """How many calls the server answered, by `method/code`."""
        with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            get = channel.unary_unary(
                "/holdfast.registry.v1.AgentRegistryService/GetAgent",
                request_serializer=registry.GetAgentRequest.SerializeToString,
                response_deserializer=registry.GetAgentResponse.FromString,
            )
            answer = get(registry.GetAgentRequest(name=COUNTS_AGENT), timeout=5)
        return {key: int(count) for key, count in answer.agent.labels.items()}

    def _reap(self) -> None:
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
