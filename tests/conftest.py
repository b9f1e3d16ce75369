"""What holds for all tests."""

import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # how long an example takes says what else the machine does
settings.load_profile("patient")


def pytest_configure() -> None:
    """Lets Ctrl-C end what tests start: shells have it ignored in what runs in the background, and children inherit it.

    Not by `preexec_fn`, for which Python forks: beside gRPC's threads the child may not live to become its program.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """What one test configures of logs holds for no other."""
    yield
    structlog.reset_defaults()
