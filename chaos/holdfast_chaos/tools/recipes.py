"""Carries a recipe out: each brings one program to a file in a scratch folder, or finds where the system put it."""

import os
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from shlex import join

from holdfast.cli import InputError
from holdfast_chaos.tools.process import OnTick, run
from holdfast_chaos.tools.spec import (
    AptInstall,
    BrewInstall,
    DebUnpack,
    GoInstall,
    GoModule,
    Platform,
    Recipe,
    ToolSpec,
)

_GO_HINT = "Check that the Go module proxy is reachable ('go env GOPROXY') and that the disk is not full."
_APT_HINT = "Check that the system's package sources work: 'apt-get update' as root."
_BREW_HINT = "See 'brew doctor'."
_GO_ENV = {"CGO_ENABLED": "0", "GOWORK": "off"}
"""No C compiler is needed, and a workspace around the folder of tools is none of the build's business."""


def this_platform() -> Platform:
    """The package manager's family, by what is on PATH."""
    if shutil.which("apt-get") and shutil.which("dpkg"):
        return "debian"
    return "macos" if os.uname().sysname == "Darwin" else "other"


def describe(recipe: Recipe) -> str:
    """The commands of a recipe in a line, as shown before anything is done."""
    match recipe:
        case GoInstall():
            return f"go install {recipe.package}@v{recipe.version}"
        case GoModule():
            return f"go build of the packaged main in tools/data/{recipe.data_folder}"
        case DebUnpack():
            return f"apt-get download {recipe.package}, unpacked with dpkg -x (not installed)"
        case AptInstall():
            return f"{join(_apt_install(recipe))} (changes the system)"
        case BrewInstall():
            return f"{join(_brew_install(recipe))} (changes the system)"


def recipe_for(spec: ToolSpec, platform: Platform) -> Recipe:
    """The recipe of a platform; raises InputError where there is none or its own tool is missing."""
    recipe = spec.recipes.get(platform)
    if recipe is None:
        raise InputError(
            f"there is no recipe for {spec.name} here: neither Debian's apt-get nor macOS. "
            f"Install {spec.name} {spec.accepts} yourself and put it on PATH."
        )
    for program, how in _prerequisites(recipe):
        if shutil.which(program) is None:
            raise InputError(f"{spec.name} needs {program!r}, which is not on PATH. {how}")
    return recipe


def bring(spec: ToolSpec, recipe: Recipe, scratch: Path, on_tick: OnTick) -> Path:
    """Builds, unpacks or installs the program and returns where it is: in `scratch`, or where the system put it.

    Raises:
        InputError: a command failed, or succeeded without bringing the program.
    """
    match recipe:
        case GoInstall():
            program = _go_install(recipe, scratch, on_tick)
        case GoModule():
            program = _go_build(spec, recipe, scratch, on_tick)
        case DebUnpack():
            program = _unpack(recipe, scratch, on_tick)
        case AptInstall():
            run(_apt_install(recipe), scratch, on_tick, {"DEBIAN_FRONTEND": "noninteractive"}, _APT_HINT)
            program = _on_path(spec)
        case BrewInstall():
            run(_brew_install(recipe), scratch, on_tick, hint=_BREW_HINT)
            program = _on_path(spec)
    if not program.exists():
        raise InputError(f"'{describe(recipe)}' succeeded but brought no {program}. Install {spec.name} yourself.")
    return program


def _prerequisites(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    go = (
        "go",
        "Install Go 1.23 or newer: 'apt-get install golang-go' or 'brew install go', or see go.dev/doc/install.",
    )
    match recipe:
        case GoInstall() | GoModule():
            return (go,)
        case AptInstall() if os.geteuid() != 0:
            return (("sudo", f"Run 'apt-get install {recipe.package}' as root, then this again."),)
        case BrewInstall():
            return (("brew", "Install Homebrew (brew.sh), then run this again."),)
        case _:
            return ()


def _go_install(recipe: GoInstall, scratch: Path, on_tick: OnTick) -> Path:
    flags = f"-s -w -X {recipe.version_variable}={recipe.version}"
    argv = ["go", "install", "-trimpath", "-ldflags", flags, f"{recipe.package}@v{recipe.version}"]
    run(argv, scratch, on_tick, {**_GO_ENV, "GOBIN": str(scratch)}, _GO_HINT)
    return scratch / recipe.built_as


def _go_build(spec: ToolSpec, recipe: GoModule, scratch: Path, on_tick: OnTick) -> Path:
    source = scratch / "source"
    with as_file(files("holdfast_chaos.tools").joinpath("data", recipe.data_folder)) as packaged:
        shutil.copytree(packaged, source)
    program = scratch / spec.name
    argv = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(program), "."]
    run(argv, source, on_tick, _GO_ENV, _GO_HINT)
    return program


def _unpack(recipe: DebUnpack, scratch: Path, on_tick: OnTick) -> Path:
    download = ["apt-get", "download", recipe.package]
    try:
        run(download, scratch, on_tick, hint=_APT_HINT)
    except InputError:  # a fresh image has no package lists, an old one has stale ones
        run([*_as_root(), "apt-get", "update"], scratch, on_tick, hint=_APT_HINT)
        run(download, scratch, on_tick, hint=_APT_HINT)
    for package in scratch.glob("*.deb"):
        run(["dpkg", "-x", str(package), str(scratch)], scratch, on_tick, hint=_APT_HINT)
    return scratch / recipe.program


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo"]


def _apt_install(recipe: AptInstall) -> list[str]:
    return [*_as_root(), "apt-get", "install", "--yes", "--no-install-recommends", recipe.package]


def _brew_install(recipe: BrewInstall) -> list[str]:
    return ["brew", "install", *(["--cask"] if recipe.cask else []), recipe.name]


def _on_path(spec: ToolSpec) -> Path:
    for name in (spec.name, *spec.aliases):
        if found := shutil.which(name):
            return Path(found)
    return Path(spec.name)
