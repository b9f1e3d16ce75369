"""An operator trusts an agent again: its breaker closes, and its failures are counted anew."""

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.admin.v1.quota_service_pb2 import Breaker
from holdfast.core.activations import breaker
from holdfast.core.activations.breaker import WorkEntry
from holdfast.core.activations.entry import Reader
from holdfast.core.finding import agent_not_found
from holdfast.core.state import Plan
from holdfast.registry.v1.agent_pb2 import BREAKER_STATE_CLOSED
from holdfast.storage.v1.activations_pb2 import WorkRecord
from holdfast.store.interface import Txn


def reset(reader: Reader, agent: str, now: Timestamp) -> Plan[Breaker]:
    """Decides ResetBreaker; of one that is CLOSED without failures nothing is written.

    Raises:
        HoldfastError: AGENT_NOT_FOUND.
    """
    entry = reader.work(agent)
    if entry is None and reader.agent(agent) is None:
        raise agent_not_found(agent)
    if entry is None or breaker.is_clean(entry):
        unchanged = shown(entry) if entry is not None else Breaker(agent=agent, state=BREAKER_STATE_CLOSED)
        return Plan(Txn(), lambda _: unchanged)
    txn = breaker.rewritten(agent, entry, breaker.succeeded(now))
    ((_, written),) = txn.puts
    record = WorkRecord.FromString(written)
    return Plan(txn, lambda revision: shown(WorkEntry(agent, record, revision)))


def shown(entry: WorkEntry) -> Breaker:
    """A breaker as clients see it."""
    record = entry.record
    told = Breaker(agent=entry.agent, state=record.breaker_state, failures=record.failures)
    if record.HasField("retry_time"):
        told.retry_time.CopyFrom(record.retry_time)
    if entry.has_turned:
        told.update_time.CopyFrom(record.breaker_time)
        told.revision = entry.breaker_revision
    return told
