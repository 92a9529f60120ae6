"""Turns "which ports are plugged now" into reports of those that have become so."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from drivers.network.base import Plugged

Key = tuple[str, int]
"""A port and which of its taps, one after the other, is plugged."""


class PlugReports:
    """What reports to everybody who follows. It looks at the whole state each time, so that nothing can be missed."""

    def __init__(self) -> None:
        self._followers: set[asyncio.Event] = set()
        self._closed = False

    def look_again(self) -> None:
        """Something may have changed."""
        for follower in self._followers:
            follower.set()

    def close(self) -> None:
        """End all reports."""
        self._closed = True
        self.look_again()

    async def follow(self, wake: asyncio.Event, plugged: Callable[[], dict[Key, Plugged]]) -> AsyncGenerator[Plugged]:
        """All that is plugged now, then each as it becomes so. Looks when `wake` is set, which others may do, too."""
        self._followers.add(wake)
        try:
            before: set[Key] = set()
            while not self._closed:
                now = plugged()
                for key in sorted(now.keys() - before):
                    yield now[key]
                before = set(now)
                await wake.wait()
                wake.clear()
        finally:
            self._followers.discard(wake)
