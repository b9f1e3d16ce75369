"""What the clients of all services have in common."""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from holdfast.client.calling import Caller
from holdfast.client.naming import Namespace
from holdfast.registry.v1.consistency_pb2 import Consistency

T = TypeVar("T")
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

LINEARIZABLE = Consistency.CONSISTENCY_LINEARIZABLE
"""Sees every write acknowledged before the call began. What reads are unless told otherwise."""

SERIALIZABLE = Consistency.CONSISTENCY_SERIALIZABLE
"""Answers at once from what one replica knows."""


class Service:
    """The client of one service.

    Args:
        caller: Makes the calls.
        namespace: Where ids are looked for.
    """

    def __init__(self, caller: Caller, namespace: Namespace) -> None:
        self._caller = caller
        self._namespace = namespace

    async def _pages(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        items: Callable[[Response], Any],
    ) -> AsyncIterator[Any]:
        """What is on all pages of a list, a page at a time in memory."""
        while True:
            response = await self._caller.call(method, request)
            for item in items(response):
                yield item
            token = response.next_page_token  # type: ignore[attr-defined]
            if not token:
                return
            request.page_token = token  # type: ignore[attr-defined]
