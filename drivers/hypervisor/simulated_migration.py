"""Guests that move from one simulated host to another while they run.

As with real ones there are three steps, and the process may die between any two of them: the guest is there as a whole
and stands still, it is off here and marked as handed over, it runs there. A host in another process sees what has come
when it is asked about its guests, one in this process at once.
"""

import asyncio
from abc import ABC, abstractmethod
from datetime import timedelta
from pathlib import Path
from time import monotonic
from weakref import WeakValueDictionary

from drivers.faults import SimulatedFaults
from drivers.hypervisor.base import Report
from drivers.hypervisor.power import PowerNews
from drivers.hypervisor.simulated_arrivals import Arrivals, SimulatedArrival
from drivers.hypervisor.simulated_guests import NO_ADDRESS, Record, SimulatedGuest
from hostler.contract.errors import InvalidState, RescheduleError
from hostler.contract.guests import (
    Arrival,
    GuestDescription,
    GuestSpec,
    Incoming,
    MigrationLimits,
    MigrationReport,
    Whereabouts,
)
from hostler.contract.states import PowerState

VIRT_TYPE = "simulated"
MIB = 1024**2
RUNNING, PAUSED, SHUTDOWN = PowerState.RUNNING, PowerState.PAUSED, PowerState.SHUTDOWN


HOSTS: WeakValueDictionary[str, "SimulatedMigrations"] = WeakValueDictionary()
"""The hosts in this process, by what others call them."""


