"""What the global options say, and how a command reaches the cloud with them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from hostler.client import Client
    from hostler.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """The global options. Commands, plugins' too, find it as their context's `obj`."""

    config: Path | None = None
    temporal: str | None = None
    project: str | None = None
    debug: bool = False

    def settings(self) -> "Settings":
        """The effective settings, these options over the rest.

        Raises:
            FileNotFoundError: the settings file that was named is not there.
            pydantic.ValidationError: a setting is unknown or has a bad value.
        """
        from hostler.settings import load

        return load(self.config, **self.flags())

    def flags(self) -> dict[str, Any]:
        """The settings that these options set."""
        flags: dict[str, Any] = {}
        if self.temporal is not None:
            flags["temporal"] = {"address": self.temporal}
        if self.project is not None:
            flags["project"] = self.project
        return flags

    def run(self, work: "Callable[[Client], Awaitable[T]]") -> T:
        """Connect to the cloud and do `work` there.

        Raises:
            HostlerError: why it did not work.
        """
        return asyncio.run(self._run(work))

    async def _run(self, work: "Callable[[Client], Awaitable[T]]") -> T:
        from hostler.client import Client

        async with await Client.connect(self.settings()) as client:
            return await work(client)


def session(ctx: typer.Context) -> Session:
    """The session of a command."""
    found = ctx.find_root().obj
    return found if isinstance(found, Session) else Session()
