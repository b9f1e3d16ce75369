"""Brings missing tools into the folder: one at a time, each put in place by a rename."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Protocol

from holdfast.cli import InputError
from holdfast_chaos.tools.folder import locked
from holdfast_chaos.tools.locate import look, probe
from holdfast_chaos.tools.recipes import bring, describe, recipe_for, this_platform
from holdfast_chaos.tools.spec import Platform, Recipe, ToolSpec


class Progress(Protocol):
    """Who is told how an installation goes."""

    def waiting(self, directory: Path) -> None:
        """Another process installs into the same folder."""

    def started(self, name: str, doing: str) -> None:
        """Work on a tool begins."""

    def working(self, name: str, elapsed_s: float) -> None:
        """The tool is still being worked on; called about once a second."""

    def finished(self, name: str, version: str, elapsed_s: float) -> None:
        """The tool is in place."""


@dataclass(frozen=True)
class Step:
    """One tool to bring, by a recipe, to a place."""

    spec: ToolSpec
    recipe: Recipe
    target: Path

    def __str__(self) -> str:
        return f"{self.spec.name} ({self.spec.pinned})\n    {describe(self.recipe)}\n    → {self.target}"


def steps_for(specs: Sequence[ToolSpec], directory: Path, platform: Platform | None = None) -> list[Step]:
    """What installing these tools would do here; touches nothing.

    Raises:
        InputError: a recipe's own tool (go, brew, sudo) is missing, or the platform has no recipe.
    """
    where = platform or this_platform()
    return [Step(spec, recipe_for(spec, where), directory / "bin" / spec.name) for spec in specs]


def install(steps: Sequence[Step], directory: Path, progress: Progress) -> None:
    """Carries the steps out in order, leaving out those that another process has done meanwhile.

    Raises:
        InputError: a command failed; what was in place before still is, and earlier steps stay.
    """
    with locked(directory, lambda: progress.waiting(directory)):
        _sweep(steps, directory)
        for step in steps:
            if look(step.spec, directory).tool is None:
                _carry_out(step, directory, progress)


def _sweep(steps: Sequence[Step], directory: Path) -> None:
    """Removes the scratch folders of installers that were killed; under the lock nobody works in one."""
    for step in steps:
        for left in directory.glob(f".{step.spec.name}-*"):
            shutil.rmtree(left)


def _carry_out(step: Step, directory: Path, progress: Progress) -> None:
    name, start = step.spec.name, monotonic()
    progress.started(name, describe(step.recipe))
    # Inside the folder, so that the last rename stays on one file system and is atomic.
    with TemporaryDirectory(dir=directory, prefix=f".{name}-") as scratch:
        program = bring(step.spec, step.recipe, Path(scratch), lambda _: progress.working(name, monotonic() - start))
        version = _accepted_version(step, program)
        _put(program, step.target, inside=Path(scratch))
    progress.finished(name, version, monotonic() - start)


def _accepted_version(step: Step, program: Path) -> str:
    version, complaint = probe(step.spec, program)
    if version is not None and version in step.spec.accepts:
        return version
    found = complaint or f"it is version {version}"
    raise InputError(
        f"'{describe(step.recipe)}' brought {step.spec.name}, but {found}, and {step.spec.accepts} is needed. "
        f"Install such a {step.spec.name} yourself and put it on PATH."
    )


def _put(program: Path, target: Path, inside: Path) -> None:
    """Renames a built program into place, or links to one that the system keeps."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not program.is_relative_to(inside):
        link = inside / "link"
        link.symlink_to(program)
        program = link
    else:
        program.chmod(0o755)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    program.replace(target)
