"""Lets so many guests leave a host at the same time. The others wait, in order, and nothing of their migration begins.

Each takes its share of the network, and those that go to the same host its ports (see `severing`): too many at once are
all slow, and take longer than they may.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from drivers.blocking import BlockingCalls
from drivers.hypervisor.base import Report
from drivers.hypervisor.libvirt import migration_job
from drivers.hypervisor.libvirt.domains import Domains
from drivers.hypervisor.libvirt.migration_job import Place
from drivers.hypervisor.reporting import reporting
from hostler.contract.errors import HostlerError, InvalidState, NotFound, RescheduleError, Unavailable

LOOK_INTERVAL = timedelta(seconds=1)


class Gate:
    """The way out of one host.

    A migration goes on in libvirt when the worker that began it dies. So those count that are found under way when the
    first guest asks: until they end, or somebody follows them again.
    """

    def __init__(self, places: int, domains: Domains, blocking: BlockingCalls) -> None:
        self._places = places
        self._domains = domains
        self._blocking = blocking
        self._waiting: dict[str, None] = {}  # in order
        self._leaving: set[str] = set()
        self._found: set[str] | None = None

    @asynccontextmanager
    async def passing(self, server_id: str, report: Report) -> AsyncIterator[None]:
        """A place among those that leave, until the block ends.

        Whoever has nothing to begin does not wait for one: its migration is under way, or the guest runs here no more.

        Raises:
            RescheduleError: it was dismissed.
            Unavailable: libvirt does not answer.
        """
        try:
            if await self._blocking.run(self._is_to_begin, server_id):
                await self._wait(server_id, report)
            self._waiting.pop(server_id, None)  # nor for its turn, if it is gone
            self._leaving.add(server_id)
            yield
        finally:
            self._waiting.pop(server_id, None)
            self._leaving.discard(server_id)

    def dismiss(self, server_id: str) -> None:
        """Have it not begin, if it waits."""
        self._waiting.pop(server_id, None)

    def refuse_waiting(self, server_id: str) -> None:
        """See that its migration does not wait here.

        Raises:
            InvalidState: it does.
        """
        if server_id in self._waiting:
            raise InvalidState(
                f"the guest is not on its way yet: it {self._say()}",
                field="server_id",
                value=server_id,
                remedy="ask again when it is: it would stand still all the way. The host's setting "
                "host.parallel_live_migrations says how many leave it at the same time",
            )

    async def _wait(self, server_id: str, report: Report) -> None:
        """Until it has a place, or does not run here any more."""
        self._waiting[server_id] = None
        async with reporting(report, self._say):
            while server_id in self._waiting:
                with suppress(Unavailable):  # libvirt is away: nothing is lost by that, and nothing can begin
                    if not await self._blocking.run(self._is_here, server_id) or await self._takes_place(server_id):
                        return
                await asyncio.sleep(LOOK_INTERVAL.total_seconds())
        raise RescheduleError(
            "the migration was ended before it had begun",
            field="server_id",
            value=server_id,
            remedy="see what ended it: hostler server events",
        )

    async def _takes_place(self, server_id: str) -> bool:
        """Whether there was one for it, which it has then."""
        if next(iter(self._waiting), None) != server_id:
            return False
        await self._look_for_others()
        if self._leave_now() >= self._places or server_id not in self._waiting:
            return False
        del self._waiting[server_id]
        self._leaving.add(server_id)
        return True

    async def _look_for_others(self) -> None:
        """See which of those that a former worker has sent are still under way."""
        if self._found is None:
            held = await self._blocking.run(self._domains.held)
            self._found = await self._under_way([guest.server_id for guest in held])
        elif self._found:
            self._found = await self._under_way(self._found)

    async def _under_way(self, server_ids: Iterable[str]) -> set[str]:
        found = set()
        for server_id in server_ids:
            with suppress(HostlerError):  # it has gone meanwhile, or its QEMU hangs
                if await self._blocking.run(self._is_under_way, server_id):
                    found.add(server_id)
        return found

    def _leave_now(self) -> int:
        return len(self._leaving | (self._found or set()))

    def _say(self) -> str:
        leaving = self._leave_now()
        if leaving < self._places:
            return "waits for its turn to leave"
        return f"waits until another guest has left ({leaving} {'leaves' if leaving == 1 else 'leave'} now)"

    def _is_to_begin(self, server_id: str) -> bool:
        return self._is_here(server_id) and not self._is_under_way(server_id)

    def _is_here(self, server_id: str) -> bool:
        try:
            return migration_job.place(self._domains.get(server_id)) in (Place.RUNNING, Place.PAUSED)
        except NotFound:
            return False

    def _is_under_way(self, server_id: str) -> bool:
        domain = self._domains.get(server_id)
        # libvirt keeps the job of one that post-copy has left broken.
        return migration_job.under_way(domain) is not None and not migration_job.post_copy_failed(domain)
