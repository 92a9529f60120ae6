"""Commands that are imported when they are used, so that `hostler --help` and completion are quick.

Other distributions add commands through entry points of the group `hostler.commands`: each a `typer.Typer`, or a
function for a command with typer's annotations.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from hostler.cli.exits import Exit

GROUP = "hostler.commands"
PANEL = "Running a cloud"
# The commands of hostler-server, so that they can be explained without importing them, or where it is not installed.
KNOWN = {
    "dev": "A cloud on this machine: Temporal, a control worker, a host worker.",
    "worker": "Run a control worker or a host worker.",
    "db": "Make and upgrade the database.",
}


@dataclass(frozen=True)
class Builtin:
    """A group of commands in a module of `hostler.cli`, which calls it `app`."""

    module: str
    help: str


class LazyGroup(TyperGroup):
    """The root of the command line. Errors and interruptions of all commands are shown in one place, here."""

    builtins: ClassVar[dict[str, Builtin]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The built-in commands in their order, then the plugins'."""
        return [*self.builtins, *sorted(_plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that has all that a list of commands needs."""
        if cmd_name in self.builtins:
            return TyperCommand(cmd_name, callback=_nothing, help=self.builtins[cmd_name].help)
        if cmd_name in _plugins() or cmd_name in KNOWN:
            summary = KNOWN.get(cmd_name) or f"From {_origin(cmd_name)}."
            return TyperCommand(cmd_name, callback=_nothing, help=summary, rich_help_panel=PANEL)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is really used."""
        self.commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}  # "did you mean"
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.builtins:
            command = get_command(import_module(self.builtins[name].module).app)
        elif command is not None:
            command = _load(str(name), quiet=ctx.resilient_parsing)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever it raises becomes one clear block and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None
        except Exception as error:
            # Typer's own exceptions know how to show themselves, and a closed pipe is no error.
            if hasattr(error, "exit_code") or isinstance(error, typer.Abort | BrokenPipeError):
                raise
            from hostler.cli.failures import report

            raise typer.Exit(report(error, debug=bool(ctx.params.get("debug")))) from None


def _nothing() -> None:
    pass


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _origin(name: str) -> str:
    dist = _plugins()[name].dist
    return dist.name if dist is not None else "a plugin"


def _load(name: str, *, quiet: bool) -> Any:
    """The real command; when only completing (`quiet`), nothing rather than an error."""
    if quiet and name not in _plugins():
        return None
    if name not in _plugins():
        _refuse(f"`hostler {name}` comes with hostler-server, which is not installed", "pip install hostler-server")
    try:
        loaded = _plugins()[name].load()
    except Exception as error:
        if quiet:
            return None
        what = f"{type(error).__name__}: {error}"
        _refuse(f"`hostler {name}` cannot be loaded: {what}", f"repair the installation of {_origin(name)}")
    if not isinstance(loaded, typer.Typer):
        command = typer.Typer(add_completion=False)
        command.command(name)(loaded)
        loaded = command
    return get_command(loaded)


def _refuse(message: str, remedy: str) -> NoReturn:
    from hostler.cli.failures import show

    show(message, remedy=remedy)
    raise typer.Exit(Exit.UNEXPECTED)
