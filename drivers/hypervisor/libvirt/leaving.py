"""Sends a guest to another host while it runs; how the hand-over is kept safe, see `migration_call`."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import libvirt

from drivers.blocking import BlockingCalls
from drivers.hypervisor.base import Report
from drivers.hypervisor.libvirt import migration_call, migration_job
from drivers.hypervisor.libvirt.connection import LOST, one_line
from drivers.hypervisor.libvirt.domains import Domains
from drivers.hypervisor.libvirt.gate import Gate
from drivers.hypervisor.libvirt.migration_job import Forced, Place
from drivers.hypervisor.libvirt.peers import Peer
from drivers.hypervisor.libvirt.severing import severing
from drivers.hypervisor.libvirt.standstill import Standstill
from drivers.hypervisor.libvirt.uncancelled import whatever_happens
from drivers.hypervisor.reporting import reporting
from hostler.contract.errors import HostlerError, InvalidState, NotFound, OperationFailed, RescheduleError, Unavailable
from hostler.contract.guests import Incoming, MigrationLimits, MigrationReport, Whereabouts

logger = logging.getLogger(__name__)

POLL_INTERVAL = timedelta(seconds=0.3)
END_LIMIT = timedelta(seconds=50)
"""How long libvirt may take to end a migration: it gives up a silent host after half a minute."""
PATIENCE = timedelta(seconds=5)
"""How long a migration that was aborted may take to end before the connections are broken."""
NOTE_PAUSES = [timedelta(seconds=seconds) for seconds in (0, 1, 5, 20)]


class Leaving:
    """The guests that leave one host, `at_once` of them at the same time."""

    def __init__(self, uri: str, domains: Domains, blocking: BlockingCalls, at_once: int) -> None:
        self._uri = uri
        self._domains = domains
        self._blocking = blocking
        self._gate = Gate(at_once, domains, blocking)
        self._ending: set[asyncio.Task[None]] = set()
        self._forced: dict[str, Forced] = {}

    async def migrate(
        self, server_id: str, incoming: Incoming, limits: MigrationLimits, report: Report
    ) -> MigrationReport:
        """See `HypervisorDriver.migrate`. Whoever cancels it when the guest has left gets the answer all the same."""
        found = await self._found_at(await self._blocking.run(self._domains.get, server_id))
        async with self._gate.passing(server_id, report):  # it may have lasted, and libvirt been started again
            domain = await self._blocking.run(self._domains.get, server_id)
            return await self._send(domain, found, incoming, limits, report)

    async def _found_at(self, domain: libvirt.virDomain) -> Place:
        """Where a guest is that is to leave.

        Raises:
            NotFound: it is off.
        """
        server_id = domain.UUIDString()
        at = await self._blocking.run(migration_job.place, domain)
        if at is Place.OFF and await self._blocking.run(self._domains.is_handed_over, server_id):
            return Place.AWAY
        if at is Place.OFF:
            raise NotFound("the guest is off", field="server_id", value=server_id, remedy="migrate it as one that is")
        if at is Place.PAUSED:  # an earlier try has left it so: it must not stand still for all of another one
            await self._run_on(domain)
        return at

    async def _send(
        self, domain: libvirt.virDomain, found: Place, incoming: Incoming, limits: MigrationLimits, report: Report
    ) -> MigrationReport:
        """All of `migrate` that follows when the guest, which was `found` there, may leave."""
        server_id, at = domain.UUIDString(), await self._found_at(domain)
        began, still, gone = time.monotonic(), Standstill(), asyncio.Event()
        peer = Peer(incoming.address)
        try:
            await self._blocking.run(peer.open, RescheduleError if found is at is Place.RUNNING else Unavailable)
            if at is not Place.AWAY:
                tell = partial(asyncio.get_running_loop().call_soon_threadsafe, gone.set)
                move = partial(migration_call.migrate, self._uri, incoming, limits, peer, still, tell)
                async with severing(self._blocking, domain, lambda: peer.lost):
                    await self._move(domain, incoming, limits, report, move, gone)
            if not gone.is_set():
                await whatever_happens(self._cross(domain, report))
                await whatever_happens(self._blocking.run(peer.let_run, server_id))
                await whatever_happens(self._blocking.run(self._domains.note_handed_over, server_id))
            known = await self._blocking.run(peer.report, server_id)
            if limits.post_copy:  # the other host was at work when this one had sent all, and has not counted it
                with suppress(HostlerError):  # they are but figures
                    known = await self._blocking.run(migration_job.completed, domain) or known
            return still.corrected(known, timedelta(seconds=time.monotonic() - began), limits)
        finally:
            peer.close()
            self._forced.pop(server_id, None)

    async def end(self, server_id: str) -> Whereabouts:
        """See `HypervisorDriver.end_migration`.

        Raises:
            Unavailable: libvirt does not end it.
        """
        self._forced.pop(server_id, None)
        try:
            domain = await self._blocking.run(self._domains.get, server_id)
        except NotFound:
            return Whereabouts.GONE
        began = time.monotonic()
        async with severing(self._blocking, domain, lambda: time.monotonic() - began > PATIENCE.total_seconds()):
            while not await self._blocking.run(migration_job.post_copy_failed, domain):
                if not await self._blocking.run(migration_job.abort, domain):
                    break
                if time.monotonic() - began > END_LIMIT.total_seconds():
                    raise _goes_on(server_id, crossing=await self._blocking.run(migration_job.crossing, domain))
                await asyncio.sleep(POLL_INTERVAL.total_seconds())
        if await self._blocking.run(migration_job.place, domain) is Place.PAUSED:
            await self._blocking.run(migration_job.resume, domain)
        match await self._blocking.run(migration_job.place, domain):
            case Place.RUNNING:
                return Whereabouts.HERE
            case Place.PAUSED:  # a libvirt that was just started has yet to see that QEMU is gone
                raise Unavailable(
                    "libvirt does not let the guest run on", remedy=f"virsh domstate --reason {server_id}"
                )
            case Place.AWAY if not await self._blocking.run(self._domains.is_off, server_id):
                return Whereabouts.HANDED_OVER  # by post-copy
            case _ if await self._blocking.run(self._domains.is_handed_over, server_id):
                await self._blocking.run(self._domains.note_handed_over, server_id)
                return Whereabouts.HANDED_OVER
        return Whereabouts.OFF

    async def abort(self, server_id: str) -> None:
        """Ask for the end of a migration, if one is under way; one that waits does not begin."""
        self._gate.dismiss(server_id)
        try:
            domain = await self._blocking.run(self._domains.get, server_id)
        except NotFound:
            return
        await self._blocking.run(migration_job.abort, domain)

    async def close(self) -> None:
        """Wait until libvirt is through with the guests that have left, though not for ever."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=END_LIMIT.total_seconds())

    async def refuse_crossing(self, server_id: str) -> None:
        """See that the guest is not on its way by post-copy: it would be lost on both hosts.

        Raises:
            Unavailable: its next host still fetches memory from here.
        """
        with suppress(NotFound):
            domain = await self._blocking.run(self._domains.get, server_id)
            if await self._blocking.run(migration_job.crossing, domain):
                raise _goes_on(server_id, crossing=True)

    async def force(self, server_id: str) -> None:
        """See `HypervisorDriver.force_complete`. Whoever asks twice does not want to wait for the disks."""
        self._gate.refuse_waiting(server_id)
        await self._force(server_id, patient=self._forced.get(server_id) is not Forced.SOON)

    async def _force(self, server_id: str, *, patient: bool) -> None:
        domain = await self._blocking.run(self._domains.get, server_id)
        self._forced[server_id] = await self._blocking.run(partial(migration_job.force, domain, patient=patient))

    async def _move(
        self,
        domain: libvirt.virDomain,
        incoming: Incoming,
        limits: MigrationLimits,
        report: Report,
        move: Callable[[], None],
        gone: asyncio.Event,
    ) -> None:
        """Returns when the guest is gone from here: when `gone` is set, libvirt has yet to see that."""
        # A thread of its own: it is held up until the end.
        threads = BlockingCalls("migration", 1)
        if await self._blocking.run(migration_job.under_way, domain) is not None:
            call = asyncio.create_task(self._end_of_other(domain))
        else:
            self._forced.pop(incoming.server_id, None)
            await self._blocking.run(migration_call.make_ready, domain, limits)
            call = asyncio.create_task(threads.run(move))
        moved = False
        try:
            moved = await self._follow(domain, call, gone, limits, report)
        except BaseException as reason:
            await whatever_happens(self._give_up(domain, call, report))
            if (
                not gone.is_set()
                and await whatever_happens(self._blocking.run(migration_job.place, domain)) is not Place.AWAY
            ):
                await whatever_happens(self._run_on(domain))
                raise reason from None
        finally:
            if gone.is_set():
                ending = asyncio.create_task(self._end(domain.UUIDString(), call, threads), name="end of a migration")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            else:
                await threads.close()
        if not gone.is_set() and await self._blocking.run(migration_job.place, domain) is not Place.AWAY:
            failure = await self._failure(domain, call, incoming, moved)
            await whatever_happens(self._run_on(domain))
            raise failure

    async def _end(self, server_id: str, call: asyncio.Task[None], threads: BlockingCalls) -> None:
        """Until libvirt is through with a guest that runs on its next host, whose migration does not wait for that."""
        await asyncio.wait({call})
        await threads.close()
        if error := call.exception():
            logger.warning("guest %s has left, and libvirt says: %s", server_id, error)
        for pause in NOTE_PAUSES:  # libvirt itself says so, too, while it is not restarted
            await asyncio.sleep(pause.total_seconds())
            with suppress(HostlerError):
                return await self._blocking.run(self._domains.note_handed_over, server_id)

    async def _follow(
        self,
        domain: libvirt.virDomain,
        call: asyncio.Task[None],
        gone: asyncio.Event,
        limits: MigrationLimits,
        report: Report,
    ) -> bool:
        """Until it has ended, whatever its outcome; whether anything was seen to move.

        Raises:
            OperationFailed: it took too long.
        """
        began, moved, said, server_id = time.monotonic(), False, "migrating", domain.UUIDString()
        over = False
        async with reporting(report, lambda: said):
            while not await _ended(call, gone):
                progress = await self._blocking.run(migration_job.under_way, domain)
                if progress is None:
                    continue
                moved = moved or progress.moved > 0
                await self._blocking.run(partial(migration_call.allow_downtime, domain, limits, passes=progress.passes))
                forced = self._forced.get(server_id)
                said = f"{progress}; {forced}" if forced else str(progress)
                report(said)
                took = max(progress.elapsed, timedelta(seconds=time.monotonic() - began))
                late = limits.completion_timeout and took > limits.completion_timeout
                if late and not over and await self._blocking.run(migration_job.can_be_ended, domain):
                    if not limits.force_complete:
                        raise _too_long(limits.completion_timeout, progress)
                    over = True
                    with suppress(InvalidState):  # it has just ended
                        await self._force(server_id, patient=False)
                elif forced is Forced.SOON:
                    with suppress(InvalidState):
                        await self._force(server_id, patient=True)
        return moved

    async def _cross(self, domain: libvirt.virDomain, report: Report) -> None:
        """Until all of a guest has come to the host where it runs already, by post-copy."""
        async with reporting(report, lambda: "the guest runs on its next host, and fetches the rest of its memory"):
            while await self._blocking.run(migration_job.crossing, domain):  # noqa: ASYNC110 - libvirt must be asked
                await asyncio.sleep(POLL_INTERVAL.total_seconds())

    async def _give_up(self, domain: libvirt.virDomain, call: asyncio.Task[None], report: Report) -> None:
        """End the migration, and wait for its end; it may not have begun yet. One that has crossed over goes on."""
        began = time.monotonic()
        waited = timedelta(0)
        async with severing(self._blocking, domain, lambda: time.monotonic() - began > PATIENCE.total_seconds()):
            while not (await asyncio.wait({call}, timeout=POLL_INTERVAL.total_seconds()))[0] and waited < END_LIMIT:
                with suppress(HostlerError):  # libvirt is away, or busy: it ends with that
                    await self._cross(domain, report)
                    await self._blocking.run(migration_job.abort, domain)
                waited = timedelta(seconds=time.monotonic() - began)
        call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else asks for it

    async def _run_on(self, domain: libvirt.virDomain) -> None:
        """Let a guest run that a migration which has ended left paused: the next host has not let it run."""
        if await self._blocking.run(migration_job.under_way, domain) is not None:
            return
        if await self._blocking.run(migration_job.place, domain) is Place.PAUSED:
            await self._blocking.run(migration_job.resume, domain)

    async def _end_of_other(self, domain: libvirt.virDomain) -> None:
        """Until a migration that another call began has ended."""
        while await self._blocking.run(migration_job.under_way, domain) is not None:
            if await self._blocking.run(migration_job.post_copy_failed, domain):
                return
            await asyncio.sleep(POLL_INTERVAL.total_seconds())

    async def _failure(
        self, domain: libvirt.virDomain, call: asyncio.Task[None], incoming: Incoming, moved: bool
    ) -> HostlerError:
        """What is wrong with a migration that has ended without the guest being gone."""
        error = call.exception()
        if error is None:
            text = "the migration has ended, and the guest is still here"
            return Unavailable(text, remedy="see libvirt's logs on both hosts")
        if not isinstance(error, libvirt.libvirtError):
            return error if isinstance(error, HostlerError) else Unavailable(f"the migration broke off: {error}")
        text = f"the guest cannot move to {incoming.address}: {one_line(error)}"
        here = await self._blocking.run(migration_job.under_way, domain)
        if here is not None or moved or error.get_error_code() in LOST - {libvirt.VIR_ERR_NO_CONNECT}:
            return Unavailable(text, remedy="see that both hosts run and that the network between them does")
        return RescheduleError(text, remedy="see the logs of libvirt and QEMU on that host")


async def _ended(call: asyncio.Task[None], gone: asyncio.Event) -> bool:
    """Whether one of them has come about before it is time to look again."""
    left = asyncio.create_task(gone.wait())
    try:
        wait = asyncio.wait({call, left}, timeout=POLL_INTERVAL.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
        return bool((await wait)[0])
    finally:
        left.cancel()


def _goes_on(server_id: str, *, crossing: bool) -> Unavailable:
    if crossing:
        return Unavailable(
            "the guest runs on its next host already, which still fetches memory from here",
            field="server_id",
            value=server_id,
            remedy=f"wait until all of it is there, and let nothing end it here: virsh domjobinfo {server_id}",
        )
    return Unavailable(
        f"libvirt has not ended the migration within {END_LIMIT}",
        field="server_id",
        value=server_id,
        remedy=f"virsh domjobabort {server_id}",
    )


def _too_long(limit: timedelta, progress: migration_job.Progress) -> OperationFailed:
    return OperationFailed(
        f"the migration was ended, for it took more than {limit}; the last of it was: {progress}",
        field="completion_timeout",
        value=limit,
        remedy="try when the guest writes less, allow more time, or have it forced",
    )
