"""Runs one command of a recipe: silent but for a tick each second, with its output's tail when it fails."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import join
from time import monotonic

from holdfast.cli import InputError

_TAIL_LINES = 15
_TICK_S = 1.0
_TIMEOUT_S = 1800.0
"""The longest, a cold etcd build on one slow core, was seen to take minutes."""

OnTick = Callable[[float], None]
"""Called about once a second with the seconds since the start."""


def run(argv: Sequence[str], cwd: Path, on_tick: OnTick, env: Mapping[str, str] | None = None, hint: str = "") -> None:
    """Runs a command to its end, with `env` added to this process's own.

    Raises:
        InputError: it could not start, failed, or took more than half an hour; with the command and its last lines.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise InputError(f"cannot start '{join(argv)}': {error.strerror}. {hint}".rstrip()) from error
        outcome = _wait(process, on_tick)
        if outcome:
            output.seek(0)
            raise InputError(_failure(argv, outcome, _tail(output.read()), hint))


def _wait(process: subprocess.Popen[bytes], on_tick: OnTick) -> str:
    """What went wrong, or nothing. The child never outlives this call."""
    start = monotonic()
    try:
        while monotonic() - start < _TIMEOUT_S:
            try:
                code = process.wait(timeout=_TICK_S)
            except subprocess.TimeoutExpired:
                on_tick(monotonic() - start)
            else:
                return f"ended with code {code}" if code else ""
        return f"did not end within {_TIMEOUT_S:.0f} s"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _tail(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:])


def _failure(argv: Sequence[str], outcome: str, tail: str, hint: str) -> str:
    shown = "\n".join(f"  | {line}" for line in tail.splitlines()) or "  | (no output)"
    return f"'{join(argv)}' {outcome}; its last lines:\n{shown}\n{hint}".rstrip()
