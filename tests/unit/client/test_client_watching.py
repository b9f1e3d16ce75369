"""A watch goes on from where it was, and says so when it cannot."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.message import Message

from holdfast import errors as table
from holdfast.client import Changes, HoldfastError, RetryPolicy, Snapshot, Timeouts
from holdfast.client.calling import Caller
from holdfast.client.watching import Watching
from holdfast.coordination.v1.activation_service_pb2 import (
    Activation,
    ActivationEvents,
    ActivationWatchReset,
    WatchActivationsRequest,
    WatchActivationsResponse,
)
from holdfast.errors import Reason
from holdfast.registry.v1.agent_pb2 import Agent
from holdfast.registry.v1.agent_registry_service_pb2 import (
    AgentEvent,
    AgentEvents,
    WatchAgentsRequest,
    WatchAgentsResponse,
    WatchProgress,
    WatchReset,
)

Step = WatchAgentsResponse | WatchActivationsResponse | Exception | None


def events(revision: int, *names: str, is_snapshot_end: bool = False) -> WatchAgentsResponse:
    told = [AgentEvent(agent=Agent(name=name)) for name in names]
    return WatchAgentsResponse(revision=revision, events=AgentEvents(events=told, snapshot_end=is_snapshot_end))


def progress(revision: int) -> WatchAgentsResponse:
    return WatchAgentsResponse(revision=revision, progress=WatchProgress())


def reset() -> WatchAgentsResponse:
    return WatchAgentsResponse(revision=90, reset=WatchReset(compact_revision=91))


def refused(reason: Reason) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata(
        ("grpc-status-details-bin", table.HoldfastError(reason, "m").to_status().SerializeToString())
    )
    return grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), trailers)


LOST = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "reset by peer")


class Stream:
    """One stream of the script; after its last step it is silent."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self.is_cancelled = False

    async def read(self) -> Step | object:
        if not self._steps:
            await asyncio.Event().wait()
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return grpc.aio.EOF if step is None else step

    def cancel(self) -> None:
        self.is_cancelled = True


class Server:
    """Answers each watch with the next stream of a script, and keeps from where each began."""

    target = "x:1"

    def __init__(self, *streams: Sequence[Step]) -> None:
        self.streams = [Stream(steps) for steps in streams]
        self.began: list[int] = []

    async def ready(self, timeout_s: float) -> None:
        """It stands."""

    def __call__(self, request: WatchAgentsRequest | WatchActivationsRequest) -> Stream:
        assert request.progress_notify
        self.began.append(request.start_revision)
        return self.streams[len(self.began) - 1]

    async def watch(self, count: int, start_revision: int = 0) -> list[tuple[str, int, list[str]]]:
        """The first steps that a client sees."""
        retries = RetryPolicy(backoff_initial_s=1e-4, backoff_max_s=1e-3)
        watching: Watching[Agent, AgentEvent] = Watching(
            Caller(self, Timeouts(), retries),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            WatchAgentsRequest(parent="namespaces/test", start_revision=start_revision),
            lambda told: [event.agent for event in told.events],
            lambda told: told.events,
            silence_s_max=0.05,
        )
        found: list[tuple[str, int, list[str]]] = []
        async for step in watching.steps():
            match step:
                case Snapshot(revision, agents):
                    found.append(("snapshot", revision, [agent.name for agent in agents]))
                case Changes(revision, told):
                    found.append(("changes", revision, [event.agent.name for event in told]))
            if len(found) == count:
                break
        return found


async def test_a_snapshot_in_many_messages_is_told_once_and_whole() -> None:
    server = Server([events(7, "a", "b"), events(7, "c"), events(7, is_snapshot_end=True), events(8, "d")])
    assert await server.watch(2) == [("snapshot", 7, ["a", "b", "c"]), ("changes", 8, ["d"])]


