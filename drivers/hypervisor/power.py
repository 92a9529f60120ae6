"""Tells which guests' power states are news: those that changed otherwise than by the driver's own calls.

What a hypervisor reports is a hint to look, no more: what counts is what is seen then. So hints may come late, twice
or in any order.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from hostler.contract.errors import HostlerError
from hostler.contract.states import PowerState

logger = logging.getLogger(__name__)


class PowerNews:
    """The news of one host's guests, for one follower. To be used on the event loop's thread."""

    def __init__(self) -> None:
        self._known: dict[str, PowerState | None] = {}
        self._hints: set[str] = set()
        self._anew = False
        self._closed = False
        self._wake = asyncio.Event()

    def told(self, server_id: str, state: PowerState) -> None:
        """A call of the driver's own has just brought the guest there, so that its caller knows."""
        self._known.pop(server_id, None)
        if state is not PowerState.NOSTATE:
            self._known[server_id] = state

    def look_at(self, server_id: str) -> None:
        """The guest's state may have changed."""
        self._hints.add(server_id)
        self._wake.set()

    def look_again(self) -> None:
        """A guest that was busy is no longer."""
        self._wake.set()

    def look_at_all(self) -> None:
        """Changes may have been missed: all states are news."""
        self._anew = True
        self._wake.set()

    def close(self) -> None:
        """End the news."""
        self._closed = True
        self._wake.set()

    async def follow(
        self,
        guests: Callable[[], Awaitable[Iterable[str]]],
        look: Callable[[str], Awaitable[PowerState]],
        busy: Callable[[str], bool] = lambda _: False,
    ) -> AsyncGenerator[frozenset[str]]:
        """The guests with news, as they come. One that is `busy`, with a call of the driver's, is looked at afterwards.

        What cannot be looked at waits for the next hint: whoever gives them calls `look_at_all` when that may help.
        """
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            news: set[str] = set()
            try:
                if self._anew:
                    await self._forget(guests)
                for server_id in [one for one in self._hints if not busy(one)]:
                    await self._look(server_id, look, news)
            except HostlerError as error:
                logger.warning("the guests' power states cannot be seen now: %s", error)
            if news:
                yield frozenset(news)

    async def _forget(self, guests: Callable[[], Awaitable[Iterable[str]]]) -> None:
        """All that is here, and all that was, has to be looked at."""
        found = await guests()
        self._anew = False
        self._hints.update(found, self._known)
        self._known = dict.fromkeys(self._hints)

    async def _look(self, server_id: str, look: Callable[[str], Awaitable[PowerState]], news: set[str]) -> None:
        self._hints.discard(server_id)  # before looking: a hint that comes meanwhile is another one
        try:
            state = await look(server_id)
        except HostlerError:
            self._hints.add(server_id)
            raise
        if state is not self._known.get(server_id, PowerState.NOSTATE):
            self.told(server_id, state)
            news.add(server_id)
