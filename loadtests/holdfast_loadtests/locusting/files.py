"""Files beside those of Locust's `--csv PREFIX`: percentiles of the merged histograms, and everything as JSON."""

import csv
import json
from pathlib import Path

from holdfast_loadtests.locusting.board import Board
from holdfast_loadtests.locusting.texts import SHARE_NAMES, latency_rows


def percentile_table(board: Board) -> list[list[object]]:
    """Header and rows; times in ms."""
    header: list[object] = ["Name", "Calls", "Failed", "Never Sent", *SHARE_NAMES, "max"]
    return [
        header,
        *(
            [row.method, row.calls, row.failed, row.never_sent, *row.quantiles_ms, row.max_ms]
            for row in latency_rows(board.shown)
        ),
    ]


def write_files(board: Board, prefix: Path) -> list[Path]:
    """Writes `PREFIX_percentiles.csv` and `PREFIX_holdfast.json`, and returns their paths."""
    table, everything = Path(f"{prefix}_percentiles.csv"), Path(f"{prefix}_holdfast.json")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(percentile_table(board))
    everything.write_text(json.dumps(board.as_json(), indent=1) + "\n")
    return [table, everything]