@pytest.mark.parametrize("end", [LOST, None, refused(Reason.STREAM_DRAINED), refused(Reason.STORE_UNAVAILABLE)])
async def test_after_a_lost_stream_it_goes_on_one_revision_later(end: Step) -> None:
    """Progress counts: a quiet watch goes on near the present."""
    server = Server([events(7, "a", is_snapshot_end=True), events(9, "b"), progress(40), end], [events(41, "c")])
    assert (await server.watch(3))[2] == ("changes", 41, ["c"])
    assert server.began == [0, 41]


async def test_a_silent_stream_is_given_up_and_ended() -> None:
    server = Server([events(7, "a", is_snapshot_end=True)], [events(8, "b")])
    assert await server.watch(2) == [("snapshot", 7, ["a"]), ("changes", 8, ["b"])]
    assert server.streams[0].is_cancelled


async def test_a_snapshot_cut_short_is_begun_again_and_not_told_in_part() -> None:
    server = Server([events(7, "a"), LOST], [events(9, "b"), events(9, "c", is_snapshot_end=True)])
    assert await server.watch(1) == [("snapshot", 9, ["b", "c"])]
    assert server.began == [0, 0]


@pytest.mark.parametrize("end", [reset(), refused(Reason.REVISION_COMPACTED), refused(Reason.REVISION_FUTURE)])
async def test_where_the_history_is_gone_a_new_snapshot_comes(end: Step) -> None:
    """Also where the store is another one, whose revisions have not come so far."""
    server = Server([events(7, "a", is_snapshot_end=True), end], [events(95, "z", is_snapshot_end=True)])
    assert await server.watch(2) == [("snapshot", 7, ["a"]), ("snapshot", 95, ["z"])]
    assert server.began == [0, 0]


async def test_a_watch_from_a_revision_begins_with_changes() -> None:
    server = Server([events(50, "a"), LOST], [events(51, "b")])
    assert await server.watch(2, start_revision=50) == [("changes", 50, ["a"]), ("changes", 51, ["b"])]
    assert server.began == [50, 51]


@pytest.mark.parametrize("reason", [Reason.INVALID_FIELD, Reason.NOT_BUILT, Reason.QUOTA_EXCEEDED, Reason.INTERNAL])
async def test_a_watch_that_is_refused_for_what_it_is_ends(reason: Reason) -> None:
    server = Server([refused(reason)])
    with pytest.raises(HoldfastError) as raised:
        await server.watch(1)
    assert raised.value.reason == reason.name


def part(revision: int, *names: str, continues: bool = False) -> WatchActivationsResponse:
    told = ActivationEvents(activations=[Activation(name=name) for name in names], continues=continues)
    return WatchActivationsResponse(revision=revision, events=told)


@pytest.mark.parametrize("cut", [LOST, WatchActivationsResponse(revision=5, reset=ActivationWatchReset())])
async def test_a_revision_in_many_messages_is_told_once_and_whole(cut: Step) -> None:
    """W4: also where the stream is lost between them, after which it is asked for again."""
    snapshot = part(9, "z")
    snapshot.events.snapshot_end = True
    again = [snapshot] if isinstance(cut, Message) else [part(7, "a", continues=True), part(7, continues=False)]
    server = Server([part(7, "a", continues=True), cut], [*again, part(10, "b", continues=True), part(10, "c")])
    watching: Watching[Activation, Activation] = Watching(
        Caller(server, Timeouts(), RetryPolicy(backoff_initial_s=1e-4, backoff_max_s=1e-3)),  # type: ignore[arg-type]
        server,  # type: ignore[arg-type]
        WatchActivationsRequest(parent="namespaces/test", start_revision=7),
        lambda told: told.activations,
        lambda told: told.activations,
    )
    steps = watching.steps()
    found = [await anext(steps), await anext(steps)]
    first = ("Snapshot", 9, ["z"]) if isinstance(cut, Message) else ("Changes", 7, ["a"])
    assert [(type(step).__name__, step.revision, [each.name for each in step.items]) for step in found] == [
        first,
        ("Changes", 10, ["b", "c"]),
    ]
    assert server.began == [7, 0 if isinstance(cut, Message) else 7]
