"""A run empties only what an earlier run wrote."""

from pathlib import Path

import pytest

from holdfast.cli import InputError
from holdfast_chaos import bundle, runs


@pytest.fixture(autouse=True)
def _register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def earlier(folder: Path) -> Path:
    """A folder with an earlier run's bundle."""
    (folder / bundle.LOGS).mkdir(parents=True)
    for name in (bundle.JOURNAL, bundle.CALLS, "verdict.json", ".verdict.json.1234", "logs/server.log"):
        (folder / name).write_text("")
    return folder


def test_an_earlier_bundle_is_removed(tmp_path: Path) -> None:
    out = bundle.prepare(earlier(tmp_path / "out"))
    assert not list(out.iterdir())


def test_what_no_run_wrote_is_kept_and_refused_by_name(tmp_path: Path) -> None:
    out = earlier(tmp_path / "out")
    (out / "thesis.txt").write_text("ten years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        bundle.prepare(out)
    assert (out / "thesis.txt").read_text() == "ten years of work"
    assert (out / "verdict.json").exists()


def test_what_a_link_in_a_bundle_points_to_is_kept(tmp_path: Path) -> None:
    out, elsewhere = earlier(tmp_path / "out"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("")
    (out / bundle.TARGET_DATA).symlink_to(elsewhere)
    bundle.prepare(out)
    assert (elsewhere / "precious").exists()


def test_a_live_run_s_folder_is_refused_under_any_name(tmp_path: Path) -> None:
    out, link = earlier(tmp_path / "out"), tmp_path / "link"
    link.symlink_to(out)
    with runs.registered(link) as run:
        with pytest.raises(InputError, match="still going on"):
            bundle.prepare(out)
        with pytest.raises(InputError, match="still going on"):
            bundle.prepare(link)
        (out / bundle.JOURNAL).unlink()
    assert run.journal == out / bundle.JOURNAL
