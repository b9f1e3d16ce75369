"""Two more tabs on Locust's page: percentiles of the merged histograms, and how the generators did."""

import csv
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request

from holdfast_loadtests.locusting.board import Board
from holdfast_loadtests.locusting.files import percentile_table
from holdfast_loadtests.locusting.texts import SHARE_NAMES, generator_rows, latency_rows

if TYPE_CHECKING:
    from locust.web import WebUI

PERCENTILES: Final = "percentiles"
GENERATORS: Final = "generators"

_TABS: Final = [
    {"title": "Percentiles", "key": PERCENTILES},
    {"title": "Load generators", "key": GENERATORS},
]
_COLUMNS: Final[dict[str, dict[str, str]]] = {
    PERCENTILES: {
        "name": "Name",
        "calls": "# Calls",
        "failed": "# Fails",
        "never_sent": "# Never sent",
        **{f"q{number}": f"{name} (ms)" for number, name in enumerate(SHARE_NAMES)},
        "max": "Max (ms)",
    },
    GENERATORS: {
        "worker": "Worker",
        "share": "Share",
        "state": "State",
        "calls": "# Calls",
        "lag": "Late at p99 (ms)",
        "doubt": "INCONCLUSIVE because it",
    },
}
"""In the order in which they are shown."""


def extend_page(web_ui: "WebUI", board: Callable[[], Board | None]) -> None:
    """Adds the tabs and the download to Locust's page; `board` gives the test to show."""
    assert web_ui.app is not None, "Locust makes it with its page"
    web_ui.template_args |= {
        "extended_tabs": _TABS,
        "extended_tables": [
            {"key": key, "structure": [{"key": name, "title": title} for name, title in columns.items()]}
            for key, columns in _COLUMNS.items()
        ],
        "extended_csv_files": [{"href": "./holdfast/percentiles/csv", "title": "Download percentiles CSV"}],
    }
    blueprint = Blueprint("holdfast", __name__)

    @blueprint.route("/holdfast/percentiles/csv")
    @web_ui.auth_required_if_enabled
    def percentiles_csv() -> Response:
        text = io.StringIO()
        found = board()
        csv.writer(text).writerows(percentile_table(found) if found else [])
        head = {"Content-Disposition": "attachment;filename=percentiles.csv"}
        return Response(text.getvalue(), mimetype="text/csv", headers=head)

    @web_ui.app.after_request
    def add_rows(response: Response) -> Response:
        found = board()
        if found is not None and request.path.endswith("/stats/requests") and response.is_json:
            response.set_data(json.dumps({**(response.json or {}), "extended_stats": _stats(found)}))
        return response

    web_ui.app.register_blueprint(blueprint, url_prefix=getattr(web_ui, "web_base_path", None) or None)


def _stats(board: Board) -> list[dict[str, Any]]:
    percentiles = [
        {
            "name": row.method,
            "calls": row.calls,
            "failed": row.failed,
            "never_sent": row.never_sent,
            **{f"q{number}": f"{value:.3f}" for number, value in enumerate(row.quantiles_ms)},
            "max": f"{row.max_ms:.3f}",
        }
        for row in latency_rows(board.shown)
    ]
    generators = [
        {
            "worker": row.worker,
            "share": row.share,
            "state": row.state,
            "calls": row.calls,
            "lag": f"{row.lag_ms_p99:.1f}",
            "doubt": row.doubt,
        }
        for row in generator_rows(board)
    ]
    return [{"key": PERCENTILES, "data": percentiles}, {"key": GENERATORS, "data": generators}]