class SimulatedMigrations(ABC):
    """The part of a simulated host that sends guests and takes them in."""

    _faults: SimulatedFaults
    _power: PowerNews
    _host_id: str | None
    _guests: dict[str, SimulatedGuest]
    """Those that were taken in."""

    def __init__(self, directory: Path) -> None:
        self._arrivals = Arrivals(directory)
        self._sending: dict[str, Incoming] = {}
        self._forced: dict[str, asyncio.Event] = {}
        HOSTS[self._arrivals.uri] = self

    async def describe(self, server_id: str) -> GuestDescription:
        """What is remembered of the guest.

        Raises:
            NotFound: there is no such guest.
            InvalidState: it does not run.
        """
        await self._faults.before("describe")
        guest = self._guest(server_id)
        _refuse_still(guest)
        record = guest.model_dump_json()
        return GuestDescription(server_id=server_id, live=record, persistent=record, virt_type=VIRT_TYPE)

    async def prepare_incoming(
        self, guest: GuestSpec, description: GuestDescription, base: Path | None, report: Report, *, post_copy: bool
    ) -> Incoming:
        """Remember that the guest may come.

        Raises:
            RescheduleError: it is no simulated one, or something of the server's is here that is in its way.
        """
        await self._faults.before("prepare_incoming", report)
        if description.virt_type != VIRT_TYPE:
            raise RescheduleError(f"a guest of type {description.virt_type} cannot move to a simulated host")
        self._refuse_foreign(guest.server_id)
        known = self._known(guest.server_id)
        if known is None:
            self._arrivals.expect(SimulatedArrival(server_id=guest.server_id, host_id=self._host_id))
        elif known.power_state is SHUTDOWN:
            raise RescheduleError(
                f"there is a guest of server {guest.server_id} on this host, and it is off",
                remedy="find out whether it is still needed, and destroy it",
            )
        return Incoming(
            server_id=guest.server_id,
            uri=self._arrivals.uri,
            address=NO_ADDRESS,
            live=description.live,
            persistent=description.persistent,
        )

    async def migrate(
        self, server_id: str, incoming: Incoming, limits: MigrationLimits, report: Report
    ) -> MigrationReport:
        """Hand the guest over in the three steps; where they were begun before, go on with them.

        Raises:
            NotFound, InvalidState: there is no such guest, or it does not run.
            RescheduleError: it is not expected there, or no longer; or `end_migration` was called meanwhile.
        """
        began = monotonic()
        self._sending[server_id] = incoming
        forced = self._forced.setdefault(server_id, asyncio.Event())
        try:
            await self._faults.before("migrate", report, forced)
            guest = self._send(server_id, incoming, report)
        finally:
            if self._sending.get(server_id) is incoming:
                del self._sending[server_id]
            if server_id not in self._sending:
                self._forced.pop(server_id, None)
        return MigrationReport(
            duration=timedelta(seconds=monotonic() - began), downtime=timedelta(0), memory_bytes=guest.ram_mib * MIB
        )

    async def end_migration(self, server_id: str) -> Whereabouts:
        """Say where the guest is; a call to `migrate` that has not handed it over by now no longer does."""
        await self._faults.before("end_migration")
        self._sending.pop(server_id, None)
        guest = self._known(server_id)
        if guest is None or guest.power_state is not SHUTDOWN:
            return Whereabouts.GONE if guest is None else Whereabouts.HERE
        return Whereabouts.HANDED_OVER if guest.handed_over else Whereabouts.OFF

    async def take_over(self, server_id: str, *, anew: bool = False) -> None:
        """Let a guest run that has come, `anew` or not; one that was switched off here meanwhile stays off.

        Raises:
            NotFound: it has not come.
        """
        await self._faults.before("take_over")
        if self._is_arriving(server_id):
            self._arrivals.run(server_id)
        guest = self._guest(server_id)
        self._power.told(server_id, guest.power_state)

    async def arrival(self, server_id: str, *, refuse: bool = False) -> Arrival:
        """See `HypervisorDriver.arrival`."""
        await self._faults.before("arrival")
        if refuse:
            self._arrivals.refuse(server_id)
        guest = self._known(server_id)
        if guest is None:
            return Arrival.NOTHING
        return {RUNNING: Arrival.RUNS, PAUSED: Arrival.COME}.get(guest.power_state, Arrival.OFF)

    async def keep(self, server_id: str) -> None:
        """See `HypervisorDriver.keep`."""
        await self._faults.before("keep")
        guest = self._known(server_id)
        if guest is not None and guest.handed_over:
            self._write(guest.model_copy(update={"handed_over": False}))

    async def force_complete(self, server_id: str) -> None:
        """Let it take no longer.

        Raises:
            InvalidState: no call to `migrate` is under way.
        """
        await self._faults.before("force_complete")
        if server_id not in self._sending:
            raise InvalidState(f"no migration of the guest of server {server_id} is under way on this host")
        self._forced[server_id].set()

    @abstractmethod
    def _guest(self, server_id: str) -> SimulatedGuest:
        """As `_known`.

        Raises:
            NotFound: there is no such guest.
        """

    @abstractmethod
    def _refuse_foreign(self, server_id: str) -> None:
        """Make sure that no other host has something of the server's here.

        Raises:
            RescheduleError: one has.
        """

    @abstractmethod
    def _is_ours(self, one: Record) -> bool:
        """Whether this host made it."""

    @abstractmethod
    def _plug(self, guest: SimulatedGuest) -> None:
        """Make its taps, unless it is off."""

    @abstractmethod
    def _unplug(self, guest: SimulatedGuest) -> None:
        """Remove its taps."""

    @abstractmethod
    def _write(self, guest: SimulatedGuest) -> None:
        """Remember it, also in its file."""

    def _known(self, server_id: str) -> SimulatedGuest | None:
        """A guest of this host's, also one that has just come."""
        self._take_in(server_id)
        return self._guests.get(server_id)

    def _all(self) -> dict[str, SimulatedGuest]:
        """All guests of this host's, also those that have just come."""
        for server_id in self._arrivals.names():
            self._take_in(server_id)
        return self._guests

    def _take_in(self, server_id: str) -> None:
        """See what another process has sent; until that lets it run, it may send it anew."""
        if not self._is_arriving(server_id):
            return
        with self._arrivals.taking_in(server_id) as arrival:
            if arrival is None or arrival.guest is None:
                return
            known = self._guests.get(server_id)
            state = PAUSED if known is None else known.power_state
            if arrival.runs and state is PAUSED:  # it may have been switched off here
                state = RUNNING
            taken = arrival.guest.model_copy(update={"power_state": state})
            if taken != known:
                self._write(taken)
                self._plug(taken)
                self._power.look_at(server_id)

    def _is_arriving(self, server_id: str) -> bool:
        """Whether a guest is expected, or has come and was not let run yet when `_take_in` looked last."""
        arrival = self._arrivals.read(server_id)
        return arrival is not None and self._is_ours(arrival)

    def _remove_arrival(self, server_id: str) -> None:
        arrival = self._arrivals.read(server_id)
        if arrival is None or self._is_ours(arrival):
            self._arrivals.remove(server_id)

    def _refuse_arriving(self, server_id: str) -> None:
        """Make sure that the guest is not still its former host's, where it may run."""
        if self._is_arriving(server_id):
            raise InvalidState(
                f"the guest of server {server_id} is on its way here, and was not let run yet",
                remedy="wait until its migration has ended",
            )

    def _send(self, server_id: str, incoming: Incoming, report: Report) -> SimulatedGuest:
        """All without waiting: no other call comes between."""
        there, guest = Arrivals.at(incoming.uri), self._guest(server_id)
        if there is None:
            raise RescheduleError(f"{incoming.uri} is no simulated host")
        if not guest.handed_over:
            _refuse_still(guest)
            self._refuse_ended(server_id, incoming)
            guest = self._hand_over(guest, there, report)
        if not there.run(server_id):
            raise RescheduleError(f"the guest of server {server_id} was handed over and is no longer there")
        if neighbour := HOSTS.get(there.uri):
            neighbour._take_in(server_id)
        report("the guest runs on its next host")
        return guest

    def _refuse_ended(self, server_id: str, incoming: Incoming) -> None:
        if self._sending.get(server_id) != incoming:  # an equal one is another call to do the same
            raise RescheduleError(f"the migration of the guest of server {server_id} was ended")

    def _hand_over(self, guest: SimulatedGuest, there: Arrivals, report: Report) -> SimulatedGuest:
        if not there.complete(guest.model_copy(update={"power_state": PAUSED})):
            raise RescheduleError(f"the guest of server {guest.server_id} is not expected there, or no longer")
        report("the guest is on its next host as a whole")
        gone = guest.model_copy(update={"power_state": SHUTDOWN, "handed_over": True})
        self._write(gone)
        self._unplug(gone)
        self._power.told(gone.server_id, SHUTDOWN)
        report("the guest is handed over")
        return gone


def _refuse_still(guest: SimulatedGuest) -> None:
    if guest.power_state is not RUNNING:
        raise InvalidState(
            f"the guest of server {guest.server_id} is {guest.power_state}, so it cannot move while it runs",
            remedy="move it with migrate, or start it first",
        )
