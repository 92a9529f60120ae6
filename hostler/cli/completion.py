"""Completing names from the cloud. It is a courtesy: what fails or takes long completes nothing."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import typer

from hostler.cli.session import Session

LIMIT_S = 3


def names(kind: str) -> Callable[[typer.Context, str], list[str]]:
    """A completer for the names of a namespace of the client: "flavors", "servers"..."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        with contextlib.suppress(Exception):
            return [name for name in asyncio.run(_names(_session(ctx), kind)) if name.startswith(incomplete)]
        return []

    return complete


def _session(ctx: typer.Context) -> Session:
    # Completion parses the options but runs no callback, so nobody has made the session yet.
    options = ctx.find_root().params
    config = options.get("config")
    return Session(Path(config) if config else None, options.get("temporal"), options.get("project"))


async def _names(session: Session, kind: str) -> list[str]:
    from hostler.client import Client

    async with asyncio.timeout(LIMIT_S), await Client.connect(session.settings()) as client:
        return sorted({thing.name for thing in await getattr(client, kind).list() if thing.name})
