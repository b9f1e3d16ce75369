"""What crash tests have in common."""

from pathlib import Path

import pytest

from support.crash import build_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that remembers what was not synced."""
    return build_shim("discard_unsynced", tmp_path_factory.mktemp("shim"))
