"""Trying again: after a random time that grows, until the attempts are used up."""

import hashlib

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.coordination.v1.activation_service_pb2 import ActivationFailure, RetryPolicy
from holdfast.core.activations.creating import after, ms
from holdfast.core.activations.entry import BACKOFF, DEAD_LETTERED, ActivationEntry, ended, following, unowned
from holdfast.storage.v1.activations_pb2 import ActivationStateRecord


def tried_again(entry: ActivationEntry, failure: ActivationFailure, now: Timestamp) -> ActivationStateRecord:
    """The state after an attempt that failed: BACKOFF, or DEAD_LETTERED with the last attempt, in the same revision."""
    state = following(entry, now)
    state.failure.CopyFrom(failure)
    state.failure.retryable = True
    state.failure.agent = entry.state.agent
    state.failure.attempt = state.attempt
    state.failure.time.CopyFrom(now)
    policy = entry.record.activation.retry_policy
    if state.attempt >= policy.max_attempts:
        ended(state, DEAD_LETTERED, now)
        return state
    unowned(state, BACKOFF)
    state.retry_time.CopyFrom(after(now, backoff_ms(policy, state.attempt, entry.name)))
    return state


def backoff_ms(policy: RetryPolicy, attempt: int, name: str) -> int:
    """Full jitter: a random time from 0 to the least of `initial_backoff * multiplier^(attempt - 1)` and `max_backoff`.

    The chance is drawn from the name and the attempt, so that replicas draw the same and simulations replay.
    """
    return int(pause_ms(policy, attempt) * _chance(f"{name}/{attempt}"))


def pause_ms(policy: RetryPolicy, attempt: int) -> int:
    """The longest of these times."""
    longest = ms(policy.max_backoff)
    try:
        return int(min(ms(policy.initial_backoff) * policy.multiplier ** (attempt - 1), longest))
    except OverflowError:
        return longest


def _chance(drawn_from: str) -> float:
    """A number from 0 up to 1, evenly spread over what it is drawn from."""
    return int.from_bytes(hashlib.sha256(drawn_from.encode()).digest()[:8], "big") / 2**64
