"""The commands that hostler-server adds to `hostler`: dev, worker and db.

What is heavy is imported by the command that needs it. Errors are left to the command line, which shows them all alike.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hostler.cli.ending import end
from hostler.cli.exits import Exit
from hostler.cli.session import session

if TYPE_CHECKING:
    from hostler.settings import Settings

SIMULATED_BY_DEFAULT = 3
FEW = 5
REASON_WIDTH = 100

worker = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run a control worker, a host worker, or the codec endpoint."
)
db = typer.Typer(no_args_is_help=True, add_completion=False, help="Make and upgrade the database.")


@worker.command()
def control(ctx: typer.Context) -> None:
    """Run all workflows, and the steps that touch the database or a cloud API. Until SIGTERM."""
    settings = _settings(ctx, "control")
    from workers import control as process

    _work(process.run(settings))


@worker.command()
def host(ctx: typer.Context) -> None:
    """Run the steps that touch this machine's hypervisor, network and volumes. Until SIGTERM."""
    settings = _settings(ctx, "host")
    from workers import host as process

    _work(process.run(settings))


@worker.command()
def codec(ctx: typer.Context) -> None:
    """Let Temporal's UI and CLI read what is encrypted, if who asks may. Until SIGTERM."""
    settings = _settings(ctx, "codec")
    from workers.codec import server

    _work(server.run(settings))


@db.command()
def upgrade(ctx: typer.Context) -> None:
    """Make the database, or bring its tables up to what this version of Hostler needs."""
    settings = _settings(ctx, "database")
    from models import Database, schema

    database = Database(settings.database_url)
    before = schema.current(database)
    schema.upgrade(database)
    after = schema.current(database)
    typer.echo(
        f"the database is at revision {after}" if before == after else f"the database is now at revision {after}"
    )


@db.command()
def current(ctx: typer.Context) -> None:
    """Show the revision of the database and the one that this version of Hostler needs."""
    settings = _settings(ctx, "database")
    from models import Database, schema

    typer.echo(f"database: {schema.current(Database(settings.database_url)) or 'empty'}\nneeded: {schema.head()}")


@db.command()
def encrypt(ctx: typer.Context) -> None:
    """Encrypt user data in the database that is not yet, or with another key than the first."""
    settings = _settings(ctx, "database")
    from activities.control.user_data import encrypt_all
    from hostler.encryption import load_keys
    from models import Database

    changed = encrypt_all(Database(settings.database_url), load_keys(settings))
    typer.echo(f"the user data of {changed} servers was encrypted anew")


def dev(
    ctx: typer.Context,
    simulated: Annotated[
        int | None, typer.Option(min=0, help="How many simulated hosts to add [default: the settings']")
    ] = None,
    libvirt: Annotated[
        bool, typer.Option(" /--no-libvirt", help="Simulated hosts only: needs no hypervisor and no root.")
    ] = True,
) -> None:
    """A cloud on this machine: Temporal with its web UI, a control worker, a host worker. Until Ctrl-C."""
    settings = _settings(ctx, "dev")
    real = libvirt and settings.host.driver == "libvirt"
    wanted = settings.host.simulated.hosts if simulated is None else simulated
    hosts = wanted or (0 if real else SIMULATED_BY_DEFAULT)
    from workers import dev as supervisor
    from workers.dev_secrets import prepare

    with supervisor.lock(settings):
        _preflight(settings, real)
        prepare(settings)
        config = session(ctx).config
        plan = supervisor.plan(settings, config, libvirt=real, simulated=hosts)
        asyncio.run(supervisor.run(plan, lambda: _summary(settings, config, real, hosts, plan.metrics)))


def _preflight(settings: "Settings", libvirt: bool) -> None:
    """Show what is in the way, and end if it is serious."""
    from hostler.cli.failures import show
    from hostler.cli.output import note
    from workers import preflight

    problems = preflight.check(settings, libvirt=libvirt)
    for problem in problems:
        if problem.fatal:
            show(problem.what, remedy=problem.remedy)
        else:
            note(f"Note: {problem.what}\n  remedy: {problem.remedy}")
    if any(problem.fatal for problem in problems):
        raise typer.Exit(Exit.UNAVAILABLE)


async def _summary(
    settings: "Settings", config: Path | None, libvirt: bool, simulated: int, metrics: Sequence[str]
) -> str:
    """What to do with a cloud, once it is ready."""
    from workers import dev as supervisor

    names = await supervisor.hosts_up(settings, simulated + libvirt)
    hosts = ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
    if libvirt:
        from drivers.hypervisor.libvirt.probe import probe_virt_type

        found = await asyncio.to_thread(probe_virt_type, settings.host.libvirt, settings.state_dir)
        accelerator = "KVM" if found.type == "kvm" else "TCG"
        hosts += f"; guests run under {accelerator}: {shorten(found.reason, REASON_WIDTH)}"
    command = f"hostler {_options(settings, config)}"
    return f"""\
  web UI  {settings.temporal.ui_url}
  hosts   {hosts}
  metrics {" ".join(metrics) or "none"}
  state   {settings.state_dir.absolute()}
  Make a server, in another terminal:
    {command}flavor create small --vcpus 1 --ram 128
    {command}network create lan --cidr 10.20.0.0/24
    {command}image create demo --file IMAGE.qcow2
    {command}server create web-1 --flavor small --network lan --image demo"""


def _options(settings: "Settings", config: Path | None) -> str:
    """What another command must be told to reach this cloud."""
    from hostler.settings import TemporalSettings

    if config is not None:
        return f"--config {config} "
    if settings.temporal.address != TemporalSettings().address:
        return f"--temporal {settings.temporal.address} "
    return ""


def _settings(ctx: typer.Context, process: str) -> "Settings":
    """The effective settings; and logging as they say."""
    settings = session(ctx).settings()
    from workers import logs

    logs.configure(settings.log, process)
    return settings


def _work(process: Coroutine[Any, Any, None]) -> None:
    asyncio.run(process)
    end(0)
