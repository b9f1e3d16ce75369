"""What is refused changes nothing."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from holdfast.errors import HoldfastError, Reason
from support.replica import Replica

Refusing = contextlib.AbstractAsyncContextManager[pytest.ExceptionInfo[HoldfastError]]
"""What awaits a refusal."""


@contextlib.asynccontextmanager
async def refusing(
    reason: Reason, here: Replica, read: Callable[[], Awaitable[object]] | None = None
) -> AsyncIterator[pytest.ExceptionInfo[HoldfastError]]:
    """The block is refused for a reason, and leaves the store, and what `read` gives, as they were."""
    before = await read() if read is not None else None
    revision = here.registry.store.revision
    with pytest.raises(HoldfastError) as caught:
        yield caught
    assert caught.value.reason is reason, caught.value
    assert here.registry.store.revision == revision
    if read is not None:
        assert await read() == before
