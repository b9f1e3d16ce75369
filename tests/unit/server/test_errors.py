"""The table of reasons and what comes of it."""

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure, QuotaFailure, ResourceInfo, RetryInfo

from holdfast.errors import HoldfastError, Reason

DETAIL = {
    Reason.AGENT_NOT_FOUND: ResourceInfo,
    Reason.AGENT_ALREADY_EXISTS: ResourceInfo,
    Reason.FENCE_STALE: PreconditionFailure,
    Reason.QUOTA_EXCEEDED: QuotaFailure,
    Reason.STORE_UNAVAILABLE: RetryInfo,
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_whole_and_travels(reason: Reason) -> None:
    """Each row has sentences for people, and arrives as ErrorInfo with our domain."""
    assert reason.value.meaning.endswith(".")
    assert reason.value.advice.endswith(".")
    status = HoldfastError(reason, "m", subject="s", metadata={"k": "v"}).to_status()
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (reason.name, "holdfast", {"k": "v"})
    assert status.code == reason.value.code != code_pb2.OK
    if reason in DETAIL:
        assert status.details[1].Unpack(DETAIL[reason]())


def test_unavailable_says_when_to_come_back() -> None:
    retry = RetryInfo()
    HoldfastError(Reason.OVERLOADED, "m", retry_after_s=2.5).to_status().details[1].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (2, 500_000_000)


def test_an_unknown_outcome_is_never_called_definite() -> None:
    """When in doubt, indefinite: what the store or a defect cut short may have happened."""
    indefinite = {reason for reason in Reason if not reason.value.definite}
    assert indefinite == {Reason.STORE_UNAVAILABLE, Reason.INTERNAL, Reason.STREAM_DRAINED}
