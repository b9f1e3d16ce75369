"""The files of a verdict: each written whole or not at all, and rendered again from verdict.json and timeline.json."""

import json
import os
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from holdfast.cli import InputError
from holdfast_slo.report import html, junit, summary
from holdfast_slo.report.timeline import Timeline
from holdfast_slo.verdict import Verdict

VERDICT: Final = "verdict.json"
TIMELINE: Final = "timeline.json"
REPORT: Final = "report.html"
JUNIT: Final = "junit.xml"
SUMMARY: Final = "summary.md"
FILES: Final = (VERDICT, TIMELINE, REPORT, JUNIT, SUMMARY)
_BYTES_MAX: Final = 256 << 20

ModelT = TypeVar("ModelT", bound=BaseModel)


def write_bundle(out: Path, verdict: Verdict, timeline: Timeline) -> None:
    """Writes verdict.json, timeline.json, report.html, junit.xml and summary.md into a folder that is made if missing.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_views(out, verdict, timeline)
    _write(out / TIMELINE, timeline.to_json())
    _write(out / VERDICT, verdict.to_json())


def write_views(out: Path, verdict: Verdict, timeline: Timeline) -> None:
    """Writes what is derived: report.html, junit.xml and summary.md.

    Raises:
        OSError: the folder cannot be written.
    """
    _write(out / REPORT, html.render(verdict, timeline))
    _write(out / JUNIT, junit.render(verdict))
    _write(out / SUMMARY, summary.render(verdict))


def read_bundle(out: Path) -> tuple[Verdict, Timeline]:
    """Reads a run's verdict and timeline.

    Raises:
        InputError: a file is missing, is no such file, or contradicts itself; says which and where.
    """
    if not out.is_dir():
        raise InputError(f"{out}: not a folder. Give the folder that a run was told to write with --out.")
    return _read(out / VERDICT, Verdict), _read(out / TIMELINE, Timeline)


def _read(path: Path, model: type[ModelT]) -> ModelT:
    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read this file: {error.strerror}. Is {path.parent} a run's --out?") from error
    if len(raw) > _BYTES_MAX:
        raise InputError(f"{path}: larger than {_BYTES_MAX} bytes, which no run writes.")
    try:
        return model.model_validate(json.loads(raw), by_alias=True, by_name=False)
    except ValidationError as error:
        raise InputError(f"{path}: {_misfits(error)}\nIt was damaged or edited: run the experiment again.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}). It was damaged: run the experiment again.") from error


def _misfits(error: ValidationError) -> str:
    shown = [f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors()[:5]]
    return "; ".join(shown)


def _write(path: Path, text: str) -> None:
    """Through a temporary file, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
