"""What people read of a test: percentiles by method, and how the generators did. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdfast_loadtests.histogram import Histogram
from holdfast_loadtests.ledger import Ledger
from holdfast_loadtests.locusting.board import Board, Part
from holdfast_loadtests.results import SHARES

ALL: Final = "all methods"
SHARE_NAMES: Final = tuple(f"p{share * 100:g}" for share in SHARES)


@dataclass(frozen=True)
class LatencyRow:
    """Latencies of one method, in ms, in the order of `SHARES`; errors included, from when a call was due."""

    method: str
    calls: int
    failed: int
    never_sent: int
    quantiles_ms: tuple[float, ...]
    max_ms: float


def latency_rows(found: Ledger) -> list[LatencyRow]:
    """One row a method, and one for all of them."""
    rows = [
        _row(method, found.latency_of(method), _count(found.failed.get(method)), found.never_sent[method])
        for method in found.methods
    ]
    failed = sum(histogram.count for histogram in found.failed.values())
    return [*rows, _row(ALL, found.all_latency(), failed, found.never_sent.total())]


def _row(method: str, latency: Histogram, failed: int, never_sent: int) -> LatencyRow:
    quantiles_ms = tuple(value_us / 1000.0 for value_us in latency.quantiles_us(SHARES))
    return LatencyRow(method, latency.count, failed, never_sent, quantiles_ms, latency.max_us / 1000.0)


def _count(histogram: Histogram | None) -> int:
    return 0 if histogram is None else histogram.count


@dataclass(frozen=True)
class GeneratorRow:
    """How one worker's generators did."""

    worker: str
    share: str
    state: str
    calls: int
    lag_ms_p99: float
    doubt: str


def generator_rows(board: Board) -> list[GeneratorRow]:
    """One row a worker, in the order of their shares."""
    return [_generator_row(part) for part in board.parts.values()]


def _generator_row(part: Part) -> GeneratorRow:
    lag_ms = part.found.lag.quantiles_us([0.99])[0] / 1000.0
    return GeneratorRow(part.worker, f"{part.index + 1}/{part.count}", part.state, part.found.ended, lag_ms, part.doubt)


def summary_lines(board: Board) -> Iterator[str]:
    """The percentiles for the console, at the end."""
    yield "Latency in ms by merged histograms (three significant digits), from when a call was due"
    yield f"{'method':<60} {'calls':>9} {'failed':>7} " + " ".join(f"{name:>9}" for name in (*SHARE_NAMES, "max"))
    for row in latency_rows(board.shown):
        numbers = " ".join(f"{value:9.3f}" for value in (*row.quantiles_ms, row.max_ms))
        yield f"{row.method:<60} {row.calls:9d} {row.failed:7d} {numbers}"
