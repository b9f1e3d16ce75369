"""Times that activations and breakers wait for: the names under which they are kept, and who keeps them."""

from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.core.activations.ending import Timer


class TimeKeeper(Protocol):
    """Keeps times as the view learns of them."""

    def set(self, name: str, deadline: Timestamp) -> None:
        """Something has a deadline from now on, in the place of the one before."""
        ...

    def listen(self, name: str, since_revision: int, silence_s: float) -> None:
        """Somebody must be heard of, after a revision that is as new as now."""
        ...

    def clear(self, name: str) -> None:
        """It has none any more."""
        ...


def timer_key(timer: Timer, name: str) -> str:
    """The name under which a time is kept that an activation, or an agent's breaker, waits for."""
    return f"{name}#{timer}"


def keep(times: TimeKeeper, key: str, time: Timestamp | None) -> None:
    """Counts towards a time; None: it has none."""
    if time is None:
        times.clear(key)
    else:
        times.set(key, time)


def timer_of(key: str) -> tuple[Timer, str]:
    """What such a name says."""
    name, _, timer = key.partition("#")
    return Timer(timer), name
