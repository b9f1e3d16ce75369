"""Finds tools and asks each its version."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path

from holdfast.cli import InputError
from holdfast_chaos.tools.folder import default_dir
from holdfast_chaos.tools.spec import Tool, ToolSpec, ToolStatus
from holdfast_chaos.tools.table import TOOLS

_PROBE_TIMEOUT_S = 30.0
"""Chromium's start script takes seconds on a busy machine; anything longer hangs."""


def find(name: str, directory: Path | None = None) -> Tool:
    """The named tool, from the folder's `bin` (`default_dir()` unless told) or PATH, of an accepted version.

    Raises:
        InputError: no such tool is known, or none acceptable is on this machine; the message says how to get it.
    """
    found = look(spec_of(name), directory or default_dir())
    if found.tool is None:
        raise InputError(explain_missing(found, directory or default_dir()))
    return found.tool


def status(directory: Path | None = None, names: Sequence[str] = ()) -> list[ToolStatus]:
    """What is there of each tool (all unless named), in the table's order. Installs nothing."""
    where = directory or default_dir()
    specs = [spec for spec in TOOLS.values() if not names or spec.name in names]
    with ThreadPoolExecutor(max_workers=len(TOOLS)) as pool:
        return list(pool.map(lambda spec: look(spec, where), specs))


def spec_of(name: str) -> ToolSpec:
    """The table's entry; raises InputError with the nearest name for an unknown one."""
    if name in TOOLS:
        return TOOLS[name]
    near = get_close_matches(name, TOOLS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(TOOLS)}."
    raise InputError(f"no tool is called {name!r}. {hint}")


def look(spec: ToolSpec, directory: Path) -> ToolStatus:
    """Probes each place the tool may be, the folder first, and takes the first of an accepted version."""
    rejected: list[str] = []
    for path in _candidates(spec, directory):
        version, complaint = probe(spec, path)
        if version is not None and version in spec.accepts:
            return ToolStatus(spec, Tool(spec.name, path, version), tuple(rejected))
        rejected.append(complaint or f"{path} is version {version}, and {spec.accepts} is needed")
    return ToolStatus(spec, None, tuple(rejected))


def probe(spec: ToolSpec, path: Path) -> tuple[str | None, str]:
    """The version a program states, or None and why it states none."""
    try:
        said = subprocess.run(
            [path, *spec.version_args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        ).stdout
    except OSError as error:
        return None, f"{path} does not start: {error.strerror}"
    except subprocess.TimeoutExpired:
        return None, f"{path} {' '.join(spec.version_args)} did not end within {_PROBE_TIMEOUT_S:.0f} s"
    match = re.search(spec.version_regex, said)
    if match is None:
        return None, f"{path} {' '.join(spec.version_args)} names no version: it printed {said.strip()[:120]!r}"
    return match[1], ""


def explain_missing(found: ToolStatus, directory: Path) -> str:
    """One message: what is missing, what was seen instead, and the command that gets it."""
    seen = "".join(f"\n  seen: {complaint}" for complaint in found.rejected)
    return (
        f"{found.spec.name} ({found.spec.purpose}) is neither in {directory / 'bin'} nor on PATH "
        f"in an accepted version ({found.spec.accepts}).{seen}\n"
        f"Get it with: holdfast tools {found.spec.name}"
    )


def _candidates(spec: ToolSpec, directory: Path) -> Iterator[Path]:
    own = directory / "bin" / spec.name
    if own.exists():
        yield own
    for name in (spec.name, *spec.aliases):
        on_path = shutil.which(name)
        if on_path is not None and Path(on_path) != own:
            yield Path(on_path)
