"""Completing names from the cloud. It is a courtesy: what fails or takes long completes nothing."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from hostler.cli.session import Session

LIMIT_S = 3


def names(kind: str, attribute: str = "name", **wanted: Any) -> Callable[[typer.Context, str], list[str]]:
    """A completer for the names of a namespace of the client: "flavors", "servers"...

    `attribute` is what has the name, `wanted` what the namespace's `list` is given.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        with contextlib.suppress(Exception):
            found = asyncio.run(_names(_session(ctx), kind, attribute, **wanted))
            return [name for name in found if name.startswith(incomplete)]
        return []

    return complete


def _session(ctx: typer.Context) -> Session:
    # Completion parses the options but runs no callback, so nobody has made the session yet.
    options = ctx.find_root().params
    config = options.get("config")
    return Session(Path(config) if config else None, options.get("temporal"), options.get("project"))


async def _names(session: Session, kind: str, attribute: str = "name", **wanted: Any) -> list[str]:
    from hostler.client import Client

    async with asyncio.timeout(LIMIT_S), await Client.connect(session.settings()) as client:
        things = await getattr(client, kind).list(**wanted)
        return sorted({name for thing in things if (name := getattr(thing, attribute))})
