"""Activations in a line each: created, fetched, accepted, and brought to an end, through the handlers of a replica."""

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import validation
from holdfast.coordination.v1 import activation_service_pb2 as pb
from holdfast.registry.v1.agent_pb2 import Agent, Capability
from support.replica import CALL, PARENT, Replica


def agent(name: str) -> str:
    return f"{PARENT}/agents/{name}"


def in_s(here: Replica, seconds: float) -> Timestamp:
    """A time of day, so many seconds ahead."""
    time = Timestamp()
    time.FromMilliseconds(int((here.clock.now_s + seconds) * 1000))
    return time


def policy(attempts: int = 3, initial_s: float = 1, max_s: float = 60, multiplier: float = 2) -> pb.RetryPolicy:
    initial, longest = Duration(), Duration()
    initial.FromMilliseconds(int(initial_s * 1000))
    longest.FromMilliseconds(int(max_s * 1000))
    return pb.RetryPolicy(max_attempts=attempts, initial_backoff=initial, max_backoff=longest, multiplier=multiplier)


class Work:
    """Work at one replica.

    Args:
        here: The replica.
    """

    def __init__(self, here: Replica) -> None:
        self._here = here

    async def hire(self, *names: str, slots: int = 1, can: str = "", **fields: Any) -> None:
        """Registers agents that live for an hour unless told otherwise."""
        for name in names:
            capabilities = [Capability(id=each) for each in can.split()]
            told = Agent(max_concurrency=slots, capabilities=capabilities, **fields)
            await self._here.register(name, ttl_s=3600, agent=told)
        await self._here.settle()

    async def create(self, request_id: str = "", parent: str = PARENT, **fields: Any) -> pb.Activation:
        """Creates one, and lets it find its agent."""
        request = pb.CreateActivationRequest(parent=parent, activation=pb.Activation(**fields), request_id=request_id)
        activation = (await self._ask("create_activation", request)).activation
        await self._here.settle()
        return activation  # type: ignore[no-any-return]

    async def read(self, activation: pb.Activation) -> pb.Activation:
        answer = await self._ask("get_activation", pb.GetActivationRequest(name=activation.name))
        return answer.activation  # type: ignore[no-any-return]

    async def fetch(self, name: str, count: int = 1, wait_s: float = 0, fence: int = 0) -> list[pb.Activation]:
        wait = Duration()
        wait.FromMilliseconds(int(wait_s * 1000))
        request = pb.FetchAssignmentsRequest(agent=agent(name), max=count, wait=wait, fence=fence)
        return list((await self._ask("fetch_assignments", request)).activations)

    async def accept(self, activation: pb.Activation) -> pb.Activation:
        return await self._say(pb.AcceptActivationRequest, activation)

    async def decline(self, activation: pb.Activation, reason: str = "") -> pb.Activation:
        return await self._say(pb.DeclineActivationRequest, activation, reason=reason)

    async def heartbeat(self, activation: pb.Activation, percent: int | None = None) -> pb.Activation:
        progress = None if percent is None else pb.ActivationProgress(percent=percent)
        return await self._say(pb.HeartbeatActivationRequest, activation, progress=progress)

    async def complete(self, activation: pb.Activation, result: bytes = b"done") -> pb.Activation:
        return await self._say(pb.CompleteActivationRequest, activation, result=result)

    async def fail(self, activation: pb.Activation, *, retryable: bool = True, reason: str = "BROKEN") -> pb.Activation:
        failure = pb.ActivationFailure(reason=reason, retryable=retryable)
        return await self._say(pb.FailActivationRequest, activation, failure=failure)

    async def cancel(self, activation: pb.Activation, reason: str = "") -> pb.Activation:
        request = pb.CancelActivationRequest(name=activation.name, reason=reason)
        answer = (await self._ask("cancel_activation", request)).activation
        await self._here.settle()
        return answer  # type: ignore[no-any-return]

    async def requeue(self, activation: pb.Activation, deadline: Timestamp | None = None) -> pb.Activation:
        request = pb.RequeueActivationRequest(name=activation.name, deadline=deadline)
        answer = (await self._ask("requeue_activation", request)).activation
        await self._here.settle()
        return answer  # type: ignore[no-any-return]

    async def started(self, name: str = "", **fields: Any) -> pb.Activation:
        """One that runs, and whose owner's fence it carries."""
        activation = await self.read(await self.create(**fields))
        assert activation.state == pb.ACTIVATION_STATE_ASSIGNED, activation
        assert name in ("", activation.agent.rsplit("/", 1)[1])
        return await self.accept(activation)

    async def _say(self, kind: Any, activation: pb.Activation, **fields: Any) -> pb.Activation:
        method = kind.__name__.removesuffix("Request")
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method)[1:]
        answer = await self._ask(snake, kind(name=activation.name, fence=activation.fence, **fields))
        await self._here.settle()
        return answer.activation  # type: ignore[no-any-return]

    async def _ask(self, method: str, request: Message) -> Any:
        validation.check(request)
        return await getattr(self._here.activations, method)(request, CALL)
