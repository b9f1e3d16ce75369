"""What the table of tools is written in: a tool, its versions, and the recipes that bring it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Version = tuple[int, ...]
Platform = Literal["debian", "macos", "other"]


def parse_version(text: str) -> Version:
    """Numbers of a dotted version: `2.12.0` gives (2, 12, 0)."""
    return tuple(int(part) for part in text.split("."))


@dataclass(frozen=True)
class Accepts:
    """A half-open range of versions, `least` included and `below` not."""

    least: str
    below: str

    def __contains__(self, version: object) -> bool:
        return isinstance(version, str) and parse_version(self.least) <= parse_version(version) < parse_version(
            self.below
        )

    def __str__(self) -> str:
        return f">={self.least},<{self.below}"


@dataclass(frozen=True)
class GoInstall:
    """`go install PACKAGE@v…`: builds in the Go cache, nothing outside the folder of tools is written."""

    package: str
    version: str
    built_as: str
    version_variable: str
    """Where the linker writes the version, which a plain `go install` leaves as "git" or "dev"."""


@dataclass(frozen=True)
class GoModule:
    """`go build` of a Go main that ships inside this package, with its go.sum."""

    data_folder: str


@dataclass(frozen=True)
class DebUnpack:
    """`apt-get download` and `dpkg -x`: takes a program out of a package without installing it or starting daemons."""

    package: str
    program: str
    """Path of the program inside the package."""


@dataclass(frozen=True)
class AptInstall:
    """`apt-get install`: for programs that need the system's libraries. Needs root or sudo."""

    package: str


@dataclass(frozen=True)
class BrewInstall:
    """`brew install`, of a formula or a cask."""

    name: str
    cask: bool = False


Recipe = GoInstall | GoModule | DebUnpack | AptInstall | BrewInstall


@dataclass(frozen=True)
class ToolSpec:
    """One external program: what for, which versions, how to recognise and how to get it."""

    name: str
    purpose: str
    pinned: str
    """The version the recipes bring, as a sentence part where a package manager decides."""
    accepts: Accepts
    version_args: tuple[str, ...]
    version_regex: str
    """Finds the dotted version, as group 1, in what the version command prints."""
    recipes: Mapping[Platform, Recipe]
    for_runs: bool = False
    """Whether `holdfast run` itself needs it; the rest is for development and tests."""
    by_default: bool = False
    """Whether `holdfast tools` brings it when no tool is named."""
    aliases: tuple[str, ...] = ()
    """Other names on PATH, or absolute paths, that package managers give the program."""


@dataclass(frozen=True)
class Tool:
    """A program found on this machine, of an accepted version."""

    name: str
    path: Path
    version: str


@dataclass(frozen=True)
class ToolStatus:
    """What was found of one tool: None where nothing acceptable is there, with what was seen and why it is not."""

    spec: ToolSpec
    tool: Tool | None
    rejected: tuple[str, ...] = field(default=())
