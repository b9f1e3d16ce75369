"""Locust's own table, fed with what the engine found, so that its page, its CSV files and its console show it.

Locust rounds response times to two digits in its percentiles; counts, sums, least and greatest stay as they are.
"""

import time
from typing import Final

from locust.stats import RequestStats, StatsEntry, StatsError, bucket_response_time

from holdfast_loadtests.histogram import lowest_us
from holdfast_loadtests.ledger import Ledger

REQUEST_TYPE: Final = "grpc"
"""What stands in the column Type, as in Locust's own example for gRPC."""

NEVER_SENT: Final = "due, but never sent: see the page or file of the load generators"
OTHER: Final = "other wrong answers, whose words were not kept"


def feed(stats: RequestStats, news: Ledger) -> None:
    """Adds what a report of the engine holds, as requests that ended now."""
    now_s = time.time()
    for method in news.methods:
        entry = _entry(stats, method, news, now_s)
        stats.entries[method, REQUEST_TYPE].extend(entry)
        stats.total.extend(entry)
        _feed_errors(stats, method, news)


def _entry(stats: RequestStats, method: str, news: Ledger, now_s: float) -> StatsEntry:
    """One method's news as Locust counts them; calls never sent are requests without a response time that failed."""
    entry = StatsEntry(stats, method, REQUEST_TYPE)
    latency = news.latency_of(method)
    never_sent = news.never_sent[method]
    failed = news.failed[method].count if method in news.failed else 0
    entry.num_requests = latency.count + never_sent
    entry.num_none_requests = never_sent
    entry.num_failures = failed + never_sent
    entry.last_request_timestamp = now_s
    entry.num_reqs_per_sec[int(now_s)] = entry.num_requests
    entry.num_fail_per_sec[int(now_s)] = entry.num_failures
    if latency.counts:
        entry.total_response_time = latency.sum_us / 1000.0  # type: ignore[assignment]  # whole ms in its types, not in its arithmetic
        entry.min_response_time = lowest_us(min(latency.counts)) / 1000.0  # type: ignore[assignment]
        entry.max_response_time = latency.max_us / 1000.0  # type: ignore[assignment]
    for bucket, count in latency.counts.items():
        entry.response_times[bucket_response_time(lowest_us(bucket) / 1000.0)] += count
    return entry


def _feed_errors(stats: RequestStats, method: str, news: Ledger) -> None:
    words = [(text, count) for (name, text), count in news.notes.items() if name == method]
    failed = news.failed[method].count if method in news.failed else 0
    rest = failed - sum(count for _, count in words)
    for text, count in [*words, (OTHER, rest), (NEVER_SENT, news.never_sent[method])]:
        if count > 0:
            key = StatsError.create_key(REQUEST_TYPE, method, text)
            error = stats.errors.setdefault(key, StatsError(REQUEST_TYPE, method, text))
            error.occurrences += count
            error.last_seen = time.time()
            error.first_seen = error.first_seen or error.last_seen
