"""The client's exceptions: one for each reason of the table, grouped by whose fault it is, as its page draws them."""

import grpc
import pytest
from google.rpc.status_pb2 import Status

from holdfast import errors as table
from holdfast.client import errors
from holdfast.errors import Fault, Reason

GROUPS = {Fault.CALLER: errors.CallerError, Fault.STATE: errors.StateError, Fault.SERVER: errors.ServerError}


def rpc_error(code: grpc.StatusCode, status: bytes | None = None) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata() if status is None else grpc.aio.Metadata(("grpc-status-details-bin", status))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details="said")


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_of_the_table_has_an_exception_that_says_the_same(reason: Reason) -> None:
    """If this fails for a reason that is new: add its class to `holdfast/client/errors.py`, and to the tree there."""
    refusal = table.HoldfastError(reason, "m", metadata={"k": "v"}, retry_after_s=2.5)
    status = refusal.to_status()
    error = errors.from_rpc_error(rpc_error(grpc.StatusCode.UNKNOWN, status.SerializeToString()), "Call")
    assert type(error) is errors.BY_REASON[reason.name]
    assert isinstance(error, GROUPS[reason.value.fault])
    assert (error.reason, error.message, error.metadata) == (reason.name, "m", {"k": "v"})
    assert error.definite is reason.value.definite


def test_no_exception_is_of_a_reason_that_the_table_lacks() -> None:
    assert errors.BY_REASON.keys() == Reason.__members__.keys()


def drawn(error_class: type[Exception], indent: str = "") -> list[str]:
    """The tree below a class, in the order of the module."""
    lines = []
    below = error_class.__subclasses__()
    for each in below:
        is_last = each is below[-1]
        lines.append(f"{indent}{'└── ' if is_last else '├── '}{each.__name__}")
        lines += drawn(each, indent + ("    " if is_last else "│   "))
    return lines


def test_the_tree_at_the_top_of_the_module_is_the_tree() -> None:
    assert errors.__doc__ is not None
    (tree,) = errors.__doc__.split("```text\n")[1:]
    shown = [line.split("Error")[0] + "Error" for line in tree.split("```")[0].splitlines()]
    assert shown == ["HoldfastError", *drawn(errors.HoldfastError)]


def test_wrong_fields_and_advice_arrive() -> None:
    refusal = table.invalid_field("agent.labels", "has a bad key")
    error = errors.from_rpc_error(
        rpc_error(grpc.StatusCode.INVALID_ARGUMENT, refusal.to_status().SerializeToString()), ""
    )
    assert [(each.field, each.description) for each in error.field_violations] == [("agent.labels", "has a bad key")]
    busy = table.HoldfastError(Reason.OVERLOADED, "m", retry_after_s=2.5).to_status()
    assert (found := errors.from_status(busy)) is not None
    assert found.retry_after_s == 2.5


@pytest.mark.parametrize(
    ("code", "kind", "definite"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.DisconnectedError, False),
        (grpc.StatusCode.CANCELLED, errors.DisconnectedError, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.TimedOutError, False),
        (grpc.StatusCode.UNIMPLEMENTED, errors.UnexpectedAnswerError, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.UnexpectedAnswerError, False),
    ],
)
@pytest.mark.parametrize(
    "status", [None, b"", b"\xff\xff no status", Status(code=14, message="of a proxy").SerializeToString()]
)
def test_what_does_not_come_from_the_service_is_never_definite(
    code: grpc.StatusCode, kind: type[errors.HoldfastError], definite: bool, status: bytes | None
) -> None:
    error = errors.from_rpc_error(rpc_error(code, status), "GetAgent at x:1")
    assert type(error) is kind
    assert error.definite is definite
    assert "GetAgent at x:1" in error.message


def test_a_reason_of_a_newer_server_is_not_taken_for_definite() -> None:
    status = table.HoldfastError(Reason.LOCK_HELD, "m").to_status()
    info = table.ErrorInfo(reason="BRAND_NEW", domain="holdfast")
    status.details[0].Pack(info)
    error = errors.from_status(status)
    assert type(error) is errors.UnexpectedAnswerError
    assert (error.reason, error.definite) == ("BRAND_NEW", False)
