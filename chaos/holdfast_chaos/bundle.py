"""The folder a run leaves behind: fresh for each run, so that an old verdict never stands beside a new journal."""

import shutil
from pathlib import Path

from holdfast.cli import InputError
from holdfast_chaos import journal, runs
from holdfast_loadtests.engine import LOG_NAME
from holdfast_slo.report.bundle import FILES

JOURNAL = journal.FILE_NAME
CALLS = "calls.csv.gz"
SAMPLES = "samples.json"
LOGS = "logs"
TARGET_DATA = "data"
HISTORY = "history"
PROMETHEUS = "prometheus"
WATCHDOG_LOG = "watchdog.log"

_OURS = {JOURNAL, CALLS, SAMPLES, LOGS, TARGET_DATA, HISTORY, PROMETHEUS, WATCHDOG_LOG, LOG_NAME, *FILES}


def drop_scratch(out: Path) -> None:
    """Removes what a run needed only while it went on: the target's data and Prometheus's; logs stay."""
    for folder in (out / TARGET_DATA, out / PROMETHEUS / "data"):
        shutil.rmtree(folder, ignore_errors=True)


def prepare(out: Path) -> Path:
    """Makes the folder, and empties it where it holds an earlier run's bundle. Returns it, absolute.

    Raises:
        InputError: the folder holds something else, or cannot be made.
    """
    out = out.resolve()  # a link to the folder of a live run is that folder
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = list(out.iterdir())
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}. Give a folder that can be written to.") from error
    if held and not (out / JOURNAL).is_file():
        raise InputError(
            f"--out {out}: the folder is not empty and holds no earlier bundle (no {JOURNAL}).\n"
            "Give an empty or a new folder: what an earlier run left there would be removed."
        )
    if foreign := sorted(path.name for path in held if not _ours(path)):
        raise InputError(
            f"--out {out}: beside an earlier bundle the folder holds {', '.join(foreign[:5])}, which no run wrote.\n"
            "Give an empty or a new folder, or move that away: a run removes the earlier bundle."
        )
    if any(run.journal == out / JOURNAL for run in runs.known()):
        raise InputError(
            f"--out {out}: a run is still going on there, or died and was not cleaned up after.\n"
            f"Wait for it, or run: holdfast recover {out}"
        )
    try:
        for path in held:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise InputError(f"--out {out}: cannot remove the earlier bundle: {error.strerror}. Give another.") from error
    return out


def _ours(path: Path) -> bool:
    """Whether a run writes something of that name; a killed one may leave `.verdict.json.1234` behind."""
    return path.name in _OURS or path.name.lstrip(".").rpartition(".")[0] in FILES
