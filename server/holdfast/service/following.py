"""Watches of other resources than agents: a snapshot or a place in the history, then every change in order, or a reset.

`service.decisions` shows what a kind of resource needs for it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from holdfast.failpoints import Failpoint, hit
from holdfast.filtering import Filter, compile_filter
from holdfast.service.context import CallContext
from holdfast.service.paging import PAGE_BYTES_MAX
from holdfast.service.registry import Registry
from holdfast.service.room import SMALL_BYTES
from holdfast.service.slices import Pause
from holdfast.service.watching import PROGRESS_EVERY_S, SNAPSHOT_PAGE, compacted, in_future
from holdfast.topics import Changed, FellBehindError

SMALL_SNAPSHOT = 16
"""Most resources, whether they match or not, of a snapshot that needs no room, nor do their bytes."""

E = TypeVar("E")
M = TypeVar("M", bound=Message)


class WatchRequest(Protocol):
    """What every request of this form has."""

    parent: str
    filter: str
    start_revision: int
    progress_notify: bool


@dataclass(frozen=True, slots=True)
class Watched(Generic[E, M]):
    """One kind of resource: how its entries, which are never changed in place, are told.

    Attributes:
        descriptor: The type of its messages, for filters.
        topic: The topic of a namespace.
        there: All entries of a namespace, in the order of their names.
        shown: An entry as clients see it; at one revision always the same.
        gone: What is told of one that is gone, or that a filter no longer matches: its name, and the revision.
        events: A response of one revision; the last arguments say whether it ends a snapshot, and whether more of its
            revision follows.
        progress: A response that says how far a watch has come.
        reset: A response that says that it cannot go on, with the oldest revision to start from.
    """

    descriptor: Descriptor
    topic: Callable[[str], str]
    there: Callable[[str], Sequence[E]]
    shown: Callable[[E], M]
    gone: Callable[[str, int], M]
    events: Callable[[int, Sequence[M], bool, bool], Message]
    progress: Callable[[int], Message]
    reset: Callable[[int, int], Message]


Told: TypeAlias = Message | bytes


@dataclass(frozen=True, slots=True)
class _Part:
    """A message of a revision: serialised, None if it says nothing, and the place among its changes after it."""

    encoded: bytes | None
    after: int
    is_last: bool


class Following(Generic[E, M]):
    """Watches of one kind of resource.

    Args:
        registry: The state.
        watched: The kind.
        progress_every_s: See `watching.PROGRESS_EVERY_S`.
    """

    def __init__(self, registry: Registry, watched: Watched[E, M], progress_every_s: float = PROGRESS_EVERY_S) -> None:
        self._registry = registry
        self._watched = watched
        self._progress_every_s = progress_every_s

    async def watch(self, request: WatchRequest, context: CallContext) -> AsyncGenerator[Told, None]:
        """One watch. Changes come as serialised responses, which all watchers share.

        Raises:
            HoldfastError: INVALID_FIELD, QUOTA_EXCEEDED, REVISION_FUTURE, REVISION_COMPACTED after a reset, OVERLOADED
                when large messages are not read.
        """
        only = compile_filter(request.filter, self._watched.descriptor)
        view, audience = self._registry.view, self._registry.audience
        with audience.place(context.client):
            await view.reached(await self._registry.store.current_revision())
            position = request.start_revision - 1
            if request.start_revision == 0:
                pages = self._snapshot(request.parent, only, context.client)
                while (page := await anext(pages, None)) is not None:
                    position, message = page
                    yield message
                    del page, message
                del pages
            elif position > view.revision:
                raise in_future(request.start_revision, view.revision)
            elif position < view.history.start:
                yield self._reset()
                # The status says it too, for clients that do not know this step of the protocol.
                raise compacted(request.start_revision, view.history.start)
            async for told in self._changes(request, only, position, context.client):
                yield told
                del told  # the next may be days away

    def _reset(self) -> Message:
        start = self._registry.view.history.start
        return self._watched.reset(start, start + 1)

    async def _snapshot(self, parent: str, only: Filter, client: str) -> AsyncIterator[tuple[int, Message]]:
        """Messages of one revision, with it; at least one, and the last says that it is.

        Nobody waits for room, or for a turn without it, with a message or a long list of what there is.
        """
        view = self._registry.view
        small = self._small_snapshot(parent, only)
        if small is not None:
            yield view.revision, small
            return
        async with self._registry.audience.room.taken(client, SMALL_BYTES + 1):
            revision = view.revision
            async for messages, is_last in self._pages(self._watched.there(parent), only):
                yield revision, self._watched.events(revision, messages, is_last, False)

    def _small_snapshot(self, parent: str, only: Filter) -> Message | None:
        """The one message of a snapshot of few bytes; None if it is not."""
        there, messages, size_bytes = self._watched.there(parent), list[M](), 0
        if len(there) > SMALL_SNAPSHOT:
            return None
        for entry in there:
            message = self._watched.shown(entry)
            size_bytes += message.ByteSize()
            if size_bytes > SMALL_BYTES:
                return None
            if only.matches(message):
                messages.append(message)
        return self._watched.events(self._registry.view.revision, messages, True, False)

    async def _pages(self, there: Sequence[E], only: Filter) -> AsyncIterator[tuple[Sequence[M], bool]]:
        """Those that match, as many together as make one message, and whether they are the last."""
        page, page_bytes, pause = list[M](), 0, Pause(self._registry.view.turns, only)
        for entry in there:
            message = self._watched.shown(entry)
            size_bytes = message.ByteSize()
            if only.matches(message):
                if page and (len(page) == SNAPSHOT_PAGE or page_bytes + size_bytes > PAGE_BYTES_MAX):
                    yield page, False
                    page, page_bytes = [], 0
                page.append(message)
                page_bytes += size_bytes
            await pause.after(size_bytes)
        yield page, True

    async def _changes(self, request: WatchRequest, only: Filter, position: int, client: str) -> AsyncIterator[Told]:
        """Whoever does not read must not hold on to history: between two responses a watch has its position alone."""
        topics, clock = self._registry.view.history.topics, asyncio.get_running_loop().time
        topic, told_s = self._watched.topic(request.parent), clock()
        while True:
            try:
                step = topics.next(topic, position)
                if step is None:
                    wait_s = max(0.0, told_s + self._progress_every_s - clock()) if request.progress_notify else None
                    position = max(position, await topics.advance(topic, wait_s))
                else:
                    revision = step.revision
                    del step
                    async for told in self._revision(topic, revision, only, client):
                        yield told
                        del told
                        told_s = clock()
                    position = revision
            except FellBehindError:
                yield self._reset()
                return
            # By the clock, not by silence: where a filter lets nothing through, a quiet watch must hear it too.
            if request.progress_notify and clock() - told_s >= self._progress_every_s:
                yield self._watched.progress(position)
                told_s = clock()

    async def _revision(self, topic: str, revision: int, only: Filter, client: str) -> AsyncIterator[bytes]:
        """The responses that tell of one revision: none if nothing of it is wanted, several if one would be too large.

        Raises:
            FellBehindError: What is left of it has been dropped.
        """
        place, is_last = 0, False
        while not is_last:
            part = await self._part(topic, revision, only, place)
            size_bytes, after, is_last = len(part.encoded or b""), part.after, part.is_last
            if part.encoded is not None and size_bytes <= SMALL_BYTES:
                hit(Failpoint.BEFORE_WATCH_SEND)
                yield part.encoded
                hit(Failpoint.AFTER_WATCH_SEND)
            elif part.encoded is not None:
                del part  # nobody waits for room with a message
                async with self._registry.audience.room.taken(client, size_bytes):
                    yield await self._made_again(topic, revision, only, place)
            place = after

    async def _made_again(self, topic: str, revision: int, only: Filter, place: int) -> bytes:
        part = await self._part(topic, revision, only, place)
        assert part.encoded is not None, f"revision {revision} told something before"
        return part.encoded

    async def _part(self, topic: str, revision: int, only: Filter, place: int) -> _Part:
        """The response that tells of a revision from a place among its changes on. Made once for all who ask the same.

        It ends before a change that is wanted, so that of what is wanted something always follows one that continues.
        """
        topics = self._registry.view.history.topics
        step = topics.next(topic, revision - 1)
        assert step is not None, f"revision {revision} was there before"
        assert step.revision == revision, f"revision {revision} was there before {step.revision}"
        key = (topic, revision, only.text, place)
        kept: _Part
        if key in topics.responses:
            kept = topics.responses.get(key)
            return kept
        async with topics.judging:
            if key in topics.responses:
                kept = topics.responses.get(key)
                return kept
            told, size_bytes, pause = list[M](), 0, Pause(topics.turns, only)
            for after, change in enumerate(step.changes[place:], start=place):
                message = self._told(change, revision, only)
                message_bytes = message.ByteSize() if message is not None else 0
                if told and message is not None and size_bytes + message_bytes > PAGE_BYTES_MAX:
                    return self._kept(key, told, after, is_last=False)
                if message is not None:
                    told.append(message)
                    size_bytes += message_bytes
                if len(step.changes) > 1:
                    await pause.after(message_bytes)
            return self._kept(key, told, len(step.changes), is_last=True)

    def _kept(self, key: tuple[str, int, str, int], told: Sequence[M], after: int, *, is_last: bool) -> _Part:
        message = self._watched.events(key[1], told, False, not is_last) if told else None
        part = _Part(message.SerializeToString() if message is not None else None, after, is_last)
        self._registry.view.history.topics.responses.keep(key, part, len(part.encoded or b""))
        return part

    def _told(self, change: Changed, revision: int, only: Filter) -> M | None:
        """What a change is to a watch with a filter: the resource as it is, or that it is gone; None if nothing."""
        gone = self._watched.gone(change.name, revision)
        if change.now is not None:
            message = self._message(change, revision, of_now=True)
            if only.is_empty or only.matches(message):
                return message
        if change.before is not None and (only.is_empty or only.matches(self._message(change, revision, of_now=False))):
            return gone
        return None

    def _message(self, change: Changed, revision: int, *, of_now: bool) -> M:
        """A resource as it was before or after a change; several filters ask about the same."""
        messages, key = self._registry.view.history.topics.messages, (change.topic, change.name, revision, of_now)
        if key in messages:
            kept: M = messages.get(key)
            return kept
        message = self._watched.shown(change.now if of_now else change.before)
        messages.keep(key, message, 2 * message.ByteSize())
        return message
