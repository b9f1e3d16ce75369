"""Names: whoever works in one namespace gives ids, and need not spell names out."""

import re
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace by its id, `default`."""

    id: str

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise ValueError(
                f"namespace {self.id!r}: give its id alone, such as 'default'; ids match {_ID.pattern} and the "
                "'namespaces/' in front is added here."
            )

    @property
    def parent(self) -> str:
        """`namespaces/{namespace}`."""
        return f"namespaces/{self.id}"

    def name(self, collection: str, given: str) -> str:
        """The resource name of an id; a name is taken as it is.

        Raises:
            ValueError: It is neither.
        """
        if isinstance(given, str) and _ID.fullmatch(given):
            return f"{self.parent}/{collection}/{given}"
        if isinstance(given, str) and re.fullmatch(rf"namespaces/[^/]+/{collection}/[^/]+", given):
            return given
        raise ValueError(f"{given!r} is no id ({_ID.pattern}) and no name (namespaces/NAMESPACE/{collection}/ID).")


def duration(seconds: float, what: str) -> Duration:
    """A message of some seconds.

    Raises:
        ValueError: They are negative or no number.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e9:
        raise ValueError(f"{what} is {seconds!r}: a number of seconds, 0 or more.")
    message = Duration()
    message.FromMilliseconds(round(seconds * 1000))
    return message


def timestamp(time: datetime, what: str) -> Timestamp:
    """A message of a time of day.

    Raises:
        ValueError: It has no time zone, so that nobody can know when it is.
    """
    if time.tzinfo is None:
        raise ValueError(f"{what} is {time!r}, without a time zone: make it with datetime.now(timezone.utc).")
    message = Timestamp()
    message.FromDatetime(time)
    return message
