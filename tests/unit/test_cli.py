"""The one command: subcommands are found and explained, and no failure of its own passes for a verdict."""

import click
import pytest
from click.testing import CliRunner

from holdfast import cli


def exit_code(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(args))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_help_lists_every_subcommand_with_a_line() -> None:
    shown = CliRunner().invoke(cli.root, ["--help"]).output
    for name in ("serve", "run", "plan", "recover", "doctor", "tools", "report", "completion"):
        assert name in shown


@pytest.mark.parametrize("name", ["serve", "run", "plan", "recover", "doctor", "tools", "report"])
def test_every_subcommand_has_examples(name: str) -> None:
    shown = CliRunner().invoke(cli.root, [name, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output


def test_an_unknown_command_suggests_the_nearest_and_ends_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("sevre") == 3
    assert "serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [["run"], ["run", "x", "--seed", "-1"], ["serve", "--no-such-flag"], ["completion", "tcsh"]]
)
def test_wrong_arguments_end_3(args: list[str]) -> None:
    assert exit_code(*args) == 3


def test_a_defect_of_its_own_is_never_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setitem(cli.root.commands, "broken", broken)
    assert exit_code("broken") == 2
    assert "RuntimeError: a defect" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    shown = CliRunner().invoke(cli.root, ["completion", shell])
    assert shown.exit_code == 0
    assert "_HOLDFAST_COMPLETE" in shown.output


@pytest.mark.parametrize("name", ["serve", "run", "plan", "recover", "doctor", "tools", "report", "completion"])
def test_examples_keep_their_lines(name: str) -> None:
    shown = CliRunner().invoke(cli.root, [name, "--help"]).output
    assert "\\b" not in shown
    assert f"\n    holdfast {name}" in shown
