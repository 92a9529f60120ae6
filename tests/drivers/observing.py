"""What tests of drivers look at: a directory's files, and whether something has come true."""

import asyncio
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 30
POLL_SECONDS = 0.01


def names(directory: Path) -> list[str]:
    """The names of all that is in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110, since nothing tells of it
            await asyncio.sleep(POLL_SECONDS)
