"""docs/limits.md says what the code does."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "limits.md"
ROWS: list[tuple[str, str]] = re.findall(r"^\|[^|]*\| (\d+) \|[^|]*\| `([\w.]+)` \|$", PAGE.read_text(), re.MULTILINE)


def test_every_row_can_be_read() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == len(ROWS) + 1


@pytest.mark.parametrize(("limit", "name"), ROWS, ids=[name for _, name in ROWS])
def test_a_limit_is_that_of_the_code(limit: str, name: str) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(module), constant) == int(limit)
