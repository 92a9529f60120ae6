"""The root of the command line: its global options and its groups of commands."""

from pathlib import Path
from typing import Annotated

import typer

from hostler.cli.exits import MEANINGS
from hostler.cli.lazy import Builtin, LazyGroup
from hostler.cli.session import Session

EXIT_CODES = " · ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items())


class Root(LazyGroup):
    """`hostler` itself."""

    builtins = {  # noqa: RUF012 - its base says so
        "server": Builtin("hostler.cli.server", "Servers: create, watch, change, move, delete."),
        "operation": Builtin("hostler.cli.operation", "Operations that run: list, decide about held ones, cancel."),
        "migration": Builtin("hostler.cli.migration", "Moves of servers: those under way, and those that were."),
        "image": Builtin("hostler.cli.image", "Images that servers are made from."),
        "flavor": Builtin("hostler.cli.flavor", "Sizes of servers."),
        "network": Builtin("hostler.cli.network", "Networks and their subnets."),
        "volume": Builtin("hostler.cli.volume", "Volumes."),
        "keypair": Builtin("hostler.cli.keypair", "Public keys for servers."),
        "host": Builtin("hostler.cli.host", "Hypervisors: see, enable, disable, drain, evacuate."),
        "aggregate": Builtin("hostler.cli.aggregate", "Aggregates: hosts that have something in common."),
        "audit": Builtin("hostler.cli.audit", "Compare what is with what should be."),
        "quota": Builtin("hostler.cli.quota", "A project's limits."),
        "key": Builtin("hostler.cli.key", "Encryption keys."),
        "config": Builtin("hostler.cli.config", "The effective settings."),
    }


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Exit codes: {EXIT_CODES}",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"hostler {version('hostler')}")
        raise typer.Exit


@app.callback()
def hostler(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file; else $HOSTLER_CONFIG, else /etc/hostler/hostler.toml."),
    ] = None,
    temporal: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Temporal's host:port.")] = None,
    project: Annotated[str | None, typer.Option(help="Whose things to see and make.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Compute for clouds: every operation on a virtual machine is a durable workflow that you can watch.

    Results go to standard output, all else to standard error.
    """
    ctx.obj = Session(config=config, temporal=temporal, project=project, debug=debug)
