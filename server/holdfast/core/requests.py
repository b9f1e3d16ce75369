"""Calls that can be repeated: the answer to a request_id is written with what the request did, in one transaction."""

import hashlib
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.core.state import Plan, Reader
from holdfast.errors import FieldViolation, HoldfastError, Reason
from holdfast.storage.v1.records_pb2 import RequestRecord
from holdfast.store.interface import Txn

KEPT_S = 3600.0
"""How long the answer to a request_id is kept at least, unless there are too many: longer than any sane retry."""

KEPT_MAX = 100_000
"""Most answers kept. Beyond that the namespace that has the most forgets, its oldest first."""

KEPT_BYTES_MAX = 64 << 20
"""Most bytes of answers kept, with their keys; likewise. Most take some 300 bytes, so the count is met first."""

M = TypeVar("M", bound=Message)
P = TypeVar("P")


def digest(request: Message) -> bytes:
    """SHA-256 of a request without its request_id; the same for equal requests."""
    content = type(request)()
    content.CopyFrom(request)
    content.ClearField("request_id")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()


def replay(reader: Reader, key: str, request: Message, *answer_types: type[M]) -> tuple[M, int] | None:
    """The first answer to a request that came before, and the revision it was committed at; None for a new one.

    It is of one of some types: records outlive the servers that wrote them.

    Raises:
        HoldfastError: REQUEST_ID_REUSED.
    """
    entry = reader.request(key)
    if entry is None:
        return None
    record = entry.record
    answer = next((each for each in map(_made, answer_types) if record.response.Unpack(each)), None)
    if answer is None or record.request_sha256 != digest(request):
        raise HoldfastError(
            Reason.REQUEST_ID_REUSED,
            f"request_id {key.rsplit('/', 1)[1]!r} was used before with other content; use a fresh one for a new "
            "request.",
            subject=key.split(":", 1)[1],
            field_violations=[FieldViolation("request_id", "was used before with other content")],
        )
    return answer, entry.mod_revision


def _made(answer_type: type[M]) -> M:
    return answer_type()


def remember(plan: Plan[P], key: str, request: Message, answer: Message, now: Timestamp) -> Plan[P]:
    """The plan with its answer, or what it can be made of, kept under `key`.

    What follows from the revision, or from the request, is filled in at replay.
    """
    record = RequestRecord(request_sha256=digest(request), time=now)
    record.response.Pack(answer)
    txn = plan.txn
    return replace(
        plan,
        txn=Txn(
            compares=(*txn.compares, (key, 0)),
            puts=(*txn.puts, (key, record.SerializeToString())),
            deletes=txn.deletes,
        ),
    )
