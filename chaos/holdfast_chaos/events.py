"""Which calls an objective counts, and which of them are good: its selectors applied to calls instead of series.

The verdict counts series in Prometheus; this is for what cannot wait for it: samples gathered so far, and when the
service came back.
"""

import re
from collections.abc import Mapping

from holdfast_slo.openslo import Objective
from holdfast_slo.selectors import Matcher, Selector

CLIENT_METRICS = ("grpc_client_", "holdfast_load_")
"""What the load itself exposes begins with one of these."""

CALLER_METRICS = ("holdfast_caller_",)
"""What further processes of a run expose of what they saw as callers begins so; the run's own Prometheus has it."""

_BUCKET = "le"


def on_client_metrics(objective: Objective) -> bool:
    """Whether an objective is about what load or callers expose, which only the run's own Prometheus scrapes."""
    return objective.total.metric.startswith((*CLIENT_METRICS, *CALLER_METRICS))


def on_calls(objective: Objective) -> bool:
    """Whether calls of the load are its events: all but what other callers saw."""
    return not objective.total.metric.startswith(CALLER_METRICS)


def counts(objective: Objective, labels: Mapping[str, str]) -> bool:
    """Whether a call with these labels counts towards the objective; labels not given are taken to match."""
    return on_calls(objective) and _matches(objective.total, labels)


def is_good(objective: Objective, labels: Mapping[str, str], latency_s: float) -> bool:
    """Whether a call that counts is a good one; `latency_s` is what a bucket's bound is compared with."""
    if objective.good is not None:
        return _matches(objective.good, labels, latency_s)
    assert objective.bad is not None, f"the objective {objective.name} counts neither good nor bad events"
    return not _matches(objective.bad, labels, latency_s)


def _matches(selector: Selector, labels: Mapping[str, str], latency_s: float = 0.0) -> bool:
    return all(_holds(matcher, labels, latency_s) for matcher in selector.matchers)


def _holds(matcher: Matcher, labels: Mapping[str, str], latency_s: float) -> bool:
    if matcher.label == _BUCKET:
        return latency_s <= float(matcher.value)
    if matcher.label not in labels:
        return True
    value = labels[matcher.label]
    if matcher.operator in {"=", "!="}:
        return (value == matcher.value) == (matcher.operator == "=")
    return (re.fullmatch(matcher.value, value) is not None) == (matcher.operator == "=~")
