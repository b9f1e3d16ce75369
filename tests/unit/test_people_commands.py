"""The commands for people explain themselves."""

import click
import pytest
from click.testing import CliRunner

from holdfast import cli

GROUPS = ("agents", "activations", "decisions", "locks", "elections")


def commands() -> list[list[str]]:
    found = []
    context = click.Context(cli.root)
    for name in GROUPS:
        group = cli.root.get_command(context, name)
        assert isinstance(group, click.Group)
        found += [[name, command] for command in group.commands]
    return found


@pytest.mark.parametrize("name", GROUPS)
def test_each_group_shows_examples_and_what_exit_codes_mean(name: str) -> None:
    shown = CliRunner().invoke(cli.root, [name, "--help"])
    assert shown.exit_code == 0
    assert f"\n    holdfast {name}" in shown.output
    assert "Exit codes: 1 refused" in shown.output


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_shows_an_example_and_where_the_server_is(command: list[str]) -> None:
    shown = CliRunner().invoke(cli.root, [*command, "--help"])
    assert shown.exit_code == 0
    assert f"\n    holdfast {' '.join(command)}" in shown.output
    for option in ("--target", "--namespace", "--json", "--timeout"):
        assert option in shown.output


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.commands.printing import echo

    @click.command()
    def show() -> None:
        echo(click.style("text", bold=True))

    assert CliRunner().invoke(show, color=True).output == "\x1b[1mtext\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert CliRunner().invoke(show, color=True).output == "text\n"
