"""The `holdfast` command.

Subcommands are found through the entry-point group `holdfast.commands`, so that the harness adds its own without the
service knowing of it, and are imported only when used, so that `holdfast serve` starts without the harness's
dependencies.
"""

import sys
import traceback
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

import click

from holdfast import __version__

EXIT_OK = 0
EXIT_WRONG_INPUT = 3
"""The arguments or files are wrong; nothing was touched."""

EXIT_INCONCLUSIVE = 2
"""The command was ended, or failed by a defect of its own: nothing follows, whatever it was about to say."""

_HARNESS_MODULES = ("holdfast_chaos", "holdfast_loadtests", "holdfast_slo")


class InputError(click.ClickException):
    """What the user gave cannot be used: ends the command with exit code 3 and its message, nothing touched."""

    exit_code = EXIT_WRONG_INPUT


_OWN = {
    name: EntryPoint(name, f"holdfast.commands.{name}:{name}", "holdfast.commands")
    for name in ("agents", "activations", "decisions", "locks", "elections")
}
"""The service's commands for people. They come with this package: nothing needs to be installed to find them."""


class EntryPointGroup(click.Group):
    """A group whose commands are its own, and the entry points of `holdfast.commands`."""

    def _entry_points(self) -> dict[str, EntryPoint]:
        return _OWN | {point.name: point for point in entry_points(group="holdfast.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of every subcommand installed, sorted."""
        return sorted({*self._entry_points(), *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns the subcommand; a placeholder that explains itself where its dependencies are missing."""
        point = self._entry_points().get(cmd_name)
        if point is None:
            return super().get_command(ctx, cmd_name)
        try:
            command = point.load()
        except ModuleNotFoundError as missing:
            if not point.value.startswith(_HARNESS_MODULES) or (missing.name or "").startswith("holdfast"):
                raise
            return _needs_harness(cmd_name, missing.name or "a module")
        assert isinstance(command, click.Command), f"entry point {cmd_name} is no command: {command!r}"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest name suggested for an unknown one."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            near = get_close_matches(args[0], known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known)}."
            raise click.UsageError(f"no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _needs_harness(name: str, module: str) -> click.Command:
    message = (
        f"'holdfast {name}' belongs to the harness, and its dependency {module!r} is not installed.\n"
        "Install it with: pip install 'holdfast[harness]'"
    )

    @click.command(
        name,
        help=message,
        short_help="(needs the harness: pip install 'holdfast[harness]')",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def explain() -> None:
        raise InputError(message)

    return explain


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="holdfast")
def root() -> None:
    """A registry for fleets of agents, and the harness that proves a gRPC service keeps its promises.

    \b
    Examples:
      holdfast serve                       the service on 127.0.0.1:50051
      holdfast agents list                 who is registered there
      holdfast run fleet-under-fire        load, faults and a verdict
      holdfast doctor                      what this machine can do
    """


@root.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      holdfast completion bash > ~/.local/share/bash-completion/completions/holdfast
    """
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    assert completer is not None, f"click knows no completion for {shell}"
    click.echo(completer(root, {}, "holdfast", "_HOLDFAST_COMPLETE").source())


def main(args: list[str] | None = None) -> None:
    """Runs the command and exits with its code: wrong arguments end with 3, as every wrong input does."""
    try:
        code = root.main(args=args, prog_name="holdfast", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_WRONG_INPUT)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Ended by the user before there was anything to conclude.", err=True)
        sys.exit(EXIT_INCONCLUSIVE)
    except Exception:  # noqa: BLE001  # Python's own exit code for it is 1, which here would claim a proven violation
        traceback.print_exc()
        click.echo("\nThis is a defect of holdfast itself; nothing can be concluded from it.", err=True)
        sys.exit(EXIT_INCONCLUSIVE)
    sys.exit(code if isinstance(code, int) else EXIT_OK)
